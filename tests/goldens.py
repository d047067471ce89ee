"""Golden numbers: one loader and the parameter fill rule for every package's tests.

A package's golden files live in ``packages/<package>/tests/golden/``. Parameters are not stored there: they are
rebuilt from their checkpoint names by :func:`fill`, in any framework.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def path(package: str, name: str) -> Path:
    """Where golden file ``name`` of ``package`` (a folder of ``packages/``) is."""
    return ROOT / "packages" / package / "tests" / "golden" / name


def load(package: str, name: str) -> Any:
    """The contents of a golden file: a dict of arrays for ``.npz``, the parsed value for ``.json``."""
    file = path(package, name)
    if file.suffix == ".json":
        return json.loads(file.read_text())
    with np.load(file) as arrays:
        return dict(arrays)


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 value of the parameter with checkpoint key ``name`` (JAX: path joined with ``/``).

    ``n ~ RandomState(crc32(name))``; two or more dimensions: ``n / sqrt(size / max(shape))``;
    fewer: ``0.1 n``, plus 1 if the name's last component is weight, scale, gamma or alpha.
    """
    n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(size=shape)
    if len(shape) >= 2:
        value = n / np.sqrt(np.prod(shape) / max(shape))
    else:
        last = name.replace(".", "/").rsplit("/", 1)[-1]
        value = 0.1 * n + (1.0 if last in ("weight", "scale", "gamma", "alpha") else 0.0)
    return np.asarray(value, np.float32)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as ``{"a/b/c": leaf}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}/{key}" if prefix else str(key)
        if isinstance(value, dict):
            flat.update(flatten(value, name))
        else:
            flat[name] = value
    return flat


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        node = tree
        *parents, last = name.split("/")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def fill_tree(tree: dict[str, Any]) -> dict[str, Any]:
    """A nested dict of arrays (or shape structs) with every leaf replaced by its :func:`fill` value."""
    return unflatten({name: fill(name, tuple(leaf.shape)) for name, leaf in flatten(tree).items()})
