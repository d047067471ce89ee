"""The network, noise levels and value transform of a configuration; the network of a checkpoint."""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ncsnv2.config import architecture
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.list_checkpoint import ListCheckpoint, checkpoint_name, find_newest, read_list_checkpoint
from score_core.data.value_transforms import ValueTransform
from score_core.errors import UsageError
from score_core.noise_scales import langevin_sigmas
from score_core.torch.networks import refinenet
from score_core.torch.score_runner import load_strictly

__all__ = [
    "load_network",
    "make_network",
    "noise_levels",
    "read_checkpoint",
    "transform_images",
    "value_transform",
]

_logger = logging.getLogger(__name__)


def make_network(config: argparse.Namespace, device: torch.device) -> nn.Module:
    """A fresh network, initialised from PyTorch's default generator as the original's.

    Raises: UsageError for a normalisation or activation that is not known.
    """
    try:
        network = getattr(refinenet, architecture(config)).from_config(config).to(device)
    except ValueError as error:
        raise UsageError(f"the network cannot be made: {error} (section model).") from error
    return network.to(memory_format=torch.channels_last)


def noise_levels(config: argparse.Namespace) -> np.ndarray:
    """The standard deviations of the noise, largest first: float32 ``[K]``."""
    model = config.model
    # parity: spaced in float64, kept in float32
    return langevin_sigmas(model.sigma_begin, model.sigma_end, model.num_classes, model.sigma_dist).astype(np.float32)


def value_transform(config: argparse.Namespace) -> ValueTransform:
    """What is done to pixel values before the network sees them."""
    data, mean = config.data, getattr(config, "image_mean", None)
    return ValueTransform(
        uniform_dequantization=data.uniform_dequantization,
        gaussian_dequantization=data.gaussian_dequantization,
        rescaled=data.rescaled,
        logit_transform=data.logit_transform,
        image_mean=None if mean is None else torch.as_tensor(np.asarray(mean, np.float32)),
    )


def transform_images(transform: ValueTransform, images: Tensor, generator: torch.Generator) -> Tensor:
    """Images in [0, 1] as the network takes them, with the random numbers of dequantisation drawn here."""
    options: dict[str, Any] = {"generator": generator, "device": images.device}
    u = torch.rand(images.shape, **options) if transform.uniform_dequantization else None
    z = torch.randn(images.shape, **options) if transform.gaussian_dequantization else None
    return transform(images, u, z)


def read_checkpoint(log_path: Path, ckpt_id: int | None) -> ListCheckpoint:
    """The checkpoint of a step, or (None) the latest good one.

    Raises: MissingCheckpointError listing those that are there; CheckpointError.
    """
    return find_newest(log_path) if ckpt_id is None else read_list_checkpoint(log_path / checkpoint_name(ckpt_id))


def load_network(
    config: argparse.Namespace, checkpoint: ListCheckpoint, device: torch.device, *, shadow_only: bool = False
) -> nn.Module:
    """The network of a checkpoint for evaluation: with the averaged parameters if ``model.ema``.

    Arguments:
        shadow_only: leave buffers (running statistics of BatchNorm) as they are initially.

    Raises: CheckpointError if the checkpoint is of another network or has no average.
    """
    network = make_network(config, device).eval()
    average = checkpoint.average
    if not config.model.ema and average is not None:
        _logger.warning("model.ema is false: the averaged parameters that %s has are not used", checkpoint.path)
    if not config.model.ema:
        load_strictly(network, checkpoint.network, checkpoint.path)
        return network
    if average is None:
        raise CheckpointError(
            f"{checkpoint.path} has no averaged parameters (it is a list of {2 if checkpoint.step is None else 4}). "
            "Set model.ema to false to use the parameters as they are."
        )
    # parity: --test and --fast_fid of the original never load entry 0
    start: Mapping[str, Any] = network.state_dict() if shadow_only else checkpoint.network
    trained = {name for name, _ in network.named_parameters()}
    if average.keys() != trained:
        odd = sorted(average.keys() ^ trained)
        raise CheckpointError(f"{checkpoint.path}: the averaged parameters are of another network ({odd[0]}, ...).")
    load_strictly(network, {**start, **average}, checkpoint.path)
    return network
