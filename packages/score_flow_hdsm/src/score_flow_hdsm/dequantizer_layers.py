"""Layers of the Flow++ dequantiser, initialised from data (Ho et al. 2019; Salimans and Kingma 2016).

Parameters have the original's flat names, such as ``block0_conv_c1_W``. A layer draws its weights when it is first
called, then scales them so that its output has zero mean and the standard deviation ``init_scale`` on those data.
Images are ``[B, H, W, C]``, with W halved by the flow's checkerboard.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

__all__ = [
    "ConvKind",
    "attention",
    "concat_elu",
    "convolution",
    "gated_residual",
    "layer_norm",
    "pointwise",
    "position_embedding",
]

ConvKind = Literal["scaled", "weight_normalized"]
"""How 3x3 convolutions are parametrised: ``W``, ``b``; or ``V``, ``g``, ``b``."""

_Features = int


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _moments(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and variance over everything but the channels."""
    axes = tuple(range(y.ndim - 1))
    mean = jnp.mean(y, axes)
    return mean, jnp.mean(y**2, axes) - mean**2


def _scaled(
    module: nn.Module, name: str, shape: tuple[int, ...], init_scale: float, apply: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """``{name}_W`` and ``{name}_b`` such that ``apply(W) + b`` is standardised at initialisation."""

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        weight = jax.random.normal(key, shape) * 0.05
        mean, variance = _moments(apply(weight))
        return weight, mean, init_scale / jnp.sqrt(variance + 1e-6)

    def init_weight(key: jax.Array) -> jax.Array:
        weight, _, scale = draw(key)
        return weight * scale

    def init_bias(key: jax.Array) -> jax.Array:
        # parity: the mean is that of another draw of the weights
        _, mean, scale = draw(key)
        return -mean * scale

    return module.param(f"{name}_W", init_weight), module.param(f"{name}_b", init_bias)


def convolution(
    module: nn.Module, x: jax.Array, name: str, features: _Features, kind: ConvKind, init_scale: float = 1.0
) -> jax.Array:
    """A 3x3 convolution."""
    shape = (3, 3, x.shape[-1], features)
    if kind == "scaled":
        weight, bias = _scaled(module, name, shape, init_scale, lambda kernel: _convolve(x, kernel))
        # parity: the two image axes are exchanged against the kernel's, but not while initialising
        return _convolve(x, jnp.swapaxes(weight, 0, 1)) + bias

    def normalized(direction: jax.Array) -> jax.Array:
        return direction / jnp.sqrt(jnp.maximum(jnp.sum(direction**2, (0, 1, 2)), 1e-12))

    direction = module.param(f"{name}_V", lambda key: jax.random.normal(key, shape) * 0.05)

    def init_gain(_: jax.Array) -> jax.Array:
        return init_scale / jnp.sqrt(_moments(_convolve(x, normalized(direction)))[1] + 1e-6)

    def init_bias(key: jax.Array) -> jax.Array:
        return -_moments(_convolve(x, normalized(direction)))[0] * init_gain(key)

    gain = module.param(f"{name}_g", init_gain)
    bias = module.param(f"{name}_b", init_bias)
    return _convolve(x, gain * normalized(direction)) + bias


def pointwise(module: nn.Module, x: jax.Array, name: str, features: _Features, init_scale: float = 1.0) -> jax.Array:
    """A dense layer over the channels, ``[..., C] -> [..., features]``."""
    shape = (x.shape[-1], features)
    weight, bias = _scaled(module, name, shape, init_scale, lambda w: jnp.matmul(x, w))
    return jnp.matmul(x, weight) + bias


def concat_elu(x: jax.Array) -> jax.Array:
    """elu of x and -x, side by side."""
    return jax.nn.elu(jnp.concatenate([x, -x], axis=-1))


def _gate(x: jax.Array) -> jax.Array:
    a, b = jnp.split(x, 2, axis=-1)
    return a * jax.nn.sigmoid(b)


def gated_residual(
    module: nn.Module, x: jax.Array, context: jax.Array | None, name: str, kind: ConvKind, *, pointwise_out: bool
) -> jax.Array:
    """x + gate(c2(elu(c1(elu x) + projection of the context))); ``pointwise_out``: c2 is not a convolution."""
    features = x.shape[-1]
    h = convolution(module, concat_elu(x), f"{name}_c1", features, kind)
    if context is not None:
        h = h + pointwise(module, concat_elu(context), f"{name}_a_proj", features)
    h = concat_elu(h)
    if pointwise_out:
        h = pointwise(module, h, f"{name}_c2", 2 * features, init_scale=0.1)
    else:
        h = convolution(module, h, f"{name}_c2", 2 * features, kind, init_scale=0.1)
    return x + _gate(h)


def layer_norm(module: nn.Module, x: jax.Array, name: str) -> jax.Array:
    """Normalisation over the channels."""
    shape = (1, 1, 1, x.shape[-1])
    gain = module.param(f"{name}_g", nn.initializers.ones, shape)
    bias = module.param(f"{name}_b", nn.initializers.zeros, shape)
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * gain + bias


def position_embedding(module: nn.Module, name: str, shape: tuple[int, int, int]) -> jax.Array:
    """A trained image ``[H, W, C]``."""
    return module.param(name, nn.initializers.normal(0.01), shape)


def attention(module: nn.Module, x: jax.Array, positions: jax.Array, name: str, heads: int) -> jax.Array:
    """Gated self-attention over the pixels."""
    batch, height, width, channels = x.shape
    projected: Any = pointwise(module, x + positions[None], f"{name}_proj1", 3 * channels)
    projected = projected.reshape(batch, height * width, 3, heads, channels // heads)
    q, k, v = (projected[:, :, i] for i in range(3))
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(channels // heads)
    merged = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits, axis=-1), v)
    merged = merged.reshape(batch, height, width, channels)
    return x + _gate(pointwise(module, merged, f"{name}_proj2", 2 * channels, init_scale=0.1))
