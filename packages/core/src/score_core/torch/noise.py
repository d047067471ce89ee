"""Noise sources and probes in PyTorch; the numbers of the JAX wing.

:class:`PerSampleNoise` is a counter: the array of sample ``b`` for role ``r`` at step ``i``, iteration ``k`` is drawn
with the key ``fold(fold(fold(key, index_b), r), i * 2**12 + k)`` (:mod:`score_core.torch.threefry`). It depends on the
sample's index alone, so a sample is the same whatever the batch size, the number of devices or processes, the device or
the framework. :class:`LegacyNoise` is the stream of the original code: whole batches from one generator, in the order
of their use.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from score_core.random import Role
from score_core.torch import threefry

__all__ = [
    "Key",
    "LegacyNoise",
    "PerSampleNoise",
    "next_key",
    "per_sample_keys",
    "probe",
    "uniform_like",
    "uniform_per_sample",
]

Key: TypeAlias = Tensor | torch.Generator
"""A key (:func:`score_core.torch.threefry.prng_key`), or a generator for the original's stream."""

_ITERATIONS = 2**12  # corrector iterations per step that have a counter of their own


def next_key(key: Key) -> tuple[Key, Key]:
    """The key to go on with and one to use up; a generator is both."""
    if isinstance(key, torch.Generator):
        return key, key
    following, used = threefry.split(key)
    return following, used


def per_sample_keys(key: Tensor, indices: Tensor, role: Role) -> Tensor:
    """One key per sample: ``key`` folded with the sample's index and the role.

    Arguments:
        key: int32 ``[2]``.
        indices: ``[B]`` integers, the samples' numbers in the whole run.
        role: what is drawn.

    Returns:
        int32 ``[B, 2]``.
    """
    return threefry.fold_in(threefry.fold_in(key, indices), int(role))


def uniform_per_sample(key: Tensor, indices: Tensor, role: Role, shape: tuple[int, ...]) -> Tensor:
    """``U[0, 1)`` of shape ``[B, *shape]``, one stream per sample index."""
    count = threefry.counters(shape, channels_last=True, device=key.device)
    return threefry.uniform(per_sample_keys(key, indices, role), count)


def uniform_like(x: Tensor, key: Key, first: int = 0) -> Tensor:
    """``U[0, 1)`` of the shape of a batch ``x`` ``[B, ...]`` that begins with image ``first`` of the global batch."""
    if isinstance(key, torch.Generator):
        return torch.rand(x.shape, generator=key, device=key.device).to(x.device)
    size = x[0].numel()
    return threefry.uniform(
        key, threefry.counters(tuple(x.shape), first=first * size, channels_last=True, device=x.device)
    )


def probe(key: Key, indices: Tensor | None, shape: tuple[int, ...], hutchinson_type: str) -> Tensor:
    """The random vector of the Hutchinson-Skilling trace estimator, ``E[eps eps^T] = I``.

    Arguments:
        key: a key; or, if ``indices`` is None, perhaps a generator, as in the original.
        indices: ``[B]`` sample numbers for per-sample streams, or None to draw the batch at once.
        shape: the batch's shape ``[B, ...]``.
        hutchinson_type: ``"Rademacher"`` (entries -1 and 1) or ``"Gaussian"``; upper or lower case.

    Raises:
        ValueError: for another type.
    """
    kind = hutchinson_type.lower()
    if kind not in ("rademacher", "gaussian"):
        raise ValueError(f"hutchinson_type is {hutchinson_type!r}; it must be 'Rademacher' or 'Gaussian'")
    if isinstance(key, torch.Generator):
        options: dict[str, Any] = {"generator": key, "device": key.device}
        if kind == "gaussian":
            return torch.randn(shape, **options)
        return 2.0 * torch.randint(0, 2, shape, **options).float() - 1.0
    keys = key
    if indices is not None:
        keys, shape = per_sample_keys(key, indices, Role.PROBE), shape[1:]
    count = threefry.counters(shape, channels_last=True, device=key.device)
    if kind == "gaussian":
        return threefry.normal(keys, count)
    return 2.0 * threefry.randint(keys, count, 2).float() - 1.0


@dataclass(frozen=True)
class PerSampleNoise:
    """Counter-based noise, one stream per sample.

    Attributes:
        key: int32 ``[2]``, on the device where the noise is wanted.
        indices: ``[B]`` integers, the samples' numbers in the whole run; on the same device.
        sample_shape: the shape of one sample, ``(C, H, W)`` for images.
    """

    key: Tensor
    indices: Tensor
    sample_shape: tuple[int, ...]
    _keys: dict[Role, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def _draw(self, role: Role, counter: int) -> Tensor:
        if role not in self._keys:
            self._keys[role] = per_sample_keys(self.key, self.indices, role)
        count = threefry.counters(self.sample_shape, channels_last=True, device=self.key.device)
        return threefry.normal(threefry.fold_in(self._keys[role], counter), count)

    def prior(self) -> tuple[Any, Tensor]:
        return (), self._draw(Role.PRIOR, 0)

    def begin(self, carry: Any, i: int) -> Any:
        del i
        return carry

    def corrector(self, carry: Any, i: int, k: int) -> tuple[Any, Tensor]:
        return carry, self._draw(Role.CORRECTOR, i * _ITERATIONS + k)

    def predictor(self, carry: Any, i: int) -> tuple[Any, Tensor]:
        return carry, self._draw(Role.PREDICTOR, i)

    def measurement(self, carry: Any, j: int) -> tuple[Any, Tensor]:
        return carry, self._draw(Role.MEASUREMENT, j)


@dataclass(frozen=True)
class LegacyNoise:
    """The original sampler's stream: one batch after the other from one generator, in the order of their use.

    The original draws the prior on the host and the rest on the device; here all of it comes from ``generator``.

    Attributes:
        generator: where the numbers come from; the original's is PyTorch's default generator.
        shape: the batch's shape ``[B, ...]``.
        device: where the noise is wanted; the generator's by default.
    """

    generator: torch.Generator
    shape: tuple[int, ...]
    device: torch.device | None = None

    def _draw(self) -> Tensor:
        noise = torch.randn(self.shape, generator=self.generator, device=self.generator.device)
        return noise.to(self.device or self.generator.device)

    def prior(self) -> tuple[Any, Tensor]:
        return (), self._draw()

    def begin(self, carry: Any, i: int) -> Any:
        del i
        return carry

    def corrector(self, carry: Any, i: int, k: int) -> tuple[Any, Tensor]:
        del i, k
        return carry, self._draw()

    def predictor(self, carry: Any, i: int) -> tuple[Any, Tensor]:
        del i
        return carry, self._draw()

    def measurement(self, carry: Any, j: int) -> tuple[Any, Tensor]:
        """The known part's noise; none at the start (``j`` = 0), where the original draws none."""
        return carry, self._draw() if j else torch.zeros(self.shape, device=self.device or self.generator.device)
