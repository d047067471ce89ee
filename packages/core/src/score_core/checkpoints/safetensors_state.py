"""Safetensors: a whole training state, or one set of weights; the configuration in the metadata or beside the file.

    what               names                                         metadata
    training state     flat names of the tree, ``params_ema/...``    format, flavor, config (JSON)
    weights            keys of the PyTorch port                      format, flavor, config (JSON)
    weights            flat names of the Flax tree                   format, flavor (no configuration was given)

Files of others are read if their keys are those of the port (with or without ``module.``) or flat Flax names.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Report
from score_core.checkpoints.pth_state import state_dict_params, weights_state_dict
from score_core.checkpoints.training_state import check_names, flavor_of, require_state
from score_core.checkpoints.tree import flatten, unflatten
from score_core.errors import UsageError

__all__ = [
    "array_shapes",
    "config_from_json",
    "embedded_config",
    "is_port",
    "read_arrays",
    "read_safetensors",
    "recognises_safetensors",
    "write_safetensors",
]

_STATE, _WEIGHTS = "score_core training state", "score_core weights"
_MAX_HEADER = 100_000_000  # as in the library itself


def recognises_safetensors(data: bytes) -> bool:
    """Whether it begins as the format does: the length of a JSON object, and the object."""
    return len(data) > 9 and int.from_bytes(data[:8], "little") < len(data) and data[8:9] == b"{"


def _header(data: bytes, where: Any) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length]) if length <= _MAX_HEADER else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{where} is not a safetensors file that can be read (its header). Fetch it again.")
    return header


def _metadata(data: bytes, where: Any) -> dict[str, str]:
    metadata = _header(data, where).get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def embedded_config(data: bytes, path: Path) -> Any:
    """The configuration in the metadata, or in a JSON file of the same name beside it; None if there is none.

    Raises:
        CheckpointError: it is there and no configuration.
    """
    text = _metadata(data, path).get("config")
    beside = path.with_suffix(".json")
    if text is None and beside.is_file():
        try:
            text = beside.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"cannot read {beside}: {error}. Give --config NAME.") from error
    return None if text is None else config_from_json(text, path)


def config_from_json(text: str, where: Any) -> Any:
    """A configuration from JSON; lists become tuples, as in the packaged ones."""
    import ml_collections

    try:
        content = json.loads(text)
        sections = {key: {k: _tuple(v) for k, v in part.items()} for key, part in content.items() if _is_dict(part)}
        config: Any = ml_collections.ConfigDict({**content, **sections})
        _ = (config.model.name, config.data.num_channels)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{where}: the configuration with it cannot be read. Give --config NAME.") from error
    return config


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def array_shapes(data: bytes, where: Any) -> dict[str, tuple[int, ...]]:
    """Every array's shape by name, from the header.

    Raises:
        CheckpointError: the header makes no sense.
    """
    entries = {name: entry for name, entry in _header(data, where).items() if name != "__metadata__"}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, entry in entries.items():
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**40 for n in shape) or len(shape) > 8:
            raise CheckpointError(f"{where} is not a safetensors file that can be read (its header). Fetch it again.")
        shapes[name] = tuple(shape)
    return shapes


def read_arrays(data: bytes, where: Any) -> dict[str, np.ndarray]:
    """Every array of a file by name.

    Raises:
        CheckpointError: it cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, OverflowError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{where} is not a safetensors file that can be read ({error}). Fetch it again."
        ) from error


def read_safetensors(data: bytes, config: Any, report: Report, where: Any) -> dict[str, Any]:
    """The training state, or the weights, of a file."""
    arrays, metadata = read_arrays(data, where), _metadata(data, where)
    flavor = metadata.get("flavor")
    if is_port(arrays):
        if config is None:
            raise UsageError(f"{where} has the keys of the PyTorch program: give its configuration, --config NAME.")
        flavor = flavor if flavor in ("jax", "pytorch") else "pytorch"
        return {"params": state_dict_params(arrays, config, report, where, flavor), "meta": {"flavor": flavor}}
    try:
        flat = unflatten(arrays)
    except ValueError as error:
        raise CheckpointError(f"{where} is no training state: {error}. Name a checkpoint file.") from error
    tree = require_state(flat, where, flavor if flavor in ("jax", "pytorch") else "jax")
    if config is not None:
        check_names(tree, config, report, where)
    return tree


def is_port(names: Any) -> bool:
    """Whether names are keys of the PyTorch port."""
    begin = ("all_modules.", "begin_conv.", "module.all_modules.", "module.begin_conv.")
    return any(isinstance(name, str) and name.startswith(begin) for name in names)


def write_safetensors(tree: dict[str, Any], config: Any, report: Report) -> bytes:
    """The file; weights alone have the keys of the PyTorch port if a configuration is given."""
    from safetensors.numpy import save

    metadata = {"format": _STATE, "flavor": flavor_of(tree)}
    if config is not None:
        content = config.to_dict()
        content["model"]["flavor"] = flavor_of(tree)
        metadata["config"] = json.dumps(content, default=list)
    if "params" in tree:
        metadata["format"] = _WEIGHTS
        arrays = flatten(tree["params"]) if config is None else weights_state_dict(tree, config, report)
    else:
        arrays = {name: value for name, value in flatten(tree).items() if name != "meta/flavor"}
        arrays = {name: np.asarray(v) for name, v in arrays.items() if not isinstance(v, Mapping | str | bool)}
    # not ascontiguousarray, which makes numbers arrays of one
    return save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata)
