"""Whether a checkpoint holds the parameters of a configuration's network, from names and shapes alone.

Each ``..._fits(data, where)`` looks at a file once and returns a function of a configuration.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.classifier_names import classifier_shapes
from score_core.checkpoints.diffusers_names import diffusers_names
from score_core.checkpoints.diffusers_state import unet_arrays
from score_core.checkpoints.pth_format import outline_pth
from score_core.checkpoints.pth_state import split_pth
from score_core.checkpoints.safetensors_state import array_shapes, is_port
from score_core.checkpoints.torch_conversion import compare_state_dict, compare_tree
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.training_state import flavor_matters
from score_core.checkpoints.tree import flatten, unflatten
from score_core.errors import UsageError

__all__ = ["CLASSIFIER", "Fits", "diffusers_fits", "flax_fits", "pth_fits", "safetensors_fits"]

Fits = Callable[[Any], bool]


def _flavors(config: Any) -> tuple[str, ...]:
    return ("jax", "pytorch") if flavor_matters(config) else ("pytorch",)


CLASSIFIER = "the noise-conditional classifier"
"""Stands for its configuration, of which it has none."""


def _tree_fits(params: Any) -> Fits:
    def fits(config: Any) -> bool:
        if config is CLASSIFIER:
            found = {name: np.shape(value) for name, value in flatten(params).items()}
            wanted = classifier_shapes()
            return found.keys() == wanted.keys() and all(_folded(found[n]) == _folded(wanted[n]) for n in wanted)
        return any(compare_tree(params, config, flavor).complete for flavor in _flavors(config))

    return fits


def _folded(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[3:] if shape[:3] == (1, 1, 1) else shape


def _state_dict_fits(state_dict: Any) -> Fits:
    return lambda config: any(compare_state_dict(state_dict, config, flavor).complete for flavor in _flavors(config))


def flax_fits(data: bytes, where: Any) -> Fits:
    """Of a msgpack file: a training state's parameters, or a tree of them."""
    tree = msgpack_format.loads(data, where=where, copy=False)
    optimizer = tree.get("optimizer")
    params = optimizer.get("target", tree) if isinstance(optimizer, dict) else tree
    return _tree_fits(params if isinstance(params, dict) else {})


def pth_fits(data: bytes, where: Any) -> Fits:
    """Of a PyTorch file."""
    return _state_dict_fits(split_pth(outline_pth(data, where=where), where)[0])


def safetensors_fits(data: bytes, where: Any) -> Fits:
    """Of a safetensors file, from its header."""
    outline = {name: np.broadcast_to(np.float32(0), shape) for name, shape in array_shapes(data, where).items()}
    if is_port(outline):
        return _state_dict_fits(outline)
    target = {name.removeprefix("optimizer/target/"): value for name, value in outline.items()}
    if any(name.startswith("optimizer/") for name in outline):
        target = {
            n.removeprefix("optimizer/target/"): v for n, v in outline.items() if n.startswith("optimizer/target/")
        }
    try:
        return _tree_fits(unflatten(target))
    except ValueError:
        return lambda config: False


def diffusers_fits(path: Path, where: Any) -> Fits:
    """Of a diffusers folder."""
    del where
    found = {name: value.shape for name, value in unet_arrays(path).items()}

    def fits(config: Any) -> bool:
        try:
            names = diffusers_names(config)
        except UsageError:  # the class cannot express it
            return False
        shapes = {leaf.key: leaf.shape for leaf in torch_leaves(config)}
        wanted = {n.diffusers_key: shapes[n.torch_key][::-1] if n.transposed else shapes[n.torch_key] for n in names}
        return found == wanted

    return fits
