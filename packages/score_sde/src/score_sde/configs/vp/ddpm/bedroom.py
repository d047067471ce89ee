"""DDPM on LSUN bedroom at 256 pixels, discrete time."""

import ml_collections

from score_sde.configs._families import compose, ddpm_256, lsun, pc, vp
from score_sde.configs.default_lsun_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        vp(continuous=False),
        pc("ancestral_sampling"),
        ddpm_256(),
        lsun("bedroom"),
    )
