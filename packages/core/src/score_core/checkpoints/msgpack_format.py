"""The flax serialisation format (msgpack with three extension types), read and written without flax.

A checkpoint is one msgpack map ``name -> value``; a value is again a map, or a leaf:

    nil, bool, int, float, str, bin       as msgpack has them
    ext 1   array         payload = msgpack of (shape, dtype name, bytes in C order, little endian)
    ext 2   complex       payload = msgpack of (real, imaginary)
    ext 3   NumPy scalar  payload as ext 1 with shape ()

An array of more than ``MAX_CHUNK_BYTES`` bytes is stored as flat pieces, as the map
``{"__msgpack_chunked_array__": True, "shape": {"0": n_0, ...}, "chunks": {"0": piece, ...}}``.

Maps keep the order of the given dict, and :func:`loads` keeps the order of the file, so ``dumps(loads(b)) == b``.
In the original's files the state's own levels are in field order and parameter maps in lexicographic order
(``_1, _10, _2``): :func:`score_core.checkpoints.tree.sort_names` gives the latter.

Reading is strict: what the format does not know is refused, and nothing larger than the file is ever allocated
on the word of a length field.
"""

import math
import os
from collections.abc import Mapping, Sized
from functools import partial
from typing import Any, cast

import msgpack
import numpy as np

from score_core.checkpoints.errors import CheckpointError

__all__ = ["MAX_CHUNK_BYTES", "dumps", "loads"]

MAX_CHUNK_BYTES = 2**30
_CHUNKED = "__msgpack_chunked_array__"
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3

# Bounds far above any real network (the deepest here nests 8 levels, the widest map has some hundred names).
_MAX_DEPTH = 64
_MAX_NAMES = 2**14
_MAX_LIST = 1024
_MAX_DIMS = 32

_DTYPES = frozenset(
    ["bool", "float16", "float32", "float64", "complex64", "complex128"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
_PLAIN = (type(None), bool, int, float, complex, str, bytes)

_FOREIGN = {
    b"PK\x03\x04": "a zip archive, as PyTorch (.pth) and NumPy (.npz) write",
    b"\x80\x02": "a Python pickle, as old PyTorch files are",
    b"\x80\x03": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"\x1f\x8b": "gzip-compressed",
    b"\x89HDF": "an HDF5 file",
    b"<": "an HTML or XML page, as a failed download leaves",
    b"{": "a text file",
}


class _Malformed(ValueError):
    """The bytes break the format; the message says how."""


def dumps(tree: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint.

    Arguments:
        tree: nested mapping with string keys. Leaves: NumPy arrays and scalars, anything NumPy can view as an array
            (it has ``shape`` and ``dtype``), None, bool, int, float, complex, str, bytes; lists of these.

    Returns: the msgpack bytes, maps in the order of ``tree``.

    Raises: CheckpointError naming the leaf that cannot be stored.
    """
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"cannot store a checkpoint whose root is a {type(tree).__name__}: give a dict of names")
    prepared = _prepare(tree, "")
    try:
        return _pack(prepared)
    except ValueError as error:  # text that is not Unicode, more than 4 GiB of text or bytes
        raise CheckpointError(f"cannot store the checkpoint: {error}") from error


def loads(data: bytes, *, where: str | os.PathLike[str] = "checkpoint", copy: bool = True) -> dict[str, Any]:
    """The tree stored in the bytes of a checkpoint.

    Arguments:
        data: contents of a file made by :func:`dumps` or by flax.
        where: the file's name, for the error message.
        copy: False: arrays are read-only, which saves time where they are only looked at.

    Returns: nested dict in file order; arrays are writable NumPy arrays of their own memory.

    Raises: CheckpointError if the bytes are truncated, damaged or of another format.
    """
    try:
        tree = msgpack.unpackb(
            data,
            ext_hook=partial(_decode_extension, copy=copy),
            object_pairs_hook=_decode_map,
            raw=False,
            strict_map_key=False,  # _decode_map refuses the key itself and says which
            max_array_len=_MAX_LIST,
            max_map_len=_MAX_NAMES,
        )
        if not isinstance(tree, dict):
            raise _Malformed(f"the root is of type {type(tree).__name__}, not a map of names")
        _check_node(tree, "")
    except (ValueError, OverflowError, msgpack.UnpackException) as error:
        raise CheckpointError(_explain(data, where, error)) from error
    return tree


def _explain(data: bytes, where: str | os.PathLike[str], error: Exception) -> str:
    foreign = next((kind for magic, kind in _FOREIGN.items() if data[: len(magic)] == magic), None)
    if not data:
        reason = "the file is empty"
    elif foreign:
        reason = f"it is {foreign}"
    elif isinstance(error, msgpack.StackError):
        reason = "nested too deeply"
    else:
        reason = str(error) or type(error).__name__
    return (
        f"{os.fspath(where)}: not a readable flax msgpack checkpoint: {reason} ({len(data)} bytes). "
        "Copy or download the file again, or use an earlier checkpoint."
    )


# --- writing


def _pack(value: Any) -> bytes:
    return cast(bytes, msgpack.packb(value, default=_encode_leaf, strict_types=True))


def _prepare(node: Any, name: str, depth: int = 0) -> Any:
    """``node`` in plain containers, every leaf checked and oversized arrays cut into pieces."""
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"cannot store {name!r}: nested deeper than {_MAX_DEPTH} levels")
    if isinstance(node, Mapping):
        for key in node:
            if not isinstance(key, str):
                raise CheckpointError(
                    f"cannot store {name!r}: key {key!r} is of type {type(key).__name__}, not a string"
                )
        _check_length(node, _MAX_NAMES, name)
        return {key: _prepare(value, f"{name}/{key}" if name else key, depth + 1) for key, value in node.items()}
    if type(node) is list:
        _check_length(node, _MAX_LIST, name)
        return [_prepare(value, f"{name}/{index}", depth + 1) for index, value in enumerate(node)]
    if type(node) is int and not -(2**63) <= node < 2**64:
        raise CheckpointError(f"cannot store {name!r}: the integer {node} does not fit in 64 bits")
    if type(node) in _PLAIN:
        return node
    if hasattr(node, "shape") and hasattr(node, "dtype"):
        return _prepare_array(node, name)
    raise CheckpointError(
        f"cannot store {name!r}: a {type(node).__name__} is not an array, a number or a string "
        "(write tuples and objects as dicts of their fields)"
    )


def _check_length(container: Sized, limit: int, name: str) -> None:
    if len(container) > limit:
        raise CheckpointError(
            f"cannot store {name!r}: {len(container)} entries, more than the {limit} that can be read"
        )


def _prepare_array(leaf: Any, name: str) -> Any:
    array = leaf if isinstance(leaf, np.generic) else np.asarray(leaf)
    if array.dtype.name not in _DTYPES and array.dtype.name != "bfloat16":
        raise CheckpointError(f"cannot store {name!r}: arrays of type {array.dtype} have no place in the format")
    if array.nbytes <= MAX_CHUNK_BYTES:
        return array
    size = max(1, MAX_CHUNK_BYTES // array.dtype.itemsize)
    flat = array.reshape(-1)
    pieces = [flat[start : start + size] for start in range(0, flat.size, size)]
    return {_CHUNKED: True, "shape": _numbered(array.shape), "chunks": _numbered(pieces)}


def _numbered(items: Any) -> dict[str, Any]:
    return {str(index): item for index, item in enumerate(items)}


def _encode_leaf(leaf: Any) -> msgpack.ExtType:
    if isinstance(leaf, np.ndarray):
        return msgpack.ExtType(_ARRAY, _encode_array(leaf))
    if isinstance(leaf, np.generic):
        return msgpack.ExtType(_SCALAR, _encode_array(np.asarray(leaf)))
    return msgpack.ExtType(_COMPLEX, _pack([leaf.real, leaf.imag]))


def _encode_array(array: np.ndarray) -> bytes:
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return _pack([list(array.shape), array.dtype.name, array.tobytes("C")])


# --- reading


def _decode_extension(code: int, payload: bytes, copy: bool) -> Any:
    if code == _ARRAY:
        return _decode_array(payload, copy)
    if code == _SCALAR:
        array = _decode_array(payload, copy)
        if array.shape != ():
            raise _Malformed(f"a scalar has shape {array.shape}")
        return array[()]
    if code == _COMPLEX:
        parts = _decode_payload(payload, 2)
        if not all(isinstance(part, float) for part in parts):
            raise _Malformed("a complex number whose parts are not floats")
        return complex(*parts)
    raise _Malformed(f"unknown extension type {code}")


def _decode_payload(payload: bytes, count: int) -> list[Any]:
    # raw: files of the first flax releases hold the array bytes as a msgpack string.
    parts = msgpack.unpackb(payload, raw=True, max_array_len=_MAX_DIMS, max_map_len=0, max_ext_len=0)
    if not isinstance(parts, list) or len(parts) != count:
        raise _Malformed(f"an extension payload is not a list of {count}")
    return parts


def _decode_array(payload: bytes, copy: bool) -> np.ndarray:
    shape, name, buffer = _decode_payload(payload, 3)
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise _Malformed(f"an array has shape {shape!r:.80}")
    if not isinstance(name, bytes) or not isinstance(buffer, bytes):
        raise _Malformed("an array without a dtype name or without bytes")
    dtype = _dtype(name.decode("ascii", "replace"))
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise _Malformed(f"an array of shape {tuple(shape)} and type {dtype} has {len(buffer)} bytes of data")
    array = np.frombuffer(buffer, dtype).reshape(shape)
    return array.copy() if copy else array


def _dtype(name: str) -> np.dtype:
    if name in _DTYPES:
        return np.dtype(name).newbyteorder("<")
    if name != "bfloat16":
        raise _Malformed(f"an array of type {name!r:.40}")
    try:
        import ml_dtypes
    except ImportError as error:
        raise _Malformed("it holds bfloat16 arrays, which need the package ml_dtypes (installed with jax)") from error
    return np.dtype(ml_dtypes.bfloat16)


def _decode_map(pairs: list[tuple[Any, Any]]) -> Any:
    node: dict[str, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str):
            raise _Malformed(f"a name is of type {type(key).__name__}, not a string")
        if key in node:
            raise _Malformed(f"the name {key!r:.80} occurs twice in one map")
        node[key] = value
    return _join_pieces(node) if _CHUNKED in node else node


def _join_pieces(node: dict[str, Any]) -> np.ndarray:
    shape, pieces = _in_order(node.get("shape")), _in_order(node.get("chunks"))
    if set(node) != {_CHUNKED, "shape", "chunks"} or not pieces:
        raise _Malformed("a chunked array without its shape or its pieces")
    if not all(
        isinstance(piece, np.ndarray) and piece.ndim == 1 and piece.dtype == pieces[0].dtype for piece in pieces
    ):
        raise _Malformed("a chunked array whose pieces are not flat arrays of one type")
    sizes_are_valid = len(shape) <= _MAX_DIMS and all(type(size) is int and size >= 0 for size in shape)
    if not sizes_are_valid or math.prod(shape) != sum(piece.size for piece in pieces):
        raise _Malformed("a chunked array whose pieces do not add up to its shape")
    return np.concatenate(pieces).reshape(shape)


def _in_order(numbered: Any) -> list[Any]:
    if not isinstance(numbered, dict) or set(numbered) != {str(index) for index in range(len(numbered))}:
        raise _Malformed("a chunked array whose parts are not numbered from 0")
    return [numbered[str(index)] for index in range(len(numbered))]


def _check_node(node: Any, name: str, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise _Malformed(f"nested deeper than {_MAX_DEPTH} levels")
    if isinstance(node, dict):
        for key, value in node.items():
            _check_node(value, f"{name}/{key}", depth + 1)
    elif isinstance(node, list):
        for value in node:
            _check_node(value, name, depth + 1)
    elif not isinstance(node, (*_PLAIN, np.ndarray, np.generic)):
        raise _Malformed(f"{name!r:.80} is of type {type(node).__name__}")
