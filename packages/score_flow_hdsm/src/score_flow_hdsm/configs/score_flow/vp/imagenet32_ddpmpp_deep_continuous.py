"""DDPM++ cont. (deep) on ImageNet 32x32, VP SDE."""

import ml_collections

from score_flow_hdsm.configs._families import ddpmpp


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return ddpmpp("score_flow", "vpsde", "imagenet32", deep_iters=950001)
