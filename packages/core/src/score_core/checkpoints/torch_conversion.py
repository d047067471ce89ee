"""Flax parameter trees to state dicts of the original PyTorch port and back, with a report of every key.

    comparison = compare_state_dict(state_dict, config);  print(comparison.summary())
    tree = from_torch(state_dict, config);                state_dict = to_torch(tree, config)

Arrays are NumPy arrays, or anything that :func:`numpy.asarray` takes (tensors on the host included), and keep their
type. State dicts are taken with or without the prefix ``module.`` of ``torch.nn.DataParallel``. ``flavor`` says whose
parameters are meant where the two programs differ (NCSN and NCSNv2, see `refine_names`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.torch_leaf import TorchLeaf, Transform
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.tree import flatten, sort_names, unflatten
from score_core.noise_scales import langevin_sigmas

__all__ = [
    "Comparison",
    "add_module",
    "compare_state_dict",
    "compare_tree",
    "ema_list",
    "ema_state_dict",
    "from_torch",
    "strip_module",
    "to_torch",
]

SIGMAS = "sigmas"
"""The buffer of noise levels, which is computed and not learned."""
_PREFIX = "module."
_SHOWN = 5


@dataclass(frozen=True)
class Comparison:
    """What a set of named arrays has for a network, before it is converted.

    Attributes:
        copied: pairs (Flax path, PyTorch key) of parameters that are taken as they are.
        reshaped: pairs of those that are transposed or flattened.
        missing: names, in the terms of the given arrays, of parameters that are not there.
        wrong_shape: descriptions of parameters whose shape is another one.
        unused: given names that the network does not have.
        torch_only: given keys without a counterpart in Flax, which are not needed: ``sigmas``, and Dense layers that an
            unconditional network never calls.
    """

    copied: tuple[tuple[str, str], ...]
    reshaped: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    unused: tuple[str, ...]
    torch_only: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every parameter is there in its shape and nothing else is."""
        return not (self.missing or self.wrong_shape or self.unused)

    def summary(self) -> str:
        """One line: the counts, and the first names of what does not fit."""
        parts = [f"{len(self.copied)} copied, {len(self.reshaped)} reshaped"]
        groups = (("missing", self.missing), ("of another shape", self.wrong_shape), ("unused", self.unused))
        parts += [f"{len(names)} {what}: {_first(names)}" for what, names in groups if names]
        return "; ".join(parts)


def _first(names: Sequence[str]) -> str:
    more = f", ... ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def strip_module(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict without the prefix ``module.``, which is taken off where it is."""
    return {key.removeprefix(_PREFIX): value for key, value in state_dict.items()}


def add_module(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict with the prefix ``module.`` on every key, as the original's checkpoints have it."""
    return {_PREFIX + key.removeprefix(_PREFIX): value for key, value in state_dict.items()}


def compare_state_dict(state_dict: Mapping[str, Any], config: Any, flavor: str = "pytorch") -> Comparison:
    """What of the network of ``config`` a PyTorch state dict has.

    Raises:
        UsageError: there is no PyTorch counterpart of the network.
    """
    leaves = torch_leaves(config, flavor)
    known = {leaf.key for leaf in leaves if leaf.name}
    needless = {leaf.key for leaf in leaves if not leaf.name} | {SIGMAS}
    given = strip_module(state_dict)
    wanted = [(leaf, leaf.key, (leaf.shape,)) for leaf in leaves if leaf.name]
    torch_only = tuple(key for key in given if key in needless)
    return _compare(wanted, given, (key for key in given if key not in known | needless), torch_only)


def compare_tree(tree: Mapping[str, Any], config: Any, flavor: str = "pytorch") -> Comparison:
    """What of the network of ``config`` a Flax parameter tree has.

    Raises:
        UsageError: there is no PyTorch counterpart of the network.
    """
    given = flatten(tree)
    wanted = [(leaf, leaf.name.jax_path, _tree_shapes(leaf)) for leaf in torch_leaves(config, flavor) if leaf.name]
    known = {path for _, path, _ in wanted}
    return _compare(wanted, given, (path for path in given if path not in known))


def _has_levels(config: Any) -> bool:
    """Whether the port's network keeps its noise levels: all but NCSN."""
    return config.model.name.lower() != "ncsn"


def _tree_shapes(leaf: TorchLeaf) -> tuple[tuple[int, ...], ...]:
    """The shapes a leaf may have: normalisation layers of newer Flax have ``[C]``."""
    flat = leaf.name is not None and leaf.name.transform is Transform.FLATTEN
    return (leaf.jax_shape, leaf.shape) if flat else (leaf.jax_shape,)


def _compare(
    wanted: Iterable[tuple[TorchLeaf, str, tuple[tuple[int, ...], ...]]],
    given: Mapping[str, Any],
    unused: Iterable[str],
    torch_only: tuple[str, ...] = (),
) -> Comparison:
    copied: list[tuple[str, str]] = []
    reshaped: list[tuple[str, str]] = []
    missing: list[str] = []
    wrong_shape: list[str] = []
    for leaf, name, shapes in wanted:
        assert leaf.name is not None
        pair = (leaf.name.jax_path, leaf.key)
        if name not in given:
            missing.append(name)
        elif (shape := tuple(np.shape(given[name]))) not in shapes:
            wrong_shape.append(f"{name} {shape}, expected {shapes[0]}")
        elif leaf.name.transform is Transform.SAME:
            copied.append(pair)
        else:
            reshaped.append(pair)
    return Comparison(
        tuple(copied), tuple(reshaped), tuple(missing), tuple(wrong_shape), tuple(unused), torch_only=torch_only
    )


def from_torch(
    state_dict: Mapping[str, Any], config: Any, *, partial: bool = False, flavor: str = "pytorch"
) -> dict[str, Any]:
    """The Flax parameter tree of a PyTorch state dict.

    Arguments:
        state_dict: key to array; ``sigmas`` may be there or not.
        config: the configuration of the network.
        partial: convert what fits, whatever is missing, superfluous or of another shape.

    Returns: a nested dict, names in lexicographic order as in the Flax checkpoints.

    Raises:
        CheckpointError: the state dict is not that of the network and ``partial`` is off.
        UsageError: there is no PyTorch counterpart of the network.
    """
    comparison = compare_state_dict(state_dict, config, flavor)
    _require_complete(comparison, partial, "state dict")
    given = strip_module(state_dict)
    fitting = {key for _, key in comparison.copied + comparison.reshaped}
    names = [leaf.name for leaf in torch_leaves(config, flavor) if leaf.name and leaf.key in fitting]
    return sort_names(
        unflatten({name.jax_path: name.transform.from_torch(np.asarray(given[name.torch_key])) for name in names})
    )


def to_torch(
    tree: Mapping[str, Any], config: Any, *, partial: bool = False, flavor: str = "pytorch"
) -> dict[str, np.ndarray]:
    """The PyTorch state dict of a Flax parameter tree.

    Arguments:
        tree: nested mapping of arrays; normalisation parameters ``[1, 1, 1, C]`` or ``[C]``.
        config: the configuration of the network.
        partial: convert what fits, whatever is missing, superfluous or of another shape.

    Returns: every key of the original's state dict in its order, without ``module.`` (see :func:`add_module`).
    ``sigmas`` (not in NCSN) is float64 as there; layers that an unconditional network never calls are zero.

    Raises:
        CheckpointError: the tree is not that of the network and ``partial`` is off.
        UsageError: there is no PyTorch counterpart of the network.
    """
    comparison = compare_tree(tree, config, flavor)
    _require_complete(comparison, partial, "parameter tree")
    given = flatten(tree)
    fitting = {path for path, _ in comparison.copied + comparison.reshaped}
    state_dict: dict[str, np.ndarray] = {}
    if _has_levels(config):
        model = config.model
        # parity: float64, unlike the levels of the Flax networks (noise_scales.model_sigmas).
        state_dict[SIGMAS] = langevin_sigmas(model.sigma_max, model.sigma_min, model.num_scales)
    for leaf in torch_leaves(config, flavor):
        if leaf.name is None:
            state_dict[leaf.key] = np.zeros(leaf.shape, np.float32)
        elif leaf.name.jax_path in fitting:
            state_dict[leaf.key] = leaf.name.transform.to_torch(np.asarray(given[leaf.name.jax_path]))
    return state_dict


def _require_complete(comparison: Comparison, partial: bool, what: str) -> None:
    if not (partial or comparison.complete):
        raise CheckpointError(
            f"the {what} is not that of the configured network ({comparison.summary()}): "
            "take the configuration it was made with, or convert what fits with partial=True."
        )


def ema_state_dict(
    shadow_params: Sequence[Any], state_dict: Mapping[str, Any], config: Any, flavor: str = "pytorch"
) -> dict[str, Any]:
    """The state dict with averaged parameters in the place of the last ones.

    Arguments:
        shadow_params: the list that the port's checkpoints keep as ``ema/shadow_params``: the trainable parameters in
            the order of the network.
        state_dict: the network's own, for everything that has no average.
        config: the configuration of the network.

    Returns: a state dict without ``module.``, in the order of ``state_dict``.

    Raises:
        CheckpointError: the list is not that of the network.
    """
    trainable = [leaf for leaf in torch_leaves(config, flavor) if leaf.trainable]
    found = [tuple(np.shape(value)) for value in shadow_params]
    if found != [leaf.shape for leaf in trainable]:
        pairs = zip(found, trainable, strict=False)
        wrong = [f"{leaf.key} {shape}, expected {leaf.shape}" for shape, leaf in pairs if shape != leaf.shape]
        raise CheckpointError(
            f"the averaged parameters are not those of the configured network ({len(found)} of {len(trainable)} arrays"
            f"{'; ' + _first(wrong) if wrong else ''}): take the configuration they were made with."
        )
    return strip_module(state_dict) | {leaf.key: v for leaf, v in zip(trainable, shadow_params, strict=True)}


def ema_list(state_dict: Mapping[str, Any], config: Any, flavor: str = "pytorch") -> list[Any]:
    """The inverse of :func:`ema_state_dict`: the averages of a state dict as the port's list ``shadow_params``."""
    given = strip_module(state_dict)
    return [given[leaf.key] for leaf in torch_leaves(config, flavor) if leaf.trainable]
