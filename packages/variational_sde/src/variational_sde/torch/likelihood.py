"""Likelihood of the equivalent ODE (lambda = 1), beside the bound of the SDE.

    log p_ODE(x) = log N(y_T; 0, I) + integral over [eps, T] of div(f - g a / 2)(y_s, s) ds,  y_eps = x

The divergence is estimated with one probe a sample that is kept for the whole integration. For the exact drift this is
log p(x) and the bound touches it; for a trained one it is the density of another model than the SDE's.
"""

import torch
from torch import Tensor

from score_core.likelihood import LikelihoodResult
from score_core.torch.ode import IntegrationError, in_float32, integrate, solver_dtype
from variational_sde.objectives import bound_in_bits
from variational_sde.torch.reverse_sde import PluginReverseSDE
from variational_sde.torch.sampling import drift_and_divergence

__all__ = ["ode_log_likelihood"]


@torch.no_grad()
def ode_log_likelihood(
    sde: PluginReverseSDE, x: Tensor, v: Tensor, *, rtol: float = 1e-5, atol: float = 1e-5, eps: float = 1e-5
) -> LikelihoodResult:
    """The log-density of the ODE's model at ``x``.

    Arguments:
        x: data in the network's range, ``[B, ...]``. v: probe of its shape.
        rtol, atol: tolerances; one error norm over the whole batch.
        eps: where the integration starts.

    Returns:
        ``nats`` ``[B]`` of ``x`` in the network's range; ``bpd`` for images that are in [0, 1] there.

    Raises:
        IntegrationError: the solver's step has shrunk to nothing.
    """

    def derivative(_: None, s: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return drift_and_divergence(sde, y[0], s.expand(len(x)), v)

    start = tuple(part.to(solver_dtype(x.device)) for part in (x, x.new_zeros(len(x))))
    (z, delta), count = integrate(in_float32(derivative), None, start, eps, sde.law.T, rtol=rtol, atol=atol)
    z, delta = z.to(x.dtype), delta.to(x.dtype)
    if not bool(torch.isfinite(z).all()):
        raise IntegrationError("the ODE's solver has come to a stop: the network's drift is not finite, or too steep")
    nats = sde.law.prior_logp(z) + delta
    return LikelihoodResult(bound_in_bits(nats, x[0].numel()), nats, z, int(count), 8.0)
