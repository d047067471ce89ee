"""What a checkpoint's network gives, in the framework the checkpoint is for: the proof of a conversion.

    flax, safetensors   the Flax network (a RefineNet of the PyTorch flavor: the PyTorch network)
    pth                 the PyTorch network, filled by the port's own keys, without a detour through Flax names
    diffusers           ``UNet2DModel`` of the library, which must be installed

Inputs are two images between 0 and 1 with noise, from a fixed seed, in the configured size, with two noise levels.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints.diffusers_state import unet_folder
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.flax_state import read_flax
from score_core.checkpoints.formats import FORMATS, Report
from score_core.checkpoints.pth_format import loads_pth
from score_core.checkpoints.pth_state import split_pth
from score_core.checkpoints.safetensors_state import is_port, read_arrays, read_safetensors
from score_core.checkpoints.store import read_checkpoint
from score_core.checkpoints.torch_conversion import ema_state_dict, strip_module
from score_core.checkpoints.training_state import flavor_matters, flavor_of, one_set
from score_core.errors import UsageError

__all__ = ["compare_outputs", "run_diffusers", "run_flax", "run_pth", "run_safetensors", "run_state_dict"]


def _inputs(config: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images ``[2, H, W, C]`` and labels ``[2]``: noise levels for Fourier features, indices otherwise."""
    model, size = config.model, config.data.image_size
    draw = np.random.RandomState(0)
    x = draw.uniform(size=(2, size, size, config.data.num_channels))
    sigmas = np.asarray([0.3, 3.0])
    fourier = model.name.lower() == "ncsnpp" and model.embedding_type.lower() == "fourier"
    labels = sigmas if fourier else np.asarray([model.num_scales // 3, model.num_scales - 1])
    x = x + sigmas[:, None, None, None] * draw.standard_normal(x.shape)
    return x.astype(np.float32), labels.astype(np.float32 if fourier else np.int32)


def compare_outputs(one: tuple[str, Path], other: tuple[str, Path], config: Any, weights: str) -> tuple[float, float]:
    """The largest difference of the networks of two checkpoints, and the largest output.

    Arguments:
        one, other: format and path.
        config: the configuration of both.
        weights: which set, "raw" or "ema".

    Raises:
        UsageError: a format cannot be verified, or its framework is not installed.
    """
    outputs = []
    for name, path in (one, other):
        run = FORMATS[name].run
        if run is None:
            raise UsageError(f"checkpoints in the format {name} cannot be verified.")
        try:
            outputs.append(np.asarray(run(path, config, weights), np.float64))
        except ModuleNotFoundError as error:
            raise UsageError(f"--verify of {name} needs the package {error.name}, which is not installed.") from error
    first, second = outputs
    if first.shape != second.shape:
        raise CheckpointError(f"the networks give {first.shape} and {second.shape}.")
    return float(np.max(np.abs(first - second))), float(np.max(np.abs(first)))


def run_flax(path: Path, config: Any, weights: str) -> np.ndarray:
    """The Flax network with the parameters of a msgpack file."""
    return _run_tree(read_flax(read_checkpoint(path), config, Report(), path), config, weights)


def run_safetensors(path: Path, config: Any, weights: str) -> np.ndarray:
    """The Flax network, or for weights with the port's keys the PyTorch network."""
    data = read_checkpoint(path)
    arrays = read_arrays(data, path)
    tree = read_safetensors(data, config, Report(), path)
    if is_port(arrays):
        return run_state_dict(arrays, config, flavor_of(tree))
    return _run_tree(tree, config, weights)


def run_pth(path: Path, config: Any, weights: str) -> np.ndarray:
    """The PyTorch network with the parameters of a ``.pth`` file."""
    state_dict, content, flavor = split_pth(loads_pth(read_checkpoint(path), where=path), path, config)
    if content is not None and weights == "ema":
        state_dict = ema_state_dict(content["ema"]["shadow_params"], state_dict, config, flavor)
    return run_state_dict(state_dict, config, flavor)


def run_diffusers(path: Path, config: Any, weights: str) -> np.ndarray:
    """``UNet2DModel`` of a folder; nothing is fetched."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch = import_module("torch")
    x, labels = _inputs(config)
    folder = unet_folder(path / weights if (path / weights).is_dir() else path)
    load = import_module("diffusers").UNet2DModel.from_pretrained
    model = load(str(folder), local_files_only=True, low_cpu_mem_usage=False).eval()
    with torch.inference_mode():
        out = model(torch.from_numpy(_nchw(x)), torch.from_numpy(labels)).sample
    return out.numpy().transpose(0, 2, 3, 1)


def _nchw(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _run_tree(tree: Mapping[str, Any], config: Any, weights: str) -> np.ndarray:
    params = one_set(tree, weights)["params"]
    x, labels = _inputs(config)
    if flavor_matters(config) and flavor_of(tree) == "pytorch":
        networks = import_module("score_core.torch.networks")
        model = networks.create_model(config, "pytorch")
        networks.load_flax_tree(model, params)
        return _run_torch(model, x, labels)
    networks = import_module("score_core.jax.networks")
    model = networks.create_model(config)
    apply = import_module("jax").jit(lambda p, images, levels: model.apply({"params": p}, images, levels, train=False))
    return np.asarray(apply(params, x, labels))


def run_state_dict(state_dict: Mapping[str, Any], config: Any, flavor: str) -> np.ndarray:
    """The PyTorch network with parameters by the port's keys."""
    torch = import_module("torch")
    networks = import_module("score_core.torch.networks")
    # NCSN++ and DDPM are the same in both flavors, but only the port's has the layers that nothing reads.
    model = networks.create_model(config, flavor if flavor_matters(config) else "pytorch")
    keys = import_module("score_core.torch.train_state").original_keys(model, config)
    given = strip_module(state_dict)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if keys[name] in given:
                parameter.copy_(torch.from_numpy(np.array(given[keys[name]])))
    return _run_torch(model, *_inputs(config))


def _run_torch(model: Any, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    torch = import_module("torch")
    indices = labels if labels.dtype.kind == "f" else labels.astype(np.int64)
    with torch.inference_mode():
        out = model.eval()(torch.from_numpy(_nchw(x)), torch.from_numpy(indices))
    return out.numpy().transpose(0, 2, 3, 1)
