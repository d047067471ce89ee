"""NCSNv2 on LSUN bedroom at 128 pixels."""

import ml_collections

from score_sde.configs._families import annealed_langevin, compose, lsun, ncsnv2, ve
from score_sde.configs.default_lsun_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        # repaired: the original's typo (continuouse) leaves it continuous, which this network cannot be.
        ve(continuous=False),
        annealed_langevin(3, snr=0.095),
        ncsnv2("ncsnv2_128", 1086, ema_rate=0.9999),
        lsun("bedroom"),
        {"data": {"image_size": 128}, "model": {"sigma_max": 190}, "training": {"batch_size": 128}},
    )
