r"""Density and score of a toy model's probability-flow ODE, with exact divergences.

With the drift :math:`h = f - g^2 s / 2`, :math:`\dot x = h`,

    d log p / dt = -div h                      log p_0(x) = log p_T(x(T)) + integral of div h
    dy / dt      = -grad div h - J_h^T y       y = grad log p along the trajectory, y(T) = -x(T) / prior_scale^2

Solved by SciPy's RK45 in float64, rtol = atol = 1e-5.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.likelihood import probability_flow_drift
from score_core.sdes import SDE
from score_core.torch.ode import IntegrationError
from score_flow_hdsm.toy.network import ScoreNetwork, divergence, gradient_of_divergence, jacobian

__all__ = ["log_density", "model_score", "ode_score"]

ScoreFn = Callable[[Tensor, Tensor], Tensor]
_CHUNK = 20000


def model_score(network: ScoreNetwork, sde: SDE) -> ScoreFn:
    """``score(x [B, dim], t [B])`` of a network."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t) / sde.marginal_prob(x, t)[1][:, None]

    return score


def _solve(fun: Callable[[float, np.ndarray], np.ndarray], y0: np.ndarray, t0: float, t1: float) -> np.ndarray:
    from scipy import integrate

    solution = integrate.solve_ivp(fun, (t0, t1), y0, method="RK45", rtol=1e-5, atol=1e-5)
    if not solution.success or not np.isfinite(solution.y[:, -1]).all():
        raise IntegrationError(f"SciPy's RK45 stopped at t = {solution.t[-1]:g}: {solution.message}")
    return solution.y[:, -1]


class _Ode:
    """The right-hand sides for points ``[n, dim]``, flat and float64 outside, float32 inside."""

    def __init__(self, sde: SDE, score: ScoreFn, shape: tuple[int, ...], original_divergence: bool = False) -> None:
        self.shape, self.size = shape, int(np.prod(shape))
        self.sde = sde
        self.drift = probability_flow_drift(sde, score)
        self.original_divergence = original_divergence

    def _at(self, t: float, flat: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.tensor(flat.reshape(self.shape), dtype=torch.float32).requires_grad_()
        time = torch.full((self.shape[0],), t, dtype=torch.float32)
        if not np.isfinite(flat).all():
            raise IntegrationError(f"the ODE of the model left the finite numbers at t = {t:g}")
        return x, time, self.drift(x, time)

    def _surplus(self, time: Tensor) -> Tensor:
        """div f - div f / dim: what the original leaves out."""
        one = torch.ones(len(time), 1)
        return (self.shape[1] - 1) * self.sde.sde(one, time)[0]

    def density(self, t: float, y: np.ndarray) -> np.ndarray:
        with torch.enable_grad():
            x, time, h = self._at(t, y[: self.size])
            div = divergence(h, x)
        if self.original_divergence:
            # parity: the linear part of the drift counts once, not once a dimension
            div = div - self._surplus(time)
        return _flat(h, div)

    def move(self, t: float, y: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            x = torch.tensor(y.reshape(self.shape), dtype=torch.float32)
            return _flat(self.drift(x, torch.full((self.shape[0],), t, dtype=torch.float32)))

    def score(self, t: float, y: np.ndarray) -> np.ndarray:
        with torch.enable_grad():
            x, time, h = self._at(t, y[: self.size])
            J = jacobian(h, x)
            gradient = gradient_of_divergence(J.diagonal(dim1=1, dim2=2).sum(1, keepdim=True), x, create_graph=False)
            other = torch.tensor(y[self.size :].reshape(self.shape), dtype=torch.float32)
            if self.original_divergence:
                # parity: a constant in the gradient of the divergence, and the Jacobian not transposed
                gradient = gradient + self.sde.sde(torch.ones(len(time), 1), time)[0]
                along = (J @ other[:, :, None])[:, :, 0]
            else:
                along = (J.transpose(1, 2) @ other[:, :, None])[:, :, 0]
        return _flat(h, -(gradient + along))


def _flat(*parts: Tensor) -> np.ndarray:
    return np.concatenate([part.detach().numpy().astype(np.float64).ravel() for part in parts])


def log_density(
    sde: SDE, score: ScoreFn, x: Tensor, start: float = 1e-5, *, original_divergence: bool = False
) -> np.ndarray:
    """log p_0 of the ODE's model at ``x`` ``[n, dim]``, float64 ``[n]`` in nats.

    Arguments:
        start: where the integration begins.
        original_divergence: the original's divergence, which is wrong for VP in more than one dimension.

    Raises:
        IntegrationError: the solver failed.
    """
    values = []
    for part in x.split(_CHUNK):
        ode = _Ode(sde, score, tuple(part.shape), original_divergence)
        y0 = np.concatenate([_flat(part), np.zeros(len(part))])
        y = _solve(ode.density, y0, start, sde.T)
        z = torch.tensor(y[: ode.size].reshape(ode.shape))
        values.append(sde.prior_logp(z).numpy() + y[ode.size :])
    return np.concatenate(values)


def ode_score(
    sde: SDE, score: ScoreFn, x: Tensor, start: float = 1e-5, *, original_divergence: bool = False
) -> np.ndarray:
    """The score of the ODE's own density at time ``start``, at ``x`` ``[n, dim]``; float64 of its shape.

    Raises:
        IntegrationError: the solver failed.
    """
    values: list[Any] = []
    for part in x.split(_CHUNK):
        ode = _Ode(sde, score, tuple(part.shape), original_divergence)
        z = _solve(ode.move, _flat(part), start, sde.T)
        y = _solve(ode.score, np.concatenate([z, -z / sde.prior_scale**2]), sde.T, start)
        values.append(y[ode.size :].reshape(ode.shape))
    return np.concatenate(values)
