"""DDPM++ cont. (deep) on CIFAR-10, VP SDE."""

import ml_collections

from score_flow_hdsm.configs._families import ddpmpp


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return ddpmpp("mle_score_ode", "vpsde", "cifar10", deep_iters=2050001)
