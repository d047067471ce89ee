"""DDPM on CIFAR-10, discrete time."""

import ml_collections

from score_sde.configs._families import compose, ddpm, pc, vp
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        vp(continuous=False),
        pc("ancestral_sampling"),
        ddpm(),
    )
