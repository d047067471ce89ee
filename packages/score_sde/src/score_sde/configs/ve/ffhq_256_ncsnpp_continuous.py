"""NCSN++ cont. on FFHQ at 256 pixels, VE SDE."""

import ml_collections

from score_sde.configs._families import compose, ncsnpp_256, pc, tfrecords, ve
from score_sde.configs.default_lsun_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=True),
        pc("reverse_diffusion", "langevin"),
        ncsnpp_256(),
        tfrecords("FFHQ", "/home/yangsong/ncsc/ffhq/ffhq-r08.tfrecords"),
        {"model": {"sigma_max": 348}},
    )
