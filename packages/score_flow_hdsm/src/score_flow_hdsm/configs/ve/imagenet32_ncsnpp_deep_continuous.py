"""NCSN++ cont. (deep) on ImageNet 32x32, VE SDE."""

import ml_collections

from score_flow_hdsm.configs._defaults import imagenet32
from score_flow_hdsm.configs._families import deep, ncsnpp


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return ncsnpp(imagenet32("mle_score_ode"), deep())
