"""Defaults of the data sets: every key that is not a choice of SDE, sampler or network."""

from typing import Any, Literal

import ml_collections

__all__ = ["Program", "cifar10", "imagenet32", "lsun"]

Program = Literal["score_flow", "mle_score_ode"]


def cifar10(program: Program) -> ml_collections.ConfigDict:
    """32x32, of either program; on their own they name no SDE, sampler or network."""
    high_order = program == "mle_score_ode"
    config: Any = ml_collections.ConfigDict(
        {
            "seed": 42,
            "training": {
                # 48 is what the third order needs; the first two were trained with 128
                "batch_size": 48 if high_order else 128,
                "n_iters": 4000001 if high_order else 1300001,
                "snapshot_freq": 50000,
                "snapshot_freq_for_preemption": 10000,
                "snapshot_sampling": True,
                "log_freq": 100,
                "eval_freq": 100,
                "likelihood_weighting": False,
                "importance_weighting": False,  # with likelihood weighting: draw times by their importance
                "continuous": True,
                "n_jitted_steps": 1 if high_order else 5,
                "reduce_mean": False,
                "smallest_time": 1e-5,  # of training and likelihood
            },
            "deq": {"n_iters": 300001, "ema_rate": 0.99, "dropout": 0.0, "offset": True},
            "sampling": {
                "n_steps_each": 1,
                "noise_removal": True,
                "probability_flow": False,
                "snr": 0.16,
                "smallest_time": 1e-3,
            },
            "eval": {
                "begin_ckpt": 26,
                "end_ckpt": 26,
                "ckpt_id": 26,  # the score model that a dequantiser is trained for
                "batch_size": 2000 if high_order else 1024,
                "enable_sampling": high_order,
                "num_samples": 50000,
                "enable_loss": False,
                "enable_bpd": True,
                "bpd_dataset": "test",
                "num_repeats": 5,
                "bound": False,  # the variational bound instead of the ODE
                "dsm": True,  # its estimator
                "dequantizer": False,
                "offset": True,  # its term for stopping before the data
            },
            "data": {
                "dataset": "CIFAR10",
                "image_size": 32,
                "random_flip": True,
                "centered": False,
                "uniform_dequantization": False,
                "num_channels": 3,
            },
            "model": {
                "sigma_min": 0.01,
                "sigma_max": 50,
                "num_scales": 1000,
                "beta_min": 0.1,
                "beta_max": 20.0,
                "dropout": 0.1,
                "embedding_type": "fourier",
                "data_init": False,  # parity: read by nothing
                "trainable_embedding": False,
            },
            "optim": {
                "weight_decay": 0,
                "optimizer": "Adam",
                "lr": 2e-4,
                "beta1": 0.9,
                "eps": 1e-8,
                "warmup": 5000,
                "grad_clip": 1.0,
            },
        }
    )
    if high_order:
        config.training.score_matching_order = 1
    return config


def imagenet32(program: Program) -> ml_collections.ConfigDict:
    """ImageNet at 32x32."""
    config: Any = cifar10(program)
    config.update({"data": {"dataset": "ImageNet", "random_flip": False}, "model": {"dropout": 0.0}})
    config.eval.update({"num_repeats": 1, "batch_size": 1024, "enable_sampling": False})
    if program == "mle_score_ode":
        config.training.n_iters = 1400001
    del config.sampling["smallest_time"]  # every file sets its own
    return config


def lsun() -> ml_collections.ConfigDict:
    """LSUN at 256x256, of mle_score_ode; it has no dequantiser."""
    config: Any = cifar10("mle_score_ode")
    config.training.update({"batch_size": 50, "n_iters": 3400001, "snapshot_freq_for_preemption": 5000})
    del config.training["importance_weighting"]
    del config["deq"]
    config.sampling.snr = 0.075
    config.eval.update({"begin_ckpt": 52, "end_ckpt": 52, "batch_size": 100, "enable_sampling": False})
    del config.eval["ckpt_id"]
    config.data.update({"dataset": "LSUN", "image_size": 256})
    config.model.update({"sigma_max": 378, "num_scales": 2000, "dropout": 0.0})
    return config
