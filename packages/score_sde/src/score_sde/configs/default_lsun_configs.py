"""Defaults of the LSUN 256x256 experiments (also of CelebA-HQ and FFHQ), as differences from those of CIFAR-10."""

import ml_collections

from score_sde.configs import default_cifar10_configs
from score_sde.configs._families import compose


def get_default_configs() -> ml_collections.ConfigDict:
    """The LSUN defaults; on their own they name no SDE, sampler, network or LSUN category."""
    return compose(
        default_cifar10_configs.get_default_configs(),
        {
            "training": {"batch_size": 64, "n_iters": 2400001, "snapshot_freq_for_preemption": 5000},
            "sampling": {"snr": 0.075},
            "eval": {"begin_ckpt": 50, "end_ckpt": 96, "batch_size": 512, "enable_sampling": True},
            "data": {"dataset": "LSUN", "image_size": 256},
            "model": {"num_scales": 2000, "sigma_max": 378, "dropout": 0.0},
        },
    )
