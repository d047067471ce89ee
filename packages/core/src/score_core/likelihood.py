"""Exact likelihoods through the probability-flow ODE (Song et al. 2021, section 4.3 and Appendix D.2).

ODE           dx/dt = F(x, t) = f - g^2 score / 2,  from x(0) = the data to z = x(T)
Density       log p_0(x(0)) = log p_T(z) + integral over t of div F(x(t), t)
Divergence    div F ~ epsilon^T (dF/dx) epsilon,  E[epsilon epsilon^T] = I      (Skilling-Hutchinson)
Bits / dim    -log p_0 / (D ln 2) + offset

Log-densities are in nats. The integration and the vector-Jacobian product belong to the drivers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from score_core.arrays import Array, ScoreFn, sum_dims
from score_core.sdes import SDE
from score_core.solvers.semilinear import SemilinearFlow

__all__ = [
    "LIKELIHOOD_SOLVERS",
    "Flow",
    "LikelihoodResult",
    "TimeFlow",
    "bits_per_dim",
    "bpd_offset",
    "get_flow",
    "hutchinson",
    "probability_flow_drift",
]

LIKELIHOOD_SOLVERS = ("device", "scipy", "exponential_rk45")
"""RK45 in t on the device; SciPy's methods in t on the host; RK45 on the ODE freed of its linear part."""


@dataclass(frozen=True)
class LikelihoodResult:
    """The likelihood of a batch.

    Attributes:
        bpd: bits per dimension of the 8-bit data, ``[B]``.
        nats: log p_0(x) of the data in the network's range, a density, ``[B]``.
        z: the latent code x(T), of the data's shape.
        nfe: how often the solver evaluated the drift.
        offset: the part of ``bpd`` that undoes the scaling of 8-bit data.
    """

    bpd: Array
    nats: Array
    z: Array
    nfe: int
    offset: float


def probability_flow_drift(sde: SDE, score_fn: ScoreFn) -> Callable[[Array, Array], Array]:
    """The right-hand side F of the probability-flow ODE (eq. 13): ``drift(x[B, ...], t[B]) -> [B, ...]``."""
    ode = sde.reverse(score_fn, probability_flow=True)

    def drift(x: Array, t: Array) -> Array:
        return ode.sde(x, t)[0]

    return drift


class TimeFlow:
    """The probability-flow ODE in t and x, with the attributes of ``SemilinearFlow``."""

    log_scale_ratio = 0.0

    def __init__(self, sde: SDE, eps: float = 1e-5, rtol: float = 1e-5, atol: float = 1e-5) -> None:
        self.sde = sde
        self.start, self.end = eps, sde.T
        self.options: dict[str, Any] = {"rtol": rtol, "atol": atol}

    def state(self, x: Array) -> Array:
        """The data themselves."""
        return x

    def latent(self, x: Array) -> Array:
        """The last state itself."""
        return x

    def drift(self, score_fn: ScoreFn) -> Callable[[Array, Array], Array]:
        """See :func:`probability_flow_drift`."""
        return probability_flow_drift(self.sde, score_fn)


Flow: TypeAlias = TimeFlow | SemilinearFlow
"""A form of the probability-flow ODE: its interval, state, right-hand side and the integrator's options."""


def get_flow(sde: SDE, eps: float, solver: str, method: str, *, rtol: float, atol: float, tolerance: float) -> Flow:
    """The form of the probability-flow ODE that a solver integrates; the arguments are those of ``get_likelihood_fn``.

    Raises:
        ValueError: another solver than ``LIKELIHOOD_SOLVERS``, a method that it does not have, a tolerance that is not
            positive, or an SDE that it does not fit.
    """
    if solver not in LIKELIHOOD_SOLVERS:
        raise ValueError(
            f"solver is {solver!r}; it must be 'device' or 'scipy' (RK45 in time; the first is rk45 in a "
            "configuration), or 'exponential_rk45'"
        )
    if solver != "scipy" and method != "RK45":
        raise ValueError(f"method is {method!r}; on the device it must be 'RK45' (solver='scipy' has others)")
    if solver != "exponential_rk45":
        return TimeFlow(sde, eps, rtol, atol)
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}; it must be positive (nats per dimension).")
    return SemilinearFlow(sde, eps, tolerance)


def hutchinson(epsilon: Array, vjp: Array) -> Array:
    """The Skilling-Hutchinson estimate of a divergence, ``[B]``.

    Arguments:
        epsilon: the probe ``[B, ...]``, with zero mean and unit covariance (standard normal, or random signs).
        vjp: epsilon^T dF/dx, the vector-Jacobian product of the drift at the probe, of the same shape.
    """
    return sum_dims(vjp * epsilon)


def bpd_offset(inverse_scaler: Callable[[Array], Array]) -> float:
    """What to add to bits/dim in the network's range to obtain bits/dim of 8-bit data.

    log2 of the scaler's volume factor plus 8: 7 for data in [-1, 1], 8 for data in [0, 1].

    Arguments:
        inverse_scaler: the affine map from the network's range to [0, 1].

    Raises:
        ValueError: the map is not affine, so that no constant offset exists, or it is constant.
    """
    at = np.asarray(inverse_scaler(np.array([0.0, 1.0, 2.0])))
    slope = float(at[1] - at[0])
    if slope == 0 or not math.isclose(slope, float(at[2] - at[1]), rel_tol=1e-6):
        raise ValueError(
            f"The inverse scaler must be affine and not constant; it maps 0, 1, 2 to {at.tolist()}. "
            "Bits/dim need one volume factor for all pixel values."
        )
    return math.log2(abs(slope)) + 8.0


def bits_per_dim(prior_logp: Array, delta_logp: Array, dims: int, offset: float) -> Array:
    """Bits per dimension, ``[B]``.

    Arguments:
        prior_logp: log p_T(z) ``[B]`` in nats.
        delta_logp: the integral of the divergence ``[B]`` in nats.
        dims: D, the number of dimensions of one sample.
        offset: see :func:`bpd_offset`.
    """
    return -(prior_logp + delta_logp) / math.log(2) / dims + offset
