r"""Exact log-likelihood by the probability-flow ODE in JAX (Song et al. 2021, section 4.3 and appendix D.2).

With the drift :math:`\tilde f` of the probability-flow ODE, integrated from ``eps`` to ``T``,

.. math::
    \log p_0(x(0)) = \log p_T(x(T)) + \int_\epsilon^T \nabla \cdot \tilde f(x(t), t)\, dt, \qquad
    \nabla \cdot \tilde f \approx \epsilon_h^\top \nabla \tilde f\, \epsilon_h,

the divergence estimated with one probe :math:`\epsilon_h` that is kept for the whole integration.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from score_core.jax.ode import default_loop, integrate, integrate_scipy
from score_core.jax.sampling import ApplyFn
from score_core.likelihood import (
    LikelihoodResult,
    bits_per_dim,
    bpd_offset,
    get_flow,
    hutchinson,
)
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE
from score_core.solvers.semilinear import TOLERANCE

__all__ = ["get_likelihood_fn"]


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
    loop: str | None = None,
    tolerance: float = TOLERANCE,
) -> Callable[[Any, jax.Array, jax.Array], LikelihoodResult]:
    """Builds the bits/dim estimator.

    Args:
        sde: the forward SDE.
        apply_fn: the network.
        inverse_scaler: model range to data range; fixes the constant of the change of variables.
        rtol, atol: tolerances of RK45 in time; one error norm over the whole batch.
        method: ``"RK45"``; with ``solver="scipy"`` any method of ``solve_ivp``.
        eps: where the integration starts.
        solver: ``"device"``, ``"scipy"`` or ``"exponential_rk45"`` (several times fewer evaluations; see
            :mod:`score_core.solvers.semilinear`).
        loop: ``"scan"`` or ``"host"``; by default the faster one for the back end.
        tolerance: that of ``"exponential_rk45"``: error of a step in nats per dimension, largest of the batch.

    Returns:
        ``likelihood(params, data, probe) -> LikelihoodResult``: ``data`` ``[B, ...]`` dequantised images in the model
        range, ``probe`` of the same shape (:func:`score_core.jax.noise.probe`).

    Raises:
        ValueError: for another solver, or another method on the device.
    """
    flow = get_flow(sde, eps, solver, method, rtol=rtol, atol=atol, tolerance=tolerance)
    offset = bpd_offset(inverse_scaler)

    def derivative(args: Any, t: jax.Array, y: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        params, probe = args
        x, _ = y
        # parity: the ODE reads the network in continuous time even if it was trained with discrete noise levels
        score_fn = get_score_fn(sde, lambda x, labels: apply_fn(params, x, labels), True)
        drift_fn = flow.drift(score_fn)
        time = jnp.full((x.shape[0],), t)
        drift, vjp = jax.vjp(lambda x: drift_fn(x, time), x)
        return drift, hutchinson(probe, vjp(probe)[0])

    @jax.jit
    def finish(state: jax.Array, delta_logp: jax.Array) -> tuple[jax.Array, ...]:
        z = flow.latent(state)
        prior_logp, dims = sde.prior_logp(z), z.size // z.shape[0]
        delta_logp = delta_logp + dims * flow.log_scale_ratio
        return bits_per_dim(prior_logp, delta_logp, dims, offset), prior_logp + delta_logp, z

    def likelihood(params: Any, data: jax.Array, probe: jax.Array) -> LikelihoodResult:
        y0 = (flow.state(data), jnp.zeros((data.shape[0],), jnp.float32))
        nfe: Any
        problem = (derivative, (params, probe), y0, flow.start, flow.end)
        if solver == "scipy":
            y, nfe = integrate_scipy(*problem, method=method, **flow.options)
        else:
            y, nfe = integrate(*problem, loop=loop or default_loop(has_gradient=True), **flow.options)
        bpd, nats, z = finish(*y)
        return LikelihoodResult(bpd=bpd, nats=nats, z=z, nfe=nfe, offset=offset)

    return likelihood
