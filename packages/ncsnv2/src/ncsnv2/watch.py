"""What is printed and kept while a sampler runs, a line a step as the original prints it.

    level: 3, step_size: 0.00154, grad_norm: 174.7, image_norm: 20.1, snr: 0.353, grad_mean_norm: 207.0

Norms are Euclidean, averaged over the batch; ``snr`` = sqrt(step_size / 2) grad_norm / noise_norm; ``grad_mean_norm`` =
sigma^2 times the squared norm of the batch's mean score. The numbers are fetched from the device many lines at a time.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from score_core.torch.langevin import LangevinStep, Level, Watcher

__all__ = ["StepLines", "both", "step_values"]

Kind = Literal["annealed", "interpolation", "inpainting"]
_FIELDS = {
    "annealed": ("level", "step_size", "grad_norm", "image_norm", "snr", "grad_mean_norm"),
    "interpolation": ("level", "step_size", "image_norm", "grad_norm", "snr"),
    "inpainting": ("class", "step_size", "mean", "max"),
}
_HELD = 50


def step_values(step: LangevinStep, kind: Kind) -> list[Tensor]:
    """The numbers of a line behind ``step_size``, on the device."""
    if kind == "inpainting":
        size = step.score.abs()
        return [size.mean(), size.max()]

    def norm(x: Tensor) -> Tensor:
        return x.flatten(1).norm(dim=-1).mean()

    grad_norm = norm(step.score)
    snr = (step.level.step_size / 2) ** 0.5 * grad_norm / norm(step.noise)
    if kind == "interpolation":
        # parity: the norm of the images before the update
        return [norm(step.before), grad_norm, snr]
    mean = step.score.mean(dim=0).flatten().norm() ** 2 * step.level.sigma**2
    return [grad_norm, norm(step.after), snr, mean]


class StepLines:
    """A watcher that prints a line a step; a context manager that prints what is left."""

    def __init__(self, kind: Kind, write: Callable[[str], None] = print) -> None:
        self.kind: Kind = kind
        self.write = write
        self.held: list[tuple[Level, Tensor]] = []

    def __call__(self, step: LangevinStep) -> None:
        self.held.append((step.level, torch.stack(step_values(step, self.kind))))
        if len(self.held) >= _HELD:
            self.flush()

    def flush(self) -> None:
        if not self.held:
            return
        rows = torch.stack([values for _, values in self.held]).tolist()
        for (level, _), row in zip(self.held, rows, strict=True):
            pairs = zip(_FIELDS[self.kind], [level.label, level.step_size, *row], strict=True)
            self.write(", ".join(f"{name}: {value}" for name, value in pairs))
        self.held = []

    def __enter__(self) -> "StepLines":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()


def both(*watchers: Watcher | None) -> Watcher:
    """A watcher that passes every step to several."""

    def watch(step: LangevinStep) -> None:
        for each in watchers:
            if each is not None:
                each(step)

    return watch
