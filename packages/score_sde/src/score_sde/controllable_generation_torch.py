"""Controllable generation under the names and with the signatures of the PyTorch port's ``controllable_generation``.

    from score_sde import controllable_generation_torch as controllable_generation

What is known of an image is given in the network's range (see :func:`score_core.data.get_data_scaler`), images are
``[B, C, H, W]``; results are in [0, 1], unclipped. The port draws from PyTorch's default generator, and so do these
functions unless they are given another. The class-conditional sampler is ours: the port has none. For masks of other
kinds and other channel couplings see :mod:`score_core.torch.controllable`.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from score_core.controllable import require_binary
from score_core.correctors import Corrector, get_corrector
from score_core.predictors import Predictor, get_predictor
from score_core.torch import controllable as drivers
from score_core.torch.networks import WideResnet, load_flax_tree
from score_core.torch.networks.wideresnet import get_classifier_grad_fn, get_logit_fn
from score_core.torch.noise import LegacyNoise
from score_core.torch.training import get_apply_fn
from score_sde.classifier.checkpoints import network_of, read_classifier_tree, require_known

__all__ = ["create_classifier", "get_pc_colorizer", "get_pc_conditional_sampler", "get_pc_inpainter"]


def _rules(
    predictor: type[Predictor] | None, corrector: type[Corrector] | None
) -> tuple[type[Predictor], type[Corrector]]:
    """The rules to run; None stands for "none"."""
    return predictor or get_predictor("none"), corrector or get_corrector("none")  # type: ignore[return-value]


def _noise(like: Tensor, generator: torch.Generator | None) -> LegacyNoise:
    return LegacyNoise(generator or torch.default_generator, tuple(like.shape), like.device)


def get_pc_inpainter(
    sde: Any,
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
) -> Callable[..., Tensor]:
    """Inpainting by predictor-corrector sampling (section 5).

    Arguments:
        sde, predictor, corrector, snr, n_steps, probability_flow, continuous, denoise, eps, inverse_scaler: see
            :func:`score_core.torch.sampling.get_pc_sampler`; None stands for "none".
        noise_consistent: our variant, whose unknown pixels are denoised (see :mod:`score_core.controllable`).

    Returns:
        ``pc_inpainter(model, data, mask, generator=None) -> images [B, C, H, W]``. ``data`` ``[B, C, H, W]`` is in the
        network's range; ``mask`` is 1 where it is known, 0 elsewhere, of any shape that broadcasts to it. Other values
        in the mask, or another shape, raise UsageError or ValueError.
    """
    options = _options(locals())

    def pc_inpainter(model: nn.Module, data: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        require_binary(mask.cpu().numpy())
        sampler = drivers.get_pc_inpainter(sde, get_apply_fn(model), *_rules(predictor, corrector), **options)
        return sampler(None, _noise(data, generator), data, mask.to(data.device)).images

    return pc_inpainter


def get_pc_colorizer(
    sde: Any,
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
) -> Callable[..., Tensor]:
    """Colourisation by predictor-corrector sampling (section 5).

    Arguments:
        as for :func:`get_pc_inpainter`.

    Returns:
        ``pc_colorizer(model, gray, generator=None) -> images [B, 3, H, W]``; ``gray`` ``[B, 3, H, W]`` has three equal
        channels, in the network's range.
    """
    options = _options(locals())

    def pc_colorizer(model: nn.Module, gray: Tensor, generator: torch.Generator | None = None) -> Tensor:
        sampler = drivers.get_pc_colorizer(sde, get_apply_fn(model), *_rules(predictor, corrector), **options)
        return sampler(None, _noise(gray, generator), gray).images

    return pc_colorizer


def get_pc_conditional_sampler(
    sde: Any,
    classifier: nn.Module,
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
) -> Callable[..., Tensor]:
    """Class-conditional sampling with a noise-conditional classifier (appendix I.1).

    Arguments:
        sde, predictor, corrector, inverse_scaler, snr, n_steps, probability_flow, continuous, denoise, eps: as for
            :func:`get_pc_inpainter`.
        classifier: see :func:`create_classifier`. It is given what the sampler works on, in the network's range.
        shape: ``(B, C, H, W)``.

    Returns:
        ``pc_conditional_sampler(model, labels [B], generator=None) -> images [B, C, H, W]``; the labels are integers.
        Labels that the classifier does not know raise UsageError.
    """
    options = _options(locals())

    def gradient(_: Any, x: Tensor, std: Tensor, labels: Tensor) -> Tensor:
        return get_classifier_grad_fn(get_logit_fn(classifier))(x, std, labels)

    def pc_conditional_sampler(model: nn.Module, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        require_known(labels.cpu().numpy(), getattr(classifier, "num_outputs", None))
        device = next(model.parameters()).device
        noise = LegacyNoise(generator or torch.default_generator, tuple(shape), device)
        rules = _rules(predictor, corrector)
        sampler = drivers.get_pc_conditional_sampler(sde, get_apply_fn(model), gradient, *rules, **options)
        return sampler(None, noise, None, labels.to(device)).images

    return pc_conditional_sampler


_OPTIONS = ("snr", "n_steps", "probability_flow", "continuous", "denoise", "eps", "inverse_scaler", "noise_consistent")


def _options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a function's arguments that the drivers take by name."""
    return {name: arguments[name] for name in _OPTIONS if name in arguments}


def create_classifier(ckpt_path: str | os.PathLike[str], device: torch.device | str | None = None) -> WideResnet:
    """The noise-conditional classifier of a checkpoint, on ``device``, in evaluation mode.

    Arguments:
        ckpt_path: a checkpoint in the flax format whose root is the parameter tree, such as the published one, or a
            folder of ``checkpoint_{n}``, of which the newest is taken.

    Raises:
        CheckpointError: there is none (MissingCheckpointError), it is damaged, or it belongs to another network.
    """
    path, tree = read_classifier_tree(ckpt_path)
    model = WideResnet(**network_of(tree, path))
    load_flax_tree(model, tree)
    return model.to(device).eval().requires_grad_(False)
