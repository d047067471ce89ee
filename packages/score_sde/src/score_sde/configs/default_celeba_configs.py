"""Defaults of the CelebA 64x64 experiments, as differences from those of CIFAR-10."""

from typing import Any

import ml_collections

from score_sde.configs import default_cifar10_configs
from score_sde.configs._families import compose


def get_default_configs() -> ml_collections.ConfigDict:
    """The CelebA defaults; on their own they name no SDE, sampler or network."""
    default = default_cifar10_configs.get_default_configs()
    model: Any = default.model
    del model.sigma_max  # an int there, a float here
    return compose(
        default,
        {
            "sampling": {"snr": 0.17},
            "eval": {"begin_ckpt": 1, "enable_sampling": True},
            "data": {"dataset": "CELEBA", "image_size": 64},
            "model": {"sigma_max": 90.0},
        },
    )
