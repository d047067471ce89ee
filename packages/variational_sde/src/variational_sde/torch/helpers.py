"""Small helpers of the original's library that its training does not use: meters, a moving average, endless loaders."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from score_core.torch.ema import ema_update

__all__ = ["EMA", "AverageMeter", "RunningAverage", "infinite"]

T = TypeVar("T")


class AverageMeter:
    """The weighted mean of what it was given."""

    def __init__(self) -> None:
        self.value, self.sum, self.count = 0.0, 0.0, 0

    def update(self, value: float, n: int = 1) -> None:
        """Add ``value`` ``n`` times."""
        self.value = float(value)
        self.sum += self.value * n
        self.count += n

    @property
    def average(self) -> float:
        """The mean so far; 0 of nothing."""
        return self.sum / self.count if self.count else 0.0


class RunningAverage:
    """average <- momentum * average + (1 - momentum) * value; the first value is the first average."""

    def __init__(self, momentum: float = 0.99) -> None:
        self.momentum = momentum
        self.average: float | None = None

    def update(self, value: float) -> None:
        """Take one value in."""
        old = self.average
        self.average = value if old is None else self.momentum * old + (1 - self.momentum) * value


class EMA:
    """The moving average of a module's parameters, by name in ``shadow``; the first :meth:`apply` copies."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module, self.decay = module, decay
        self.shadow: dict[str, Tensor] = {}

    @torch.no_grad()
    def apply(self) -> None:
        """Move the average towards the module's parameters."""
        parameters = dict(self.module.named_parameters())
        if not self.shadow:
            self.shadow = {name: value.detach().clone() for name, value in parameters.items()}
        else:
            ema_update(self.shadow.values(), [parameters[name] for name in self.shadow], self.decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The module with its averaged parameters."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, parameter in self.module.named_parameters():
            value = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(value)


def infinite(items: Iterable[T]) -> Iterator[T]:
    """The items again and again, from the start each time (a loader shuffles anew)."""
    while True:
        yield from items
