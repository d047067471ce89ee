"""Defaults of the 32x32 experiments: every key that is not a choice of SDE, sampler or network."""

import ml_collections


def get_default_configs() -> ml_collections.ConfigDict:
    """The CIFAR-10 defaults; on their own they name no SDE, sampler or network."""
    return ml_collections.ConfigDict(
        {
            "seed": 42,
            "training": {
                "batch_size": 128,  # over all devices
                "n_iters": 1300001,  # last loop index, inclusive
                "n_jitted_steps": 5,  # optimiser steps per compiled call
                "snapshot_freq": 50000,  # permanent checkpoints
                "snapshot_freq_for_preemption": 10000,  # the one checkpoint that training resumes from
                "snapshot_sampling": True,
                "log_freq": 50,
                "eval_freq": 100,
                "likelihood_weighting": False,  # lambda(t) = g(t)^2
                "continuous": True,
                "reduce_mean": False,  # mean over dimensions instead of half their sum
            },
            "sampling": {
                "n_steps_each": 1,  # corrector steps per noise level
                "noise_removal": True,
                "probability_flow": False,
                "snr": 0.16,
            },
            "eval": {
                "begin_ckpt": 9,
                "end_ckpt": 26,
                "batch_size": 1024,
                "enable_sampling": False,
                "num_samples": 50000,
                "enable_loss": True,
                "enable_bpd": False,
                "bpd_dataset": "test",
            },
            "data": {
                "dataset": "CIFAR10",
                "image_size": 32,
                "num_channels": 3,
                "random_flip": True,
                "centered": False,  # True: [-1, 1] instead of [0, 1]
                "uniform_dequantization": False,
            },
            "model": {
                "sigma_min": 0.01,
                "sigma_max": 50,
                "num_scales": 1000,
                "beta_min": 0.1,
                "beta_max": 20.0,
                "dropout": 0.1,
                "embedding_type": "fourier",
            },
            "optim": {
                "optimizer": "Adam",
                "lr": 2e-4,
                "beta1": 0.9,
                "eps": 1e-8,
                "weight_decay": 0,
                "warmup": 5000,
                "grad_clip": 1.0,
            },
        }
    )
