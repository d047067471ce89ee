"""Training states from one file format to another: parameters, averages, Adam's moments, counters.

Every format is read into and written from one form, the tree of the original Flax program's checkpoints,

    step    optimizer/target/*    optimizer/state/step    optimizer/state/param_states/*/{grad_ema, grad_sq_ema}
    lr      ema_rate    params_ema/*    rng

    format        file                                       names of parameters
    flax          msgpack, the JAX program's checkpoint_N    Flax                            any network
    pth           PyTorch, the port's checkpoint_N.pth       the port's ``all_modules.i``    ncsnpp and ddpm
    safetensors   the tree by flat names, configuration in   Flax                            any network
                  the metadata

A package whose network is no score_sde tree registers formats of a family of its own (`formats`).

All conversions are exact for parameters, averages, moments and counters. What one side does not have is said in the
report: the port's Dense layers that an unconditional network never calls, its count of averages, JAX's key.
"""

import json
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import (
    FORMATS,
    Format,
    Report,
    bridge,
    load_formats,
    register_bridge,
    register_format,
)
from score_core.checkpoints.pth_format import loads_pth
from score_core.checkpoints.store import read_checkpoint
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
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.tree import flatten, sort_names, unflatten
from score_core.errors import UsageError

__all__ = [
    "FORMATS",
    "Format",
    "Report",
    "convert",
    "detect_format",
    "load_formats",
    "read_state",
    "register_bridge",
    "register_format",
]

_MOMENTS = {"grad_ema": "exp_avg", "grad_sq_ema": "exp_avg_sq"}
_SAFETENSORS = "score_core training state"


def detect_format(data: bytes, where: Any = "the file") -> str:
    """The name of the format of a file's bytes.

    Raises:
        UsageError: it is none of them.
    """
    # Those of packages first: they know more of a file than that it is a pickle or a msgpack.
    for name, format_ in reversed(FORMATS.items()):
        if format_.recognises(data):
            return name
    known = "; ".join(f"{name}: {format_.about}" for name, format_ in FORMATS.items())
    raise UsageError(f"{where} is in none of the known formats ({known}).")


def read_state(path: Path, config: Any = None) -> tuple[str, dict[str, Any], Report]:
    """The format of a file, its training state as a tree, and the report.

    Raises:
        CheckpointError: it is missing, damaged, or of another network than the configured one.
        UsageError: unknown format, or one that cannot be read without a configuration.
    """
    data = read_checkpoint(path)
    name = detect_format(data, path)
    if FORMATS[name].needs_config and config is None:
        raise UsageError(f"{path} ({name}) needs the configuration of its network: --config NAME.")
    report = Report()
    return name, FORMATS[name].read(data, config, report, path), report


def convert(path: Path, target: str, config: Any) -> tuple[bytes, Report]:
    """The contents of a file in another format.

    Arguments:
        path: the file.
        target: one of :data:`FORMATS`.
        config: the configuration of the network.

    Raises:
        CheckpointError, UsageError: as :func:`read_state`; or the target is unknown or cannot hold the network.
    """
    if target not in FORMATS:
        raise UsageError(f"unknown format {target!r}; known: {', '.join(FORMATS)}.")
    source, tree, report = read_state(path, config)
    tree = bridge(tree, source, target, config, report)
    return FORMATS[target].write(tree, config, report), report


def _require(tree: Mapping[str, Any], where: Any) -> dict[str, Any]:
    """The tree, if it has everything that a training state has."""
    absent = [name for name in ("step", "optimizer", "lr", "ema_rate", "params_ema") if name not in tree]
    if not absent:
        absent = [f"optimizer/{name}" for name in ("target", "state") if name not in tree["optimizer"]]
    if absent:
        raise CheckpointError(f"{where} is no training state: it lacks {', '.join(absent)}. Name a checkpoint file.")
    return dict(tree)


def _read_flax(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    del config, report
    return _require(msgpack_format.loads(data, where=where), where)


def _write_flax(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    del config, report
    target, state = tree["optimizer"]["target"], tree["optimizer"]["state"]
    names = ("step", "optimizer", "lr", "model_state", "ema_rate", "params_ema", "rng")
    whole = {"model_state": {}, **tree, "params_ema": sort_names(tree["params_ema"])}
    whole["optimizer"] = {
        "target": sort_names(target),
        "state": {"step": state["step"], "param_states": sort_names(state["param_states"])},
    }
    return msgpack_format.dumps({name: whole[name] for name in names})


def _read_safetensors(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    del config, report
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return _require(unflatten(load(data)), where)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise CheckpointError(
            f"{where} is not a safetensors file that can be read ({error}). Fetch it again."
        ) from error


def _write_safetensors(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    from safetensors.numpy import save

    del report
    arrays = {name: np.asarray(value) for name, value in flatten(tree).items() if not isinstance(value, Mapping)}
    metadata = {"format": _SAFETENSORS}
    if config is not None:
        metadata["config"] = json.dumps(config.to_dict(), default=list)
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)


def _read_pth(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    content = loads_pth(data, where=where)
    absent = [n for n in ("optimizer", "model", "ema", "step") if not isinstance(content, dict) or n not in content]
    if absent:
        raise CheckpointError(f"{where} is no training state of the PyTorch port: it lacks {', '.join(absent)}.")
    state_dict = content["model"]
    comparison = compare_state_dict(state_dict, config)
    params = from_torch(state_dict, config)
    report.copied += [(key, path) for path, key in comparison.copied]
    report.reshaped += [(key, path) for path, key in comparison.reshaped]
    dropped = [key for key in comparison.torch_only if key != SIGMAS]
    if dropped:
        report.notes.append(f"{len(dropped)} parameters that the network never reads are left out: {dropped[0]}, ...")
    ema, optimizer = content["ema"], content["optimizer"]
    averages = from_torch(ema_state_dict(ema["shadow_params"], state_dict, config), config)
    moments, count = _moments_from_pth(optimizer["state"], state_dict, config, where)
    report.notes.append("the random key is new: PRNGKey(0)")
    if ema["num_updates"] not in (None, content["step"]):
        report.notes.append(f"the count of averages, {ema['num_updates']}, has no place and is left out")
    return {
        "step": np.int32(content["step"]),
        "optimizer": {
            "target": params,
            "state": {"step": np.int32(count), "param_states": moments},
        },
        # The file holds the rate of its last step, which the warm-up may have lowered.
        "lr": np.float32(config.optim.lr),
        "model_state": {},
        "ema_rate": np.float32(ema["decay"]),
        "params_ema": averages,
        "rng": np.zeros(2, np.uint32),
    }


def _moments_from_pth(
    state: Mapping[Any, Any], state_dict: Mapping[str, Any], config: Any, where: Any
) -> tuple[dict[str, Any], int]:
    """Adam's moments as the Flax tree has them, and its count of steps."""
    leaves = torch_leaves(config)
    given = strip_module(state_dict)
    if any(not isinstance(number, int) or not 0 <= number < len(leaves) for number in state):
        raise CheckpointError(f"{where}: the optimiser has parameters that the configured network does not have.")
    counts = {int(entry["step"]) for entry in state.values()}
    if len(counts) > 1:
        raise CheckpointError(f"{where}: the optimiser has counts of steps from {min(counts)} to {max(counts)}.")
    flat: dict[str, Any] = {}
    for flax_name, torch_name in _MOMENTS.items():
        arrays = {
            leaf.key: state[n][torch_name] if n in state else np.zeros_like(given[leaf.key])
            for n, leaf in enumerate(leaves)
        }
        flat |= {f"{path}/{flax_name}": value for path, value in flatten(from_torch(arrays, config)).items()}
    return sort_names(unflatten(flat)), counts.pop() if counts else 0


def _write_pth(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    leaves = torch_leaves(config)
    optimizer = tree["optimizer"]
    model = to_torch(optimizer["target"], config)
    names = [leaf.name for leaf in leaves if leaf.name]
    for name in names:
        same = name.transform.value == "same"
        (report.copied if same else report.reshaped).append((name.jax_path, name.torch_key))
    unread = [leaf.key for leaf in leaves if not leaf.name]
    if unread:
        report.notes.append(f"{len(unread)} parameters that the network never reads are zero: {unread[0]}, ...")
    if "rng" in tree:
        report.notes.append("the random key has no place and is left out")
    flat = flatten(optimizer["state"]["param_states"])
    moments = {
        torch_name: to_torch(
            unflatten({k.removesuffix(f"/{name}"): v for k, v in flat.items() if k.endswith(f"/{name}")}), config
        )
        for name, torch_name in _MOMENTS.items()
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
        "model": OrderedDict(add_module(model)),
        "ema": {
            "decay": float(np.asarray(tree["ema_rate"])),
            "num_updates": step,
            "shadow_params": ema_list(to_torch(tree["params_ema"], config), config),
        },
        "step": step,
    }
    # Lazily and by name: the neutral core knows no framework, and only writing needs this one.
    return import_module("score_core.torch.pth").dumps(content)


def _is_pth(data: bytes) -> bool:
    if data[:2] == b"\x80\x02":  # the form before torch 1.6
        return True
    return data[:4] == b"PK\x03\x04" and zipfile.is_zipfile(BytesIO(data))


def _is_safetensors(data: bytes) -> bool:
    return len(data) > 9 and int.from_bytes(data[:8], "little") < len(data) and data[8:9] == b"{"


def _is_flax(data: bytes) -> bool:
    return len(data) > 1 and (0x81 <= data[0] <= 0x8F or data[0] == 0xDE)  # a map of msgpack


register_format("flax", Format("msgpack checkpoint of the JAX program", _is_flax, _read_flax, _write_flax, False))
register_format("safetensors", Format("safetensors", _is_safetensors, _read_safetensors, _write_safetensors, False))
register_format("pth", Format("PyTorch checkpoint of the port", _is_pth, _read_pth, _write_pth, True))
