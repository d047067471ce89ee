r"""Noise-conditional wide ResNet, the classifier of class-conditional sampling (arXiv:2011.13456, appendix I).

A wide ResNet (Zagoruyko & Komodakis, arXiv:1605.07146) with group normalisation, told the noise level of its input:

    x     (x - mean) / max(std, 1 / sqrt(H W C)) per image
    temb  Dense(swish(Dense(Fourier(log sigma)))), added to every block through a linear map of swish(temb)
    out   three groups of blocks (16 k, 32 k, 64 k channels; strides 1, 2, 2), mean over positions, linear map

The classifier's gradient for ``p(y | x)`` is ``d/dx sum_b log softmax(logits_b)[y_b]``.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_core.jax.networks.convolution import convolve
from score_core.jax.networks.layers import GaussianFourierProjection
from score_core.jax.networks.normalization import GroupNorm

__all__ = ["WideResnet", "get_classifier_grad_fn", "get_logit_fn"]

CIFAR10_MEAN = np.asarray((0.49139968, 0.48215841, 0.44653091), np.float32)
CIFAR10_STD = np.asarray((0.24703223, 0.24348513, 0.26158784), np.float32)

LogitFn = Callable[[jax.Array, jax.Array], jax.Array]
"""``(x [B, H, W, 3] in [0, 1], sigma [B]) -> logits [B, num_outputs]``."""

_conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def _normalised(h: jax.Array, name: str, dtype: Any) -> jax.Array:
    """``relu(GroupNorm(h))`` with the layer called ``name``."""
    return nn.relu(GroupNorm(num_groups=None, epsilon=1e-5, dtype=dtype, name=name)(h))


def _conv(h: jax.Array, features: int, name: str, dtype: Any, stride: int = 1) -> jax.Array:
    strides = (stride, stride)
    options: dict[str, Any] = {"kernel_init": _conv_init, "conv_general_dilated": convolve, "dtype": dtype}
    return nn.Conv(features, (3, 3), strides, use_bias=False, name=name, **options)(h)


def _output_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Uniform in ``[-1, 1] / sqrt(number of outputs)``."""
    limit = 1 / np.sqrt(shape[1])
    return jax.random.uniform(key, shape, dtype, -limit, limit)


class WideResnetBlock(nn.Module):
    """Two convolutions and a shortcut; ``activate_first``: the shortcut too starts from the activated input."""

    features: int
    stride: int = 1
    activate_first: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        h = _normalised(x, "init_bn", self.dtype)
        residual = h if self.activate_first else x
        h = _conv(h, self.features, "conv1", self.dtype, self.stride)
        h = h + nn.Dense(self.features, dtype=self.dtype)(nn.swish(temb))[:, None, None, :]
        h = _normalised(h, "bn_2", self.dtype)
        h = _conv(h, self.features, "conv2", self.dtype)
        missing = self.features - residual.shape[-1]
        if missing:
            window = (self.stride, self.stride)
            residual = nn.avg_pool(residual, window, window)
            residual = jnp.pad(residual, ((0, 0), (0, 0), (0, 0), (0, missing)))
        return h + residual


class WideResnetGroup(nn.Module):
    """``blocks`` blocks of the same width, the first with the stride."""

    blocks: int
    features: int
    stride: int = 1
    activate_first: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array) -> jax.Array:
        for i in range(self.blocks):
            block = WideResnetBlock(
                self.features, self.stride if i == 0 else 1, self.activate_first and i == 0, dtype=self.dtype
            )
            x = block(x, temb)
        return x


class WideResnet(nn.Module):
    """The classifier of the module's description; the defaults are the published one (38,913,242 parameters).

    Call with ``x`` ``[B, H, W, C]``, noise levels ``sigmas`` ``[B]`` > 0 and ``train`` (no effect).
    Returns float32 logits ``[B, num_outputs]``.
    """

    blocks_per_group: int = 4
    channel_multiplier: int = 10
    num_outputs: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, sigmas: jax.Array, train: bool = False) -> jax.Array:
        del train  # group normalisation, no dropout
        embedding = GaussianFourierProjection(128, 16.0)(jnp.log(sigmas.astype(jnp.float32)))
        hidden = nn.swish(nn.Dense(512)(embedding))
        temb = nn.Dense(512)(hidden)

        std = jnp.maximum(x.std((1, 2, 3), keepdims=True), 1 / np.sqrt(np.prod(x.shape[1:])))
        h = ((x - x.mean((1, 2, 3), keepdims=True)) / std).astype(self.dtype)
        h = _conv(h, 16, "init_conv", self.dtype)
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            features = width * self.channel_multiplier
            group = WideResnetGroup(self.blocks_per_group, features, stride, stride == 1, dtype=self.dtype)
            h = group(h, temb)
        h = _normalised(h, "pre-pool-bn", self.dtype).astype(jnp.float32).mean((1, 2))
        return nn.Dense(self.num_outputs, kernel_init=_output_init)(h)


def get_logit_fn(model: nn.Module, params: Any) -> LogitFn:
    """The classifier on images in [0, 1]: CIFAR-10's channel means and standard deviations are taken out first."""

    def logit_fn(x: jax.Array, sigmas: jax.Array) -> jax.Array:
        logits: Any = model.apply({"params": params}, (x - CIFAR10_MEAN) / CIFAR10_STD, sigmas, train=False)
        return logits

    return logit_fn


def get_classifier_grad_fn(logit_fn: LogitFn) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """``(x [B, H, W, C], sigma [B], labels [B]) -> d/dx log p(label | x)``, of the shape of ``x``."""

    def log_probability(x: jax.Array, sigmas: jax.Array, labels: jax.Array) -> jax.Array:
        log_probs = nn.log_softmax(logit_fn(x, sigmas))
        return jnp.take_along_axis(log_probs, labels[:, None], axis=1).sum()

    return jax.grad(log_probability)
