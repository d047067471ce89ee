"""NCSN with techniques 1, 2 and 4 (noise scales and sampler) on CIFAR-10."""

import ml_collections

from score_sde.configs._families import annealed_langevin, compose, ncsn, ve
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=False),
        annealed_langevin(5, snr=0.176),
        ncsn(232, ema_rate=0.0),
    )
