"""Controllable generation under the names of the original's ``controllable_generation``.

Unlike the original's, the functions take plain batches ``[B, H, W, C]`` and one key where it took a leading device axis
and a key per device: for the images of the original's device ``d`` give them ``key[d]`` and ``batch[d]``. What is known
of an image is given in the network's range (see :func:`score_core.data.get_data_scaler`); results are in [0, 1],
unclipped. For masks of other kinds and other channel couplings see :mod:`score_core.jax.controllable`. The same names
for PyTorch: :mod:`score_sde.controllable_generation_torch`.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core.checkpoints.tree import restore_tree
from score_core.controllable import require_binary
from score_core.correctors import Corrector
from score_core.jax import controllable as drivers
from score_core.jax.networks import WideResnet
from score_core.jax.networks.wideresnet import get_classifier_grad_fn, get_logit_fn
from score_core.jax.noise import LegacyMeasurementNoise, LegacyNoise
from score_core.predictors import Predictor
from score_sde.classifier.checkpoints import read_classifier_tree, require_known
from score_sde.models.utils import apply_fn
from score_sde.sampling import NoneCorrector, NonePredictor

__all__ = ["create_classifier", "get_pc_colorizer", "get_pc_conditional_sampler", "get_pc_inpainter"]


def get_pc_inpainter(
    sde: Any,
    model: Any,
    predictor: type[Predictor] | None,
    corrector: type[Corrector] | None,
    inverse_scaler: Callable[[Any], Any],
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = False,
    denoise: bool = True,
    eps: float = 1e-5,
    *,
    noise_consistent: bool = False,
) -> Callable[[jax.Array, Any, jax.Array, jax.Array], jax.Array]:
    """Inpainting by predictor-corrector sampling (section 5), compiled.

    Arguments:
        sde, predictor, corrector, snr, n_steps, probability_flow, continuous, denoise, eps, inverse_scaler: see
            :func:`score_core.jax.sampling.get_pc_sampler`; None stands for "none".
        model: the Flax network.
        noise_consistent: our variant, whose unknown pixels are denoised (see :mod:`score_core.controllable`).

    Returns:
        ``pc_inpainter(rng, state, data, mask) -> images [B, H, W, C]`` with the state's averaged parameters. ``data``
        ``[B, H, W, C]`` is in the network's range; ``mask`` is 1 where it is known, 0 elsewhere, of any shape that
        broadcasts to it. Other values in the mask, or another shape, raise UsageError or ValueError.
    """
    sampler = jax.jit(
        drivers.get_pc_inpainter(
            sde,
            apply_fn(model),
            predictor or NonePredictor,
            corrector or NoneCorrector,
            snr=snr,
            n_steps=n_steps,
            probability_flow=probability_flow,
            continuous=continuous,
            denoise=denoise,
            eps=eps,
            inverse_scaler=inverse_scaler,
            noise_consistent=noise_consistent,
        )
    )

    def pc_inpainter(rng: jax.Array, state: Any, data: jax.Array, mask: jax.Array) -> jax.Array:
        require_binary(np.asarray(mask))
        noise = LegacyMeasurementNoise(rng, tuple(data.shape))
        return sampler(state.params_ema, noise, data, jnp.asarray(mask, jnp.float32)).images

    return pc_inpainter


def get_pc_colorizer(
    sde: Any,
    model: Any,
    predictor: type[Predictor] | None,
    corrector: type[Corrector] | None,
    inverse_scaler: Callable[[Any], Any],
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = False,
    denoise: bool = True,
    eps: float = 1e-5,
    *,
    noise_consistent: bool = False,
) -> Callable[[jax.Array, Any, jax.Array], jax.Array]:
    """Colourisation by predictor-corrector sampling (section 5), compiled.

    Arguments:
        as for :func:`get_pc_inpainter`.

    Returns:
        ``pc_colorizer(rng, state, gray) -> images [B, H, W, 3]`` with the state's averaged parameters; ``gray``
        ``[B, H, W, 3]`` has three equal channels, in the network's range.
    """
    sampler = jax.jit(
        drivers.get_pc_colorizer(
            sde,
            apply_fn(model),
            predictor or NonePredictor,
            corrector or NoneCorrector,
            snr=snr,
            n_steps=n_steps,
            probability_flow=probability_flow,
            continuous=continuous,
            denoise=denoise,
            eps=eps,
            inverse_scaler=inverse_scaler,
            noise_consistent=noise_consistent,
        )
    )

    def pc_colorizer(rng: jax.Array, state: Any, gray: jax.Array) -> jax.Array:
        return sampler(state.params_ema, LegacyMeasurementNoise(rng, tuple(gray.shape)), gray).images

    return pc_colorizer


def get_pc_conditional_sampler(
    sde: Any,
    model: Any,
    classifier: Any,
    classifier_params: Any,
    shape: tuple[int, ...],
    predictor: type[Predictor] | None,
    corrector: type[Corrector] | None,
    inverse_scaler: Callable[[Any], Any],
    snr: float,
    n_steps: int = 1,
    probability_flow: bool = False,
    continuous: bool = False,
    denoise: bool = True,
    eps: float = 1e-5,
) -> Callable[[jax.Array, Any, jax.Array], jax.Array]:
    """Class-conditional sampling with a noise-conditional classifier (appendix I.1), compiled.

    Arguments:
        sde, model, shape, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, denoise,
            eps: see :func:`score_sde.sampling.get_pc_sampler`.
        classifier, classifier_params: see :func:`create_classifier`. The classifier is given what the sampler works
            on, in the network's range.

    Returns:
        ``pc_conditional_sampler(rng, state, labels [B]) -> images [B, H, W, C]`` with the state's averaged parameters;
        the labels are integers; those that the classifier does not know raise UsageError.
    """

    def gradient(params: Any, x: jax.Array, std: jax.Array, labels: jax.Array) -> jax.Array:
        return get_classifier_grad_fn(get_logit_fn(classifier, params))(x, std, labels)

    sampler = jax.jit(
        drivers.get_pc_conditional_sampler(
            sde,
            apply_fn(model),
            gradient,
            predictor or NonePredictor,
            corrector or NoneCorrector,
            snr=snr,
            n_steps=n_steps,
            probability_flow=probability_flow,
            continuous=continuous,
            denoise=denoise,
            eps=eps,
            inverse_scaler=inverse_scaler,
        )
    )

    def pc_conditional_sampler(rng: jax.Array, state: Any, labels: jax.Array) -> jax.Array:
        require_known(np.asarray(labels), getattr(classifier, "num_outputs", None))
        return sampler(state.params_ema, LegacyNoise(rng, tuple(shape)), classifier_params, jnp.asarray(labels)).images

    return pc_conditional_sampler


def create_classifier(key: jax.Array, batch: int, ckpt_path: str | os.PathLike[str]) -> tuple[WideResnet, Any]:
    """The published noise-conditional classifier of CIFAR-10 with the parameters of a checkpoint.

    Arguments:
        key, batch: taken for the original's signature; parameters are restored, not drawn, and fit any batch.
        ckpt_path: a checkpoint in the flax format whose root is the parameter tree, or a folder of ``checkpoint_{n}``,
            of which the newest is taken.

    Returns:
        The network and its parameters, for :func:`get_pc_conditional_sampler`.

    Raises:
        CheckpointError: there is none (MissingCheckpointError), it is damaged, or it belongs to another network.
    """
    del key, batch
    path, tree = read_classifier_tree(ckpt_path)
    model = WideResnet()
    init = lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.ones((1,)), train=False)  # noqa: E731
    return model, restore_tree(jax.eval_shape(init)["params"], tree, where=path)
