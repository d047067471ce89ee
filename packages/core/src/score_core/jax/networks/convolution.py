r"""A convolution whose gradient with respect to its input is a plain convolution, for loops on a CPU.

With stride s and p zeros in front of the input, y_o = sum_k x_{s o + k - p} w_k per axis, hence

    dL/dx_i = sum_k g^_{i + k - (K - 1 - p)} w_{K - 1 - k},    g^ = dL/dy with s - 1 zeros between its entries

JAX derives the same sum with transposed layouts, which XLA computes on a CPU without its fast kernels inside a loop
(:mod:`score_core.jax.ode`): a sampler led by a classifier would spend nearly all its time there.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["convolve"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str | list[tuple[int, int]], **other: Any
) -> jax.Array:
    """``x`` ``[B, H, W, C]`` convolved with ``kernel`` ``[K, K, C, D]``; what ``nn.Conv(conv_general_dilated=...)``
    expects.

    Arguments:
        x, kernel: of one precision.
        strides, padding: as for ``lax.conv_general_dilated``.
        other: what ``nn.Conv`` passes besides: no dilation, one group.

    Raises:
        ValueError: dilation or groups are asked for.
    """
    dilated = any(d != 1 for name in ("lhs_dilation", "rhs_dilation") for d in other.get(name) or (1,))
    if dilated or other.get("feature_group_count", 1) != 1:
        raise ValueError("convolve has neither dilation nor groups: use lax.conv_general_dilated")
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    return _convolve(tuple(strides), tuple(tuple(pair) for pair in padding), x, kernel)


def _plain(strides: tuple[int, ...], padding: Any, x: Any, kernel: Any) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_LAYOUT)


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(0, 1))


def _forward(strides: Any, padding: Any, x: Any, kernel: Any) -> tuple[jax.Array, tuple[Any, Any]]:
    return _plain(strides, padding, x, kernel), (x, kernel)


def _backward(strides: Any, padding: Any, saved: tuple[Any, Any], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    (kernel_gradient,) = jax.vjp(partial(_plain, strides, padding, x), kernel)[1](g)
    return _input_gradient(strides, padding, x.shape, kernel, g), kernel_gradient


def _input_gradient(strides: Any, padding: Any, shape: tuple[int, ...], kernel: Any, g: jax.Array) -> jax.Array:
    """The module's formula."""
    spread = [(0, 0, s - 1) for s in (1, *strides, 1)]
    g = lax.pad(g, jnp.zeros((), g.dtype), spread) if max(strides) > 1 else g
    before = [size - 1 - pad for size, (pad, _) in zip(kernel.shape[:2], padding, strict=True)]
    after = [
        n + size - 1 - m - b for n, size, m, b in zip(shape[1:3], kernel.shape[:2], g.shape[1:3], before, strict=True)
    ]
    flipped = jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
    return lax.conv_general_dilated(
        g, flipped, (1, 1), list(zip(before, after, strict=True)), dimension_numbers=_LAYOUT
    )


_convolve.defvjp(_forward, _backward)
