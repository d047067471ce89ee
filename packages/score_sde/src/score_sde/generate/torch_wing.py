"""The samplers of a PyTorch experiment, over NumPy images ``[B, H, W, C]``."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.torch import threefry
from score_core.torch.controllable import (
    get_encoder,
    get_pc_colorizer,
    get_pc_conditional_sampler,
    get_pc_inpainter,
)
from score_core.torch.noise import PerSampleNoise
from score_core.torch.sampling import get_ode_sampler
from score_sde.classifier.load import LoadedClassifier
from score_sde.generate.wing import Wing
from score_sde.torch_experiment import TorchExperiment

__all__ = ["Generator"]


def _last(images: Tensor) -> np.ndarray:
    """``[B, C, H, W]`` on the device as ``[B, H, W, C]`` on the host."""
    return images.permute(0, 2, 3, 1).cpu().numpy()


class Generator(Wing):
    """What a request asks of the framework; arguments as for :class:`Wing`, and the seed of the images."""

    def __init__(self, experiment: TorchExperiment, params: Any, seed: int, noise_consistent: bool) -> None:
        super().__init__(experiment, params, noise_consistent)
        self.device = experiment.parallel.device
        self.key = threefry.prng_key(seed, self.device)

    def _first(self, array: np.ndarray) -> Tensor:
        """``[B, H, W, C]`` as ``[B, C, H, W]`` on the device."""
        return torch.tensor(array, device=self.device).permute(0, 3, 1, 2)

    def _noise(self, indices: np.ndarray) -> PerSampleNoise:
        height, width, channels = self.experiment.image_shape
        numbers = torch.tensor(indices, dtype=torch.int32, device=self.device)
        return PerSampleNoise(self.key, numbers, (channels, height, width))

    def _scaled(self, images: np.ndarray) -> Tensor:
        return self.experiment.scale(self._first(images))

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """Images of the model with the numbers ``indices`` ``[B]``, in [0, 1]."""
        return _last(self.experiment.sampler(self.params, self._noise(indices)).images)

    def inpaint(self, indices: np.ndarray, images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Images in [0, 1] that agree with the uint8 ``images`` where ``mask`` is 1."""
        noise = self._noise(indices)
        return _last(self._inpainter(self.params, noise, self._scaled(images), self._first(mask)).images)

    @cached_property
    def _inpainter(self) -> Any:
        return self.build_replacing(get_pc_inpainter)

    def colorize(self, indices: np.ndarray, gray: np.ndarray) -> np.ndarray:
        """Images in [0, 1] with the grey values of the uint8 ``gray`` ``[B, H, W, 3]``, whose channels are equal."""
        return _last(self._colorizer(self.params, self._noise(indices), self._scaled(gray)).images)

    @cached_property
    def _colorizer(self) -> Any:
        return self.build_replacing(get_pc_colorizer)

    def use_classifier(self, classifier: LoadedClassifier, guidance: float) -> None:
        """What leads :meth:`conditional`; its gradient is taken ``guidance`` times."""
        self._conditional = self.build_conditional(get_pc_conditional_sampler, classifier, guidance)
        self._classifier_params = classifier.params

    def conditional(self, indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Images in [0, 1] of the classes ``labels`` ``[B]``."""
        classes = torch.tensor(labels, device=self.device)
        return _last(self._conditional(self.params, self._noise(indices), self._classifier_params, classes).images)

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, int]:
        """Latent codes ``[B, H, W, C]`` of uint8 images, and the function evaluations."""
        latents = self._encoder(self.params, self._scaled(images))
        return _last(latents.z), int(latents.nfe)

    @cached_property
    def _encoder(self) -> Any:
        return self.build_encoder(get_encoder)

    def decode(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """The images in [0, 1] of latent codes, and the function evaluations."""
        samples = self._decoder(self.params, self._first(z))
        return _last(samples.images), int(samples.nfe)

    @cached_property
    def _decoder(self) -> Any:
        return self.build_decoder(get_ode_sampler)
