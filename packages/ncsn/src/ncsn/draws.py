"""Random numbers of training, in the order in which the original draws them; tests replay recorded ones."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Draws", "GeneratorDraws"]


class Draws(Protocol):
    """Where the numbers of one loss come from."""

    def uniform(self, like: Tensor) -> Tensor:
        """``U[0, 1)`` of the shape of ``like``."""
        ...

    def normal(self, like: Tensor, repeats: int = 1) -> Tensor:
        """Standard normal, ``like``'s batch ``repeats`` times."""
        ...

    def labels(self, like: Tensor, num_classes: int) -> Tensor:
        """int64 in ``[0, num_classes)``, one per item of ``like``'s batch."""
        ...


@dataclass(frozen=True)
class GeneratorDraws:
    """Numbers of one generator."""

    generator: torch.Generator

    def uniform(self, like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=self.generator, device=like.device)

    def normal(self, like: Tensor, repeats: int = 1) -> Tensor:
        shape = (repeats * len(like), *like.shape[1:])
        return torch.randn(shape, generator=self.generator, device=like.device)

    def labels(self, like: Tensor, num_classes: int) -> Tensor:
        return torch.randint(num_classes, (len(like),), generator=self.generator, device=like.device)
