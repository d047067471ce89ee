"""``--sample``: grids, interpolations, completions, and the dump of images for FID.

    sampling.fid             num_samples4fid images, image_<k>.png                              (wins over the others)
    sampling.inpainting      completions of training images: refer_image, image_grid_<id>, completion_<id>
    sampling.interpolation   rows from one image to another: image_grid_<id>, samples_<id>
    otherwise                batch_size images: image_grid_<id>, samples_<id>

``<id>`` is ``sampling.ckpt_id`` (``None`` for the latest). Without ``final_only`` every state of the sampler is written
as ``image_grid_<i>`` and ``samples_<i>`` as soon as it is there. The dataset is opened only if its images are needed.
"""

import argparse
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ncsnv2.data import open_data, pipeline
from ncsnv2.networks import noise_levels, value_transform
from ncsnv2.watch import StepLines, both
from score_core.data import Pipeline
from score_core.data.masks import known_pixels
from score_core.errors import UsageError
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.torch.image_dump import Dump
from score_core.torch.langevin import (
    Known,
    LangevinStep,
    ScoreFn,
    Watcher,
    annealed_langevin,
    annealed_levels,
    interpolated,
)
from score_core.torch.sample_draws import SampleDraws
from score_core.torch.sample_files import save_grid, save_tensor
from score_core.torch.score_runner import to_images

__all__ = ["Sampler", "check_sampling", "sample"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sampler:
    """Annealed Langevin dynamics from a configuration, in numbered samples.

    Attributes:
        config: checked.
        steps: the section with ``step_lr`` and ``n_steps_each`` (``sampling`` or ``fast_fid``).
        score_fn: the network.
        seed: of the samples.
        data: batches to start from (``sampling.data_init``), or None.
    """

    config: argparse.Namespace
    steps: argparse.Namespace
    score_fn: ScoreFn
    seed: int
    device: torch.device
    data: Pipeline | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        data = self.config.data
        return data.channels, data.image_size, data.image_size

    def draws(self, first: int, count: int) -> SampleDraws:
        return SampleDraws(self.seed, first, count, self.shape, self.device)

    def start(self, draws: SampleDraws) -> Tensor:
        """The first state: uniform noise, or images with noise of the largest level."""
        transform = value_transform(self.config)
        if self.data is None:
            return draws.transformed(transform, draws.uniform())
        places = range(draws.first, draws.first + draws.count)
        images = np.concatenate([self.data.batch(place).image for place in places])
        x = draws.transformed(transform, to_images(images, self.device))
        return x + float(noise_levels(self.config)[0]) * draws.start_noise()

    def run(
        self, x: Tensor, noise: Any, *, denoise: bool, watch: Watcher | None = None, known: Known | None = None
    ) -> Tensor:
        """The last state, as the network has it."""
        levels = annealed_levels(noise_levels(self.config), self.steps.step_lr)
        return annealed_langevin(
            self.score_fn, x, levels, self.steps.n_steps_each, noise=noise, known=known, watch=watch, denoise=denoise
        )

    def images(self, first: int, count: int, watch: Watcher | None = None) -> Tensor:
        """Samples ``first .. first + count - 1`` in [0, 1], ``[count, C, H, W]``."""
        draws = self.draws(first, count)
        x = self.run(self.start(draws), draws.noise(), denoise=self.config.sampling.denoise, watch=watch)
        return value_transform(self.config).inverse(x)


def check_sampling(config: argparse.Namespace) -> None:
    """Refuse what would fail after the sampling.

    Raises: UsageError.
    """
    sampling, data = config.sampling, config.data
    if not sampling.fid and sampling.inpainting:
        if math.isqrt(sampling.batch_size) ** 2 != sampling.batch_size:
            raise UsageError(
                f"sampling.batch_size is {sampling.batch_size}; inpainting makes W completions of W images, so it must "
                "be a square (64, 100, ...)."
            )
        known_pixels(sampling.mask, data.image_size)


def sample(
    config: argparse.Namespace,
    score_fn: ScoreFn,
    folder: Path,
    exp: Path,
    *,
    seed: int,
    device: torch.device,
    identity: dict[str, Any],
    stop: GracefulStop,
) -> None:
    """Do the task that ``config.sampling`` asks for.

    Arguments:
        score_fn: the network of the checkpoint.
        folder: where images go.
        exp: root of the datasets.
        identity: what the samples depend on, for dumps that go on.
        stop: asks for the end of the run.
    """
    sampling = config.sampling
    needs_data = sampling.data_init and not (sampling.inpainting and not sampling.fid)
    # one image a batch, so that sample i starts from image i whatever the batch size
    data = pipeline(config, open_data(config, exp, "train"), 1, seed) if needs_data else None
    sampler = Sampler(config, sampling, score_fn, seed, device, data)
    if sampling.fid:
        rounds = sampling.num_samples4fid // sampling.batch_size
        dump = Dump(folder, "image", rounds * sampling.batch_size, sampling.batch_size, identity)
        dump.fill(sampler.images, stop)
        if rest := sampling.num_samples4fid - dump.count:
            # parity: whole rounds only
            _logger.warning(
                "%d images were drawn: sampling.batch_size does not divide num_samples4fid (%d left out)",
                dump.count,
                rest,
            )
    elif sampling.inpainting:
        _inpaint(sampler, folder, exp, stop)
    elif sampling.interpolation:
        _interpolate(sampler, folder, stop)
    else:
        _grid(sampler, folder, stop)


class _States:
    """Writes every state of a sampler: ``image_grid_<i>.png`` and ``<name>_<i>.pth``."""

    def __init__(self, sampler: Sampler, folder: Path, name: str, nrow: int) -> None:
        self.inverse: Callable[[Tensor], Tensor] = value_transform(sampler.config).inverse
        self.folder, self.name, self.nrow = folder, name, nrow

    def write(self, label: Any, x: Tensor) -> None:
        images = self.inverse(x)
        save_grid(self.folder / f"image_grid_{label}.png", images, self.nrow)
        save_tensor(self.folder / f"{self.name}_{label}.pth", images)

    def __call__(self, step: LangevinStep) -> None:
        self.write(step.number, step.after)


def _progress(sampler: Sampler, stop: GracefulStop) -> tuple[Progress, Watcher]:
    """A progress report, and the watcher that moves it and ends the run after a signal."""
    progress = Progress(sampler.config.model.num_classes * sampler.steps.n_steps_each, description="sample")

    def tick(step: LangevinStep) -> None:
        progress.update(level=step.level.label)
        if stop.requested:
            stop.exit()

    return progress, tick


def _grid(sampler: Sampler, folder: Path, stop: GracefulStop) -> None:
    sampling = sampler.config.sampling
    states = _States(sampler, folder, "samples", math.isqrt(sampling.batch_size))
    draws = sampler.draws(0, sampling.batch_size)
    progress, tick = _progress(sampler, stop)
    with progress, StepLines("annealed") as lines:
        watch = both(lines, tick, None if sampling.final_only else states)
        x = sampler.run(sampler.start(draws), draws.noise(), denoise=sampling.denoise, watch=watch)
    if sampling.final_only:
        states.write(sampling.ckpt_id, x)
    elif sampling.denoise:
        states.write(sampler.config.model.num_classes * sampling.n_steps_each, x)


def _interpolate(sampler: Sampler, folder: Path, stop: GracefulStop) -> None:
    sampling = sampler.config.sampling
    count = sampling.n_interpolations
    states = _States(sampler, folder, "samples", count)
    draws = sampler.draws(0, sampling.batch_size)
    x = sampler.start(draws).repeat_interleave(count, 0)
    progress, tick = _progress(sampler, stop)
    with progress, StepLines("interpolation") as lines:
        watch = both(lines, tick, None if sampling.final_only else states)
        # parity: no denoising step, whatever sampling.denoise says
        x = sampler.run(x, interpolated(draws.noise(), count), denoise=False, watch=watch)
    if sampling.final_only:
        states.write(sampling.ckpt_id, x)


def _inpaint(sampler: Sampler, folder: Path, exp: Path, stop: GracefulStop) -> None:
    config = sampler.config
    sampling, transform = config.sampling, value_transform(config)
    width = math.isqrt(sampling.batch_size)
    data = pipeline(config, open_data(config, exp, "train"), width, sampler.seed)
    references = to_images(data.batch(0).image, sampler.device)
    save_tensor(folder / "refer_image.pth", references)
    save_grid(folder / "refer_image.png", references.repeat_interleave(width, 0), width)
    # without dequantisation noise, which the original leaves out here, too
    values = type(transform)(
        rescaled=transform.rescaled, logit_transform=transform.logit_transform, image_mean=transform.image_mean
    )(references)
    mask = torch.from_numpy(known_pixels(sampling.mask, config.data.image_size)).to(sampler.device)
    known = Known(values.repeat_interleave(width, 0), mask)
    states = _States(sampler, folder, "completion", width)
    draws = sampler.draws(0, sampling.batch_size)
    x = draws.transformed(transform, draws.uniform())
    last = config.model.num_classes * sampling.n_steps_each - 1
    kept: list[Tensor] = []
    if not sampling.final_only:
        states.write(0, x)

    def keep(step: LangevinStep) -> None:
        # parity: what is recorded is the state before an update, so the last update's result never is
        if step.number < last and not sampling.final_only:
            states.write(step.number + 1, step.after)
        elif step.number == last - 1:
            kept.append(step.after.clone())

    progress, tick = _progress(sampler, stop)
    with progress, StepLines("inpainting") as lines:
        sampler.run(x, draws.noise(), denoise=False, known=known, watch=both(lines, tick, keep))
    if sampling.final_only:
        states.write(sampling.ckpt_id, kept[0] if kept else x)
