r"""Score matching as defined (Hyvarinen 2005; NCSN, equation 1), and the divergence behind it. Not in the original.

.. math:: E \left[ \operatorname{tr} \nabla s(x) + \tfrac12 \|s(x)\|^2 \right]
          = \tfrac12\, E \|s(x) - \nabla \log p(x)\|^2 - \tfrac12\, E \|\nabla \log p(x)\|^2
"""

import torch
from torch import Tensor

from ncsn.losses.functions import ScoreFn

__all__ = ["exact_score_matching", "fisher_divergence"]


def exact_score_matching(score_net: ScoreFn, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Score matching with the whole trace: d backward passes.

    Arguments:
        score_net: the score; of an energy: ``score_of_energy(energy)``. Samples must not influence each other.
        samples: ``[B, d]``.

    Returns: the loss, its term of the square and its term of the trace, scalars.
    """
    x = samples.detach().requires_grad_()
    with torch.enable_grad():
        s = score_net(x)
        rows = [torch.autograd.grad(s[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    square, trace = 0.5 * s.square().sum(1), torch.stack(rows).sum(0)
    return (square + trace).mean(), square.mean(), trace.mean()


def fisher_divergence(score_net: ScoreFn, samples: Tensor, true_score: ScoreFn) -> Tensor:
    """``mean 1/2 |s(x) - true_score(x)|^2`` over samples ``[B, ...]`` of the distribution with that score."""
    return 0.5 * (score_net(samples) - true_score(samples)).flatten(1).square().sum(1).mean()
