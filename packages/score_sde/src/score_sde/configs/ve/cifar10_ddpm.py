"""DDPM architecture on CIFAR-10, VE SDE, discrete time (the VE rows of Table 1)."""

import ml_collections

from score_sde.configs._families import compose, ddpm, pc, ve
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=False),
        pc("reverse_diffusion", "langevin"),
        ddpm(),
        {"model": {"conv_size": 3}},  # parity: read by nothing
    )
