"""Handwritten digits at their own 8x8 pixels: DDPM++ cont. in small, VP SDE, on embedded data."""

import ml_collections

from score_flow_hdsm.configs._families import compose, ddpmpp


def get_config() -> ml_collections.ConfigDict:
    """The complete configuration."""
    config = ddpmpp("mle_score_ode", "vpsde", "cifar10")
    return compose(
        config,
        {
            "data": {"dataset": "digits", "image_size": 8, "num_channels": 1, "random_flip": False},
            "model": {
                "nf": 16,
                "ch_mult": (1, 2),
                "num_res_blocks": 1,
                "attn_resolutions": (4,),
                "ema_rate": 0.995,  # a memory of 200 steps: the published 0.9999 would outlast the run
                "dropout": 0.0,
            },
            "optim": {"lr": 1e-3, "warmup": 100},
            "training": {
                "batch_size": 64,
                "n_iters": 2000,
                "snapshot_freq": 2000,
                "snapshot_freq_for_preemption": 250,
                "eval_freq": 100,
            },
            "deq": {"n_iters": 500},
            "eval": {
                "begin_ckpt": 1,
                "end_ckpt": 1,
                "ckpt_id": 1,
                "batch_size": 180,
                "enable_sampling": False,
                "num_samples": 720,
                "num_repeats": 1,
            },
        },
    )
