r"""Blocks of the RefineNets of NCSN and NCSNv2 (after Lin et al., arXiv:1611.06612).

Each block exists for NCSNv2 (normalisation without labels, none inside the refine blocks, maximum pooling) and, under
the name of the checkpoints, for NCSN (``Cond...``: conditional normalisation before every activation or pooling, mean
pooling). Blocks take ``*labels``: nothing, or the integer labels ``[B]`` which are handed to every normalisation.

    residual     y = s(x) + conv(act(norm(conv(act(norm(x))))));  halved by the mean of 2x2, or dilated at the same size
    RCU          x + conv(act(conv(act(x)))), repeated
    MSF          sum_i resize(conv(x_i)) to the size of the first input
    CRP          x = act(x);  p_0 = x;  p_{k+1} = conv(pool_5x5(p_k));  x + sum_k p_k
    refine       CRP(MSF(RCU(x_1), RCU(x_2))), then RCU
"""

import functools
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from score_core.jax.networks.layers import Activation, Flavor, ncsn_conv
from score_core.jax.networks.resampling import naive_downsample_2d

__all__ = ["CondRefineBlock", "ConditionalResidualBlock", "RefineBlock", "ResidualBlock", "interpolation_method"]

Norm = Callable[..., nn.Module]
"""Called with ``dtype=``: a new normalisation layer, itself called with ``x`` and the labels if there are any."""

_METHODS = {"bilinear": "bilinear", "nearest_neighbor": "nearest"}


def interpolation_method(name: str) -> str:
    """The ``jax.image.resize`` method for a value of ``config.model.interpolation``; ``ValueError`` if unknown."""
    if name not in _METHODS:
        raise ValueError(f"unknown interpolation {name!r}; known: {', '.join(_METHODS)}")
    return _METHODS[name]


@jax.jit
def max_pool_5x5(x: jax.Array) -> jax.Array:
    """Maximum over the 5x5 neighbourhood of each position, outside is -inf; gradient to the first maximum.

    One axis after the other by comparing shifted copies: far faster on a CPU, above all backwards, than a window
    reduction (``benchmarks/networks_jax.py``).
    """
    for axis in (2, 1):
        pads = [(2, 2, 0) if a == axis else (0, 0, 0) for a in range(4)]
        padded = lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), pads)
        size = x.shape[axis]
        x = lax.slice_in_dim(padded, 0, size, axis=axis)
        for shift in range(1, 5):
            other = lax.slice_in_dim(padded, shift, shift + size, axis=axis)
            x = jnp.where(other > x, other, x)
    return x


@jax.jit
def avg_pool_5x5(x: jax.Array) -> jax.Array:
    """Mean over the 5x5 neighbourhood, zeros outside."""
    # parity: the divisor is 25 at the border too.
    return nn.avg_pool(nn.avg_pool(x, (1, 5), (1, 1), "SAME"), (5, 1), (1, 1), "SAME")


@functools.lru_cache
def _aligned_weights(n: int, m: int) -> np.ndarray:
    """Linear interpolation of ``n`` values at ``m`` places, the first and last values at the first and last place.

    float32 ``[m, n]``.
    """
    places = np.linspace(0, n - 1, m) if m > 1 else np.zeros(1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(n))).astype(np.float32)


def resize(x: jax.Array, shape: tuple[int, ...], method: str, flavor: Flavor) -> jax.Array:
    """``x`` ``[B, H, W, C]`` at the size of ``shape``; bilinear with corners aligned in the PyTorch flavor."""
    if flavor == "jax" or method != "bilinear" or x.shape == shape:
        return jax.image.resize(x, shape, method)
    rows, columns = (jnp.asarray(_aligned_weights(x.shape[axis], shape[axis]), x.dtype) for axis in (1, 2))
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, x)


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each 2x2 square; flax's initialisers in the JAX flavor, else NCSN's."""

    features: int
    size: int
    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.flavor == "pytorch":
            return naive_downsample_2d(ncsn_conv(x, self.features, size=self.size, dtype=self.dtype))
        return naive_downsample_2d(nn.Conv(self.features, (self.size, self.size), dtype=self.dtype)(x))


class ResidualBlock(nn.Module):
    """Residual block with ``features`` channels out; ``down``: half the size, or for ``dilation > 1`` the size kept."""

    features: int
    act: Activation
    norm: Norm
    down: bool = False
    dilation: int = 1
    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    @nn.compact
    def __call__(self, x: jax.Array, *labels: jax.Array) -> jax.Array:
        h = self._activated(x, *labels)
        if not self.down:
            shortcut = x
            if x.shape[-1] != self.features:
                shortcut = self._conv(x, self.features, size=1 if self.dilation == 1 else 3)
            h = self._conv(h, self.features)
            h = self._conv(self._activated(h, *labels), self.features)
            return shortcut + h
        h = self._conv(h, x.shape[-1])
        h = self._activated(h, *labels)
        if self.dilation == 1:
            h = ConvMeanPool(self.features, 3, dtype=self.dtype, flavor=self.flavor)(h)
            return ConvMeanPool(self.features, 1, dtype=self.dtype, flavor=self.flavor)(x) + h
        h = self._conv(h, self.features)
        return self._conv(x, self.features) + h

    def _activated(self, h: jax.Array, *labels: jax.Array) -> jax.Array:
        return self.act(self.norm(dtype=self.dtype)(h, *labels))

    def _conv(self, h: jax.Array, features: int, size: int = 3) -> jax.Array:
        return ncsn_conv(h, features, size=size, dilation=self.dilation, dtype=self.dtype)


class ConditionalResidualBlock(ResidualBlock):
    """The residual block of NCSN."""


class RCUBlock(nn.Module):
    """Residual convolution units: ``blocks`` times two activations and convolutions, width kept."""

    blocks: int
    act: Activation
    norm: Norm | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *labels: jax.Array) -> jax.Array:
        for _ in range(self.blocks):
            residual = x
            for _ in range(2):
                if self.norm is not None:
                    x = self.norm(dtype=self.dtype)(x, *labels)
                x = ncsn_conv(self.act(x), x.shape[-1], bias=False, dtype=self.dtype)
            x = x + residual
        return x


class MSFBlock(nn.Module):
    """Multi-resolution fusion: the inputs brought to ``features`` channels and the size of the first, summed."""

    features: int
    method: str
    norm: Norm | None = None
    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    @nn.compact
    def __call__(self, xs: list[jax.Array], *labels: jax.Array) -> jax.Array:
        shape = (*xs[0].shape[:3], self.features)
        total = jnp.zeros(shape, self.dtype)
        for x in xs:
            h = x if self.norm is None else self.norm(dtype=self.dtype)(x, *labels)
            h = ncsn_conv(h, self.features, dtype=self.dtype)
            total = total + resize(h, shape, self.method, self.flavor)
        return total


class CRPBlock(nn.Module):
    """Chained residual pooling, two stages."""

    act: Activation
    norm: Norm | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *labels: jax.Array) -> jax.Array:
        x = path = self.act(x)
        for _ in range(2):
            if self.norm is None:
                path = max_pool_5x5(path)
            else:
                path = avg_pool_5x5(self.norm(dtype=self.dtype)(path, *labels))
            path = ncsn_conv(path, x.shape[-1], bias=False, dtype=self.dtype)
            x = path + x
        return x


class CondRCUBlock(RCUBlock):
    """The residual convolution units of NCSN."""


class CondMSFBlock(MSFBlock):
    """The multi-resolution fusion of NCSN."""


class CondCRPBlock(CRPBlock):
    """The chained residual pooling of NCSN."""


class RefineBlock(nn.Module):
    """Fuse the inputs (``features`` channels, size of the first) and refine them.

    ``start``: one input, of ``features`` channels, and nothing to fuse; ``end``: three units at the end, not one.
    """

    features: int
    act: Activation
    method: str
    norm: Norm | None = None
    start: bool = False
    end: bool = False
    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    rcu: ClassVar[type[RCUBlock]] = RCUBlock
    msf: ClassVar[type[MSFBlock]] = MSFBlock
    crp: ClassVar[type[CRPBlock]] = CRPBlock

    @nn.compact
    def __call__(self, xs: list[jax.Array], *labels: jax.Array) -> jax.Array:
        hs = [self.rcu(2, self.act, self.norm, dtype=self.dtype)(x, *labels) for x in xs]
        if self.start:
            h = hs[0]
        else:
            h = self.msf(self.features, self.method, self.norm, dtype=self.dtype, flavor=self.flavor)(hs, *labels)
        h = self.crp(self.act, self.norm, dtype=self.dtype)(h, *labels)
        return self.rcu(3 if self.end else 1, self.act, self.norm, dtype=self.dtype)(h, *labels)


class CondRefineBlock(RefineBlock):
    """The refine block of NCSN."""

    rcu = CondRCUBlock
    msf = CondMSFBlock
    crp = CondCRPBlock
