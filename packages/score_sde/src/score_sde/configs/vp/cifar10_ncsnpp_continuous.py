"""NCSN++ cont. on CIFAR-10, VP SDE."""

import ml_collections

from score_sde.configs._families import compose, fourier_scale, ncsnpp, pc, vp
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        vp(continuous=True),
        pc("euler_maruyama"),
        ncsnpp("positional"),
        fourier_scale(),
    )
