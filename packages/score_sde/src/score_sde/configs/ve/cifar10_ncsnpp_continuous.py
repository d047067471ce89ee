"""NCSN++ cont. on CIFAR-10, VE SDE."""

import ml_collections

from score_sde.configs._families import compose, fourier_scale, ncsnpp, pc, ve
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=True),
        pc("reverse_diffusion", "langevin"),
        ncsnpp("fourier"),
        fourier_scale(),
    )
