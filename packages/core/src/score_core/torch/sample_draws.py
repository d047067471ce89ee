"""Random numbers of evaluation, a stream a sample: sample ``i`` of a seed is the same in any batch, on any device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from score_core.data.value_transforms import ValueTransform
from score_core.random import Role
from score_core.torch import threefry
from score_core.torch.langevin import Noise, per_sample_noise
from score_core.torch.noise import per_sample_keys, uniform_per_sample

__all__ = ["SampleDraws"]


@dataclass(frozen=True)
class SampleDraws:
    """The numbers of the samples ``first .. first + count - 1`` of shape ``(C, H, W)``."""

    seed: int
    first: int
    count: int
    shape: tuple[int, int, int]
    device: torch.device

    @property
    def key(self) -> Tensor:
        return threefry.prng_key(self.seed, self.device)

    @property
    def indices(self) -> Tensor:
        return torch.arange(self.first, self.first + self.count, device=self.device)

    def uniform(self) -> Tensor:
        """``U[0, 1)``, ``[count, C, H, W]``: what images are made from."""
        return uniform_per_sample(self.key, self.indices, Role.PRIOR, self.shape)

    def transformed(self, transform: ValueTransform, images: Tensor) -> Tensor:
        """Images in [0, 1] as the network takes them."""
        u = uniform_per_sample(self.key, self.indices, Role.DEQUANTIZATION, self.shape)
        return transform(images, u, self._normal(Role.DEQUANTIZATION, 1))

    def start_noise(self) -> Tensor:
        """Standard normal, for starts from data."""
        return self._normal(Role.PRIOR, 1)

    def noise(self) -> Noise:
        """What the sampler adds."""
        return per_sample_noise(self.key, self.indices, self.shape)

    def _normal(self, role: Role, counter: int) -> Tensor:
        keys = threefry.fold_in(per_sample_keys(self.key, self.indices, role), counter)
        return threefry.normal(keys, threefry.counters(self.shape, channels_last=True, device=self.device))
