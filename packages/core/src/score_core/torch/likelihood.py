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

from score_core.likelihood import LikelihoodResult, bits_per_dim, bpd_offset, hutchinson, probability_flow_drift
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE
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
    # parity: the ODE reads the network in continuous time even if it was trained with discrete noise levels
    score_fn = get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), True)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        drift = probability_flow_drift(sde, score_fn)(x, t)
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
) -> Callable[[Any, Tensor, Tensor], LikelihoodResult]:
    """Builds the bits/dim estimator.

    Arguments:
        sde: the forward SDE.
        apply_fn: the network.
        inverse_scaler: model range to data range; fixes the constant of the change of variables.
        rtol, atol: tolerances of the solver; one error norm over the whole batch.
        method: ``"RK45"``; with ``solver="scipy"`` any method of ``solve_ivp``.
        eps: where the integration starts.
        solver: ``"device"`` or ``"scipy"``.

    Returns:
        ``likelihood(params, data, probe) -> LikelihoodResult``: ``data`` ``[B, ...]`` dequantised images in the model
        range, ``probe`` of the same shape (:func:`score_core.torch.noise.probe`).

    Raises:
        ValueError: for another solver, or another method on the device.
    """
    if solver not in ("device", "scipy"):
        raise ValueError(f"solver is {solver!r}; it must be 'device' or 'scipy'")
    if solver == "device" and method != "RK45":
        raise ValueError(f"method is {method!r}; on the device it must be 'RK45' (solver='scipy' has others)")
    offset = bpd_offset(inverse_scaler)

    def derivative(args: Any, t: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        params, probe = args
        x, _ = y
        return drift_and_divergence(sde, apply_fn, params, x, t.expand(x.shape[0]), probe)

    @torch.no_grad()
    def likelihood(params: Any, data: Tensor, probe: Tensor) -> LikelihoodResult:
        y0 = (data, data.new_zeros(data.shape[0]))
        args, options = (params, probe), {"rtol": rtol, "atol": atol}
        if solver == "scipy":
            (z, delta), nfe = integrate_scipy(derivative, args, y0, eps, sde.T, method=method, **options)
        else:
            y0 = tuple(part.to(solver_dtype(data.device)) for part in y0)
            (z, delta), count = integrate(in_float32(derivative), args, y0, eps, sde.T, **options)
            z, delta, nfe = z.to(torch.float32), delta.to(torch.float32), int(count)
        prior_logp = sde.prior_logp(z)
        bpd = bits_per_dim(prior_logp, delta, z[0].numel(), offset)
        return LikelihoodResult(bpd=bpd, nats=prior_logp + delta, z=z, nfe=nfe, offset=offset)

    return likelihood
