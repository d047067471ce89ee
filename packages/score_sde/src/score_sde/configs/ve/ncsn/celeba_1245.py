"""NCSN with techniques 1, 2, 4 and 5 (noise scales, sampler, weight averaging) on CelebA at 64 pixels."""

import ml_collections

from score_sde.configs._families import annealed_langevin, compose, ncsn, ve
from score_sde.configs.default_celeba_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=False),
        annealed_langevin(5, snr=0.128),
        ncsn(500, ema_rate=0.999),
    )
