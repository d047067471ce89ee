"""Configurations of NCSNv2: where they are, what a command needs of them, and what they leave open.

Every key of the original has its meaning. Keys that the original does not have are optional:

    model.architecture          NCSNv2, NCSNv2Deeper, NCSNv2Deepest, NCSN or NCSNdeeper; absent: by dataset
    data.path, data.download    the dataset's own place; allow fetching it
    sampling.mask               what inpainting generates: right (the original's), left, top, bottom, center, or a file
    fast_fid.statistics         reference statistics; absent: see evaluation.py
    fast_fid.extractor          feature extractor; absent: inception_ncsnv2, for embedded data digits
    fast_fid.extractor_weights  its weights
    fast_fid.stride, test.stride  steps between checkpoints (5000)
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from score_core.errors import UsageError
from score_core.runs.namespace_config import find_config, load_namespace, missing_keys

__all__ = ["ARCHITECTURES", "EMBEDDED", "PACKAGED", "architecture", "check_config", "load_config"]

PACKAGED = Path(__file__).parent / "configs"
EMBEDDED = ("digits", "photos")
ARCHITECTURES = ("NCSNv2", "NCSNv2Deeper", "NCSNv2Deepest", "NCSN", "NCSNdeeper")

_BY_DATASET = {"CIFAR10": "NCSNv2", "CELEBA": "NCSNv2", "LSUN": "NCSNv2Deeper", "FFHQ": "NCSNv2Deepest"}
_OPTIONAL = {
    "model.architecture": None,
    "model.spec_norm": False,
    "data.category": None,
    "data.path": None,
    "data.download": False,
    "sampling.mask": "right",
    "fast_fid.statistics": None,
    "fast_fid.extractor": None,
    "fast_fid.extractor_weights": None,
    "fast_fid.stride": 5000,
    "test.stride": 5000,
}
_SHARED = (
    "data.dataset data.image_size data.channels data.logit_transform data.uniform_dequantization "
    "data.gaussian_dequantization data.random_flip data.rescaled data.num_workers model.sigma_begin model.sigma_end "
    "model.num_classes model.sigma_dist model.ema model.normalization model.nonlinearity model.ngf"
)
_STEPS = "step_lr n_steps_each"
_NEEDED: Mapping[str, str] = {
    "train": "model.ema_rate optim.weight_decay optim.optimizer optim.lr optim.beta1 optim.amsgrad optim.eps "
    "training.batch_size training.n_epochs training.n_iters training.snapshot_freq training.snapshot_sampling "
    "training.anneal_power training.log_all_sigmas",
    "sample": "sampling.batch_size sampling.ckpt_id sampling.step_lr sampling.n_steps_each sampling.denoise "
    "sampling.final_only sampling.data_init sampling.fid sampling.inpainting sampling.interpolation",
    "test": "training.anneal_power test.begin_ckpt test.end_ckpt test.batch_size",
    "fast_fid": "sampling.denoise fast_fid.begin_ckpt fast_fid.end_ckpt fast_fid.batch_size fast_fid.num_samples "
    "fast_fid.step_lr fast_fid.n_steps_each fast_fid.verbose fast_fid.ensemble",
}
# Numbers that must be at least this.
_LEAST = {
    "data.image_size": 1,
    "data.channels": 1,
    "data.num_workers": 0,
    "model.num_classes": 1,
    "model.ngf": 1,
    "training.batch_size": 1,
    "training.n_iters": 1,
    "training.n_epochs": 1,
    "training.snapshot_freq": 1,
    "sampling.batch_size": 1,
    "sampling.n_steps_each": 1,
    "sampling.n_interpolations": 1,
    "sampling.num_samples4fid": 1,
    "fast_fid.batch_size": 1,
    "fast_fid.num_samples": 1,
    "fast_fid.n_steps_each": 1,
    "fast_fid.stride": 1,
    "test.batch_size": 1,
    "test.stride": 1,
}
_POSITIVE = ("model.sigma_begin", "model.sigma_end", "optim.lr", "sampling.step_lr", "fast_fid.step_lr")
_CHOICES = {
    "model.sigma_dist": ("geometric", "uniform"),
    "optim.optimizer": ("Adam", "RMSProp", "SGD"),
    "model.architecture": (None, *ARCHITECTURES),
}


def load_config(name: str) -> argparse.Namespace:
    """The configuration that ``--config`` names, as its file has it.

    Raises: UsageError if there is no such file, or it is no configuration.
    """
    return load_namespace(find_config(name, PACKAGED))


def check_config(config: argparse.Namespace, mode: str) -> None:
    """Check what ``mode`` (train, sample, test, fast_fid) reads, and set optional keys that are absent.

    Raises: UsageError naming every key that is missing, or the first whose value cannot be.
    """
    needed = [*_SHARED.split(), *_NEEDED[mode].split()]
    if mode == "train" and getattr(getattr(config, "training", None), "snapshot_sampling", False):
        needed += ["sampling.step_lr", "sampling.n_steps_each", "sampling.denoise"]
    if mode == "sample":
        sampling = getattr(config, "sampling", None)
        needed += ["sampling.num_samples4fid"] * bool(getattr(sampling, "fid", False))
        needed += ["sampling.n_interpolations"] * bool(getattr(sampling, "interpolation", False))
    if absent := missing_keys(config, dict.fromkeys(needed)):
        raise UsageError(
            f"the configuration lacks {', '.join(absent)}, which --{mode} reads. Add it.".replace("--train", "training")
        )
    for key, value in _OPTIONAL.items():
        section, name = key.split(".")
        if hasattr(config, section) and not hasattr(getattr(config, section), name):
            setattr(getattr(config, section), name, value)
    for key, least in _LEAST.items():
        value = _get(config, key, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{key} is {value!r}; expected a whole number of at least {least}.")
    for key in _POSITIVE:
        value = _get(config, key, 1)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise UsageError(f"{key} is {value!r}; expected a positive number.")
    for key, known in _CHOICES.items():
        if (value := _get(config, key, known[0])) not in known:
            raise UsageError(f"{key} is {value!r}; expected one of {', '.join(str(each) for each in known if each)}.")
    if config.model.sigma_end > config.model.sigma_begin:
        raise UsageError(
            f"model.sigma_begin ({config.model.sigma_begin}) must not be below sigma_end "
            f"({config.model.sigma_end}): level 0 is the largest noise."
        )


def architecture(config: argparse.Namespace) -> str:
    """The network's name: ``model.architecture``, else the original's choice by dataset, else by image size."""
    if config.model.architecture is not None:
        return config.model.architecture
    by_size = "NCSNv2" if config.data.image_size <= 64 else "NCSNv2Deeper"
    return _BY_DATASET.get(config.data.dataset.upper(), by_size if config.data.image_size <= 128 else "NCSNv2Deepest")


def _get(config: argparse.Namespace, key: str, default: Any) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section, None), name, default)
