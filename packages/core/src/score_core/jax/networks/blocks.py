r"""Blocks of the U-Nets: resampling, residual blocks and attention.

The classes of DDPM and of NCSN++ differ in name and defaults only, and the names are those of the checkpoints: a module
is called after its class and its running number in the parent.

    residual block   h = Conv(act(norm(x))) + Dense(act(temb));  h = Conv(dropout(act(norm(h))));  y = x' + h
                     x' = x, or a linear map of x where the widths differ
    attention        y = x + NIN(sum_j softmax_j(q . k_j / sqrt C) v_j),  q, k, v = NIN(norm(x)), j over all positions
    skip_rescale     y / sqrt 2 (Song et al. 2021, appendix H.1)
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_core.jax.networks import resampling
from score_core.jax.networks.layers import NIN, Activation, conv1x1, conv3x3, default_init
from score_core.jax.networks.normalization import GroupNorm

__all__ = [
    "AttnBlock",
    "AttnBlockpp",
    "Combine",
    "Conv2d",
    "Downsample",
    "ResnetBlockBigGANpp",
    "ResnetBlockDDPM",
    "ResnetBlockDDPMpp",
    "Upsample",
]

Norm = Callable[..., nn.Module]
"""Called with ``dtype=``: a new normalisation layer."""

_norm_pp: Norm = functools.partial(GroupNorm, num_groups=None)


def join(x: jax.Array, h: jax.Array, skip_rescale: bool) -> jax.Array:
    """``x + h``, over ``sqrt 2`` with ``skip_rescale``: the variance of two independent unit signals stays 1."""
    return (x + h) / math.sqrt(2) if skip_rescale else x + h


@jax.jit
def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """``sum_j softmax_j(q . k_j / sqrt C) v_j`` over all positions of ``[B, H, W, C]`` maps; softmax in float32."""
    batch, height, width, channels = q.shape
    flat = (batch, height * width, channels)
    logits = jnp.einsum("bqc,bkc->bqk", q.reshape(flat), k.reshape(flat), preferred_element_type=jnp.float32)
    weights = nn.softmax(logits * channels**-0.5, axis=-1).astype(v.dtype)
    return jnp.einsum("bqk,bkc->bqc", weights, v.reshape(flat)).reshape(q.shape)


class Conv2d(nn.Module):
    """A convolution that also resamples by 2 with an FIR filter; parameters ``weight`` (HWIO) and ``bias``."""

    features: int
    up: bool
    fir_kernel: Sequence[float]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        weight = self.param("weight", default_init(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        resample = resampling.upsample_conv_2d if self.up else resampling.conv_downsample_2d
        return resample(x.astype(self.dtype), weight.astype(self.dtype), self.fir_kernel) + bias.astype(self.dtype)


class Downsample(nn.Module):
    """Half the size: strided 3x3 convolution (``with_conv``) or mean, each preceded by the FIR filter with ``fir``.

    ``features``: channels after the convolution; None: as before.
    """

    with_conv: bool
    features: int | None = None
    fir: bool = False
    fir_kernel: Sequence[float] = (1, 3, 3, 1)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = self.features or x.shape[-1]
        if self.with_conv and self.fir:
            return Conv2d(features, up=False, fir_kernel=self.fir_kernel, dtype=self.dtype)(x)
        if self.with_conv:
            return conv3x3(features, stride=2, dtype=self.dtype)(x)
        return resampling.downsample_2d(x, self.fir_kernel) if self.fir else resampling.naive_downsample_2d(x)


class Upsample(nn.Module):
    """Twice the size: nearest neighbour or, with ``fir``, zeros inserted and filtered; ``with_conv``: then convolved.

    ``features``: channels after the convolution; None: as before.
    """

    with_conv: bool
    features: int | None = None
    fir: bool = False
    fir_kernel: Sequence[float] = (1, 3, 3, 1)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = self.features or x.shape[-1]
        if self.with_conv and self.fir:
            return Conv2d(features, up=True, fir_kernel=self.fir_kernel, dtype=self.dtype)(x)
        if self.fir:
            return resampling.upsample_2d(x, self.fir_kernel)
        h = resampling.naive_upsample_2d(x)
        return conv3x3(features, dtype=self.dtype)(h) if self.with_conv else h


class Combine(nn.Module):
    """Join a pyramid of the input to the features: its 1x1 convolution is added (``sum``) or put in front (``cat``)."""

    method: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, pyramid: jax.Array, h: jax.Array) -> jax.Array:
        projected = conv1x1(h.shape[-1], dtype=self.dtype)(pyramid)
        return projected + h if self.method == "sum" else jnp.concatenate([projected, h], axis=-1)


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, with its residual connection."""

    norm: Norm = GroupNorm
    init_scale: float = 0.0
    skip_rescale: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        h = self.norm(dtype=self.dtype)(x)
        q, k, v = (NIN(channels, dtype=self.dtype)(h) for _ in range(3))
        h = NIN(channels, init_scale=self.init_scale, dtype=self.dtype)(attend(q, k, v))
        return join(x, h, self.skip_rescale)


class AttnBlockpp(AttnBlock):
    """Attention of NCSN++: ``min(C // 4, 32)`` groups."""

    norm: Norm = _norm_pp


class ResnetBlockDDPM(nn.Module):
    """Residual block of DDPM. ``features``: channels out; ``init_scale``: initial scale of the last convolution.

    Call with ``x`` ``[B, H, W, C]`` and ``temb`` ``[B, 4 nf]`` or None.
    """

    features: int
    act: Activation
    dropout: float
    norm: Norm = GroupNorm
    init_scale: float = 0.0
    skip_rescale: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None, train: bool = False) -> jax.Array:
        h = self.act(self.norm(dtype=self.dtype)(x))
        h = conv3x3(self.features, dtype=self.dtype)(h)
        h = add_time(h, temb, self.act, self.dtype)
        h = self.act(self.norm(dtype=self.dtype)(h))
        h = nn.Dropout(self.dropout)(h, deterministic=not train)
        h = conv3x3(self.features, init_scale=self.init_scale, dtype=self.dtype)(h)
        if x.shape[-1] != self.features:
            x = NIN(self.features, dtype=self.dtype)(x)
        return join(x, h, self.skip_rescale)


class ResnetBlockDDPMpp(ResnetBlockDDPM):
    """Residual block of DDPM with the group rule of NCSN++."""

    norm: Norm = _norm_pp


class ResnetBlockBigGANpp(nn.Module):
    """Residual block of NCSN++ after BigGAN's; ``resample`` "up" or "down": by 2, before the first convolution.

    Call with ``x`` ``[B, H, W, C]`` and ``temb`` ``[B, 4 nf]`` or None.
    """

    features: int
    act: Activation
    dropout: float
    resample: str | None = None
    fir: bool = False
    fir_kernel: Sequence[float] = (1, 3, 3, 1)
    init_scale: float = 0.0
    skip_rescale: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array | None, train: bool = False) -> jax.Array:
        h = self._resampled(self.act(_norm_pp(dtype=self.dtype)(x)))
        x = self._resampled(x)
        h = conv3x3(self.features, dtype=self.dtype)(h)
        h = add_time(h, temb, self.act, self.dtype)
        h = self.act(_norm_pp(dtype=self.dtype)(h))
        h = nn.Dropout(self.dropout)(h, deterministic=not train)
        h = conv3x3(self.features, init_scale=self.init_scale, dtype=self.dtype)(h)
        if x.shape[-1] != self.features or self.resample:
            x = conv1x1(self.features, dtype=self.dtype)(x)
        return join(x, h, self.skip_rescale)

    def _resampled(self, h: jax.Array) -> jax.Array:
        if self.resample == "up":
            return resampling.upsample_2d(h, self.fir_kernel) if self.fir else resampling.naive_upsample_2d(h)
        if self.resample == "down":
            return resampling.downsample_2d(h, self.fir_kernel) if self.fir else resampling.naive_downsample_2d(h)
        return h


def add_time(h: jax.Array, temb: jax.Array | None, act: Activation, dtype: Any) -> jax.Array:
    """Add a linear map of ``act(temb)`` to every position of ``h``; the Dense layer belongs to the calling module."""
    if temb is None:
        return h
    shift = nn.Dense(h.shape[-1], kernel_init=default_init(), dtype=dtype)(act(temb))
    return h + shift[:, None, None, :]
