"""What the losses share: score and energy functions, and the score of an energy."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["EnergyFn", "NoisyScoreFn", "ScoreFn", "add_level_noise", "score_of_energy"]

ScoreFn: TypeAlias = Callable[[Tensor], Tensor]
"""``s(x [B, ...]) -> [B, ...]``."""
NoisyScoreFn: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``s(x [B, ...], labels int64 [B]) -> [B, ...]``: the score at the labels' noise levels."""
EnergyFn: TypeAlias = Callable[[Tensor], Tensor]
"""``E(x [B, d]) -> [B] or [B, 1]``: minus the log-density up to a constant."""


def score_of_energy(energy: EnergyFn) -> ScoreFn:
    """The score ``-grad E``; its result can be differentiated again."""

    def score(x: Tensor) -> Tensor:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(-energy(x).sum(), x, create_graph=True)[0]

    return score


def add_level_noise(samples: Tensor, labels: Tensor, sigmas: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """Samples with noise of their labels' levels, and these levels, shaped to be multiplied with the samples."""
    noise = torch.randn_like(samples) if noise is None else noise
    levels = sigmas[labels].reshape(-1, *[1] * (samples.ndim - 1))
    return samples + noise * levels, levels
