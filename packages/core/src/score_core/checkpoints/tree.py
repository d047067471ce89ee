"""Trees of named arrays: flat names, and restoring a stored tree into a target of known names and shapes.

A tree is a nested mapping with string keys; ``"a/b/c"`` is the flat name of ``tree["a"]["b"]["c"]``. An empty mapping
is a value of its own (the original's ``model_state``).

Casting, when the stored type differs from the target's:

    float  -> float                    rounded to the target's precision (bfloat16 counts as a float)
    integer, bool -> integer or bool   if every value survives
    integer -> float                   if every value survives
    NumPy array of shape () <-> number, whichever the target holds

Anything else (a float for an integer, a complex for a float, text for a number) is an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from score_core.checkpoints.errors import CheckpointError

__all__ = ["flatten", "restore_tree", "sort_names", "unflatten"]

_SHOWN = 5


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A nested mapping as ``{"a/b/c": leaf}`` in the order of ``tree``; an empty mapping is the leaf ``{}``.

    Raises: ValueError if a key contains "/" or is empty, since its flat name would be ambiguous.
    """
    flat: dict[str, Any] = {}
    _walk(tree, "", flat.__setitem__)
    return flat


def _walk(tree: Mapping[str, Any], prefix: str, visit: Callable[[str, Any], None]) -> None:
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key:
            raise ValueError(
                f"{key!r} below {prefix!r} cannot be part of a flat name: use non-empty strings without '/'"
            )
        name = f"{prefix}/{key}" if prefix else key
        if isinstance(value, Mapping) and value:
            _walk(value, name, visit)
        else:
            visit(name, {} if isinstance(value, Mapping) else value)


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`.

    Raises: ValueError if one name is another's parent (``"a"`` and ``"a/b"``).
    """
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node: Any = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or last in node:
            raise ValueError(f"the flat name {name!r} collides with another one")
        node[last] = dict(value) if isinstance(value, Mapping) else value
    return tree


def sort_names(tree: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` with the keys of every level in lexicographic order (``_1, _10, _2``), as parameter maps are stored."""
    return {
        key: sort_names(value) if isinstance(value, Mapping) else value
        for key, value in sorted(tree.items(), key=lambda item: item[0])
    }


@dataclass
class _Mismatches:
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    shapes: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)

    def message(self) -> str:
        groups = (
            ("missing from it", self.missing),
            ("unknown to the target", self.unknown),
            ("of another shape", self.shapes),
            ("of another type", self.types),
        )
        return "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in groups if names)


def restore_tree(target: Mapping[str, Any], loaded: Mapping[str, Any], *, where: Any = "checkpoint") -> dict[str, Any]:
    """The values of ``loaded`` in the structure, shapes and types of ``target``.

    Arguments:
        target: nested mapping; leaves are arrays, anything with ``shape`` and ``dtype``, or plain Python values, whose
            values do not matter.
        loaded: what :func:`score_core.checkpoints.msgpack_format.loads` returned.
        where: the file it came from, for the error message.

    Returns: nested dict with the keys of ``target`` in its order. Arrays are NumPy arrays of the target's dtype; where
    the target has shape (C,) and the file (1, 1, 1, C), or the reverse, as old and new flax normalisation layers do,
    the array is reshaped.

    Raises: CheckpointError counting and naming what is missing, unknown, or of another shape or type.
    """
    found = _Mismatches()
    restored = _restore_level(target, loaded, "", found)
    if problems := found.message():
        raise CheckpointError(
            f"{where} does not fit: {problems}. It belongs to another configuration, network or format: "
            "start with the configuration it was made with."
        )
    return restored


def _first(names: list[str]) -> str:
    more = f", ... ({len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _restore_level(
    target: Mapping[str, Any], loaded: Mapping[str, Any], prefix: str, found: _Mismatches
) -> dict[str, Any]:
    restored: dict[str, Any] = {}
    for key, wanted in target.items():
        name = f"{prefix}{key}"
        if key not in loaded:
            found.missing.extend(_leaf_names(wanted, name))
        elif isinstance(wanted, Mapping) and isinstance(loaded[key], Mapping):
            restored[key] = _restore_level(wanted, loaded[key], f"{name}/", found)
        elif isinstance(wanted, Mapping) or isinstance(loaded[key], Mapping):
            found.types.append(f"{name} ({_kind(loaded[key])}, expected {_kind(wanted)})")
        else:
            restored[key] = _restore_leaf(wanted, loaded[key], name, found)
    for key in loaded:
        if key not in target:
            found.unknown.extend(_leaf_names(loaded[key], f"{prefix}{key}"))
    return restored


def _leaf_names(value: Any, name: str) -> list[str]:
    names: list[str] = []
    if isinstance(value, Mapping):
        _walk(value, name, lambda leaf, _: names.append(leaf))
    return names or [name]


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a group of names"
    return str(value.dtype) if hasattr(value, "dtype") else type(value).__name__


def _restore_leaf(wanted: Any, value: Any, name: str, found: _Mismatches) -> Any:
    if isinstance(wanted, (str, bytes, type(None))) or isinstance(value, (str, bytes, type(None), list)):
        if type(wanted) is not type(value):
            found.types.append(f"{name} ({_kind(value)}, expected {_kind(wanted)})")
        return value
    is_array = hasattr(wanted, "shape") and hasattr(wanted, "dtype")
    shape = tuple(wanted.shape) if is_array else ()
    dtype = np.dtype(wanted.dtype) if is_array else np.asarray(wanted).dtype
    array = np.asarray(value)
    if array.shape != shape and not _same_norm(array.shape, shape):
        found.shapes.append(f"{name} {array.shape}, expected {shape}")
        return value
    cast = _cast(array.reshape(shape), dtype)
    if cast is None:
        found.types.append(f"{name} ({_kind(value)}, expected {_kind(wanted)})")
        return value
    return cast if is_array else type(wanted)(cast.item())


def _same_norm(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether one is (C,) and the other (1, 1, 1, C)."""
    short, long = sorted((one, other), key=len)
    return len(short) == 1 and long == (1, 1, 1, *short)


def _cast(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    """``array`` as ``dtype`` by the rules of this module, or None if they forbid it."""
    if array.dtype == dtype:
        return array
    given, wanted = _family(array.dtype), _family(dtype)
    if given == wanted and given in ("float", "complex"):
        return array.astype(dtype)
    if given == "integer" and wanted in ("integer", "float"):
        return _cast_integers(array, dtype)
    return None


def _cast_integers(array: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    # Compared as Python numbers, which is exact for any two types.
    after = cast if _family(dtype) == "integer" else cast.astype(np.float64)
    return cast if array.tolist() == after.tolist() else None


def _family(dtype: np.dtype) -> str:
    if dtype.kind in "iub":
        return "integer"
    if dtype.kind == "f" or dtype.name == "bfloat16":  # which ml_dtypes defines and NumPy calls opaque ("V")
        return "float"
    return "complex" if dtype.kind == "c" else dtype.name
