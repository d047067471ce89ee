r"""The SDEs of both papers: those of score_sde with a series near t = 0, a linear VE, and the importance of times.

Near t = 0 the float32 difference :math:`1 - e^{2L}` loses its digits. With :math:`L(t)` the logarithm of the mean's
factor (:mod:`score_core.sdes`) and :math:`\iota = 10^{-3}`,

    VP      c = 1 + L, std = sqrt(-2 L)      where |L| <= iota
    sub-VP  c = 1 + L, std = -2 L            where |L| <= iota;  g^2 = beta (-E), E = 4 L, where |E| <= iota
    linear VE      std = t sigma_max,  g = sigma_max sqrt(2 t)

Importance of times (Song et al. 2021b, section 5): likelihood weighting gives the noise-prediction loss the weight
:math:`g^2 / \mathrm{std}^2`. Drawn from the density proportional to it, times have weight 1:

.. math::
    W(t) = \int_\epsilon^t g(s)^2 / \mathrm{std}(s)^2 \, ds, \qquad Z = W(T), \qquad t = W^{-1}(u Z), \; u \sim U[0, 1).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from score_core import sdes as core
from score_core.arrays import Array, batch_mul, dims_per_sample, namespace
from score_core.sdes import SDE

__all__ = [
    "VESDE",
    "VPSDE",
    "ImportanceTimes",
    "LinearVESDE",
    "SubVPSDE",
    "get_sde",
    "importance_times",
    "prior_entropy",
    "require_importance",
]

_IOTA = 1e-3
_BISECTIONS = 100


def prior_entropy(sde: SDE, z: Array) -> Array:
    """The entropy of the prior over arrays of the shape of ``z`` ``[B, ...]``, in nats, ``[B]``."""
    xp = namespace(z)
    entropy = dims_per_sample(z) * (0.5 * math.log(2 * math.pi * sde.prior_scale**2) + 0.5)
    return xp.zeros_like(z[(slice(None), *[0] * (z.ndim - 1))]) + entropy


class ImportanceTimes(SDE):
    """An SDE whose likelihood weight has a closed-form integral."""

    def cumulative_weight(self, t: Array, eps: float) -> Array:
        """W(t) from ``eps`` to ``t`` ``[...]``."""
        raise NotImplementedError

    def weight_normalizer(self, eps: float) -> float:
        """Z = W(T), from float32 arithmetic as the times are."""
        return float(self.cumulative_weight(np.asarray(self.T, np.float32), eps))


class VPSDE(core.VPSDE, ImportanceTimes):
    """:class:`score_core.sdes.VPSDE`, accurate near t = 0.

    Arguments:
        beta_min, beta_max, N: as there.
        high_precision: use the series; off, the numbers of score_sde.
    """

    def __init__(
        self, beta_min: float = 0.1, beta_max: float = 20.0, N: int = 1000, high_precision: bool = True
    ) -> None:
        super().__init__(beta_min, beta_max, N)
        self.high_precision = high_precision

    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        if not self.high_precision:
            return super().marginal_prob(x, t)
        xp = namespace(t)
        exponent = self.log_mean_coefficient(t)
        std = xp.sqrt(_one_minus_exp(2.0 * exponent, 2.0 * _IOTA))
        return batch_mul(_exp(exponent), x), std

    def cumulative_weight(self, t: Array, eps: float) -> Array:
        return vp_cumulative_weight(t, eps, self.beta_min, self.beta_max)


class SubVPSDE(core.SubVPSDE, ImportanceTimes):
    """:class:`score_core.sdes.SubVPSDE`, accurate near t = 0; arguments as :class:`VPSDE`."""

    def __init__(
        self, beta_min: float = 0.1, beta_max: float = 20.0, N: int = 1000, high_precision: bool = True
    ) -> None:
        super().__init__(beta_min, beta_max, N)
        self.high_precision = high_precision

    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        if not self.high_precision:
            return super().marginal_prob(x, t)
        exponent = self.log_mean_coefficient(t)
        return batch_mul(_exp(exponent), x), _one_minus_exp(2.0 * exponent, 2.0 * _IOTA)

    def sde(self, x: Array, t: Array) -> tuple[Array, Array]:
        if not self.high_precision:
            return super().sde(x, t)
        exponent = -2.0 * self.beta_min * t - (self.beta_max - self.beta_min) * t**2
        return self.drift(x, t), namespace(t).sqrt(self.beta(t) * _one_minus_exp(exponent, _IOTA))

    def cumulative_weight(self, t: Array, eps: float) -> Array:
        xp = namespace(t)

        def log_growth(t: Array) -> Array:
            exponent = 0.5 * t * (self.beta_max * t - (t - 2.0) * self.beta_min)
            small = exponent <= _IOTA
            return xp.where(small, xp.log(exponent), xp.log(xp.exp(xp.where(small, 1.0, exponent)) - 1.0))

        start = xp.asarray(eps, dtype=t.dtype)
        return 0.5 * (
            -4.0 * log_growth(start)
            + 4.0 * log_growth(t)
            + (2.0 * eps - eps**2 + t * (t - 2.0)) * self.beta_min
            + (eps**2 - t**2) * self.beta_max
        )


class VESDE(core.VESDE):
    """:class:`score_core.sdes.VESDE`; the likelihood weight g^2 / std^2 is constant, so no times are drawn by it."""


class LinearVESDE(SDE):
    """The VE SDE whose standard deviation is linear in t.

    Arguments:
        sigma_min: the first entry of ``discrete_sigmas``, which only programs that print it read.
        sigma_max: the standard deviation at T.
        N: number of discretisation steps.
    """

    sampling_eps = 1e-5

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, N: int = 1000) -> None:
        super().__init__(N)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.prior_scale = float(sigma_max)
        self.discrete_sigmas = np.linspace(sigma_min, sigma_max, N, dtype=np.float32)

    def sde(self, x: Array, t: Array) -> tuple[Array, Array]:
        xp = namespace(x)
        return xp.zeros_like(x), self.sigma_max * xp.sqrt(2.0 * t)

    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        return x, t * self.sigma_max


def _exp(exponent: Array) -> Array:
    """e^L, by its series where that is more accurate."""
    xp = namespace(exponent)
    return xp.where(xp.abs(exponent) <= _IOTA, 1.0 + exponent, xp.exp(exponent))


def _one_minus_exp(exponent: Array, limit: float) -> Array:
    """1 - e^E, by its series where -``limit`` <= E."""
    xp = namespace(exponent)
    return xp.where(xp.abs(exponent) <= limit, -exponent, 1.0 - xp.exp(exponent))


def vp_cumulative_weight(t: Array, eps: float, beta_min: float, beta_max: float) -> Array:
    """W(t) of the VP SDE, ``[...]``, in the precision of ``t``."""
    xp = namespace(t)

    def log_variance(t: Array) -> Array:
        return xp.log(_one_minus_exp(0.5 * t * (t - 2.0) * beta_min - 0.5 * t**2 * beta_max, _IOTA))

    start = xp.asarray(eps, dtype=t.dtype)
    return 0.5 * (
        -2.0 * log_variance(start)
        + 2.0 * log_variance(t)
        + beta_min * (-2.0 * eps + eps**2 - (t - 2.0) * t)
        + beta_max * (t**2 - eps**2)
    )


def _loop(n: int, body: Callable[[Any], Any], state: Any) -> Any:
    for _ in range(n):
        state = body(state)
    return state


def importance_times(
    weight: Callable[[Array], Array],
    q: Array,
    eps: float,
    T: float = 1.0,
    loop: Callable[[int, Callable[[Any], Any], Any], Any] = _loop,
) -> Array:
    """The times whose cumulative weight is ``q``, by bisection.

    Arguments:
        weight: W(t), increasing on [eps, T].
        q: quantiles in [0, W(T)), ``[...]``.
        eps, T: the range of times.
        loop: ``loop(n, body, state)`` applies ``body`` ``n`` times; JAX has one that compiles faster.

    Returns:
        ``[...]``, of the precision of ``q``.
    """
    xp = namespace(q)

    def halve(bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2.0
        below = weight(middle) <= q
        return xp.where(below, middle, low), xp.where(below, high, middle)

    # parity: exactly so many halvings, although float32 is exhausted after a third of them
    low, high = loop(_BISECTIONS, halve, (xp.zeros_like(q) + eps, xp.zeros_like(q) + T))
    return (low + high) / 2.0


def require_importance(sde: SDE, what: str) -> ImportanceTimes:
    """The SDE, if it has importance-sampled times.

    Raises:
        ValueError: it has none, as the VE SDEs.
    """
    if not isinstance(sde, ImportanceTimes):
        raise ValueError(
            f"{what} draws times by their importance, which is defined for the VP and the sub-VP SDE, "
            f"not for {type(sde).__name__}"
        )
    return sde


_SDES: dict[str, Callable[..., SDE]] = {
    "vpsde": VPSDE,
    "subvpsde": SubVPSDE,
    "vesde": VESDE,
    "linearvesde": LinearVESDE,
}


def get_sde(name: str, /, *, N: int, **options: Any) -> SDE:
    """:func:`score_core.sdes.get_sde` with the SDEs of this module, and those that users registered."""
    from collections import ChainMap

    return core.get_sde(name, ChainMap(_SDES, core.SDES), N=N, **options)  # type: ignore[arg-type]
