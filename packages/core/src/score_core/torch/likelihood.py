r"""Exact log-likelihood by the probability-flow ODE in PyTorch (Song et al. 2021, section 4.3 and appendix D.2).

With the drift :math:`\tilde f` of the probability-flow ODE, integrated from ``eps`` to ``T``,

.. math::
    \log p_0(x(0)) = \log p_T(x(T)) + \int_\epsilon^T \nabla \cdot \tilde f(x(t), t)\, dt, \qquad
    \nabla \cdot \tilde f \approx \epsilon_h^\top \nabla \tilde f\, \epsilon_h,

the divergence estimated with one probe :math:`\epsilon_h` that is kept for the whole integration. Drift and divergence
come from one forward and one backward pass of the network.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from score_core.likelihood import Flow, LikelihoodResult, TimeFlow, bits_per_dim, bpd_offset, get_flow, hutchinson
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE
from score_core.solvers.semilinear import TOLERANCE
from score_core.torch.ode import in_float32, integrate, integrate_scipy, solver_dtype
from score_core.torch.sampling import ApplyFn

__all__ = ["drift_and_divergence", "get_likelihood_fn"]


def drift_and_divergence(
    sde: SDE, apply_fn: ApplyFn, params: Any, x: Tensor, t: Tensor, probe: Tensor
) -> tuple[Tensor, Tensor]:
    """The right-hand side of the augmented ODE: the drift ``[B, ...]`` and its estimated divergence ``[B]``.

    Arguments:
        sde, apply_fn, params: the forward SDE, the network and its parameters.
        x: ``[B, ...]``. t: ``[B]``. probe: of the shape of ``x``.
    """
    return _drift_and_divergence(TimeFlow(sde), apply_fn, params, x, t, probe)


def _drift_and_divergence(
    flow: Flow, apply_fn: ApplyFn, params: Any, x: Tensor, t: Tensor, probe: Tensor
) -> tuple[Tensor, Tensor]:
    # parity: the ODE reads the network in continuous time even if it was trained with discrete noise levels
    score_fn = get_score_fn(flow.sde, lambda x, labels: apply_fn(params, x, labels), True)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        drift = flow.drift(score_fn)(x, t)
        (vjp,) = torch.autograd.grad(drift, x, probe)
    return drift.detach(), hutchinson(probe, vjp)


def get_likelihood_fn(
    sde: SDE,
    apply_fn: ApplyFn,
    *,
    inverse_scaler: Callable[[Any], Any] = lambda x: x,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    method: str = "RK45",
    eps: float = 1e-5,
    solver: str = "device",
    tolerance: float = TOLERANCE,
) -> Callable[[Any, Tensor, Tensor], LikelihoodResult]:
    """Builds the bits/dim estimator.

    Arguments:
        sde: the forward SDE.
        apply_fn: the network.
        inverse_scaler: model range to data range; fixes the constant of the change of variables.
        rtol, atol: tolerances of RK45 in time; one error norm over the whole batch.
        method: ``"RK45"``; with ``solver="scipy"`` any method of ``solve_ivp``.
        eps: where the integration starts.
        solver: ``"device"``, ``"scipy"`` or ``"exponential_rk45"`` (several times fewer evaluations; see
            :mod:`score_core.solvers.semilinear`).
        tolerance: that of ``"exponential_rk45"``: error of a step in nats per dimension, largest of the batch.

    Returns:
        ``likelihood(params, data, probe) -> LikelihoodResult``: ``data`` ``[B, ...]`` dequantised images in the model
        range, ``probe`` of the same shape (:func:`score_core.torch.noise.probe`).

    Raises:
        ValueError: for another solver, or another method on the device.
    """
    flow = get_flow(sde, eps, solver, method, rtol=rtol, atol=atol, tolerance=tolerance)
    offset = bpd_offset(inverse_scaler)

    def derivative(args: Any, t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        params, probe = args
        x, _ = y
        return _drift_and_divergence(flow, apply_fn, params, x, t.expand(x.shape[0]), probe)

    @torch.no_grad()
    def likelihood(params: Any, data: Tensor, probe: Tensor) -> LikelihoodResult:
        y0, args = (flow.state(data), data.new_zeros(data.shape[0])), (params, probe)
        if solver == "scipy":
            y, nfe = integrate_scipy(derivative, args, y0, flow.start, flow.end, method=method, **flow.options)
        else:
            y0 = tuple(part.to(solver_dtype(data.device)) for part in y0)
            y, count = integrate(in_float32(derivative), args, y0, flow.start, flow.end, **flow.options)
            y, nfe = tuple(part.to(torch.float32) for part in y), int(count)
        z, delta = flow.latent(y[0]), y[1]
        prior_logp, dims = sde.prior_logp(z), z[0].numel()
        delta = delta + dims * flow.log_scale_ratio
        bpd = bits_per_dim(prior_logp, delta, dims, offset)
        return LikelihoodResult(bpd=bpd, nats=prior_logp + delta, z=z, nfe=nfe, offset=offset)

    return likelihood
