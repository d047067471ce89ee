"""One parameter in both worlds: its names, its shapes, and what turns one array into the other."""

import enum
from typing import NamedTuple

import numpy as np

__all__ = ["Member", "TorchLeaf", "TorchName", "Transform", "linear"]


class Transform(enum.Enum):
    """What turns a Flax array into the PyTorch one."""

    SAME = "same"
    CONV = "HWIO to OIHW"
    DENSE = "transpose"
    FLATTEN = "flatten"

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The PyTorch array; a FLATTEN array may have shape ``[1, 1, 1, C]`` or ``[C]``."""
        match self:
            case Transform.CONV:
                array = array.transpose(3, 2, 0, 1)
            case Transform.DENSE:
                array = array.transpose(1, 0)
            case Transform.FLATTEN:
                array = array.reshape(-1)
        return np.ascontiguousarray(array)

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        """The Flax array."""
        match self:
            case Transform.CONV:
                array = array.transpose(2, 3, 1, 0)
            case Transform.DENSE:
                array = array.transpose(1, 0)
            case Transform.FLATTEN:
                array = array.reshape(1, 1, 1, -1)
        return np.ascontiguousarray(array)

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the PyTorch array of a Flax array of ``shape``."""
        match self:
            case Transform.CONV:
                return tuple(shape[axis] for axis in (3, 2, 0, 1))
            case Transform.DENSE:
                return shape[::-1]
            case Transform.FLATTEN:
                return shape[-1:]
        return shape


class TorchName(NamedTuple):
    """One parameter: its path in the Flax tree, its key in the state dict (without ``module.``), and the transform."""

    jax_path: str
    torch_key: str
    transform: Transform


class TorchLeaf(NamedTuple):
    """One parameter of the PyTorch network.

    Attributes:
        key: in the state dict, without ``module.``.
        shape: in the state dict.
        name: its place in the Flax tree; None: the network never reads it and Flax does not have it.
        jax_shape: there.
        trainable: whether optimiser and average cover it (all but Fourier frequencies).
    """

    key: str
    shape: tuple[int, ...]
    name: TorchName | None
    jax_shape: tuple[int, ...] = ()
    trainable: bool = True


class Member(NamedTuple):
    """A parameter of one module: its path there, in both worlds, and the shape of the Flax array."""

    path: str
    key: str
    transform: Transform
    shape: tuple[int, ...]
    used: bool = True


def linear(kernel_shape: tuple[int, ...]) -> list[Member]:
    """Kernel and bias of a convolution ``[k, k, in, out]`` or a Dense layer ``[in, out]``."""
    transform = Transform.DENSE if len(kernel_shape) == 2 else Transform.CONV
    bias = Member("bias", "bias", Transform.SAME, kernel_shape[-1:])
    return [Member("kernel", "weight", transform, kernel_shape), bias]
