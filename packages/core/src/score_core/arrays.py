"""The few array operations the neutral maths needs beyond the array-API standard.

Everything works on NumPy, JAX (also while tracing) and PyTorch arrays. The leading dimension ``B`` counts samples;
a per-sample quantity ``a[B]`` meets an array ``x[B, ...]`` of any trailing shape through :func:`per_sample`.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

__all__ = ["Array", "ScoreFn", "as_like", "batch_mul", "dims_per_sample", "namespace", "per_sample", "sum_dims", "take"]

Array: TypeAlias = Any
"""A NumPy array, a JAX array or tracer, or a PyTorch tensor; shapes are given in the docstrings."""

ScoreFn: TypeAlias = Callable[[Array, Array], Array]
"""``score_fn(x[B, ...], t[B])``: the score grad_x log p_t(x), of the shape of ``x``."""


def namespace(*arrays: Array) -> Any:
    """The array-API namespace of the library that ``arrays`` belong to.

    Raises:
        TypeError: the arrays are not arrays, or belong to different libraries.
    """
    return array_api_compat.array_namespace(*arrays)


def as_like(table: np.ndarray, like: Array) -> Array:
    """The host array ``table``, dtype unchanged, as an array of the library and on the device of ``like``."""
    xp = namespace(like)
    if array_api_compat.is_torch_array(like):
        return xp.asarray(table, device=like.device)
    return xp.asarray(table)


def take(table: np.ndarray, index: Array) -> Array:
    """``table[index]`` ``[B]``: the entries of the one-dimensional host ``table`` at the integers ``index`` ``[B]``."""
    return namespace(index).take(as_like(table, index), index, axis=0)


def per_sample(a: Array, x: Array) -> Array:
    """``a`` ``[B]`` with trailing axes of length one, so that it broadcasts against ``x`` ``[B, ...]``."""
    return namespace(a).reshape(a, (-1,) + (1,) * (x.ndim - 1))


def batch_mul(a: Array, x: Array) -> Array:
    """Sample ``b`` of ``x`` ``[B, ...]`` times the scalar ``a[b]``."""
    return per_sample(a, x) * x


def sum_dims(x: Array) -> Array:
    """The sum of ``x`` ``[B, ...]`` over everything but the batch, ``[B]``."""
    xp = namespace(x)
    return xp.sum(xp.reshape(x, (x.shape[0], -1)), axis=-1)


def dims_per_sample(x: Array) -> int:
    """D, the number of elements of one sample of ``x`` ``[B, ...]``."""
    return math.prod(x.shape[1:])
