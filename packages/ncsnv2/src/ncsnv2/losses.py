r"""Annealed denoising score matching (NCSN, equation 6; NCSNv2 keeps it).

.. math::
    \tilde x = x + \sigma_i z, \qquad
    \ell = \tfrac12 \sigma_i^{p} \big\| s(\tilde x, i) + z / \sigma_i \big\|^2, \qquad p = 2

summed over pixels, averaged over the batch; :math:`i` is drawn uniformly for every image.
"""

import torch
from torch import Tensor

from score_core.torch.langevin import ScoreFn

__all__ = ["draw_levels", "dsm_losses"]


def draw_levels(x: Tensor, num_classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Levels int64 ``[B]`` and standard normal noise of the shape of ``x``, in the original's order."""
    labels = torch.randint(0, num_classes, (len(x),), generator=generator, device=x.device)
    return labels, torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


def dsm_losses(
    score_fn: ScoreFn, x: Tensor, labels: Tensor, z: Tensor, sigmas: Tensor, anneal_power: float = 2.0
) -> Tensor:
    """The loss of every image, ``[B]``.

    Arguments:
        score_fn: the network.
        x: clean images ``[B, C, H, W]`` as the network takes them.
        labels: their noise levels, int64 ``[B]``.
        z: standard normal noise of the shape of ``x``.
        sigmas: standard deviations of the levels ``[K]``.
        anneal_power: p, the weight's exponent.
    """
    used = sigmas[labels].reshape(-1, *[1] * (x.ndim - 1))
    noise = z * used
    target = -1 / (used**2) * noise
    error = (score_fn(x + noise, labels) - target).flatten(1)
    return 0.5 * error.square().sum(1) * used.flatten() ** anneal_power
