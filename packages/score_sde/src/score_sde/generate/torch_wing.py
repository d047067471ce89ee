"""The samplers of a PyTorch experiment, over NumPy images ``[B, H, W, C]``."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.correctors import get_corrector
from score_core.predictors import get_predictor
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
from score_sde.experiment import usage_errors
from score_sde.torch_experiment import TorchExperiment

__all__ = ["Generator"]


def _last(images: Tensor) -> np.ndarray:
    """``[B, C, H, W]`` on the device as ``[B, H, W, C]`` on the host."""
    return images.permute(0, 2, 3, 1).cpu().numpy()


class Generator:
    """What a request asks of the framework.

    Arguments:
        experiment: the configuration.
        params: the network's parameters (:meth:`score_sde.experiment.Experiment.parameters`).
        seed: of the images.
        noise_consistent: see :class:`score_core.controllable.Replacement`.
    """

    def __init__(self, experiment: TorchExperiment, params: Any, seed: int, noise_consistent: bool) -> None:
        self.experiment = experiment
        self.params = params
        self.device = experiment.parallel.device
        self.key = threefry.prng_key(seed, self.device)
        self.noise_consistent = noise_consistent

    def _first(self, array: np.ndarray) -> Tensor:
        """``[B, H, W, C]`` as ``[B, C, H, W]`` on the device."""
        return torch.tensor(array, device=self.device).permute(0, 3, 1, 2)

    def _noise(self, indices: np.ndarray) -> PerSampleNoise:
        height, width, channels = self.experiment.image_shape
        numbers = torch.tensor(indices, dtype=torch.int32, device=self.device)
        return PerSampleNoise(self.key, numbers, (channels, height, width))

    def _scaled(self, images: np.ndarray) -> Tensor:
        return self.experiment.scale(self._first(images))

    def _build(self, builder: Any, *head: Any, **options: Any) -> Any:
        sampling = self.experiment.config.sampling
        with usage_errors():
            rules = get_predictor(sampling.predictor), get_corrector(sampling.corrector)
            return builder(
                self.experiment.sde,
                self.experiment.apply_fn,
                *head,
                *rules,
                **self.experiment.pc_options(),
                **options,
            )

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """Images of the model with the numbers ``indices`` ``[B]``, in [0, 1]."""
        return _last(self.experiment.sampler(self.params, self._noise(indices)).images)

    def inpaint(self, indices: np.ndarray, images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Images in [0, 1] that agree with the uint8 ``images`` where ``mask`` is 1."""
        noise = self._noise(indices)
        return _last(self._inpainter(self.params, noise, self._scaled(images), self._first(mask)).images)

    @cached_property
    def _inpainter(self) -> Any:
        return self._build(get_pc_inpainter, noise_consistent=self.noise_consistent)

    def colorize(self, indices: np.ndarray, gray: np.ndarray) -> np.ndarray:
        """Images in [0, 1] with the grey values of the uint8 ``gray`` ``[B, H, W, 3]``, whose channels are equal."""
        return _last(self._colorizer(self.params, self._noise(indices), self._scaled(gray)).images)

    @cached_property
    def _colorizer(self) -> Any:
        return self._build(get_pc_colorizer, noise_consistent=self.noise_consistent)

    def use_classifier(self, classifier: LoadedClassifier, guidance: float) -> None:
        """What leads :meth:`conditional`; its gradient is taken ``guidance`` times."""

        def gradient(*arguments: Any) -> Tensor:
            return guidance * classifier.gradient(*arguments)

        options = self.experiment.few_step_options()
        self._conditional = self._build(get_pc_conditional_sampler, gradient, **options)
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
        return get_encoder(self.experiment.sde, self.experiment.apply_fn, eps=self.experiment.sampling_eps)

    def decode(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """The images in [0, 1] of latent codes, and the function evaluations."""
        samples = self._decoder(self.params, self._first(z))
        return _last(samples.images), int(samples.nfe)

    @cached_property
    def _decoder(self) -> Any:
        experiment = self.experiment
        return get_ode_sampler(
            experiment.sde, experiment.apply_fn, eps=experiment.sampling_eps, inverse_scaler=experiment.inverse_scaler
        )
