"""Exponential moving average of parameters: ``ema <- rate * ema + (1 - rate) * params``, every step.

The JAX program's rate is constant; the PyTorch program's is ``min(rate, (1 + n) / (10 + n))`` in update ``n = 1, 2,
...`` (:func:`warmed_rate`), so that the average forgets the initial parameters sooner.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["ema_update", "warmed_rate"]


def warmed_rate(rate: float, num_updates: int) -> float:
    """The PyTorch program's rate in update ``num_updates`` (the first is 1, with the rate ``2 / 11`` at most)."""
    return min(rate, (1 + num_updates) / (10 + num_updates))


@torch.no_grad()
def ema_update(ema: Iterable[Tensor], params: Iterable[Tensor], rate: float) -> None:
    """Move the averaged parameters, in place, one step towards ``params``.

    Arguments:
        ema, params: tensors in the same order, of the same shapes and devices.
        rate: in ``[0, 1]``; 0 copies the parameters. :func:`warmed_rate` gives the PyTorch program's.

    Raises:
        ValueError: a rate outside the interval, or a different number of tensors.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate of a moving average is between 0 and 1, found {rate} (model.ema_rate)")
    averages, values = list(ema), list(params)
    if len(averages) != len(values):
        raise ValueError(f"{len(averages)} averaged tensors for {len(values)} parameters")
    torch._foreach_lerp_(averages, values, 1.0 - rate)  # pyright: ignore[reportPrivateImportUsage]
