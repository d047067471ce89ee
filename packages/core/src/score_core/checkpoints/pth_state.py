"""PyTorch checkpoints (``.pth``) of the port: its training state, or a state dict alone."""

from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Report
from score_core.checkpoints.pth_format import loads_pth
from score_core.checkpoints.torch_conversion import (
    SIGMAS,
    add_module,
    compare_state_dict,
    ema_list,
    ema_state_dict,
    from_torch,
    strip_module,
    to_torch,
)
from score_core.checkpoints.torch_leaf import Transform
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.training_state import (
    FLAVOR,
    MOMENTS,
    enter_comparisons,
    flavor_matters,
    flavor_of,
    number,
    require_complete,
)
from score_core.checkpoints.tree import flatten, sort_names, unflatten

__all__ = [
    "read_content",
    "read_pth",
    "recognises_pth",
    "split_pth",
    "state_content",
    "state_dict_params",
    "weights_state_dict",
    "write_pth",
]

_UNMARKED = (
    "a state dict alone cannot say that these are parameters of the JAX program's network: use it with a configuration "
    "whose model.flavor is jax"
)
_ENTRIES = ("optimizer", "model", "ema", "step")


def recognises_pth(data: bytes) -> bool:
    """Whether it begins as a zip archive or as PyTorch's older form."""
    return data[:2] == b"\x80\x02" or data[:4] == b"PK\x03\x04"


def split_pth(content: Any, where: Any, config: Any = None) -> tuple[Mapping[str, Any], Mapping[str, Any] | None, str]:
    """The state dict of what a file holds, the whole training state if it is one, and the flavor.

    The flavor is the file's own entry, or else what the configuration says, or else that of the PyTorch program.

    Raises:
        CheckpointError: it is neither a training state of the port nor a state dict.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"{where} is no training state of the PyTorch port: it is a {type(content).__name__}.")
    own = (config.model.get(FLAVOR) if config is not None else None) or "pytorch"
    if not set(_ENTRIES) & set(content):
        _require_arrays(content, where)
        return content, None, own
    if absent := [name for name in _ENTRIES if name not in content]:
        raise CheckpointError(f"{where} is no training state of the PyTorch port: it lacks {', '.join(absent)}.")
    kinds = {"optimizer": dict, "model": dict, "ema": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(content[name], kind)]
    if wrong or not {"state", "param_groups"} <= set(content["optimizer"]):
        raise CheckpointError(f"{where} is no training state of the PyTorch port: {', '.join(wrong) or 'optimizer'}.")
    if not {"decay", "num_updates", "shadow_params"} <= set(content["ema"]):
        raise CheckpointError(f"{where} is no training state of the PyTorch port: its averages are incomplete.")
    _require_arrays(content["model"], where)
    flavor = content.get(FLAVOR, own)
    return content["model"], content, flavor if flavor in ("jax", "pytorch") else "pytorch"


def _require_arrays(state_dict: Mapping[Any, Any], where: Any) -> None:
    strays = [key for key, value in state_dict.items() if not isinstance(key, str) or not _is_array(value)]
    if strays or not state_dict:
        raise CheckpointError(f"{where} is no checkpoint of the PyTorch port: {strays[0] if strays else 'no entries'}.")
    if len(strip_module(state_dict)) != len(state_dict):
        raise CheckpointError(f"{where} has keys with and without 'module.' that mean the same parameter.")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


def read_pth(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    """The training state, or the weights, of a file."""
    return read_content(loads_pth(data, where=where), config, report, where)


def read_content(content: Any, config: Any, report: Report, where: Any) -> dict[str, Any]:
    """:func:`read_pth` of what a file holds."""
    state_dict, content, flavor = split_pth(content, where, config)
    params = state_dict_params(state_dict, config, report, where, flavor)
    if content is None:
        return {"params": params, "meta": {FLAVOR: flavor}}
    ema, step = content["ema"], content["step"]
    shadow = ema["shadow_params"]
    if not isinstance(shadow, list | tuple) or not all(map(_is_array, shadow)):
        raise CheckpointError(f"{where}: the averaged parameters are no list of arrays.")
    averages = from_torch(ema_state_dict(shadow, state_dict, config, flavor), config, flavor=flavor)
    moments, count = _moments(content["optimizer"]["state"], state_dict, config, where, flavor)
    report.notes.append("the random key is new: PRNGKey(0)")
    if ema["num_updates"] not in (None, step):
        report.notes.append(f"the count of averages, {ema['num_updates']}, has no place and is left out")
    return {
        "step": np.int32(_count(step, "step", where)),
        "optimizer": {
            "target": params,
            "state": {"step": np.int32(count), "param_states": moments},
        },
        # The file holds the rate of its last step, which the warm-up may have lowered.
        "lr": np.float32(config.optim.lr),
        "model_state": {},
        "ema_rate": np.float32(number(ema["decay"], "ema/decay", where)),
        "params_ema": averages,
        "rng": np.zeros(2, np.uint32),
        "meta": {FLAVOR: flavor},
    }


def _count(value: Any, what: str, where: Any) -> int:
    count = number(value, what, where)
    if count != int(count) or not 0 <= count < 2**31:
        raise CheckpointError(f"{where}: {what} is {count}, which counts no steps.")
    return int(count)


def state_dict_params(
    state_dict: Mapping[str, Any], config: Any, report: Report, where: Any, flavor: str
) -> dict[str, Any]:
    """The Flax parameters of a state dict; what became of every key goes into the report.

    Raises:
        CheckpointError: it is not of the configured network.
    """
    comparison = compare_state_dict(state_dict, config, flavor)
    report.copied += [(key, path) for path, key in comparison.copied]
    report.reshaped += [(key, path) for path, key in comparison.reshaped]
    enter_comparisons({"model": comparison}, report)
    require_complete({"model": comparison}, report, where)
    dropped = [key for key in comparison.torch_only if key != SIGMAS]
    if dropped:
        report.notes.append(f"{len(dropped)} parameters that the network never reads are left out: {dropped[0]}, ...")
    return from_torch(state_dict, config, flavor=flavor)


def _moments(
    state: Any, state_dict: Mapping[str, Any], config: Any, where: Any, flavor: str
) -> tuple[dict[str, Any], int]:
    """Adam's moments as the Flax tree has them, and its count of steps."""
    leaves = torch_leaves(config, flavor)
    given = strip_module(state_dict)
    if not isinstance(state, dict) or any(not isinstance(n, int) or not 0 <= n < len(leaves) for n in state):
        raise CheckpointError(f"{where}: the optimiser has parameters that the configured network does not have.")
    for n, entry in state.items():
        if not isinstance(entry, dict) or not {"step", *MOMENTS.values()} <= set(entry):
            raise CheckpointError(f"{where}: the optimiser's entry {n} is incomplete.")
    counts = {_count(entry["step"], "the optimiser's step", where) for entry in state.values()}
    if len(counts) > 1:
        raise CheckpointError(f"{where}: the optimiser has counts of steps from {min(counts)} to {max(counts)}.")
    flat: dict[str, Any] = {}
    for flax_name, torch_name in MOMENTS.items():
        arrays = {}
        for n, leaf in enumerate(leaves):
            if n not in state:
                arrays[leaf.key] = np.zeros(leaf.shape, np.float32)
            elif _is_array(state[n][torch_name]):
                arrays[leaf.key] = state[n][torch_name]
        params = from_torch({k: v for k, v in arrays.items() if k in given}, config, flavor=flavor)
        flat |= {f"{path}/{flax_name}": value for path, value in flatten(params).items()}
    return sort_names(unflatten(flat)), counts.pop() if counts else 0


def weights_state_dict(tree: Mapping[str, Any], config: Any, report: Report) -> dict[str, np.ndarray]:
    """The port's state dict of a set of weights, without ``module.``; names go into the report."""
    _report_names(config, report, flavor_of(tree))
    return to_torch(tree["params"], config, flavor=flavor_of(tree))


def _report_names(config: Any, report: Report, flavor: str) -> None:
    leaves = torch_leaves(config, flavor)
    for leaf in leaves:
        if leaf.name:
            pairs = report.copied if leaf.name.transform is Transform.SAME else report.reshaped
            pairs.append((leaf.name.jax_path, leaf.key))
    unread = [leaf.key for leaf in leaves if not leaf.name]
    if unread:
        report.notes.append(f"{len(unread)} parameters that the network never reads are zero: {unread[0]}, ...")


def write_pth(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    """The file; keys have ``module.`` unless ``meta/module`` is False. A state dict alone never has it."""
    # Lazily and by name: the neutral core knows no framework, and only writing needs this one.
    dumps = import_module("score_core.torch.pth").dumps
    if "params" in tree:
        if flavor_matters(config) and flavor_of(tree) == "jax":
            report.notes.append(_UNMARKED)
        return dumps(OrderedDict(weights_state_dict(tree, config, report)))
    return dumps(state_content(tree, config, report))


def state_content(tree: Mapping[str, Any], config: Any, report: Report) -> dict[str, Any]:
    """What :func:`write_pth` writes of a training state."""
    flavor = flavor_of(tree)
    leaves = torch_leaves(config, flavor)
    optimizer = tree["optimizer"]
    model = to_torch(optimizer["target"], config, flavor=flavor)
    averages = to_torch(tree["params_ema"], config, flavor=flavor)
    _report_names(config, report, flavor)
    for leaf in leaves:
        # Rounding lets the averages of a constant drift in the last digit in the JAX program.
        if not leaf.trainable and not np.array_equal(model[leaf.key], averages[leaf.key], equal_nan=True):
            largest = np.max(np.abs(model[leaf.key] - averages[leaf.key]))
            report.notes.append(f"the average of {leaf.key}, which is not trained, has no place (off by {largest:.1e})")
    if "rng" in tree:
        report.notes.append("the random key has no place and is left out")
    flat = flatten(optimizer["state"]["param_states"])
    moments = {
        torch_name: to_torch(
            unflatten({k.removesuffix(f"/{name}"): v for k, v in flat.items() if k.endswith(f"/{name}")}),
            config,
            flavor=flavor,
        )
        for name, torch_name in MOMENTS.items()
    }
    step, adam_step = int(tree["step"]), int(optimizer["state"]["step"])
    optim = config.optim
    warm = min(max(step - 1, 0) / optim.warmup, 1.0) if optim.warmup > 0 else 1.0
    content = {
        "optimizer": {
            "state": {
                n: {"step": adam_step, **{name: arrays[leaf.key] for name, arrays in moments.items()}}
                for n, leaf in enumerate(leaves)
                if leaf.trainable and leaf.name and adam_step
            },
            "param_groups": [
                {
                    "lr": float(np.asarray(tree["lr"])) * warm,
                    "betas": (float(optim.beta1), 0.999),
                    "eps": float(optim.eps),
                    "weight_decay": float(optim.weight_decay),
                    "amsgrad": False,
                    "params": list(range(len(leaves))),
                }
            ],
        },
        "model": OrderedDict(add_module(model) if tree["meta"].get("module", True) else model),
        "ema": {
            "decay": float(np.asarray(tree["ema_rate"])),
            "num_updates": step,
            "shadow_params": ema_list(averages, config, flavor),
        },
        "step": step,
    }
    if flavor_matters(config) and flavor == "jax":
        content[FLAVOR] = flavor
        report.notes.append(
            "the entry flavor says that these are parameters of the JAX program's network, with which the PyTorch "
            "program would compute other numbers, or none"
        )
    return content
