"""Correctors: Langevin dynamics at a fixed time, towards the marginal p_t (Song et al. 2021, section 4.2).

x <- x + a score + sqrt(2 a) z,  z ~ N(0, I), with the step size a (Appendix G)

Langevin            a = 2 alpha (snr |z| / |score|)^2     norms averaged over the batch
Annealed Langevin   a = 2 alpha (snr std(t))^2            std of the marginal
alpha = 1 - beta_i for VP and sub-VP, 1 for VE

A corrector is a pure function of ``(x, t, noise)``: it receives its noise and never draws. ``step`` is one Langevin
step; the driver repeats it ``sampling.n_steps_each`` times at the same t, with fresh noise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

from score_core import registry
from score_core.arrays import Array, ScoreFn, batch_mul, namespace, sum_dims
from score_core.sdes import SDE

__all__ = [
    "CORRECTORS",
    "AnnealedLangevinDynamics",
    "Corrector",
    "LangevinCorrector",
    "NoneCorrector",
    "get_corrector",
    "register_corrector",
]


class Corrector(ABC):
    """One Langevin step at a fixed time.

    Arguments:
        sde: the forward SDE.
        score_fn: ``score_fn(x[B, ...], t[B])``.
        snr: signal-to-noise ratio r of the step, > 0.
        norm: "batch" averages the norms of score and noise over the batch (the published protocol), "sample" uses each
            sample's own, which makes samples independent of the batch they are drawn in.
        batch_mean: how norms ``[B]`` become one scalar when ``norm`` is "batch"; the mean over the batch by default,
            a mean over all devices where the batch is sharded.

    Raises:
        ValueError: ``norm`` is neither.
    """

    stochastic: bool = True
    """Whether :meth:`step` reads ``noise``; the driver may pass None otherwise."""

    def __init__(
        self,
        sde: SDE,
        score_fn: ScoreFn,
        snr: float,
        *,
        norm: Literal["batch", "sample"] = "batch",
        batch_mean: Callable[[Array], Array] | None = None,
    ) -> None:
        if norm not in ("batch", "sample"):
            raise ValueError(f"norm must be 'batch' or 'sample', got {norm!r}.")
        self.sde = sde
        self.score_fn = score_fn
        self.snr = snr
        self.norm = norm
        self.batch_mean = batch_mean if batch_mean is not None else _mean

    @abstractmethod
    def step(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        """Take one Langevin step.

        Arguments:
            x: the state ``[B, ...]``.
            t: its time ``[B]``, in [eps, T].
            noise: standard normal, of the shape of ``x``; unused where ``stochastic`` is False.

        Returns:
            The new state and its mean, the same without the step's noise.
        """


class LangevinCorrector(Corrector):
    """Langevin dynamics, the step size set by the norms of noise and score (Song et al. 2021, Algorithms 4 and 5).

    Raises:
        ValueError: the SDE has no step sizes (see :meth:`score_core.sdes.SDE.require_langevin`).
    """

    def __init__(self, sde: SDE, *rest: Any, **options: Any) -> None:
        super().__init__(sde, *rest, **options)
        sde.require_langevin()

    def step(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        score = self.score_fn(x, t)
        ratio = self.snr * self._mean_norm(noise) / self._mean_norm(score)
        return _langevin_step(x, score, ratio**2 * 2 * self.sde.langevin_alpha(t), noise)

    def _mean_norm(self, v: Array) -> Array:
        norms = namespace(v).sqrt(sum_dims(v**2))
        # parity: one step size for the whole batch, so a sample depends on its neighbours; "sample" is our option.
        return norms if self.norm == "sample" else self.batch_mean(norms)


class AnnealedLangevinDynamics(Corrector):
    """Langevin dynamics with the step size set by the noise level, the sampler of NCSN (Song & Ermon 2019, 2020).

    Raises:
        ValueError: the SDE has no step sizes (see :meth:`score_core.sdes.SDE.require_langevin`).
    """

    def __init__(self, sde: SDE, *rest: Any, **options: Any) -> None:
        super().__init__(sde, *rest, **options)
        sde.require_langevin()

    def step(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        std = self.sde.marginal_prob(x, t)[1]
        step_size = (self.snr * std) ** 2 * 2 * self.sde.langevin_alpha(t)
        return _langevin_step(x, self.score_fn(x, t), step_size, noise)


class NoneCorrector(Corrector):
    """No correction."""

    stochastic = False

    def step(self, x: Array, t: Array, noise: Array | None) -> tuple[Array, Array]:
        return x, x


def _langevin_step(x: Array, score: Array, step_size: Array, noise: Array) -> tuple[Array, Array]:
    """x + a score + sqrt(2 a) z and the same without the noise, with the step size a ``[B]``."""
    x_mean = x + batch_mul(step_size, score)
    return x_mean + batch_mul(namespace(step_size).sqrt(step_size * 2), noise), x_mean


def _mean(values: Array) -> Array:
    return namespace(values).mean(values)


CORRECTORS: dict[str, type[Corrector]] = {
    "langevin": LangevinCorrector,
    "ald": AnnealedLangevinDynamics,
    "none": NoneCorrector,
}
"""Every corrector that ``sampling.corrector`` can name."""


def register_corrector(cls: Any = None, *, name: str | None = None) -> Any:
    """Class decorator that makes a corrector known, under ``name`` or its class name (case is ignored).

    Raises:
        ValueError: the name is taken.
    """
    return registry.register(CORRECTORS, "corrector", cls, name)


def get_corrector(name: str) -> type[Corrector]:
    """The corrector class called ``name`` (case is ignored).

    Raises:
        ValueError: unknown name; the message lists the known ones.
    """
    return registry.lookup(CORRECTORS, "corrector", name)
