"""NCSN++ cont. on FFHQ at 1024 pixels, VE SDE."""

import ml_collections

from score_sde.configs._families import compose, ncsnpp_1024, pc, tfrecords, ve
from score_sde.configs.default_lsun_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=True),
        pc("reverse_diffusion", "langevin"),
        ncsnpp_1024(),
        tfrecords("FFHQ", "/raid/song/ffhq-dataset/ffhq/ffhq-r10.tfrecords"),
        {"training": {"reduce_mean": True}},
    )
