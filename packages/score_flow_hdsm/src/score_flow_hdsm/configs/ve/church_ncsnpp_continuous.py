"""NCSN++ cont. on LSUN church outdoor at 256x256, VE SDE."""

import ml_collections

from score_flow_hdsm.configs._defaults import lsun
from score_flow_hdsm.configs._families import church, langevin, ncsnpp


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return ncsnpp(lsun(), langevin(), church())
