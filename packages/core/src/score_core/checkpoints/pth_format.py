"""PyTorch checkpoints (``.pth``) as containers of NumPy arrays, without PyTorch and without running what is in them.

A file is a pickle, that is a program for a small machine, with the tensors' numbers beside it:

    since torch 1.6   a zip archive: ``<name>/data.pkl`` and one record ``<name>/data/<key>`` per storage
    before            four pickles (magic number, version, facts about the machine, the contents), a pickled list of
                      storage keys, then per storage its length (int64) and its numbers

The machine used here knows the instructions that build plain containers, and of names only those in ``_NAMES``, which
stand for functions of this module. A tensor becomes an array of its own after its place in its storage was checked, so
no file makes more than it holds. PyTorch's own reader (``weights_only=True``) refuses hostile names as well, but some
damaged files end it with a segmentation fault.
"""

import argparse
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError

__all__ = ["load_pth", "loads_pth", "outline_pth"]

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _Unreadable(Exception):
    """Why a file is no checkpoint, as the end of a sentence."""


@dataclass(frozen=True)
class _Storage:
    """Numbers that lie beside the pickle."""

    dtype: str
    key: str
    count: int
    offset: int = 0


@dataclass(frozen=True, eq=False)
class _Tensor:
    """A view of a storage, strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_pth(path: str | os.PathLike[str]) -> Any:
    """The contents of a file: containers and numbers as they are, tensors as arrays (bfloat16 as float32).

    Raises:
        MissingCheckpointError: it is not there.
        CheckpointError: it cannot be read, is damaged, or names things that are not allowed; nothing was executed.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingCheckpointError(f"no checkpoint {path}. Check the name.") from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}. Check that it is a file.") from error
    return loads_pth(data, where=path)


# What the readers of zip archives and pickles raise on contents that make no sense.
_DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


def loads_pth(data: bytes, *, where: Any = "checkpoint") -> Any:
    """:func:`load_pth` of bytes; ``where`` is what errors call them."""
    return loads_with(data, where, _Resolver, _Machine)


def outline_pth(data: bytes, *, where: Any = "checkpoint") -> Any:
    """:func:`loads_pth` without the numbers: arrays have their shapes and types, and are zero and read-only.

    Takes no memory for them and little time, which is what a format's ``recognises`` wants.
    """
    return loads_with(data, where, _Outliner, _Machine)


def loads_with(data: bytes, where: Any, resolver: "type[_Resolver]", machine: "MakeMachine") -> Any:
    """:func:`loads_pth` by a machine and a resolver that know more (:mod:`score_core.checkpoints.pth_objects`)."""
    try:
        read = _read_zip if data[:4] == b"PK\x03\x04" else _read_old
        content, storages = read(data, machine)
        return resolver(storages).value(content)
    except _Unreadable as error:
        raise CheckpointError(f"{where} is not read: {error}") from error
    except _DAMAGED as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise CheckpointError(
            f"{where} is damaged, cut short, or no checkpoint of PyTorch ({reason}). Fetch it again."
        ) from error


def _read_zip(data: bytes, machine: "MakeMachine") -> tuple[Any, Callable[[str], bytes | memoryview]]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise _Unreadable("it is an archive without the part data.pkl. Name a file that torch.save wrote.")
    root = names[0].removesuffix("data.pkl")

    def read(name: str) -> bytes:
        record = archive.getinfo(root + name)
        if record.compress_type != zipfile.ZIP_STORED:
            raise _Unreadable(f"its part {name} is compressed, which torch.save never does.")
        return archive.read(record)

    if root + "byteorder" in archive.namelist() and read("byteorder") != b"little":
        raise _Unreadable("it was written on a big-endian machine. Save it again on another.")
    return machine(io.BytesIO(read("data.pkl"))).load(), lambda key: read(f"data/{key}")


def _read_old(data: bytes, machine: "MakeMachine") -> tuple[Any, Callable[[str], bytes | memoryview]]:
    file = io.BytesIO(data)
    if _Machine(file).load() != _MAGIC or _Machine(file).load() != _VERSION:
        raise _Unreadable("it was not written by torch.save.")
    _Machine(file).load()
    contents = machine(file)
    content = contents.load()
    keys = _Machine(file).load()
    numbers: dict[str, memoryview] = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        begin, size = file.tell(), _itemsize(contents.dtypes[key]) * max(count, 0)
        numbers[key] = memoryview(data)[begin : begin + size]
        file.seek(begin + len(numbers[key]))
    return content, numbers.__getitem__


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """What ``torch._utils._rebuild_tensor`` (and ``_v2``) stands for."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("a tensor without a storage, or with impossible sizes")
    if len(shape) != len(strides):
        raise ValueError("a tensor with more sizes than strides")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


@dataclass(frozen=True)
class _DType:
    """A NumPy type named in a file; only numbers are."""

    name: str


def _dtype(name: Any, *_: Any) -> _DType:
    if not isinstance(name, str) or name not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "b1"):
        raise ValueError(f"a NumPy scalar of type {name!r}")
    return _DType(f"<{name}")


def _scalar(dtype: Any, data: Any = None) -> Any:
    if not isinstance(dtype, _DType) or not isinstance(data, bytes):
        raise ValueError("a NumPy scalar without a value")
    (value,) = np.frombuffer(data, dtype.name)
    return value


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes in pickles of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("bytes in an unknown encoding")
    return text.encode("latin1")


def _reconstruct(cls: Any, base: Any, state: Any) -> Any:
    """``copyreg._reconstructor``, which protocol 2 uses for objects without state of their own."""
    if cls is not argparse.Namespace or state is not None:
        raise ValueError("an object of a class that is not allowed")
    del base
    return argparse.Namespace()


def _size(sizes: Any = ()) -> tuple[Any, ...]:
    return tuple(sizes)


def _device(*names: Any) -> str:
    return ":".join(map(str, names))


class _StorageType(str):
    """The name of one of torch's storage classes."""


_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("argparse", "Namespace"): argparse.Namespace,
    ("copyreg", "_reconstructor"): _reconstruct,
    ("copy_reg", "_reconstructor"): _reconstruct,
    ("builtins", "object"): None,
    ("__builtin__", "object"): None,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): _device,
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}

# Instructions that build containers, numbers and text; what is left out imports by other ways, or reserves memory for a
# length before anything of that length was read.
_INSTRUCTIONS = """
    MARK STOP POP POP_MARK DUP INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT NONE NEWTRUE NEWFALSE STRING
    BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES PROTO EMPTY_LIST APPEND
    APPENDS LIST EMPTY_DICT DICT SETITEM SETITEMS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT
    BINPUT LONG_BINPUT MEMOIZE FRAME GLOBAL STACK_GLOBAL REDUCE NEWOBJ BUILD BINPERSID
"""
_CODES = [getattr(pickle, name)[0] for name in _INSTRUCTIONS.split()]


class _Machine(pickle._Unpickler):  # type: ignore[misc, name-defined]
    """The unpickler in Python: the one in C reserves memory for any number that a damaged file calls a memo's."""

    dispatch: ClassVar[dict[int, Any]] = {code: pickle._Unpickler.dispatch[code] for code in _CODES}  # type: ignore[attr-defined]

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")
        self.dtypes: dict[str, str] = {}

    def load_build(self) -> None:
        """Gives the object below its state; only objects that a file made itself can have one."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        state = stack.pop()
        made = stack[-1]
        if isinstance(made, argparse.Namespace) and isinstance(state, dict):
            vars(made).update(state)
        elif not isinstance(made, (OrderedDict, _DType)):  # whose states say nothing that is needed
            raise ValueError("a state for something that has none")

    dispatch[pickle.BUILD[0]] = load_build

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NAMES[module, name]
        except KeyError:
            raise _Unreadable(
                f"it names {module}.{name}, which is code and was not run. Only tensors and plain containers are read; "
                "if you trust the file, save it again without that object."
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *view = pid
        if (
            kind != "storage"
            or not isinstance(dtype, _StorageType)
            or not isinstance(key, str)
            or type(count) is not int
        ):
            raise ValueError("a storage that is none")
        offset = 0
        if view and view[0] is not None:
            _, offset, count = view[0]
        self.dtypes[key] = str(dtype)
        return _Storage(str(dtype), key, count, offset)


MakeMachine = Callable[[io.BytesIO], _Machine]


class _Resolver:
    """Replaces tensors by arrays, everywhere in a structure; what is shared stays shared."""

    def __init__(self, storages: Callable[[str], bytes | memoryview]) -> None:
        self._storages = storages
        self._numbers: dict[tuple[str, str], np.ndarray] = {}
        self._done: dict[int, tuple[Any, Any]] = {}
        self._open: set[int] = set()

    def value(self, node: Any) -> Any:
        if not isinstance(node, (_Tensor, _Storage, dict, list, tuple, argparse.Namespace)):
            if node is None or isinstance(node, (bool, int, float, str, bytes, np.generic)):
                return node
            raise ValueError(f"a bare {getattr(node, '__name__', type(node).__name__)}")
        return self.once(node)

    def once(self, node: Any) -> Any:
        """What a container or tensor becomes, the same object at every mention."""
        if id(node) in self._done:
            return self._done[id(node)][1]
        if id(node) in self._open:
            raise ValueError("a container that contains itself")
        self._open.add(id(node))
        made = self._make(node)
        self._open.discard(id(node))
        self._done[id(node)] = node, made  # the node is kept, so that its id stays its own
        return made

    def _make(self, node: Any) -> Any:
        if isinstance(node, _Tensor):
            return self._array(node)
        if isinstance(node, _Storage):
            return self._storage(node)
        if isinstance(node, dict):
            made = {self.value(key): self.value(item) for key, item in node.items()}
            return OrderedDict(made) if isinstance(node, OrderedDict) else made
        if isinstance(node, argparse.Namespace):
            return argparse.Namespace(**{key: self.value(item) for key, item in vars(node).items()})
        return type(node)(map(self.value, node))

    def _storage(self, storage: _Storage) -> np.ndarray:
        name = storage.key, storage.dtype
        if name not in self._numbers:
            data = self._storages(storage.key)
            if storage.dtype == "bfloat16":
                # the upper half of a float32
                self._numbers[name] = (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
            else:
                self._numbers[name] = np.frombuffer(data, storage.dtype)
        numbers = self._numbers[name][storage.offset :]
        if not 0 <= storage.count <= len(numbers):
            raise ValueError(f"storage {storage.key} holds {len(numbers)} numbers, not {storage.count}")
        return numbers[: storage.count]

    def _array(self, tensor: _Tensor) -> np.ndarray:
        numbers = self._storage(tensor.storage)
        count = 1
        for size in tensor.shape:
            count *= size
        last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
        if count and (last >= len(numbers) or count > len(numbers)):
            raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its {len(numbers)} numbers")
        if not count:
            return np.zeros(tensor.shape, numbers.dtype)
        step = numbers.itemsize
        view = np.lib.stride_tricks.as_strided(
            numbers[tensor.offset :], tensor.shape, [stride * step for stride in tensor.strides]
        )
        return view.copy(order="C")


class _Outliner(_Resolver):
    """Replaces tensors by arrays of their shape that take no memory."""

    def _storage(self, storage: _Storage) -> np.ndarray:
        return self._zeros(storage, (storage.count,))

    def _array(self, tensor: _Tensor) -> np.ndarray:
        return self._zeros(tensor.storage, tensor.shape)

    def _zeros(self, storage: _Storage, shape: tuple[int, ...]) -> np.ndarray:
        dtype = "<f4" if storage.dtype == "bfloat16" else storage.dtype
        return np.broadcast_to(np.zeros((), dtype), shape)
