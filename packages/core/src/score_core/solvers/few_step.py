"""What the few-step rules share: the probability-flow ODE without its linear part, and time grids.

A Gaussian kernel p(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I) fixes the forward SDE's coefficients,

    f = x alpha' / alpha,   g^2 = (sigma^2)' - 2 sigma^2 alpha' / alpha,

so that the probability-flow ODE depends on alpha_t and sigma_t alone. Sub-VP is no exception: there sigma = 1 - e^2L,
alpha = e^L, and the right-hand side is its beta (1 - e^4L). Divided by alpha, the ODE of every such SDE is the same
(Karras et al. 2022, eq. 1 and 4; Song et al. 2021 "DDIM", eq. 14), with rho_t = sigma_t / alpha_t for time:

    d(x / alpha) / d(rho) = eps(x, t)
    noise     eps(x, t) = -sigma_t score(x, t)
    data      D(x, t) = (x - sigma_t eps(x, t)) / alpha_t = E[x_0 | x_t = x]                  (Tweedie's formula)

A rule takes x from time t to t_next < t; it approximates eps or D in between, and everything else is exact. Hence with
a single data point (eps constant along a path) every rule is exact whatever the step. Rules never draw: a step is a
pure function of ``(x, t, t_next, memory, noise)``; ``memory`` is what a multistep rule keeps of the step before. Here x
is ``[B, ...]``, t and t_next ``[B]``.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from score_core.arrays import Array, ScoreFn, namespace, per_sample, sum_dims
from score_core.sdes import SDE

__all__ = [
    "SPACINGS",
    "FewStepRule",
    "Memory",
    "few_step_times",
    "kernel",
    "no_history",
    "require_few_step_options",
    "require_no_few_step_options",
]

Memory = tuple[Array, ...]
"""What a rule keeps from step to step: a tuple of arrays of fixed shapes, ``()`` for one-step rules."""

SPACINGS = ("uniform", "log_snr", "edm")
"""How :func:`few_step_times` can space its times."""

EDM_RHO = 7
"""The exponent of EDM's noise levels (Karras et al. 2022, eq. 5)."""


def kernel(sde: SDE, x: Array, t: Array) -> tuple[Array, Array]:
    """alpha_t and sigma_t of the kernel N(alpha_t x_0, sigma_t^2 I), which broadcast against ``x``.

    Arguments:
        sde: the forward SDE; the mean of its kernel is a multiple of x_0.
        x: ``[B, ...]``; only its number of axes matters.
        t: times ``[B']``.
    """
    alpha, sigma = sde.marginal_prob(per_sample(namespace(t).ones_like(t), x), t)
    return alpha, per_sample(sigma, x)


class FewStepRule(ABC):
    """One step of a few-step solver, which ``sampling.predictor`` names like any predictor.

    Arguments:
        sde: the forward SDE.
        score_fn: ``score_fn(x[B, ...], t[B])``, of a network trained in continuous time.
        eta: fresh noise in a step, from 0 (none, the ODE) to 1 (as much as the reverse SDE has). Only DDIM has it.

    Raises:
        ValueError: ``eta`` is out of range, or the rule has no stochastic form.
    """

    nfe_per_step: ClassVar[int] = 1
    """How often a step evaluates the score."""
    spacing: ClassVar[str] = "uniform"
    """The spacing of times that the rule was published with, one of ``SPACINGS``."""
    has_stochastic_form: ClassVar[bool] = False
    """Whether ``eta`` may be positive."""

    def __init__(self, sde: SDE, score_fn: ScoreFn, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"sampling.eta is {eta}; it must lie between 0 (no fresh noise) and 1.")
        if eta and not self.has_stochastic_form:
            raise ValueError(
                f"{type(self).__name__} solves the ODE and adds no noise, but sampling.eta is {eta}; "
                "set sampling.eta to 0, or sampling.predictor to ddim."
            )
        self.sde = sde
        self.score_fn = score_fn
        self.eta = eta

    @property
    def stochastic(self) -> bool:
        """Whether :meth:`step` reads ``noise``; the driver may pass None otherwise."""
        return self.eta > 0

    def init(self, x: Array) -> Memory:
        """The memory ``x`` ``[B, ...]`` starts with."""
        del x
        return ()

    @abstractmethod
    def step(self, x: Array, t: Array, t_next: Array, memory: Memory, noise: Array | None) -> tuple[Array, Memory]:
        """Move ``x`` from ``t`` to ``t_next``.

        Arguments:
            x: the state ``[B, ...]`` at time ``t``.
            t, t_next: times ``[B]``, t > t_next >= eps > 0.
            memory: what the step before returned, or :meth:`init`.
            noise: standard normal, of the shape of ``x``; unused where ``stochastic`` is False.

        Returns:
            The state at ``t_next`` and the memory for the next step.
        """

    def predict(self, x: Array, t: Array) -> tuple[Array, Array]:
        """The noise eps(x, t) and the data D(x, t), each ``[B, ...]``; one evaluation of the score."""
        alpha, sigma = kernel(self.sde, x, t)
        eps = -sigma * self.score_fn(x, t)
        return eps, (x - sigma * eps) / alpha


def no_history(x: Array) -> Memory:
    """The memory (value ``[B, ...]``, place ``[B, 1, ...]``) of a two-step rule before its first step.

    The value is infinitely far away, towards the noise, so its weight in a linear extrapolation is zero.
    """
    xp = namespace(x)
    return xp.zeros_like(x), per_sample(xp.full_like(sum_dims(x), math.inf), x)


def few_step_times(sde: SDE, n: int, spacing: str, eps: float, ndim: int = 4) -> np.ndarray:
    """The times that a few-step sampler visits: float64 ``[n]`` from T down to ``eps``, both included.

    Arguments:
        sde: the forward SDE.
        n: how many times, at least 1 (T alone).
        spacing: equal steps of what: ``"uniform"`` time; ``"log_snr"`` log(alpha / sigma) (Lu et al. 2022,
            "DPM-Solver", section 3.3); ``"edm"`` (sigma / alpha)^(1/7) (Karras et al. 2022, eq. 5).
        eps: the last time, > 0.
        ndim: axes of the states, batch included, for SDEs that are written for images only.

    Raises:
        ValueError: unknown spacing; n < 1; the mean of the kernel is not a multiple of x_0, or sigma / alpha does not
            grow from eps to T, so that few-step rules do not apply to this SDE.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"sampling.spacing is {spacing!r}; it must be one of {', '.join(SPACINGS)}, or empty.")
    if n < 1:
        raise ValueError(f"sampling.steps gives {n} times; a few-step sampler needs at least 1.")
    x = np.zeros((1,) * ndim)

    def log_rho(t: np.ndarray) -> np.ndarray:
        alpha, sigma = kernel(sde, x, t)
        return np.log(np.ravel(np.asarray(sigma, np.float64) / np.asarray(alpha, np.float64)))

    _require_multiple_of_data(sde, x, eps)
    low, high = log_rho(np.array([eps, sde.T]))
    if not -math.inf < low < high < math.inf:
        raise ValueError(
            f"Few-step rules need sigma / alpha of the kernel to grow with time; {type(sde).__name__} has logarithms "
            f"{low} at {eps} and {high} at {sde.T}. Set sampling.predictor to euler_maruyama or sampling.method to ode."
        )
    if spacing == "uniform" or n == 1:
        return np.linspace(sde.T, eps, n)
    if spacing == "log_snr":
        levels = np.linspace(high, low, n)
    else:
        levels = EDM_RHO * np.log(np.linspace(np.exp(high / EDM_RHO), np.exp(low / EDM_RHO), n))
    times = _invert(log_rho, levels, eps, sde.T)
    times[0], times[-1] = sde.T, eps
    return times


def _require_multiple_of_data(sde: SDE, x: np.ndarray, eps: float) -> None:
    for t in (eps, sde.T):
        mean = [np.asarray(sde.marginal_prob(x + value, np.array([t]))[0]).item() for value in (0.0, 1.0, 2.0)]
        if mean[0] != 0 or not math.isclose(mean[2], 2 * mean[1], rel_tol=1e-5):
            raise ValueError(
                f"Few-step rules need a kernel whose mean is a multiple of x_0; that of {type(sde).__name__} maps "
                f"0, 1, 2 to {mean} at t = {t}. Set sampling.predictor to euler_maruyama, or sampling.method to ode."
            )


def _invert(increasing: Callable[[np.ndarray], np.ndarray], values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Where an increasing function takes the ``values``, by bisection between ``low`` and ``high``."""
    left, right = np.full_like(values, low), np.full_like(values, high)
    for _ in range(60):
        middle = (left + right) / 2
        below = increasing(middle) < values
        left, right = np.where(below, middle, left), np.where(below, right, middle)
    return (left + right) / 2


def require_few_step_options(
    rule: type[FewStepRule], continuous: bool, probability_flow: bool, steps: int, eta: float
) -> None:
    """Checks the options of a sampler whose predictor is a few-step rule; both wings' drivers call it.

    Raises:
        ValueError: they do not fit the rule or the network.
    """
    if not continuous:
        raise ValueError(
            f"{rule.__name__} needs a network trained in continuous time, but training.continuous is False: it knows "
            "only the noise levels of its own chain. Set sampling.predictor to ancestral_sampling or reverse_diffusion."
        )
    if steps < 0:
        raise ValueError(f"sampling.steps is {steps}; it must be positive, or 0 for model.num_scales.")
    if probability_flow and eta:
        raise ValueError(
            f"sampling.probability_flow asks for the ODE, which has no noise, but sampling.eta is {eta}; set one of "
            "them to False or 0."
        )


def require_no_few_step_options(predictor: type[Any], steps: int, spacing: str, eta: float) -> None:
    """Checks the options of a sampler whose predictor is none of the few-step rules.

    Raises:
        ValueError: an option that only these rules have is set.
    """
    if steps or spacing or eta:
        raise ValueError(
            f"sampling.steps, spacing and eta belong to few-step rules such as ddim; {predictor.__name__} takes "
            "model.num_scales steps, equally spaced in time. Leave them at 0, '' and 0, or change sampling.predictor."
        )
