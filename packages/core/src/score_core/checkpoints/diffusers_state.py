"""Folders of Hugging Face diffusers, ``UNet2DModel`` with ``ScoreSdeVeScheduler``, read and written without it.

model_index.json
scheduler/scheduler_config.json
unet/config.json
unet/diffusion_pytorch_model.safetensors     (or .bin, read only)
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints.diffusers_names import (
    OLD_ATTENTION,
    VERSION,
    diffusers_names,
    require_expressible,
    scheduler_config,
    unet_config,
)
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Report
from score_core.checkpoints.pth_format import load_pth
from score_core.checkpoints.safetensors_state import read_arrays
from score_core.checkpoints.store import read_checkpoint
from score_core.checkpoints.torch_conversion import SIGMAS, from_torch, to_torch
from score_core.checkpoints.torch_names import torch_leaves
from score_core.errors import UsageError

__all__ = ["read_diffusers", "recognises_diffusers", "unet_arrays", "unet_folder", "write_diffusers"]

_WEIGHTS = "diffusion_pytorch_model"
# Entries of config.json that do not change what the network computes.
_FREE = {"_class_name", "_diffusers_version", "sample_size", "dropout", "freq_shift", "flip_sin_to_cos"}


def recognises_diffusers(path: Path) -> bool:
    """Whether a folder holds a ``UNet2DModel``, alone or in a pipeline."""
    return (path / "unet" / "config.json").is_file() or (path / "model_index.json").is_file() or _is_unet(path)


def _is_unet(path: Path) -> bool:
    return (path / "config.json").is_file() and any(path.glob(f"{_WEIGHTS}*"))


def unet_folder(path: Path) -> Path:
    """The folder of the network itself."""
    return path if _is_unet(path) else path / "unet"


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {file} ({error}). Fetch it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} holds no configuration. Fetch it again.")
    return content


def unet_arrays(path: Path) -> dict[str, np.ndarray]:
    """The network's arrays by name, those of old releases by their present names."""
    folder = unet_folder(path)
    safe, pickled = folder / f"{_WEIGHTS}.safetensors", folder / f"{_WEIGHTS}.bin"
    if safe.is_file():
        arrays = read_arrays(read_checkpoint(safe), safe)
    elif pickled.is_file():
        arrays = load_pth(pickled)
    else:
        raise CheckpointError(f"{folder} has neither {safe.name} nor {pickled.name}. Fetch the whole folder.")
    if not isinstance(arrays, dict) or not all(isinstance(value, np.ndarray) for value in arrays.values()):
        raise CheckpointError(f"{folder}: the weights are no arrays by name. Fetch the folder again.")
    return {_present(name): value for name, value in arrays.items()}


def _present(name: str) -> str:
    *module, kind, last = name.split(".") if name.count(".") > 1 else ("", "", name)
    if "attentions" in module and kind in OLD_ATTENTION:
        return ".".join([*module, OLD_ATTENTION[kind], last])
    # The Fourier frequencies once had both names.
    return "time_proj.weight" if name == "time_proj.W" else name


def read_diffusers(path: Path, config: Any, report: Report, where: Any) -> dict[str, Any]:
    """The weights of a folder.

    Raises:
        CheckpointError: it is damaged or holds another network than the configured one.
        UsageError: the class cannot express the configured network.
    """
    require_expressible(config)
    _compare_configs(_json(unet_folder(path) / "config.json"), unet_config(config), where)
    arrays, names = unet_arrays(path), diffusers_names(config)
    shapes = {leaf.key: leaf.shape for leaf in torch_leaves(config)}
    state_dict: dict[str, Any] = {}
    for name in names:
        found = arrays.pop(name.diffusers_key, None)
        if found is None:
            report.missing.append(name.diffusers_key)
        elif found.shape != (shapes[name.torch_key][::-1] if name.transposed else shapes[name.torch_key]):
            report.missing.append(f"{name.diffusers_key} {found.shape}, expected {shapes[name.torch_key]}")
        else:
            state_dict[name.torch_key] = found.T if name.transposed else found
    report.unused += list(arrays)
    if report.missing or report.unused:
        raise CheckpointError(
            f"{where} is not of the configured network ({len(report.missing)} missing: "
            f"{', '.join(report.missing[:5]) or 'none'}; {len(report.unused)} unused: "
            f"{', '.join(report.unused[:5]) or 'none'}): take the configuration it was made with."
        )
    report_names(config, report, written=False)
    return {"params": from_torch(state_dict, config), "meta": {"flavor": "pytorch"}}


def report_names(config: Any, report: Report, *, written: bool) -> None:
    """Every name, from Flax to diffusers or back."""
    paths = {leaf.key: leaf.name for leaf in torch_leaves(config) if leaf.name}
    for name in diffusers_names(config):
        leaf = paths[name.torch_key]
        same = leaf.transform.value == "same" and not name.transposed
        pair = (leaf.jax_path, name.diffusers_key)
        (report.copied if same else report.reshaped).append(pair if written else (pair[1], pair[0]))


def _compare_configs(found: Mapping[str, Any], wanted: Mapping[str, Any], where: Any) -> None:
    if found.get("_class_name") != "UNet2DModel":
        raise CheckpointError(f"{where} holds a {found.get('_class_name')!r}, not a UNet2DModel.")
    different = [
        f"{key} is {found[key]!r}, the configuration means {value!r}"
        for key, value in wanted.items()
        if key in found and key not in _FREE and not _same(found[key], value)
    ]
    if different:
        raise CheckpointError(f"{where} is another network: {'; '.join(different)}. Take its configuration.")


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-6)
    return one == other


def write_diffusers(tree: dict[str, Any], config: Any, report: Report) -> dict[str, bytes]:
    """The files of a folder that ``ScoreSdeVePipeline.from_pretrained`` reads.

    Raises:
        UsageError: the class cannot express the configured network; the message names the keys.
    """
    from safetensors.numpy import save

    if config is None:
        raise UsageError("a diffusers folder needs the configuration of its network: --config NAME.")
    names = diffusers_names(config)
    state_dict = to_torch(tree["params"], config)
    state_dict.pop(SIGMAS)
    arrays = {n.diffusers_key: state_dict[n.torch_key].T if n.transposed else state_dict[n.torch_key] for n in names}
    report_names(config, report, written=True)
    rules = config.sampling.predictor, config.sampling.corrector
    if rules != ("reverse_diffusion", "langevin"):
        report.notes.append(
            f"the pipeline samples with reverse diffusion and Langevin steps, not {' and '.join(rules)}"
        )
    index = {
        "_class_name": "ScoreSdeVePipeline",
        "_diffusers_version": VERSION,
        "scheduler": ["diffusers", "ScoreSdeVeScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {
        "model_index.json": _text(index),
        "scheduler/scheduler_config.json": _text(scheduler_config(config)),
        "unet/config.json": _text(unet_config(config)),
        f"unet/{_WEIGHTS}.safetensors": save(contiguous, {"format": "pt"}),
    }


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
