"""Crops of two photographs, 32x32 colour: NCSN++ cont. in small, VE SDE, on embedded data."""

import ml_collections

from score_sde.configs._families import compose, fourier_scale, ncsnpp, pc, ve
from score_sde.configs.default_cifar10_configs import get_default_configs


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    return compose(
        get_default_configs(),
        ve(continuous=True),
        pc("reverse_diffusion", "langevin"),
        ncsnpp("fourier"),
        fourier_scale(),
        {
            "data": {"dataset": "photos", "image_size": 32, "num_channels": 3, "random_flip": True},
            "model": {
                "nf": 16,
                "ch_mult": (1, 2, 2),
                "num_res_blocks": 1,
                "attn_resolutions": (8,),
                "num_scales": 100,
                "ema_rate": 0.995,  # a memory of 200 steps: the published 0.999 would still hold the beginning
                # sigma_max is CIFAR-10's: the largest distance between two images is about the same at this size.
            },
            "optim": {"lr": 1e-3, "warmup": 100},
            "training": {
                "batch_size": 16,
                "n_iters": 1500,
                "n_jitted_steps": 1,
                "snapshot_freq": 1500,
                "snapshot_freq_for_preemption": 250,
                "eval_freq": 100,
            },
            "eval": {
                "begin_ckpt": 1,
                "end_ckpt": 1,
                "batch_size": 100,
                "enable_sampling": True,
                "num_samples": 300,
                "extractor": "digits",  # the one that is packaged; its scores compare runs, not with published tables
                "enable_loss": True,
                "enable_bpd": False,
            },
        },
    )
