r"""The toy losses (Lu et al. 2022, sections 4 and 6.1), with exact traces where the image losses have one probe.

With :math:`m = \mathrm{std}\, s`, its detached value :math:`\bar m`, :math:`r = \epsilon + \bar m`, :math:`J` the
Jacobian of m, a the standard deviation and d the dimension:

    L1    |m + eps|^2 / d
    L2    (a tr J + d - |eps|^2 - 2 <mbar, eps> - |mbar|^2)^2 / d    score_eps_second: the trace alone
          |a J + I - r r^T|^2 / d^2                                  score_eps_second_jac, score_eps_third
    L3    |a^2 grad tr J + |r|^2 r - (a tr J + d) r - 2 (a J + I) r|^2 / d,   tr J and J held constant
    score |s + eps / a|^2 / d: the first order without the weight a^2

Total = mean(L1 + score_lambda L2 + third_score_lambda L3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from score_core.sdes import SDE
from score_flow_hdsm.toy.network import ScoreNetwork, divergence, gradient_of_divergence, jacobian

__all__ = ["METHODS", "ToyLoss", "Weights", "toy_loss"]

METHODS = ("score", "score_eps", "score_eps_second", "score_eps_second_jac", "score_eps_third")


@dataclass(frozen=True)
class Weights:
    """Coefficients of the second and the third order."""

    second: float = 0.5
    third: float = 0.1


@dataclass(frozen=True)
class ToyLoss:
    """Batch means; the parts of second and third order carry their coefficients."""

    total: Tensor
    first: Tensor
    second: Tensor
    third: Tensor


def toy_loss(
    network: ScoreNetwork,
    sde: SDE,
    method: str,
    x0: Tensor,
    eps: Tensor,
    t: Tensor,
    weights: Weights = Weights(),
    generator: torch.Generator | None = None,
) -> ToyLoss:
    """The loss of a batch.

    Arguments:
        network, sde: the model.
        method: one of :data:`METHODS`.
        x0: data ``[B, d]``. eps: standard normal, of its shape. t: times ``[B]``.
        weights: of the orders.
        generator: for the probe of the trace in more than two dimensions.

    Raises:
        ValueError: another method, or a Jacobian in more than two dimensions.
    """
    if method not in METHODS:
        raise ValueError(f"the method is {method!r}; it must be one of {', '.join(METHODS)}")
    dim = x0.shape[1]
    full = method in ("score_eps_second_jac", "score_eps_third")
    if full and dim > 2:
        raise ValueError(f"{method} forms the whole Jacobian, which is done in 1 and 2 dimensions, not in {dim}")
    mean, std = sde.marginal_prob(x0, t)
    a = std[:, None]
    order = METHODS.index(method)
    x = (mean + a * eps).detach().requires_grad_(order >= 2)
    m = network(x, t)
    first = ((m + eps) ** 2).mean(1) if method != "score" else (((m + eps) / a) ** 2).mean(1)
    zero = torch.zeros(())
    if order < 2:
        loss = first.mean()
        return ToyLoss(loss, loss, zero, zero)
    fixed = m.detach()
    r = eps + fixed
    if not full:
        trace = divergence(m, x, generator)[:, 0]
        target = (eps**2).sum(1) + 2 * (fixed * eps).sum(1) + (fixed**2).sum(1) - dim
        second = (std * trace - target) ** 2 / dim
        third = torch.zeros_like(second)
    else:
        J, identity = jacobian(m, x), torch.eye(dim)
        second = ((a[:, :, None] * J + identity - r[:, :, None] * r[:, None, :]) ** 2).mean((1, 2))
        third = _third(J, x, r, a) if method == "score_eps_third" else torch.zeros_like(second)
    parts = (first.mean(), weights.second * second.mean(), weights.third * third.mean())
    return ToyLoss(sum(parts, zero), *parts)


def _third(J: Tensor, x: Tensor, r: Tensor, a: Tensor) -> Tensor:
    trace = J.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    gradient = gradient_of_divergence(trace, x)
    J, trace, dim = J.detach(), trace.detach(), x.shape[1]
    along = (J @ r[:, :, None])[:, :, 0]  # parity: rows of J are outputs
    h = a**2 * gradient + (r**2).sum(1, keepdim=True) * r - (a * trace + dim) * r - 2 * (a * along + r)
    return (h**2).mean(1)
