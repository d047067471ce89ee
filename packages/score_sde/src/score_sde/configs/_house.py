"""What every loaded configuration is given: repairs of known defects, and the keys that only this program has.

A configuration file written for the original program (its own files, or a user's) knows nothing of either.
`add_house_keys` makes it one that this program can read without defaults of its own; a key that the file does set is
never changed.
"""

from typing import Any, NamedTuple

import ml_collections

from score_sde.configs.resolve import ConfigError

SECTIONS = ("training", "sampling", "eval", "data", "model", "optim")


class HouseKey(NamedTuple):
    """The value a key gets when a file does not set it, and what the key means."""

    default: Any
    meaning: str


HOUSE_KEYS: dict[str, HouseKey] = {
    "data.root": HouseKey(
        "", "folder in which datasets are looked for; empty: $SCORE_DATA, else data in the current folder"
    ),
    "data.path": HouseKey("", "the dataset's own file or folder; the datasets folder, zip and npz need it"),
    "data.download": HouseKey(False, "allow a dataset that is not there to be fetched into data.root"),
    "data.category": HouseKey("", "the LSUN category"),
    "training.dtype": HouseKey("float32", "arithmetic of the network, float32 or bfloat16; parameters stay float32"),
    "training.accumulate": HouseKey(1, "parts in which a process goes through its share of a batch (PyTorch)"),
    "training.checkpoint_activations": HouseKey(
        False, "compute blocks again in the backward pass instead of keeping their values: less memory (PyTorch)"
    ),
    "training.compile": HouseKey(False, "run the network through torch.compile (PyTorch)"),
    "model.flavor": HouseKey(
        "",
        "whose numbers where the two original programs differ (NCSN and NCSNv2, the rate of the moving average): "
        "pytorch or jax; empty: the framework's own",
    ),
    "sampling.legacy_rng": HouseKey(
        False, "draw noise batch-wise as the original does, instead of one stream a sample"
    ),
    "sampling.corrector_norm": HouseKey(
        "batch", "norms of the Langevin step size: batch (the original: mean over the batch) or sample"
    ),
    "sampling.steps": HouseKey(
        0, "noise levels of a few-step predictor (ddim, heun, dpm_solver_pp_2m, ...); 0: model.num_scales"
    ),
    "sampling.spacing": HouseKey(
        "", "spacing of those levels: uniform (in time), log_snr or edm; empty: the predictor's own"
    ),
    "sampling.eta": HouseKey(0.0, "fresh noise in a step of ddim, from 0 (none) to 1 (as the reverse SDE)"),
    "eval.extractor": HouseKey("inception", "feature extractor of FID, KID and Inception Score"),
    "eval.extractor_weights": HouseKey(
        "", "its weights, a file or a SavedModel's folder; empty: $SCORE_INCEPTION_WEIGHTS and the usual places"
    ),
    "eval.extractor_download": HouseKey(False, "allow its weights to be fetched if they are not there"),
    "eval.statistics": HouseKey(
        "",
        "file with the reference statistics; empty: the original's below assets/stats if it is there, else made from "
        "the training images",
    ),
    "eval.bpd_repeats": HouseKey(
        0, "how often every image's bits/dim are computed; 0: the original's protocol, 5 for test and 1 for train"
    ),
    "eval.likelihood_solver": HouseKey("rk45", "solver of bits/dim: rk45 on the device, or SciPy's (scipy)"),
    "eval.trajectory": HouseKey(True, "also write a picture of how some of the samples came about"),
    "eval.protocol": HouseKey(
        "complete",
        "complete: every image once a repeat, no surplus samples; original: the last partial batch is left out of a "
        "random order, and one sampling round more",
    ),
    "eval.ema": HouseKey(True, "evaluate the averaged parameters; False: the raw ones"),
    "eval.patience": HouseKey(
        3600.0, "seconds without a new result of the other processes of an evaluation before process 0 gives up"
    ),
    "eval.wait": HouseKey(0.0, "seconds to wait for a checkpoint that is not there yet (the original waits for ever)"),
}

# Keys that the original program reads, yet some of its files lack (both 1024-pixel files), with the value that lets
# such a file run as it was meant.
_MISSING: dict[str, Any] = {
    "training.n_jitted_steps": 1,
    "eval.enable_sampling": True,
    "eval.enable_loss": False,
    "eval.enable_bpd": False,
    "eval.bpd_dataset": "test",
    "model.beta_min": 0.1,
    "model.beta_max": 20.0,
}

# repaired: the original gives these integers in some files, and then refuses a fraction on the command line.
_REAL_NUMBERS = ("model.sigma_max", "model.sigma_min", "model.fourier_scale", "optim.weight_decay")


def add_house_keys(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Repair and complete ``config`` in place, whether locked or not, and return it.

    Raises
        ConfigError: it lacks a whole section, so it is not a configuration of this program.
    """
    missing = [section for section in SECTIONS if section not in config]
    if missing:
        raise ConfigError(
            f"The configuration lacks the section{'s'[: len(missing) > 1]} {', '.join(missing)}; "
            f"expected {', '.join(SECTIONS)}. Start from a packaged one, such as digits."
        )
    with config.unlocked(), config.ignore_type():
        repair_defects(config)
        for key, (default, _) in HOUSE_KEYS.items():
            _set_missing(config, key, default)
        for key in _REAL_NUMBERS:
            section, name = _locate(config, key)
            if name in section:
                section[name] = float(section[name])
    return config


def repair_defects(config: ml_collections.ConfigDict) -> None:
    """Give the original authors' files the meaning they were written with, in place; other files stay as they are."""
    training: Any = config.training
    model: Any = config.model
    # repaired: ve/ncsn/celeba sets `loss` in the place of `sde`.
    if "loss" in training:
        _set_missing(config, "training.sde", training.loss)
        del training["loss"]
    # repaired: ve/ncsnv2/bedroom misspells `continuous`, so that the default it meant to change stays.
    if "continuouse" in training:
        training.continuous = training.continuouse
        del training["continuouse"]
    # repaired: both 1024-pixel files store a torch device, which nothing reads and no results file can hold.
    if "device" in config:
        del config["device"]
    # repaired: the conditional normalisation of NCSN reads a number of classes that no file defines.
    if model.get("name") == "ncsn":
        _set_missing(config, "model.num_classes", model.num_scales)
    for key, value in _MISSING.items():
        _set_missing(config, key, value)


def _locate(config: ml_collections.ConfigDict, key: str) -> tuple[Any, str]:
    """The section of a dotted key, and the name within it."""
    section, name = key.split(".")
    return config[section], name


def _set_missing(config: ml_collections.ConfigDict, key: str, value: Any) -> None:
    section, name = _locate(config, key)
    if name not in section:
        section[name] = value
