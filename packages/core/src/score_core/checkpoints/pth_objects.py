"""PyTorch checkpoints that hold whole pickled objects, read as plain holders: nothing in the file is executed.

Programs that save ``torch.save([model, optimizer, ...])`` write the objects themselves: the import path of each class
and the contents of its ``__dict__``. Here a class of the caller's allow-list becomes a :class:`PickledObject` that
holds its path and that state, a parameter becomes a :class:`PickledParameter` (one object however often the file
refers to it, so that a parameter can be looked up in an optimiser's state), and any other name is refused as in
:mod:`score_core.checkpoints.pth_format`.
"""

import io
import pickle
from collections.abc import Collection
from typing import Any, ClassVar

import numpy as np

from score_core.checkpoints.pth_format import _Machine, _rebuild_tensor, _Resolver, _Tensor, loads_with

__all__ = ["PickledObject", "PickledParameter", "PickledPath", "loads_objects"]


class PickledPath(str):
    """The import path of a class or function that the file names without making an object of it."""


class PickledObject:
    """An object of an allowed class, not made: ``path`` is its class's import path, ``state`` its ``__dict__``."""

    path: ClassVar[str] = ""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def __new__(cls) -> "PickledObject":
        made = super().__new__(cls)
        made.state = {}
        return made


class PickledParameter:
    """A parameter: ``data`` is its array; equal only to itself."""

    def __init__(self, data: Any, requires_grad: bool) -> None:
        self.data = data
        self.requires_grad = requires_grad


def loads_objects(data: bytes, classes: Collection[str], *, where: Any = "checkpoint") -> Any:
    """The contents of a file with objects of the allowed classes as holders.

    Arguments:
        data: the file's bytes.
        classes: import paths (``torch.nn.modules.conv.Conv2d``) of classes and functions that may be named.
        where: what errors call the file.

    Raises:
        CheckpointError: it is damaged, or names something that is not allowed; nothing was executed.
    """
    holders: dict[str, Any] = {
        path: type(path.rpartition(".")[2], (PickledObject,), {"path": path}) for path in classes
    }

    def machine(file: io.BytesIO) -> _Machine:
        return _ObjectMachine(file, holders)

    return loads_with(data, where, _ObjectResolver, machine)


def _parameter(tensor: Any, requires_grad: Any = True, *_: Any) -> PickledParameter:
    if not isinstance(tensor, _Tensor) or not isinstance(requires_grad, bool):
        raise ValueError("a parameter without a tensor")
    return PickledParameter(tensor, requires_grad)


def _defaultdict(*_: Any) -> dict[Any, Any]:
    return {}


def _set(items: Any = ()) -> set[Any]:
    return set(items)


_NAMES: dict[str, Any] = {
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "collections.defaultdict": _defaultdict,
    "__builtin__.set": _set,
    "builtins.set": _set,
    # the factory of a defaultdict
    "__builtin__.dict": None,
    "builtins.dict": None,
}


class _ObjectMachine(_Machine):
    """The machine of ``pth_format`` that also makes holders."""

    dispatch: ClassVar[dict[int, Any]] = dict(_Machine.dispatch)

    def __init__(self, file: io.BytesIO, holders: dict[str, type[PickledObject]]) -> None:
        super().__init__(file)
        self._holders = holders

    def find_class(self, module: str, name: str) -> Any:
        path = f"{module}.{name}"
        if path in self._holders:
            return self._holders[path]
        return _NAMES[path] if path in _NAMES else super().find_class(module, name)

    def load_build(self) -> None:
        """A holder takes its state as it is; the others as ever."""
        stack: list[Any] = self.stack  # type: ignore[attr-defined]
        if not isinstance(stack[-2], PickledObject):
            super().load_build()
            return
        state = stack.pop()
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise ValueError("an object whose state is no dictionary of attributes")
        stack[-1].state.update(state)

    dispatch[pickle.BUILD[0]] = load_build


class _ObjectResolver(_Resolver):
    """Arrays for tensors inside holders, parameters and sets, too."""

    def value(self, node: Any) -> Any:
        if isinstance(node, type) and issubclass(node, PickledObject):
            return PickledPath(node.path)
        if isinstance(node, (PickledObject, PickledParameter, set)):
            return self.once(node)
        return super().value(node)

    def _make(self, node: Any) -> Any:
        if isinstance(node, PickledParameter):
            return PickledParameter(np.asarray(self.value(node.data)), node.requires_grad)
        if isinstance(node, PickledObject):
            made = type(node)()
            made.state = {name: self.value(item) for name, item in node.state.items()}
            return made
        if isinstance(node, set):
            return {self.value(item) for item in node}
        return super()._make(node)
