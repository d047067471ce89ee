"""NCSN++ cont. (deep) on CIFAR-10, VE SDE."""

import ml_collections

from score_flow_hdsm.configs._defaults import cifar10
from score_flow_hdsm.configs._families import deep, langevin, ncsnpp


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return ncsnpp(cifar10("mle_score_ode"), deep(), langevin())
