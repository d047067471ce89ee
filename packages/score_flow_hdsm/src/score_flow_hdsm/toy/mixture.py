"""The exact density of the diffused mixture of Gaussians, and its derivatives, in one dimension."""

import math

import torch
from torch import Tensor

from score_core.sdes import SDE
from score_flow_hdsm.toy.data import MEANS, VARIANCES, WEIGHTS

__all__ = ["derivatives", "log_density"]


def log_density(sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """log q_t at ``x`` ``[B, 1]``, t ``[B]``; ``[B]``.

    Unlike the original's, which is NaN where all components underflow, it is finite everywhere.
    """
    factor, std = sde.marginal_prob(torch.ones_like(x), t)
    variances = factor**2 * torch.tensor(VARIANCES, dtype=x.dtype) + std[:, None] ** 2
    squares = (x - factor * torch.tensor(MEANS, dtype=x.dtype)) ** 2 / variances
    logits = torch.tensor(WEIGHTS, dtype=x.dtype).log() - 0.5 * (squares + torch.log(2 * math.pi * variances))
    return torch.logsumexp(logits, dim=1)


def derivatives(sde: SDE, x: Tensor, t: Tensor, order: int = 1) -> list[Tensor]:
    """The first ``order`` derivatives of :func:`log_density` by x, each ``[B, 1]``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value, found = log_density(sde, x, t)[:, None], []
        for _ in range(order):
            (value,) = torch.autograd.grad(value.sum(), x, create_graph=True)
            found.append(value)
    return [value.detach() for value in found]
