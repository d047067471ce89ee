"""Forward and reverse stochastic differential equations of score-based models (Song et al. 2021, section 3).

Forward      dx = f(x, t) dt + g(t) dw,  t from 0 (data) to T = 1 (prior)
Kernel       p(x_t | x_0) = N(mean(x_0, t), std(t)^2 I)
Reverse SDE  dx = (f - g^2 score) dt + g dw          (eq. 6)
Reverse ODE  dx = (f - g^2 score / 2) dt             (probability flow, eq. 13)
One step     x_i = x_{i-1} + f_i + G_i z,  z ~ N(0, I), i = int(t (N - 1) / T) where tables are used

VP      f = -beta(t) x / 2,  g = sqrt(beta(t)),  beta(t) = beta_min + t (beta_max - beta_min)         (eq. 11)
        mean = e^L x_0,  std = sqrt(1 - e^2L),  L(t) = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2
sub-VP  f and mean as VP,  g = sqrt(beta(t) (1 - e^4L)),  std = 1 - e^2L                               (eq. 12)
VE      f = 0,  g = sigma(t) sqrt(2 ln(sigma_max / sigma_min)),  mean = x_0,
        std = sigma(t) = sigma_min (sigma_max / sigma_min)^t                                           (eq. 9)

Here x is ``[B, ...]`` of any trailing shape, t ``[B]``; std, g and G are ``[B]``. Log-densities are in nats.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import numpy as np

from score_core import _float32, registry
from score_core.arrays import Array, ScoreFn, batch_mul, dims_per_sample, namespace, sum_dims, take
from score_core.noise_scales import discrete_sigmas, linear_betas

__all__ = ["SDE", "SDES", "VESDE", "VPSDE", "ReverseSDE", "SubVPSDE", "get_sde", "register_sde"]


class SDE(ABC):
    """A forward SDE with a Gaussian transition kernel and a centred Gaussian prior. Subclass it to add one.

    Arguments:
        N: number of discretisation steps, at least 1.
    """

    T: float = 1.0
    """End time, where the kernel has become the prior."""
    prior_scale: float = 1.0
    """Standard deviation of the prior."""
    sampling_eps: float = 1e-3
    """The smallest time at which samplers evaluate the score."""
    predicts: Literal["noise", "score"] = "noise"
    """What a network trained on this SDE in continuous time gives (see :mod:`score_core.parameterization`)."""

    def __init__(self, N: int) -> None:
        self.N = N

    @abstractmethod
    def sde(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Drift f(x, t) ``[B, ...]`` and diffusion g(t) ``[B]``."""

    @abstractmethod
    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Mean ``[B, ...]`` and standard deviation ``[B]`` of x_t given x_0 = ``x``."""

    def prior_sampling(self, z: Array, /) -> Array:
        """The prior sample x_T made from standard normal noise ``z``, of the same shape."""
        return self.prior_scale * z

    def prior_logp(self, z: Array) -> Array:
        """Log-density of the prior at ``z`` ``[B, ...]``, ``[B]`` in nats."""
        variance = self.prior_scale**2
        return -0.5 * dims_per_sample(z) * math.log(2 * math.pi * variance) - sum_dims(z**2) / (2 * variance)

    def discretize(self, x: Array, t: Array) -> tuple[Array, Array]:
        """f_i ``[B, ...]`` and G_i ``[B]`` of one forward step; by default Euler-Maruyama with step 1 / N."""
        drift, diffusion = self.sde(x, t)
        return drift / self.N, diffusion * math.sqrt(1 / self.N)

    def step_index(self, t: Array) -> Array:
        """The discretisation step of time ``t``, int32 ``[B]`` in 0 ... N-1."""
        # parity: truncated, not rounded, from float32 arithmetic.
        xp = namespace(t)
        return xp.astype(t * (self.N - 1) / self.T, xp.int32)

    def langevin_alpha(self, t: Array) -> Array:
        """The factor alpha ``[B]`` of Langevin step sizes (Song et al. 2021, Algorithms 4 and 5): 1 unless VP-like."""
        return namespace(t).ones_like(t)

    def require_langevin(self) -> None:  # noqa: B027 - most SDEs have nothing to check
        """Checks that Langevin step sizes exist.

        Raises:
            ValueError: some alpha is negative.
        """

    def reverse(self, score_fn: ScoreFn, probability_flow: bool = False) -> "ReverseSDE":
        """The reverse-time SDE, or the probability-flow ODE, driven by ``score_fn``."""
        return ReverseSDE(self, score_fn, probability_flow)


class ReverseSDE:
    """The time reversal of ``forward`` (eq. 6), or its probability-flow ODE (eq. 13).

    Arguments:
        forward: the SDE to reverse; N and T are its.
        score_fn: the score of the marginals.
        probability_flow: halve the score's coefficient and drop the noise.
    """

    def __init__(self, forward: SDE, score_fn: ScoreFn, probability_flow: bool = False) -> None:
        self.forward = forward
        self.score_fn = score_fn
        self.probability_flow = probability_flow
        self.N = forward.N
        self.T = forward.T

    def sde(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Drift ``[B, ...]`` and diffusion ``[B]`` for time running backwards (dt < 0)."""
        return self._reverse(*self.forward.sde(x, t), x, t)

    def discretize(self, x: Array, t: Array) -> tuple[Array, Array]:
        """f_i ``[B, ...]`` and G_i ``[B]`` of the reverse-diffusion step x - f_i + G_i z."""
        return self._reverse(*self.forward.discretize(x, t), x, t)

    def _reverse(self, drift: Array, diffusion: Array, x: Array, t: Array) -> tuple[Array, Array]:
        coefficient = 0.5 if self.probability_flow else 1.0
        drift = drift - batch_mul(diffusion**2, self.score_fn(x, t) * coefficient)
        if self.probability_flow:
            diffusion = namespace(diffusion).zeros_like(diffusion)
        return drift, diffusion


class _LinearBetaSDE(SDE):
    """What VP and sub-VP share: the linear beta(t), the drift and the mean.

    ``alphas`` is the float32 table 1 - beta_i ``[N]``.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, N: int = 1000) -> None:
        super().__init__(N)
        self.beta_min = beta_min
        self.beta_max = beta_max
        self.discrete_betas = linear_betas(beta_min, beta_max, N)
        self.alphas = np.float32(1) - self.discrete_betas

    def beta(self, t: Array) -> Array:
        """beta(t), ``[B]``."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_mean_coefficient(self, t: Array) -> Array:
        """L(t), the logarithm of the factor between x_0 and the mean of x_t, ``[B]``."""
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def drift(self, x: Array, t: Array) -> Array:
        """-beta(t) x / 2, ``[B, ...]``."""
        return batch_mul(-0.5 * self.beta(t), x)

    def mean(self, x: Array, t: Array) -> Array:
        """e^L x, ``[B, ...]``."""
        return batch_mul(namespace(t).exp(self.log_mean_coefficient(t)), x)

    def langevin_alpha(self, t: Array) -> Array:
        return take(self.alphas, self.step_index(t))

    def require_langevin(self) -> None:
        if self.beta_max > self.N:
            raise ValueError(
                "Langevin correctors need more steps than beta_max, as alpha_i = 1 - beta_i is negative otherwise: "
                f"N is {self.N}, beta_max {self.beta_max}. Raise model.num_scales, or set sampling.corrector to none."
            )


class VPSDE(_LinearBetaSDE):
    """The variance-preserving SDE, DDPM's limit (Song et al. 2021, eq. 11, Appendices B and C).

    Float32 tables ``[N]``: ``discrete_betas``, ``alphas`` = 1 - beta_i, ``alphas_cumprod`` = alpha_bar_i,
    ``sqrt_alphas_cumprod``, ``sqrt_1m_alphas_cumprod`` = sqrt(1 - alpha_bar_i).

    Arguments:
        beta_min, beta_max: beta(0) and beta(T).
        N: number of discretisation steps.
    """

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, N: int = 1000) -> None:
        super().__init__(beta_min, beta_max, N)
        self.alphas_cumprod = _float32.cumprod(self.alphas)
        # With N <= beta_max some alpha_i are negative: the DDPM chain does not exist, and only it reads the roots.
        with np.errstate(invalid="ignore"):
            self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_1m_alphas_cumprod = np.sqrt(np.float32(1) - self.alphas_cumprod)

    def sde(self, x: Array, t: Array) -> tuple[Array, Array]:
        return self.drift(x, t), namespace(t).sqrt(self.beta(t))

    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        xp = namespace(t)
        # parity: no expm1; near t = 1e-5 the float32 difference is off by several per cent, as in the published runs.
        return self.mean(x, t), xp.sqrt(1.0 - xp.exp(2.0 * self.log_mean_coefficient(t)))

    def discretize(self, x: Array, t: Array) -> tuple[Array, Array]:
        """DDPM's step: f_i = sqrt(1 - beta_i) x - x, G_i = sqrt(beta_i)."""
        xp = namespace(t)
        i = self.step_index(t)
        return batch_mul(xp.sqrt(take(self.alphas, i)), x) - x, xp.sqrt(take(self.discrete_betas, i))


class SubVPSDE(_LinearBetaSDE):
    """The sub-variance-preserving SDE (Song et al. 2021, eq. 12, Appendices B and C).

    It has no discretisation of its own (Euler-Maruyama is used). ``alphas`` ``[N]`` is VP's table: Langevin correctors
    need step sizes, and VP's are the natural ones since both SDEs share drift and mean.

    Arguments:
        beta_min, beta_max: beta(0) and beta(T).
        N: number of discretisation steps.
    """

    def sde(self, x: Array, t: Array) -> tuple[Array, Array]:
        xp = namespace(t)
        # parity: 1 - exp(4L) in float32 without expm1, as in VPSDE.marginal_prob.
        discount = 1.0 - xp.exp(-2.0 * self.beta_min * t - (self.beta_max - self.beta_min) * t**2)
        return self.drift(x, t), xp.sqrt(self.beta(t) * discount)

    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        # parity: no expm1, see VPSDE.marginal_prob.
        return self.mean(x, t), 1.0 - namespace(t).exp(2.0 * self.log_mean_coefficient(t))


class VESDE(SDE):
    """The variance-exploding SDE, the limit of SMLD / NCSN (Song et al. 2021, eq. 9, Appendices B and C).

    Float32 table ``discrete_sigmas`` ``[N]``, **ascending** (networks see the levels in descending order).

    Arguments:
        sigma_min, sigma_max: noise standard deviations at t = 0 and t = T, in units of the data.
        N: number of discretisation steps.
    """

    sampling_eps = 1e-5
    predicts = "score"

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0, N: int = 1000) -> None:
        super().__init__(N)
        self.sigma_min = sigma_min
        self.sigma_max = sigma_max
        self.prior_scale = float(sigma_max)
        self.discrete_sigmas = discrete_sigmas(sigma_min, sigma_max, N)
        self._previous_sigmas = np.append(np.float32(0), self.discrete_sigmas[:-1])
        # parity: logarithms and root in float32.
        log_ratio = np.log(np.float32(sigma_max)) - np.log(np.float32(sigma_min))
        self._diffusion_factor = float(np.sqrt(np.float32(2) * log_ratio))

    def sigma(self, t: Array) -> Array:
        """sigma(t), ``[B]``."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def sde(self, x: Array, t: Array) -> tuple[Array, Array]:
        return namespace(x).zeros_like(x), self.sigma(t) * self._diffusion_factor

    def marginal_prob(self, x: Array, t: Array) -> tuple[Array, Array]:
        return x, self.sigma(t)

    def adjacent_sigmas(self, t: Array) -> tuple[Array, Array]:
        """The levels sigma_i and sigma_{i-1} (0 below the first), each ``[B]``, at the step i of time ``t``."""
        i = self.step_index(t)
        return take(self.discrete_sigmas, i), take(self._previous_sigmas, i)

    def discretize(self, x: Array, t: Array) -> tuple[Array, Array]:
        """SMLD's step: f_i = 0, G_i = sqrt(sigma_i^2 - sigma_{i-1}^2)."""
        sigma, previous = self.adjacent_sigmas(t)
        return namespace(x).zeros_like(x), namespace(t).sqrt(sigma**2 - previous**2)


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

SDES: dict[str, Callable[..., SDE]] = {"vpsde": VPSDE, "subvpsde": SubVPSDE, "vesde": VESDE}
"""Every SDE that ``training.sde`` can name."""


def register_sde(cls: Any = None, *, name: str | None = None) -> Any:
    """Class decorator that makes an SDE known, under ``name`` or its class name (case is ignored).

    Raises:
        ValueError: the name is taken.
    """
    return registry.register(SDES, "sde", cls, name)


def get_sde(name: str, table: MutableMapping[str, Callable[..., SDE]] = SDES, /, *, N: int, **options: Any) -> SDE:
    """The SDE a configuration names.

    Arguments:
        name: vpsde, subvpsde, vesde, or the name of a registered one, in any case.
        table: where it is looked up.
        N: number of discretisation steps.
        options: values by name, such as ``beta_min`` or all of ``config.model``; those that the class's constructor
            names are handed to it, the others are ignored.

    Raises:
        ValueError: unknown name, or an argument that the constructor needs is not among the options.
    """
    cls = registry.lookup(table, "sde", name)
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.name != "N" and p.kind not in _VARIADIC]
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in options]
    if missing:
        raise ValueError(
            f"The SDE {name!r} needs {', '.join(missing)}, which the configuration does not give; "
            f"add {', '.join(f'model.{key}' for key in missing)}, or a default to its constructor."
        )
    return cls(N=N, **{p.name: options[p.name] for p in parameters if p.name in options})
