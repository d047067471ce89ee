r"""Langevin samplers of NCSN and NCSNv2 in PyTorch: plain, annealed, interpolating, inpainting.

Level :math:`i` of :math:`L` (0 the largest noise) has the step size
:math:`\alpha_i = \epsilon\, (\sigma_i / \sigma_{L-1})^2`; each of its :math:`T` steps is

.. math:: x \leftarrow x + \alpha_i\, s(x, i) + \sqrt{2 \alpha_i}\, z, \qquad z \sim N(0, I)

(NCSN, algorithm 1, with :math:`\alpha` in the place of :math:`\alpha / 2`, as both programs compute it). The denoising
step of NCSNv2 (its algorithm 3) ends with :math:`x + \sigma_{L-1}^2\, s(x, L-1)`.

One loop does them all. What differs is where the noise comes from (:func:`interpolated` mixes two draws), whether a
part of the image is known (:class:`Known`), and who looks on: a watcher is called with every step, takes from it what
it wants (a trajectory, statistics), and nothing else is kept.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from score_core.noise_scales import annealed_step_sizes
from score_core.torch.noise import PerSampleNoise

__all__ = [
    "Known",
    "LangevinStep",
    "Level",
    "Noise",
    "ScoreFn",
    "annealed_langevin",
    "annealed_levels",
    "interpolated",
    "langevin",
    "per_sample_noise",
    "random_noise",
    "replayed_noise",
]

ScoreFn: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``score_fn(x [B, ...], labels int64 [B]) -> [B, ...]``: the score at the noise levels ``labels``."""
Noise: TypeAlias = Callable[[Tensor], Tensor]
"""``noise(like) -> z``: standard normal numbers of the shape, type and device of ``like``, others at every call."""


class Level(NamedTuple):
    """A noise level: what the network is told, its standard deviation, and the step size there."""

    label: int
    sigma: float
    step_size: float


class LangevinStep(NamedTuple):
    """One step as a watcher sees it; tensors are ``[B, ...]`` on the device of the samples."""

    number: int
    """0, 1, ... over all levels."""
    level: Level
    before: Tensor
    """The state that the score was computed at."""
    score: Tensor
    noise: Tensor
    """Standard normal, before scaling."""
    after: Tensor


Watcher: TypeAlias = Callable[[LangevinStep], None]


def annealed_levels(sigmas: np.ndarray, step_lr: float) -> list[Level]:
    """The levels of a descending sequence of standard deviations (NCSN, algorithm 1), largest first.

    Arguments:
        sigmas: ``[L]``, descending; float32 or float64, whose precision the ratio of two of them has.
        step_lr: the step size at the smallest level (epsilon in the papers).
    """
    sizes = annealed_step_sizes(sigmas, step_lr)
    return [Level(i, float(sigma), float(size)) for i, (sigma, size) in enumerate(zip(sigmas, sizes, strict=True))]


def random_noise(generator: torch.Generator | None = None) -> Noise:
    """Noise from one generator (None: PyTorch's default one), whole batches in the order of their use."""

    def noise(like: Tensor) -> Tensor:
        if generator is None:
            return torch.randn_like(like)
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)

    return noise


def per_sample_noise(key: Tensor, indices: Tensor, sample_shape: tuple[int, ...]) -> Noise:
    """Noise of one stream a sample: sample ``indices[b]`` gets the same numbers in any batch.

    Arguments:
        key: int32 ``[2]`` (:func:`score_core.torch.threefry.prng_key`) on the device where the noise is wanted.
        indices: ``[B]`` integers, the samples' numbers in the whole run; on that device.
        sample_shape: ``(C, H, W)``.
    """
    source = PerSampleNoise(key, indices, sample_shape)
    calls = 0

    def noise(like: Tensor) -> Tensor:
        nonlocal calls
        _, z = source.predictor((), calls)
        calls += 1
        return z.to(like.dtype)

    return noise


def replayed_noise(arrays: Iterable[Any]) -> Noise:
    """Recorded noise, one array a call (tests, paired comparisons).

    Raises (when called): ValueError if an array has another shape, StopIteration after the last one.
    """
    iterator = iter(arrays)

    def noise(like: Tensor) -> Tensor:
        z = torch.as_tensor(next(iterator), dtype=like.dtype, device=like.device)
        if z.shape != like.shape:
            raise ValueError(f"recorded noise of shape {tuple(z.shape)} for samples of shape {tuple(like.shape)}")
        return z

    return noise


def interpolated(noise: Noise, count: int) -> Noise:
    r"""Noise that turns from one draw to another (NCSNv2, appendix B.5): :math:`p \cos\theta + q \sin\theta`.

    The batch has ``count`` consecutive copies of every row; copy ``j`` has
    :math:`\theta_j = j \pi / (2 (\mathrm{count} - 1))`. Every copy's noise is standard normal.
    """

    def mixed(like: Tensor) -> Tensor:
        rows = like[::count]
        p, q = noise(rows), noise(rows)
        angles = torch.linspace(0, math.pi / 2, count, device=like.device)
        angles = angles.repeat(len(rows)).reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)
        p, q = p.repeat_interleave(count, 0), q.repeat_interleave(count, 0)
        return p * torch.cos(angles) + q * torch.sin(angles)

    return mixed


@dataclass
class Known:
    """The known part of images that are completed: it is put back with noise of the level before the score is taken.

    Attributes:
        image: ``[B, C, H, W]``, the completed image's known values; the rest is not read.
        mask: boolean, broadcastable to ``image``: True where it is known.
        renew: whether the known part's noise is drawn anew at every ``"step"`` (NCSNv2) or once a ``"level"`` (NCSN,
            algorithm 2), where the part is also put back after every update.
        noise: where its noise comes from; None: where that of the samples does.
    """

    image: Tensor
    mask: Tensor
    renew: Literal["step", "level"] = "step"
    noise: Noise | None = None
    _noisy: Tensor | None = field(default=None, repr=False)

    def before_step(self, x: Tensor, level: Level, step: int, noise: Noise) -> Tensor:
        """``x`` with the known part at the level's noise; ``step`` counts within the level."""
        if self.renew == "step" or step == 0 or self._noisy is None:
            self._noisy = self.image + (self.noise or noise)(self.image) * level.sigma
        return torch.where(self.mask, self._noisy, x)

    def after_step(self, x: Tensor) -> Tensor:
        """``x`` as the next step finds it."""
        if self.renew == "step" or self._noisy is None:
            return x
        return torch.where(self.mask, self._noisy, x)


def _loop(
    score_fn: ScoreFn,
    x: Tensor,
    levels: Sequence[Level],
    steps_per_level: int,
    noise: Noise,
    known: Known | None,
    watch: Watcher | None,
    denoise: bool,
) -> Tensor:
    number = 0
    labels = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for level in levels:
        labels = torch.full_like(labels, level.label)
        noise_scale = math.sqrt(2 * level.step_size)
        for step in range(steps_per_level):
            if known is not None:
                x = known.before_step(x, level, step, noise)
            score, z = score_fn(x, labels), noise(x)
            after = x + level.step_size * score + noise_scale * z
            if known is not None:
                after = known.after_step(after)
            if watch is not None:
                watch(LangevinStep(number, level, x, score, z, after))
            x = after
            number += 1
    if denoise:
        x = x + levels[-1].sigma ** 2 * score_fn(x, labels)
    return x


def annealed_langevin(
    score_fn: ScoreFn,
    x: Tensor,
    levels: Sequence[Level],
    steps_per_level: int,
    *,
    noise: Noise,
    known: Known | None = None,
    watch: Watcher | None = None,
    denoise: bool = False,
    needs_grad: bool = False,
) -> Tensor:
    """Samples by annealed Langevin dynamics.

    Arguments:
        score_fn: the score network.
        x: the start ``[B, C, H, W]``; it is not changed.
        levels: from :func:`annealed_levels`, largest noise first.
        steps_per_level: T.
        noise: where random numbers come from.
        known: complete images, of which a part is known, instead of sampling freely.
        watch: called with every step, inside the inference mode of the loop. What it keeps it must copy (``.cpu()``
            of a tensor on the CPU is no copy).
        denoise: end with the noise-free step of NCSNv2.
        needs_grad: ``score_fn`` differentiates: the loop then only switches gradients off, not the recording.

    Returns:
        The last state, of the shape of ``x``. Nothing is clipped.
    """
    with torch.no_grad() if needs_grad else torch.inference_mode():
        out = _loop(score_fn, x, levels, steps_per_level, noise, known, watch, denoise)
    return out.clone()  # what was made in inference mode may not be trained on


def langevin(
    score_fn: ScoreFn,
    x: Tensor,
    step_size: float,
    n_steps: int,
    *,
    noise: Noise,
    label: int = 0,
    watch: Watcher | None = None,
    needs_grad: bool = False,
) -> Tensor:
    """Samples by Langevin dynamics at one noise level: ``n_steps`` updates with a fixed ``step_size``.

    Arguments and result: see :func:`annealed_langevin`; ``label`` is what the network is told.
    """
    level = Level(label, math.nan, step_size)  # without denoising and inpainting nobody asks for the deviation
    return annealed_langevin(score_fn, x, [level], n_steps, noise=noise, watch=watch, needs_grad=needs_grad)
