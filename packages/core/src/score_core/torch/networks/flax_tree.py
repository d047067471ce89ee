r"""Parameters as the Flax wing's tree: one name in both wings, a transposition for each kind of leaf.

    module                      here                            Flax
    Conv                        weight  [out, in, k, k]         kernel  [k, k, in, out]
    Dense                       weight  [out, in]               kernel  [in, out]
    Conv2d (FIR)                weight  [out, in, k, k]         weight  [k, k, in, out]
    GroupNorm, InstanceNorm2d,
    VarianceNorm2d              weight, bias  [C]               scale, bias  [1, 1, 1, C]
    InstanceNorm2dPlus          alpha, gamma, beta  [C]         alpha, gamma, beta  [1, 1, 1, C]
    everything else             as it is

A module is found under the same path: ``ResnetBlockBigGANpp_3.Conv_0.weight`` is
``ResnetBlockBigGANpp_3/Conv_0/kernel``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.tree import flatten, sort_names, unflatten
from score_core.torch.networks.blocks import Conv2d
from score_core.torch.networks.layers import Conv, Dense
from score_core.torch.networks.normalization import GroupNorm, InstanceNorm2d, InstanceNorm2dPlus, VarianceNorm2d

__all__ = ["Leaf", "flax_leaves", "load_flax_tree", "to_flax_tree"]

_SHOWN = 5
_NORMS = (GroupNorm, InstanceNorm2d, InstanceNorm2dPlus, VarianceNorm2d)


class Leaf(NamedTuple):
    """One parameter: its ``path`` and ``shape`` in the Flax tree, and the axes that lead there and back."""

    path: str
    shape: tuple[int, ...]
    parameter: nn.Parameter
    to_flax: tuple[int, ...]
    from_flax: tuple[int, ...]


def flax_leaves(module: nn.Module) -> dict[str, Leaf]:
    """Every parameter of ``module`` (by its name in ``named_parameters()``) with its place in the Flax tree."""
    leaves = {}
    for prefix, child in module.named_modules():
        for name, parameter in child.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            leaves[full] = _leaf(child, name, full, parameter)
    return leaves


def _leaf(child: nn.Module, name: str, full: str, parameter: nn.Parameter) -> Leaf:
    if isinstance(child, _NORMS):
        # The trailing axis is the only one there is.
        last = "scale" if name == "weight" else name
        shape, axes, back = (1, 1, 1, parameter.shape[0]), (0,), (0,)
    else:
        last = "kernel" if name == "weight" and isinstance(child, Conv | Dense) else name
        axes, back = tuple(range(parameter.ndim)), tuple(range(parameter.ndim))
        if name == "weight" and isinstance(child, Conv | Conv2d):
            axes, back = (2, 3, 1, 0), (3, 2, 0, 1)
        elif name == "weight" and isinstance(child, Dense):
            axes, back = (1, 0), (1, 0)
        shape = tuple(parameter.shape[axis] for axis in axes)
    *parents, _ = full.split(".")
    return Leaf("/".join([*parents, last]), shape, parameter, axes, back)


def to_flax_tree(module: nn.Module) -> dict[str, Any]:
    """The parameters of ``module`` as a nested dict of new NumPy arrays, keys in the order of the Flax checkpoints."""
    flat = {
        leaf.path: np.array(leaf.parameter.detach().cpu().permute(leaf.to_flax).numpy()).reshape(leaf.shape)
        for leaf in flax_leaves(module).values()
    }
    return sort_names(unflatten(flat))


def load_flax_tree(module: nn.Module, tree: Mapping[str, Any]) -> None:
    """Copy a Flax parameter tree (nested mapping of arrays) into ``module``.

    Normalisation parameters may have shape ``[C]`` (newer Flax) or ``[1, 1, 1, C]``.

    Raises: CheckpointError if a name is missing or unknown or a shape differs; nothing is copied then.
    """
    flat = flatten(tree)
    leaves = {leaf.path: leaf for leaf in flax_leaves(module).values()}
    problems = [f"missing: {path}" for path in leaves if path not in flat]
    problems += [f"unknown: {path}" for path in flat if path not in leaves]
    for path, leaf in leaves.items():
        if path in flat and not _fits(np.shape(flat[path]), leaf):
            problems.append(f"{path}: shape {tuple(np.shape(flat[path]))}, expected {leaf.shape}")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError(
            f"the parameters do not fit {type(module).__name__} ({'; '.join(problems[:_SHOWN])}{more}): "
            "build the network with the configuration and the flavor the parameters come from"
        )
    with torch.no_grad():
        for path, leaf in leaves.items():
            value = np.asarray(flat[path])
            value = value.reshape(-1) if len(leaf.from_flax) == 1 else value
            leaf.parameter.copy_(torch.from_numpy(np.ascontiguousarray(value.transpose(leaf.from_flax))))


def _fits(shape: tuple[int, ...], leaf: Leaf) -> bool:
    return shape == leaf.shape or (len(leaf.from_flax) == 1 and shape == leaf.shape[-1:])
