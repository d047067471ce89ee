"""Checkpoints for tests: configurations of golden networks, training states filled by the rule, their files."""

import gzip
import json
from pathlib import Path
from typing import Any

import goldens
import numpy as np

from score_core.checkpoints.convert import FORMATS
from score_core.checkpoints.formats import Report
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.tree import flatten, sort_names, unflatten
from score_sde.configs.load import load_config

CONFIG = """
from score_sde.configs.load import load_config

def get_config():
    config = load_config("{base}")
    with config.unlocked(), config.ignore_type():
        for key, value in {overrides}.items():
            section, _, name = key.rpartition(".")
            owner = config[section] if section else config
            owner[name] = tuple(value) if isinstance(value, list) else value
    return config
"""


def config_file(folder: Path, base: str, overrides: dict[str, Any]) -> Path:
    """A configuration file for the command line."""
    path = folder / "config.py"
    path.write_text(CONFIG.format(base=_bare(base), overrides=overrides))
    return path


def config_of(base: str, overrides: dict[str, Any]) -> Any:
    """A packaged configuration with overrides."""
    config: Any = load_config(_bare(base))
    with config.unlocked(), config.ignore_type():
        for key, value in overrides.items():
            section, _, name = key.rpartition(".")
            owner = config[section] if section else config
            owner[name] = tuple(value) if isinstance(value, list) else value
    return config


def _bare(base: str) -> str:
    return base.removeprefix("configs/").removesuffix(".py")


def params(config: Any, flavor: str, salt: str = "") -> dict[str, Any]:
    """The Flax parameter tree, filled by names; ``salt`` makes another one."""
    shapes = {leaf.name.jax_path: leaf.jax_shape for leaf in torch_leaves(config, flavor) if leaf.name}
    return sort_names(unflatten({path: goldens.fill(salt + path, shape) for path, shape in shapes.items()}))


def state(config: Any, flavor: str = "jax", step: int = 7) -> dict[str, Any]:
    """A training state in which no two arrays are alike, as formats read it."""
    moments = {
        f"{path}/{name}": value
        for name in ("grad_ema", "grad_sq_ema")
        for path, value in flatten(params(config, flavor, name)).items()
    }
    if frozen := [name for name in moments if name.startswith("GaussianFourierProjection_0")]:
        moments |= {name: np.zeros_like(moments[name]) for name in frozen}
    averages = params(config, flavor, "ema")
    target = params(config, flavor)
    if "GaussianFourierProjection_0" in target:  # not trained, so it has no average of its own
        averages["GaussianFourierProjection_0"] = target["GaussianFourierProjection_0"]
    return {
        "step": np.int32(step),
        "optimizer": {
            "target": target,
            "state": {"step": np.int32(step), "param_states": sort_names(unflatten(moments))},
        },
        "lr": np.float32(config.optim.lr),
        "model_state": {},
        "ema_rate": np.float32(config.model.ema_rate),
        "params_ema": averages,
        "rng": np.zeros(2, np.uint32),
        "meta": {"flavor": flavor},
    }


def write(path: Path, format_: str, config: Any, tree: dict[str, Any]) -> Path:
    """A file of a tree."""
    path.write_bytes(FORMATS[format_].write(tree, config, Report()))
    return path


def official_lists() -> dict[str, list[Any]]:
    """The PyTorch program's state dicts of full-size models: name to rows [key, shape, dtype, kind]."""
    file = goldens.path("score_sde", "torch/params_state_dicts.json.gz")
    return json.loads(gzip.decompress(file.read_bytes()))
