r"""Normalisation layers. Statistics are computed in float32 whatever the type of the activations.

With ``m_c``, ``v_c`` the mean and population variance of channel c over height and width, per image:

    GroupNorm          (x - m_g) / sqrt(v_g + eps) * scale + bias,  v_g = E[x^2] - E[x]^2,
                       m_g, v_g over height, width and the channels of group g; groups are contiguous channels
    InstanceNorm2d     h_c = (x - m_c) / sqrt(v_c + eps);  h_c * scale + bias
    VarianceNorm2d     x / sqrt(v_c + eps) * scale
    InstanceNorm2dPlus h_c + alpha * (m_c - mean_c m) / sqrt(var_c m + eps), then * gamma + beta
                       (the channel means, lost by instance normalisation, are added back normalised over the channels)
    ConditionalInstanceNorm2dPlus  the same with gamma, alpha, beta looked up by the integer label

The PyTorch flavor (:data:`~score_core.jax.networks.layers.Flavor`) divides ``var_c m`` and VarianceNorm's ``v_c`` by
the number of values less one, and its InstanceNorm2d has no parameters. Parameters of the unconditional layers have
shape ``(1, 1, 1, C)``.
References: Wu & He (arXiv:1803.08494); Song & Ermon (arXiv:1907.05600, appendix A.1; arXiv:2006.09011, appendix A).
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from score_core.jax.networks.layers import Flavor

__all__ = [
    "NORMALIZATIONS",
    "ConditionalInstanceNorm2dPlus",
    "GroupNorm",
    "InstanceNorm2d",
    "InstanceNorm2dPlus",
    "VarianceNorm2d",
    "get_normalization",
]

_INSTANCE_EPS = 1e-5


def _around_one(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial scales of the instance norms: ``1 + 0.02 n``, n standard normal."""
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def _standardize(x: jax.Array, axes: tuple[int, ...], correction: int = 0) -> tuple[jax.Array, jax.Array]:
    """``((x - mean) / sqrt(var + 1e-5), mean)`` over ``axes``; the variance divides by n - ``correction``."""
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    variance = jnp.square(centred).mean(axes, keepdims=True)
    if correction:
        count = x.size / mean.size
        variance = variance * (count / (count - correction))
    return centred * lax.rsqrt(variance + _INSTANCE_EPS), mean


@functools.partial(jax.jit, static_argnames="flavor")
def _instance_norm_plus(x: jax.Array, alpha: jax.Array, gamma: jax.Array, beta: jax.Array, flavor: Flavor) -> jax.Array:
    h, means = _standardize(x.astype(jnp.float32), (1, 2))
    means, _ = _standardize(means, (3,), correction=int(flavor == "pytorch"))
    return (h + means * alpha) * gamma + beta


class GroupNorm(nn.Module):
    """Group normalisation of ``[B, H, W, C]`` with affine parameters ``scale`` (ones) and ``bias`` (zeros).

    ``num_groups``: number of groups, a divisor of C; None: ``min(C // 4, 32)``, the rule of NCSN++ and the classifier.
    """

    num_groups: int | None = 32
    epsilon: float = 1e-6
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        groups = min(channels // 4, 32) if self.num_groups is None else self.num_groups
        if groups == 0 or channels % groups:
            raise ValueError(
                f"GroupNorm splits {channels} channels into {groups} groups, which is not possible: "
                "choose a width (model.nf times model.ch_mult) that is a multiple of the number of groups"
            )
        scale = self.param("scale", nn.initializers.ones, (1, 1, 1, channels))
        bias = self.param("bias", nn.initializers.zeros, (1, 1, 1, channels))

        return _group_norm(x, scale, bias, groups, self.epsilon).astype(self.dtype)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, epsilon: float) -> jax.Array:
    batch, _, _, channels = x.shape
    of_groups = (batch, groups, channels // groups)

    def mean(a: jax.Array) -> jax.Array:
        # Space first, then the channels of a group: the large array is reduced without being reshaped.
        group = a.mean((1, 2)).reshape(of_groups).mean(-1, keepdims=True)
        return jnp.broadcast_to(group, of_groups).reshape(batch, 1, 1, channels)

    x = x.astype(jnp.float32)
    centre = mean(x)
    variance = mean(jnp.square(x)) - jnp.square(centre)
    # Rounding can make the difference negative; the root would be NaN.
    variance = jnp.where(variance < 0, 0.0, variance)
    return (x - centre) * (lax.rsqrt(variance + epsilon) * scale) + bias


class InstanceNorm2d(nn.Module):
    """Instance normalisation, with ``scale`` (ones) and ``bias`` (zeros) in the JAX flavor."""

    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h, _ = _standardize(x.astype(jnp.float32), (1, 2))
        if self.flavor == "pytorch":
            return h.astype(self.dtype)
        shape = (1, 1, 1, x.shape[-1])
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        return (h * scale + bias).astype(self.dtype)


class VarianceNorm2d(nn.Module):
    """Division by the standard deviation of each channel, times ``scale``; the mean is kept."""

    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", _around_one, (1, 1, 1, x.shape[-1]))
        x = x.astype(jnp.float32)
        variance = x.var((1, 2), keepdims=True, ddof=int(self.flavor == "pytorch"))
        return (x * lax.rsqrt(variance + _INSTANCE_EPS) * scale).astype(self.dtype)


class InstanceNorm2dPlus(nn.Module):
    """InstanceNorm++: instance normalisation plus the normalised channel means, with ``alpha``, ``gamma``, ``beta``."""

    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, 1, 1, x.shape[-1])
        alpha = self.param("alpha", _around_one, shape)
        gamma = self.param("gamma", _around_one, shape)
        beta = self.param("beta", nn.initializers.zeros, shape)
        return _instance_norm_plus(x, alpha, gamma, beta, self.flavor).astype(self.dtype)


def _embedding_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """``[num_classes, 3 C]``: gamma and alpha around one, beta zero."""
    classes, width = shape
    around_one = _around_one(key, (classes, 2 * (width // 3)), dtype)
    return jnp.concatenate([around_one, jnp.zeros((classes, width // 3), dtype)], axis=1)


class ConditionalInstanceNorm2dPlus(nn.Module):
    """InstanceNorm++ whose gamma, alpha, beta are rows of the table ``Embed_0/embedding`` ``[num_classes, 3 C]``.

    Call with ``x`` ``[B, H, W, C]`` and integer labels ``[B]`` in ``[0, num_classes)``.
    """

    num_classes: int
    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        rows = nn.Embed(self.num_classes, 3 * x.shape[-1], embedding_init=_embedding_init)(labels)
        gamma, alpha, beta = jnp.split(rows[:, None, None, :], 3, axis=-1)
        return _instance_norm_plus(x, alpha, gamma, beta, self.flavor).astype(self.dtype)


NORMALIZATIONS: dict[str, Callable[..., nn.Module]] = {
    "GroupNorm": GroupNorm,
    "InstanceNorm": InstanceNorm2d,
    "InstanceNorm++": InstanceNorm2dPlus,
    "VarianceNorm": VarianceNorm2d,
}
"""``config.model.normalization`` to layer."""


def get_normalization(name: str, flavor: Flavor = "jax") -> Callable[..., nn.Module]:
    """What makes the layers behind a value of ``config.model.normalization``; ``ValueError`` for an unknown one."""
    if name not in NORMALIZATIONS:
        raise ValueError(f"unknown normalization {name!r}; known: {', '.join(NORMALIZATIONS)}")
    layer = NORMALIZATIONS[name]
    return layer if layer is GroupNorm else functools.partial(layer, flavor=flavor)
