r"""Denoising score matching (Vincent 2011; NCSN, section 3 and equations 5, 6).

.. math:: \tfrac12\, E \left\| s(\tilde x) + \frac{\tilde x - x}{\sigma^2} \right\|^2, \qquad \tilde x = x + \sigma z

Its minimiser is the score of the noisy data, not of the data.
"""

import torch
from torch import Tensor

from ncsn.losses.functions import EnergyFn, NoisyScoreFn, ScoreFn, add_level_noise, score_of_energy

__all__ = ["anneal_dsm_score_estimation", "dsm", "dsm_score_estimation"]


def _half_square_error(scores: Tensor, samples: Tensor, noisy: Tensor, levels: Tensor | float) -> Tensor:
    """The loss of each sample ``[B]``."""
    # parity: the target comes from the rounded difference, not from the noise itself.
    targets = -(noisy - samples) / levels**2
    return 0.5 * (scores - targets).flatten(1).square().sum(1)


def dsm_score_estimation(
    scorenet: ScoreFn, samples: Tensor, sigma: float = 0.01, *, noise: Tensor | None = None
) -> Tensor:
    """Denoising score matching at one noise level, without a weight: about ``D / (2 sigma^2)`` for D dimensions.

    Arguments:
        scorenet: the score of data with noise.
        samples: ``[B, ...]``.
        sigma: standard deviation of the noise, in units of the data.
        noise: standard normal numbers of the shape of ``samples``; None: drawn.

    Returns: the loss, a scalar.
    """
    noise = torch.randn_like(samples) if noise is None else noise
    noisy = samples + sigma * noise
    return _half_square_error(scorenet(noisy), samples, noisy, sigma).mean()


def anneal_dsm_score_estimation(
    scorenet: NoisyScoreFn,
    samples: Tensor,
    labels: Tensor,
    sigmas: Tensor,
    anneal_power: float = 2.0,
    *,
    noise: Tensor | None = None,
) -> Tensor:
    """Denoising score matching over noise levels (equation 6 with lambda = sigma^anneal_power).

    Arguments:
        scorenet: the score by label.
        samples: ``[B, ...]``.
        labels: int64 ``[B]``, each sample's noise level.
        sigmas: ``[K]``, the levels.
        anneal_power: exponent of the weight; 2 makes all levels count alike.
        noise: standard normal numbers of the shape of ``samples``; None: drawn.

    Returns: the loss, a scalar.
    """
    noisy, levels = add_level_noise(samples, labels, sigmas, noise)
    losses = _half_square_error(scorenet(noisy, labels), samples, noisy, levels)
    return (losses * sigmas[labels] ** anneal_power).mean()


def dsm(energy_net: EnergyFn, samples: Tensor, sigma: float = 1.0, *, noise: Tensor | None = None) -> Tensor:
    """Denoising score matching of an energy, weighted by sigma^2: ``mean 1/2 |sigma^2 s(x + n) + n|^2``.

    Arguments:
        energy_net: the energy.
        samples: ``[B, d]``; the norm is taken over the last axis.
        sigma: standard deviation of the noise.
        noise: standard normal numbers of the shape of ``samples`` (before scaling); None: drawn.

    Returns: the loss, a scalar.
    """
    noise = (torch.randn_like(samples) if noise is None else noise) * sigma
    scores = sigma**2 * score_of_energy(energy_net)(samples + noise)
    return 0.5 * (scores + noise).square().sum(-1).mean()
