"""NCSN++ cont. on LSUN bedroom at 256 pixels, VE SDE."""

import ml_collections

from score_sde.configs._families import compose, lsun, ncsnpp_256, pc, ve
from score_sde.configs.default_lsun_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=True),
        pc("reverse_diffusion", "langevin"),
        ncsnpp_256(),
        lsun("bedroom"),
    )
