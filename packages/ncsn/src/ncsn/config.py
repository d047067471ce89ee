"""Configurations of NCSN: where they are, what a runner needs of them, and what they leave open.

Every key of the original has its meaning; dead ones may stay. Keys that the original does not have are optional:

    data.path, data.download     the dataset's own place; allow fetching it
    training.n_particles         projections of sliced score matching (1; the original's anneal.yml lacks it)
    sampling.step_lr, sampling.n_steps_each, sampling.n_steps    of the samplers; the original's numbers are in its code
    sampling.batch_size          samples drawn together (AnnealRunner 25, BaselineRunner 100)
    sampling.num_images, sampling.num_completions    of inpainting (20 and 20)
    evaluation.*                 of --fid; see ncsn.evaluation
"""

import argparse
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from score_core.errors import UsageError
from score_core.runs.namespace_config import find_config, load_namespace, missing_keys, to_namespace

__all__ = ["EMBEDDED", "PACKAGED", "check_config", "complete", "list_configs", "load_config", "set_options"]

PACKAGED = Path(__file__).parent / "configs"
EMBEDDED = ("digits", "photos")

_DEFAULTS: Mapping[str, Any] = {
    "training.n_particles": 1,
    "training.anneal_power": 2.0,
    "data.random_flip": False,
    "data.path": None,
    "data.download": False,
    "optim.amsgrad": False,
    "sampling.step_lr": 2e-5,
    "sampling.n_steps_each": 100,
    "sampling.n_steps": 1000,
    "sampling.batch_size": None,
    "sampling.num_images": 20,
    "sampling.num_completions": 20,
    "evaluation.begin_ckpt": None,
    "evaluation.end_ckpt": None,
    "evaluation.select_samples": 1000,
    "evaluation.num_samples": 50_000,
    "evaluation.batch_size": 100,
    "evaluation.statistics": None,
    "evaluation.extractor": None,
    "evaluation.extractor_weights": None,
}
_DATA = "data.dataset data.image_size data.channels data.logit_transform"
_TRAIN = (
    "training.batch_size training.n_epochs training.n_iters training.snapshot_freq optim.weight_decay optim.optimizer "
    "optim.lr optim.beta1"
)
_LEVELS = "model.sigma_begin model.sigma_end model.num_classes model.ngf"
_NEEDED = {
    ("AnnealRunner", False): f"{_DATA} {_TRAIN} {_LEVELS} training.algo",
    ("AnnealRunner", True): f"{_DATA} {_LEVELS}",
    ("BaselineRunner", False): f"{_DATA} {_TRAIN} model.ngf",
    ("BaselineRunner", True): f"{_DATA} model.ngf",
    ("ScoreNetRunner", False): f"{_DATA} {_TRAIN} model.nef model.ndf training.algo training.noise_std",
    ("ToyRunner", False): "",
}
_POSITIVE = (
    "training.batch_size",
    "training.n_epochs",
    "training.n_iters",
    "training.snapshot_freq",
    "training.n_particles",
    "data.image_size",
    "data.channels",
    "model.num_classes",
    "model.ngf",
    "model.nef",
    "model.ndf",
    "sampling.n_steps_each",
    "sampling.n_steps",
    "sampling.batch_size",
    "sampling.num_images",
    "sampling.num_completions",
    "evaluation.select_samples",
    "evaluation.num_samples",
    "evaluation.batch_size",
)
_NUMBERS = ["sampling.step_lr", "model.sigma_begin", "model.sigma_end", "optim.lr"]


def list_configs() -> list[str]:
    """The names of the packaged configurations."""
    return sorted(file.stem for file in PACKAGED.glob("*.yml"))


def load_config(name: str) -> argparse.Namespace:
    """The configuration that ``--config`` names, as it is written.

    Raises: UsageError listing the packaged ones.
    """
    return load_namespace(find_config(name, PACKAGED))


def set_options(config: argparse.Namespace, options: Iterable[str]) -> None:
    """Change keys in place, each given as ``section.key=value`` with a value in YAML.

    Raises: UsageError for what is not of this form.
    """
    for option in options:
        key, equals, text = option.partition("=")
        section, dot, name = key.partition(".")
        if not (equals and dot and section and name and "." not in name):
            raise UsageError(f"--option {option!r}: expected section.key=value, such as training.n_iters=1001.")
        try:
            value = to_namespace(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise UsageError(f"--option {option!r}: {text!r} is no value in YAML.") from error
        if isinstance(value, str):  # 1e-3 is text in YAML 1.1
            with contextlib.suppress(ValueError):
                value = float(value)
        if not isinstance(getattr(config, section, None), argparse.Namespace):
            setattr(config, section, argparse.Namespace())
        setattr(getattr(config, section), name, value)


def complete(config: argparse.Namespace) -> None:
    """Add what the configuration leaves open, in place."""
    for key, value in _DEFAULTS.items():
        section, name = key.split(".")
        if not isinstance(getattr(config, section, None), argparse.Namespace):
            setattr(config, section, argparse.Namespace())
        if not hasattr(getattr(config, section), name):
            setattr(getattr(config, section), name, value)


def check_config(config: argparse.Namespace, runner: str, *, test: bool) -> None:
    """Refuse a configuration that a runner cannot use, before it starts.

    Raises: UsageError naming every missing key, or the first value that is impossible.
    """
    needed = _NEEDED[runner, test].split()
    if missing := missing_keys(config, needed):
        raise UsageError(f"the configuration lacks {', '.join(missing)}, which {runner} needs.")
    for key in (*_POSITIVE, *_NUMBERS):
        section, name = key.split(".")
        value = getattr(getattr(config, section, None), name, None)
        if value is None:
            continue
        whole = key in _POSITIVE
        good = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and value > 0
        if not good:
            raise UsageError(f"{key} is {value!r}, expected a {'whole ' * whole}number above 0.")
    algo = getattr(getattr(config, "training", None), "algo", "dsm")
    if runner in ("AnnealRunner", "ScoreNetRunner") and not test and algo not in ("dsm", "ssm"):
        raise UsageError(f"training.algo is {algo!r}, expected dsm or ssm.")
