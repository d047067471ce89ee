"""NCSN++ on CelebA at 64 pixels, VE SDE, discrete time."""

import ml_collections

from score_sde.configs._families import compose, ncsnpp, pc, ve
from score_sde.configs.default_celeba_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=False),
        pc("reverse_diffusion", "langevin"),
        ncsnpp("positional"),
        {"model": {"sigma_begin": 90}},  # parity: read by nothing, sigma_max is 90 already
    )
