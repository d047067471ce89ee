"""What every loaded configuration is given: the keys of score_sde, and those that only this program has."""

from pathlib import Path
from typing import Any

import ml_collections

from score_sde.configs import load as base
from score_sde.configs._house import HouseKey, add_house_keys
from score_sde.configs.resolve import list_configs, resolve_config

__all__ = ["HOUSE_KEYS", "list_packaged", "load_config"]

_FOLDER = Path(__file__).parent

HOUSE_KEYS: dict[str, HouseKey] = {
    "training.score_matching_order": HouseKey(1, "highest order of denoising score matching: 1, 2 or 3"),
    "training.importance_weighting": HouseKey(
        False, "with likelihood_weighting: draw times by their importance (VP, sub-VP)"
    ),
    "training.smallest_time": HouseKey(1e-5, "smallest time of training and of likelihoods"),
    "training.remat": HouseKey(False, "compute inner values again in the backward pass: less memory, more time"),
    "sampling.smallest_time": HouseKey(1e-3, "time at which sampling ends"),
    "sampling.predictor": HouseKey("euler_maruyama", "predictor of sampling.method pc"),
    "sampling.corrector": HouseKey("none", "corrector of sampling.method pc"),
    "eval.num_repeats": HouseKey(5, "passes over the test images, each with other noise"),
    "eval.bound": HouseKey(False, "bits/dim by the variational bound instead of the ODE"),
    "eval.bound_times": HouseKey(1000, "times drawn for each image by the bound"),
    "eval.dsm": HouseKey(True, "estimator of the bound: denoising, or sliced score matching"),
    "eval.offset": HouseKey(True, "the bound's term for stopping before the data"),
    "eval.dequantizer": HouseKey(False, "dequantise by the trained flow instead of uniform noise"),
    "eval.deq_ckpt": HouseKey(-1, "number of the dequantiser's checkpoint; -1: the newest (official ones are 6)"),
    "eval.ckpt_id": HouseKey(26, "number of the score model's checkpoint that train_deq uses"),
    "eval.diagnostic_times": HouseKey(100, "times of eval_scorenet"),
    "deq.n_iters": HouseKey(300001, "updates of train_deq"),
    "deq.ema_rate": HouseKey(0.99, "moving average of train_deq"),
    "deq.dropout": HouseKey(0.0, "read by nothing, as in the original"),
    "deq.offset": HouseKey(True, "the bound's term for stopping before the data, in train_deq"),
    "deq.filters": HouseKey(0, "width of the dequantiser's couplings; 0: the published one of the data set"),
    "deq.components": HouseKey(0, "logistics a mixture; 0: published"),
    "deq.blocks": HouseKey(0, "residual blocks of a coupling; 0: published"),
    "model.trainable_embedding": HouseKey(False, "train the frequencies of the Fourier features"),
}
_SMALL = {"deq.filters": 16, "deq.components": 4, "deq.blocks": 1}


def complete(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Add the keys that a file does not set, in place; return it.

    Raises:
        ConfigError: it lacks a whole section, so it is not a configuration of this program.
    """
    settings: Any = add_house_keys(config)
    small = settings.data.dataset.lower() in ("digits", "photos")
    with config.unlocked(), config.ignore_type():
        if "program" not in settings.training:
            # score_flow's files know no order; which program it is decides how keys are split for dropout
            high = "score_matching_order" in settings.training
            settings.training.program = "mle_score_ode" if high else "score_flow"
        if "deq" not in settings:
            settings.deq = ml_collections.ConfigDict()
        for key, (default, _) in HOUSE_KEYS.items():
            section, name = key.split(".")
            if name not in settings[section]:
                settings[section][name] = _SMALL.get(key, default) if small else default
        if small:
            settings.eval.extractor = "digits"
        for section in ("training", "sampling"):
            settings[section].smallest_time = float(settings[section].smallest_time)
    return config


def list_packaged() -> list[str]:
    """The names of the packaged experiments."""
    return list_configs(_FOLDER)


def load_config(name_or_path: str) -> ml_collections.ConfigDict:
    """The configuration ``name_or_path[:argument]``, completed and locked.

    Raises:
        ConfigError: there is no such file, or it is no configuration of this program.
    """
    return base.load_config(name_or_path, lambda name: resolve_config(name, _FOLDER), complete)
