"""DDPM++ cont. (deep) on CIFAR-10, sub-VP SDE."""

import ml_collections

from score_sde.configs._families import compose, ddpmpp, deep, pc, subvp
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        subvp(),
        pc("euler_maruyama"),
        ddpmpp(),
        deep(),
    )
