"""The samplers of a JAX experiment, over NumPy images ``[B, H, W, C]``; each compiled once."""

from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core.jax.controllable import (
    get_encoder,
    get_pc_colorizer,
    get_pc_conditional_sampler,
    get_pc_inpainter,
)
from score_core.jax.noise import PerSampleNoise
from score_core.jax.sampling import get_ode_sampler
from score_sde.classifier.load import LoadedClassifier
from score_sde.generate.wing import Wing
from score_sde.jax_experiment import JaxExperiment

__all__ = ["Generator"]


class Generator(Wing):
    """What a request asks of the framework; arguments as for :class:`Wing`, and the seed of the images."""

    def __init__(self, experiment: JaxExperiment, params: Any, seed: int, noise_consistent: bool) -> None:
        super().__init__(experiment, params, noise_consistent)
        self.key = jax.random.PRNGKey(seed)

    def _noise(self, indices: np.ndarray) -> PerSampleNoise:
        return PerSampleNoise(self.key, jnp.asarray(indices, jnp.int32), self.experiment.image_shape)

    def _scaled(self, images: np.ndarray) -> jax.Array:
        return jnp.asarray(self.experiment.scale(images))

    def sample(self, indices: np.ndarray) -> np.ndarray:
        """Images of the model with the numbers ``indices`` ``[B]``, in [0, 1]."""
        return np.asarray(self.experiment.sampler(self.params, self._noise(indices)).images)

    def inpaint(self, indices: np.ndarray, images: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Images in [0, 1] that agree with the uint8 ``images`` where ``mask`` is 1."""
        samples = self._inpainter(self.params, self._noise(indices), self._scaled(images), jnp.asarray(mask))
        return np.asarray(samples.images)

    @cached_property
    def _inpainter(self) -> Any:
        return jax.jit(self.build_replacing(get_pc_inpainter))

    def colorize(self, indices: np.ndarray, gray: np.ndarray) -> np.ndarray:
        """Images in [0, 1] with the grey values of the uint8 ``gray`` ``[B, H, W, 3]``, whose channels are equal."""
        return np.asarray(self._colorizer(self.params, self._noise(indices), self._scaled(gray)).images)

    @cached_property
    def _colorizer(self) -> Any:
        return jax.jit(self.build_replacing(get_pc_colorizer))

    def use_classifier(self, classifier: LoadedClassifier, guidance: float) -> None:
        """What leads :meth:`conditional`; its gradient is taken ``guidance`` times."""
        self._conditional = jax.jit(self.build_conditional(get_pc_conditional_sampler, classifier, guidance))
        self._classifier_params = classifier.params

    def conditional(self, indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Images in [0, 1] of the classes ``labels`` ``[B]``."""
        labels = jnp.asarray(labels, jnp.int32)  # type: ignore[assignment]
        return np.asarray(self._conditional(self.params, self._noise(indices), self._classifier_params, labels).images)

    def encode(self, images: np.ndarray) -> tuple[np.ndarray, int]:
        """Latent codes ``[B, H, W, C]`` of uint8 images, and the function evaluations."""
        latents = self._encoder(self.params, self._scaled(images))
        return np.asarray(latents.z), int(latents.nfe)

    @cached_property
    def _encoder(self) -> Any:
        return self.build_encoder(get_encoder)

    def decode(self, z: np.ndarray) -> tuple[np.ndarray, int]:
        """The images in [0, 1] of latent codes, and the function evaluations."""
        samples = self._decoder(self.params, jnp.asarray(z))
        return np.asarray(samples.images), int(samples.nfe)

    @cached_property
    def _decoder(self) -> Any:
        return self.build_decoder(get_ode_sampler)
