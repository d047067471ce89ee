r"""Pieces shared by the networks: activations, initialisers, convolutions and embeddings of the noise level.

Initialisers (uniform in ``[-limit, limit]``, ``k`` the kernel's side, biases zero unless said)

    DDPM    limit = sqrt(3 s / ((fan_in + fan_out) / 2)),  fan_in = k^2 C_in, fan_out = k^2 C_out; s = 0 means s = 1e-10
    NCSN    limit = sqrt(3 (s / 3) / fan_in), biases drawn with the same limit

Embeddings of the noise level

    sinusoidal  f_i = exp(-i ln(10000) / (d/2 - 1)),  [sin(t f), cos(t f)]            (arXiv:1706.03762, section 3.5)
    Fourier     W ~ N(0, scale^2),  [sin(2 pi W log sigma), cos(2 pi W log sigma)]    (arXiv:2006.10739)

The two original programs differ in a few numbers of the RefineNets; ``flavor`` says whose are meant, with the same
meaning as in :mod:`score_core.torch.networks.layers`, whose description lists them.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_core.noise_scales import model_sigmas

__all__ = [
    "NIN",
    "Activation",
    "Flavor",
    "GaussianFourierProjection",
    "check_flavor",
    "conv1x1",
    "conv3x3",
    "default_init",
    "get_activation",
    "level_of",
    "ncsn_conv",
    "noise_levels",
    "rescale_input",
    "time_mlp",
    "timestep_embedding",
]

Activation = Callable[[jax.Array], jax.Array]

Flavor = Literal["jax", "pytorch"]
"""Whose numbers where the originals differ; see the module's description."""

ACTIVATIONS: dict[str, Activation] = {
    "elu": nn.elu,
    "relu": nn.relu,
    "lrelu": lambda x: nn.leaky_relu(x, 0.2),
    "swish": nn.swish,
}
"""``config.model.nonlinearity`` (any case) to function."""


def get_activation(name: str) -> Activation:
    """The activation of that name, any case; ``ValueError`` for an unknown one."""
    if name.lower() not in ACTIVATIONS:
        raise ValueError(f"unknown nonlinearity {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name.lower()]


def check_flavor(flavor: str) -> None:
    """``ValueError`` unless ``flavor`` is a :data:`Flavor`."""
    if flavor not in get_args(Flavor):
        raise ValueError(f"unknown flavor {flavor!r} (model.flavor); known: {', '.join(get_args(Flavor))}")


def default_init(scale: float = 1.0) -> nn.initializers.Initializer:
    """The DDPM initialiser of the module's formula."""
    return nn.initializers.variance_scaling(scale or 1e-10, "fan_avg", "uniform")


def conv3x3(
    features: int, *, stride: int = 1, bias: bool = True, init_scale: float = 1.0, dtype: Any = jnp.float32
) -> nn.Conv:
    """A 3x3 convolution in the calling module's scope. With stride 2 an even side is padded 0 before, 1 after."""
    return nn.Conv(
        features,
        (3, 3),
        strides=(stride, stride),
        padding="SAME",
        use_bias=bias,
        kernel_init=default_init(init_scale),
        dtype=dtype,
    )


def conv1x1(features: int, *, bias: bool = True, init_scale: float = 1.0, dtype: Any = jnp.float32) -> nn.Conv:
    """A 1x1 convolution in the calling module's scope."""
    return nn.Conv(features, (1, 1), use_bias=bias, kernel_init=default_init(init_scale), dtype=dtype)


def ncsn_conv(
    x: jax.Array,
    features: int,
    *,
    size: int = 3,
    bias: bool = True,
    dilation: int = 1,
    init_scale: float = 1.0,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Convolve ``x`` ``[B, H, W, C]`` in the calling module's scope: NCSN initialisers, size of ``x`` kept."""
    init = nn.initializers.variance_scaling(init_scale / 3, "fan_in", "uniform")

    def bias_init(key: jax.Array, shape: tuple[int, ...], bias_dtype: Any = jnp.float32) -> jax.Array:
        limit = math.sqrt(init_scale / (size * size * x.shape[-1]))
        return jax.random.uniform(key, shape, bias_dtype, -limit, limit)

    conv = nn.Conv(
        features,
        (size, size),
        padding="SAME",
        kernel_dilation=dilation,
        use_bias=bias,
        kernel_init=init,
        bias_init=bias_init,
        dtype=dtype,
    )
    return conv(x)


class NIN(nn.Module):
    """The same linear map of the channels at every position: ``x W + b``, ``W`` ``[C, units]``."""

    units: int
    init_scale: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        W = self.param("W", default_init(self.init_scale), (x.shape[-1], self.units))
        b = self.param("b", nn.initializers.zeros, (self.units,))
        return x.astype(self.dtype) @ W.astype(self.dtype) + b.astype(self.dtype)


def timestep_embedding(t: jax.Array, dim: int) -> jax.Array:
    """Sinusoidal embedding of ``t`` ``[B]`` (float or integer, any range): float32 ``[B, dim]``, ``dim >= 4``.

    An odd ``dim`` gets a zero at the end.
    """
    if dim < 4:
        raise ValueError(f"a sinusoidal embedding needs at least 4 features, {dim} asked for (model.nf)")
    half = dim // 2
    frequencies = jnp.exp(jnp.arange(half, dtype=jnp.float32) * -(math.log(10000) / (half - 1)))
    angles = t.astype(jnp.float32)[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles), jnp.zeros((t.shape[0], dim % 2))], axis=1)


class GaussianFourierProjection(nn.Module):
    """Random Fourier features of a scalar ``[B]``: float32 ``[B, 2 size]``.

    The parameter ``W`` gets no gradient unless it is ``trainable``.
    """

    size: int
    scale: float
    trainable: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        W = self.param("W", nn.initializers.normal(self.scale), (self.size,))
        # parity: W is part of the parameters (checkpoint, optimiser, moving average), its gradient exactly zero.
        W = W if self.trainable else jax.lax.stop_gradient(W)
        angles = x[:, None] * W[None, :] * 2 * np.pi
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def time_mlp(embedding: jax.Array, nf: int, act: Activation) -> jax.Array:
    """``Dense_1(act(Dense_0(embedding)))`` with ``4 nf`` features, in float32, in the calling module's scope."""
    first = nn.Dense(4 * nf, kernel_init=default_init())
    second = nn.Dense(4 * nf, kernel_init=default_init())
    return second(act(first(embedding)))


def noise_levels(sigma_min: float, sigma_max: float, num_scales: int, flavor: Flavor) -> np.ndarray:
    """The noise levels a network is conditioned on: float32 ``[num_scales]``, descending (index 0 the largest)."""
    if flavor == "jax":
        return model_sigmas(sigma_min, sigma_max, num_scales)
    # parity: the PyTorch program computes them in float64.
    return np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), num_scales)).astype(np.float32)


def level_of(sigmas: np.ndarray, labels: jax.Array) -> jax.Array:
    """The noise levels ``sigmas[labels]`` as ``[B, 1, 1, 1]``, to divide the output by.

    Raises ``TypeError`` for labels that are not integers: they are indices of the discrete noise levels.
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"this network divides by the noise level of an integer label, the labels are {labels.dtype}: "
            "it was made for discrete noise levels (training.continuous=False)"
        )
    return jnp.asarray(sigmas)[labels][:, None, None, None]


def rescale_input(x: jax.Array, centered: bool, num_channels: int, halvings: int) -> jax.Array:
    """The image the network works on: ``x`` if the data are in [-1, 1] already (``centered``), else ``2 x - 1``.

    Raises ``ValueError`` unless there are ``num_channels`` channels and both sides are divisible by ``2^halvings``.
    """
    if x.ndim != 4 or x.shape[-1] != num_channels or any(side % 2**halvings for side in x.shape[1:3]):
        raise ValueError(
            f"the network takes images [B, H, W, {num_channels}] with H and W divisible by {2**halvings}, "
            f"found {tuple(x.shape)} (data.num_channels, data.image_size)"
        )
    return x if centered else 2 * x - 1.0
