"""Stored arrays into modules and Adam, checked first: what does not fit is an error and changes nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from score_core.checkpoints.errors import CheckpointError

__all__ = ["as_tensor", "check_adam", "check_tensors", "load_adam", "load_tensors"]

_SHOWN = 5
_MOMENTS = ("exp_avg", "exp_avg_sq")
_OPTIONS = ("lr", "betas", "eps", "weight_decay", "amsgrad")


def as_tensor(value: Any) -> Tensor:
    """A copy of an array or tensor."""
    return value.clone() if isinstance(value, Tensor) else torch.tensor(np.asarray(value))


def _refuse(problems: list[str], what: str, where: Any) -> None:
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(f"{where} does not fit {what} ({'; '.join(problems[:_SHOWN])}{more})")


def _shapes(stored: Mapping[Any, Any], expected: Mapping[Any, Any]) -> list[str]:
    pairs = ((key, tuple(np.shape(stored[key])), tuple(expected[key].shape)) for key in expected if key in stored)
    return [f"{key}: shape {found}, expected {wanted}" for key, found, wanted in pairs if found != wanted]


def check_tensors(module: nn.Module, stored: Mapping[str, Any], where: Any) -> None:
    """Raises CheckpointError unless ``stored`` has exactly the module's state."""
    own = module.state_dict()
    problems = [f"missing: {key}" for key in own if key not in stored]
    problems += [f"unknown: {key}" for key in stored if key not in own]
    _refuse(problems + _shapes(stored, own), "the network", where)


def load_tensors(module: nn.Module, stored: Mapping[str, Any], where: Any) -> None:
    """Makes ``stored`` the module's state.

    Raises:
        CheckpointError: it does not fit; nothing is changed then.
    """
    check_tensors(module, stored, where)
    module.load_state_dict({key: as_tensor(value) for key, value in stored.items()})


def check_adam(optimizer: torch.optim.Adam, stored: Mapping[str, Any], where: Any) -> None:
    """Raises CheckpointError unless the stored moments are those of the optimiser's parameters, by number."""
    own = dict(enumerate(optimizer.param_groups[0]["params"]))
    state = stored["state"]
    problems = [f"unknown parameter {key}" for key in state if key not in own]
    for moment in _MOMENTS:
        problems += [f"parameter {key} without {moment}" for key, entry in state.items() if moment not in entry]
        problems += _shapes({key: entry[moment] for key, entry in state.items() if moment in entry}, own)
    _refuse(problems, "the optimiser", where)


def load_adam(optimizer: torch.optim.Adam, stored: Mapping[str, Any]) -> None:
    """Makes stored moments, counts and hyper-parameters the optimiser's."""
    options = {name: stored["param_groups"][0][name] for name in _OPTIONS if name in stored["param_groups"][0]}
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    moments = {
        key: {"step": torch.tensor(float(entry["step"])), **{name: as_tensor(entry[name]) for name in _MOMENTS}}
        for key, entry in stored["state"].items()
    }
    group = optimizer.state_dict()["param_groups"][0] | options
    optimizer.load_state_dict({"state": moments, "param_groups": [group]})
