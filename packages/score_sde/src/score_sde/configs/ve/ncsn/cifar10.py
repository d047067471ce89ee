"""NCSN on CIFAR-10."""

import ml_collections

from score_sde.configs._families import annealed_langevin, compose, ncsn, ve
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=False),
        annealed_langevin(100, snr=0.316),
        ncsn(10, ema_rate=0.0),
        {"model": {"sigma_max": 1}},
    )
