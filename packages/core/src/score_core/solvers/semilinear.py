r"""The probability-flow ODE without its linear part, in a time that suits it: likelihoods by few evaluations.

With rho_t = sigma_t / alpha_t, the data's typical scale c and a smaller scale d, state and time are

    v = x / s_t,   s_t = sqrt(alpha_t^2 + sigma_t^2 / c^2)        data of standard deviation c keep theirs
    u = arsinh(rho_t / d)                                         rho itself near the data, its logarithm far away
    dv / du = F(v, u) = (c eps(x, t) - w v) sqrt((d^2 + rho^2) / (c^2 + rho^2)),   w = rho / sqrt(c^2 + rho^2)
    log p(x_0) = log p(x_T) + D ln(s_T / s_0) + integral over u of div F

eps = -sigma_t score is the noise prediction. This is exact, an exponential integrator in the sense of Lawson: the
linear part of the ODE is solved by the change of variables, and its divergence is the logarithm. For VP and c = 1 v is
x itself. VP, sub-VP and VE differ in t(u) and s_t, their ODE in (v, u) does not. (v is the state of Lu and Song 2024,
"Simplifying, stabilizing and scaling continuous-time consistency models", section 3, whose time is arctan(rho / c).)

Near the data u grows like sigma: VP's square root of t, at which Runge-Kutta methods in t take most of their steps, is
gone, and so is the rounding of 1 - exp(2L) in the schedule, since t follows from u. Far away a trained network's errors
are smooth in the logarithm of the noise level only.

Errors are measured in what they do to the log-density: a perturbation of x by delta changes it by score . delta, of the
order of |delta| / sigma_t. So the error of v counts in units of sigma_t / s_t = c w, that of the log-density in nats
per dimension; a step's error is the root of their squared sum, the largest of the batch.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from score_core.arrays import Array, ScoreFn, dims_per_sample, namespace, per_sample, sum_dims, take
from score_core.sdes import SDE
from score_core.solvers.few_step import few_step_times, kernel
from score_core.solvers.rk45 import ErrorNorm, State

__all__ = ["DATA_SCALE", "TOLERANCE", "SemilinearFlow"]

DATA_SCALE = 0.5
"""c, the typical standard deviation of images in [-1, 1] (EDM's sigma_data)."""

TOLERANCE = 1e-3
"""Nats per dimension that a step may be wrong by; with some fifteen steps single images are then within 0.005 bits."""

_LINEAR_BELOW = 0.1  # d / c
_FIRST_STEP = 0.02  # in u: rho of 0.001, an eighth of a grey level, below which there is nothing to resolve
_NODES = 8193  # of the table of times; linear interpolation of ln t is then exact to float32's precision


class SemilinearFlow:
    """Time, state and right-hand side of the probability-flow ODE freed of its linear part.

    Arguments:
        sde: the forward SDE; the mean of its kernel is a multiple of x_0.
        eps: the time the integration starts from, > 0.
        tolerance: nats per dimension that a step may be wrong by.
        data_scale: c; it moves steps, not results.
        ndim: axes of the states, batch included, for SDEs that are written for images only.

    Attributes:
        start, end: u at ``eps`` and at T.
        log_scale_ratio: ln(s_T / s_eps), what the linear part adds to the log-density of each dimension.
        options: of the integrator: the first step and the error norm.

    Raises:
        ValueError: the SDE's kernel does not have this form.
    """

    def __init__(
        self, sde: SDE, eps: float, tolerance: float = TOLERANCE, data_scale: float = DATA_SCALE, ndim: int = 4
    ) -> None:
        try:
            times = few_step_times(sde, _NODES, "log_snr", eps, ndim)[::-1]
        except ValueError as error:
            raise ValueError(
                "The solver 'exponential_rk45' needs a kernel N(alpha x_0, sigma^2 I) whose sigma / alpha grows with "
                f"time, which {type(sde).__name__} does not have; integrate in time instead, by 'rk45'. ({error})"
            ) from error
        self.sde = sde
        self.data_scale, self._linear_below = data_scale, _LINEAR_BELOW * data_scale
        alpha, sigma = (np.ravel(a) for a in kernel(sde, np.zeros((1,) * ndim), times[[0, -1]]))
        self._log_rho = tuple(float(end) for end in np.log(sigma / alpha))
        self._log_times = np.log(times).astype(np.float32)
        self.start, self.end = (float(u) for u in np.arcsinh(sigma / alpha / self._linear_below))
        self._scales = tuple(float(scale) for scale in np.hypot(alpha, sigma / data_scale))
        self.log_scale_ratio = math.log(self._scales[1] / self._scales[0])
        first_step = min(max(self.start, _FIRST_STEP), self.end - self.start)
        self.options: dict[str, Any] = {"first_step": first_step, "error_norm": self._error_norm(tolerance)}

    def state(self, x: Array) -> Array:
        """v ``[B, ...]`` of the data ``x`` at time eps."""
        return x / self._scales[0]

    def latent(self, v: Array) -> Array:
        """x_T ``[B, ...]`` of the state ``v`` at the end."""
        return v * self._scales[1]

    def time(self, u: Array) -> Array:
        """t ``[B]`` of ``u`` ``[B]``."""
        xp = namespace(u)
        low, high = self._log_rho
        place = (xp.log(self._linear_below * xp.sinh(u)) - low) * ((_NODES - 1) / (high - low))
        place = xp.clip(place, 0, _NODES - 1)
        index = xp.clip(xp.astype(place, xp.int32), 0, _NODES - 2)
        left, right = (take(self._log_times, node) for node in (index, index + 1))
        return xp.exp(left + (place - index) * (right - left))

    def drift(self, score_fn: ScoreFn) -> Callable[[Array, Array], Array]:
        """F: ``drift(v[B, ...], u[B]) -> [B, ...]``; one evaluation of the score."""
        c, d = self.data_scale, self._linear_below

        def drift(v: Array, u: Array) -> Array:
            xp = namespace(v)
            t = self.time(u)
            alpha, sigma = kernel(self.sde, v, t)
            rho = per_sample(d * xp.sinh(u), v)
            root = xp.sqrt(c**2 + rho**2)
            # The noise prediction through the kernel's own std, whose rounding cancels that in the score.
            noise = -sigma * score_fn(v * (alpha * root / c), t)
            return (c * noise - rho / root * v) * (xp.sqrt(d**2 + rho**2) / root)

        return drift

    def _error_norm(self, tolerance: float) -> ErrorNorm:
        c, d = self.data_scale, self._linear_below

        def norm(error: State, y: State, y_new: State, u_new: Array) -> Array:
            del y, y_new
            of_v, of_logp = error
            xp = namespace(of_v)
            dims = dims_per_sample(of_v)
            rho = d * xp.sinh(u_new)
            variance = (c * rho) ** 2 / (c**2 + rho**2)
            return xp.max(xp.sqrt(sum_dims(of_v**2) / (dims * variance) + (of_logp / dims) ** 2)) / tolerance

        return norm
