r"""The samplers of images: Langevin, annealed Langevin, inpainting, and the files they leave.

.. math:: x \leftarrow x + \alpha_i\, s(x, i) + \sqrt{2 \alpha_i}\, z, \qquad
          \alpha_i = \epsilon\, (\sigma_i / \sigma_{L-1})^2

Algorithm 1 of the paper writes :math:`\alpha_i / 2` and :math:`\sqrt{\alpha_i}`, with the same printed
:math:`\epsilon = 2 \cdot 10^{-5}`. parity: the original program, whose samples the paper shows, does as written here,
hence the step of the paper's notation is :math:`4 \cdot 10^{-5}`. (:mod:`ncsn.toy.sampling` is as in the paper.)

Nothing is clipped on the way and there is no last denoising step; images are clipped to [0, 1] as they are written, or
are sigmoids of the states of ``data.logit_transform``.

    default                  samples.png (grid), samples.pth (float32 [N, C, H, W]): the final states
    --movie, AnnealRunner    image_<i>.png, image_raw_<i>.pth for every step i, movie.gif of every tenth
    --movie, BaselineRunner  samples_<i>.pth for every step i, movie.gif of every tenth
    --mask                   refer_image.pth, and the same under image_completion_<i>.png, image_completion_raw_<i>.pth

parity: state i is the one *before* update i, so the final state is not among the numbered files.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.data.value_transforms import sigmoid
from score_core.errors import UserError
from score_core.noise_scales import langevin_sigmas
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.torch.langevin import (
    Known,
    LangevinStep,
    Level,
    Noise,
    ScoreFn,
    Watcher,
    annealed_langevin,
    annealed_levels,
    langevin,
    random_noise,
)
from score_core.torch.sample_files import save_grid, save_tensor

__all__ = [
    "ModulusLines",
    "Recorder",
    "anneal_langevin_dynamics",
    "anneal_langevin_inpainting",
    "config_levels",
    "langevin_dynamics",
    "masked_noise",
    "to_pixels",
    "watched",
]

LOWEST_LABEL = 9
GIF_STRIDE = 10
_HELD_LINES = 50


def config_levels(config: argparse.Namespace) -> list[Level]:
    """The noise levels of ``config.model`` with the step sizes of ``config.sampling.step_lr``."""
    model = config.model
    sigmas = langevin_sigmas(model.sigma_begin, model.sigma_end, model.num_classes)
    return annealed_levels(sigmas, config.sampling.step_lr)


def anneal_langevin_dynamics(
    score_fn: ScoreFn,
    x: Tensor,
    sigmas: np.ndarray,
    n_steps_each: int = 100,
    step_lr: float = 2e-5,
    *,
    noise: Noise | None = None,
    watch: Watcher | None = None,
) -> Tensor:
    """Annealed Langevin dynamics from ``x`` ``[B, C, H, W]``: the final state.

    Arguments:
        score_fn: the score by label.
        sigmas: ``[L]``, descending, float64.
        n_steps_each: T. step_lr: epsilon.
        noise: None: from PyTorch's default generator. watch: called with every step.
    """
    levels = annealed_levels(sigmas, step_lr)
    return annealed_langevin(score_fn, x, levels, n_steps_each, noise=noise or random_noise(), watch=watch)


def langevin_dynamics(
    score_fn: ScoreFn,
    x: Tensor,
    n_steps: int = 200,
    step_lr: float = 5e-5,
    *,
    label: int = LOWEST_LABEL,
    noise: Noise | None = None,
    watch: Watcher | None = None,
) -> Tensor:
    """Langevin dynamics at one noise level, by default the lowest of ten, from ``x``: the final state.

    The baseline's is this with ``n_steps=1000, step_lr=2e-5`` and a network that reads no labels.
    """
    return langevin(score_fn, x, step_lr, n_steps, noise=noise or random_noise(), label=label, watch=watch)


def masked_noise(mask: Tensor) -> Noise:
    """Standard normal numbers where ``mask`` (boolean, broadcastable) is true, one a place in order; else zero."""

    def noise(like: Tensor) -> Tensor:
        places = mask.expand_as(like)
        drawn = torch.randn(int(places.sum()), dtype=like.dtype, device=like.device)
        return torch.zeros_like(like).masked_scatter_(places, drawn)

    return noise


def anneal_langevin_inpainting(
    score_fn: ScoreFn,
    x: Tensor,
    refer: Tensor,
    mask: Tensor,
    levels: list[Level],
    n_steps_each: int = 100,
    *,
    noise: Noise | None = None,
    known_noise: Noise | None = None,
    watch: Watcher | None = None,
) -> Tensor:
    """Complete images of which the pixels in ``mask`` are known (Algorithm 2): the final states.

    At every level the known part gets that level's noise once, and is put back after every update.

    Arguments:
        score_fn: the score by label.
        x: the start ``[N, C, H, W]``; it is not changed.
        refer: ``[N, C, H, W]``, the known values; what lies outside the mask is not read.
        mask: boolean, broadcastable to ``refer``.
        levels: from :func:`config_levels`.
        noise, known_noise: None: from PyTorch's default generator, for the known part as many numbers as it has.
    """
    known = Known(refer, mask, renew="level", noise=known_noise or masked_noise(mask))
    return annealed_langevin(score_fn, x, levels, n_steps_each, noise=noise or random_noise(), known=known, watch=watch)


def to_pixels(state: Tensor, *, logit: bool) -> Tensor:
    """States as images in [0, 1]."""
    # repaired: the original clips logits to [0, 1] before their sigmoid, which leaves greys of 0.5 to 0.73.
    return sigmoid(state) if logit else state.clamp(0.0, 1.0)


@dataclass
class Recorder:
    """A watcher that writes every state as it comes, and the film of them.

    Attributes:
        folder: made if missing.
        picture, raw: names of the files with ``{}`` for the number of the step; None: not written.
        nrow: images in a row of a grid.
        logit: the states are logits.
    """

    folder: Path
    picture: str | None
    raw: str | None
    nrow: int
    logit: bool

    def __call__(self, step: LangevinStep) -> None:
        images = to_pixels(step.before, logit=self.logit)
        if self.picture is not None:
            save_grid(self.folder / self.picture.format(step.number), images, self.nrow)
        elif step.number % GIF_STRIDE == 0:
            save_grid(self._frame(step.number), images, self.nrow)
        if self.raw is not None:
            save_tensor(self.folder / self.raw.format(step.number), images)

    def _frame(self, number: int) -> Path:
        return self.folder / (f".frame_{number}.png" if self.picture is None else self.picture.format(number))

    def film(self, n_steps: int) -> None:
        """``movie.gif`` of every tenth state."""
        from PIL import Image

        numbers = range(0, n_steps, GIF_STRIDE)

        def frames(some: range) -> Iterator[Any]:
            for number in some:
                with Image.open(self._frame(number)) as image:
                    yield image.convert("RGB")

        path = self.folder / "movie.gif"
        (first,) = frames(numbers[:1])
        try:
            first.save(path, save_all=True, append_images=frames(numbers[1:]), duration=1, loop=0)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}. Choose another folder with -o.") from error
        if self.picture is None:
            for number in numbers:
                self._frame(number).unlink()


class ModulusLines:
    """A watcher that prints mean and maximum of the scores' size at every step; a context manager that ends the lines.

    The numbers are fetched from the device many lines at a time.
    """

    def __init__(self, write: Callable[[str], None] = print) -> None:
        self.write = write
        self.held: list[Tensor] = []

    def __call__(self, step: LangevinStep) -> None:
        size = step.score.abs()
        self.held.append(torch.stack([size.mean(), size.max()]))
        if len(self.held) >= _HELD_LINES:
            self.flush()

    def flush(self) -> None:
        """Print what is held."""
        if self.held:
            for mean, largest in torch.stack(self.held).tolist():
                self.write(f"modulus of grad components: mean {mean}, max {largest}")
        self.held = []

    def __enter__(self) -> "ModulusLines":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()


def watched(progress: Progress, stop: GracefulStop, *watchers: Watcher | None) -> Callable[[LangevinStep], None]:
    """A watcher that passes every step on, counts it, and ends the run after a signal."""

    def watch(step: LangevinStep) -> None:
        for each in watchers:
            if each is not None:
                each(step)
        progress.update()
        if stop.requested:
            stop.exit()

    return watch
