r"""Variational dequantisation by Flow++ (Ho et al. 2019), as score_flow uses it.

A conditional flow turns noise :math:`u \sim N(0, I)` into dequantisation noise in (0, 1), given the image :math:`x`;
the likelihood of 8-bit data is bounded by

.. math:: \log P(x) \ge E_u[\log p((255 x + \mathrm{noise}) / 256) - D \log 256 - \log q(\mathrm{noise} | x)].

    split (even, odd columns) -> n x [Norm, (Pointwise,) Coupling, flip] -> join -> sigmoid

    norm         x g + b at every position, standardised on the first batch
    pointwise    a matrix over the channels
    coupling     one half, with the context of x, gives the other half's map: the distribution function of a mixture of
                 logistics, its logit, then a scale and a shift
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from score_flow_hdsm import logistic_mixture as mixture
from score_flow_hdsm.dequantizer_layers import (
    ConvKind,
    attention,
    concat_elu,
    convolution,
    gated_residual,
    layer_norm,
    position_embedding,
)
from score_sde.experiment import usage_errors

__all__ = ["VARIANTS", "Dequantizer", "Variant", "configured_dequantizer", "create_dequantizer"]

Pair = tuple[jax.Array, jax.Array]


class Variant(NamedTuple):
    """The sizes of a dequantiser.

    Attributes:
        filters, components, blocks, heads: width, logistics a mixture, residual blocks and attention heads (0: none) of
            a coupling.
        groups: how often the whole flow is repeated.
        matrices: whether each step has a matrix over the channels.
        convolutions: how 3x3 convolutions are parametrised.
        context_blocks: residual blocks of the image's context.
        context_heads: attention heads there (0: none).
        deep_context: layer norms and attention in the context.
    """

    filters: int = 96
    components: int = 32
    blocks: int = 2
    heads: int = 4
    groups: int = 1
    matrices: bool = True
    convolutions: ConvKind = "scaled"
    context_blocks: int = 3
    context_heads: int = 0
    deep_context: bool = False


VARIANTS = {
    "cifar10": Variant(),
    "imagenet32": Variant(
        filters=128, blocks=8, groups=2, matrices=False, convolutions="weight_normalized",
        context_blocks=8, context_heads=4, deep_context=True,
    ),
    # repaired: the original's gives two layers one name and cannot be initialised; its layers here are numbered
    "imagenet64": Variant(
        components=4, blocks=5, heads=0, matrices=False, context_blocks=5, deep_context=True
    ),
}  # fmt: skip

_CONTEXT_WIDTH = 32
_STEPS = 4
_TINY_LOG = -40.0


def _safe_log(x: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(x, 1e-7))


def _logit(h: jax.Array, log_h: jax.Array) -> jax.Array:
    """log(h / (1 - h)), finite with its gradient.

    parity: -log(1 / h - 1), whose rounding near 1 shows in the original's numbers. Near 0 that is infinite where h is
    rounded to 0, and its gradient overflows long before; there it is log h to every digit.
    """
    ordinary = log_h > _TINY_LOG
    return jnp.where(ordinary, -_safe_log(1.0 / jnp.where(ordinary, h, 0.5) - 1.0), log_h)


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def _split(x: jax.Array) -> Pair:
    """The even and the odd columns."""
    return x[:, :, 0::2], x[:, :, 1::2]


def _join(pair: Pair) -> jax.Array:
    batch, height, _, channels = pair[0].shape
    return jnp.stack(pair, axis=3).reshape(batch, height, -1, channels)


class Norm(nn.Module):
    """An affine map at every position."""

    @nn.compact
    def __call__(self, pair: Pair, inverse: bool) -> tuple[Pair, jax.Array]:
        out, log_det = [], jnp.zeros(())
        for i, x in enumerate(pair):

            def statistics(x: jax.Array = x) -> tuple[jax.Array, jax.Array]:
                mean = jnp.mean(x, axis=0)
                return mean, (jnp.mean(x**2, axis=0) - mean**2 + 1e-6) ** -0.5

            gain = self.param(f"norm{i}_g", lambda _, s=statistics: s()[1])
            shift = self.param(f"norm{i}_b", lambda _, s=statistics: -s()[0] * s()[1])
            gain = jnp.maximum(gain, 1e-10)
            out.append((x - shift) / gain if inverse else x * gain + shift)
            log_det += jnp.sum(_safe_log(gain))
        return (out[0], out[1]), jnp.broadcast_to(-log_det if inverse else log_det, pair[0].shape[:1])


class Pointwise(nn.Module):
    """A matrix over the channels."""

    @nn.compact
    def __call__(self, pair: Pair, inverse: bool) -> tuple[Pair, jax.Array]:
        out, log_det = [], jnp.zeros(())
        for i, x in enumerate(pair):
            channels = x.shape[-1]
            matrix = self.param(f"W{i}", lambda key, c=channels: jnp.eye(c) + 0.001 * jax.random.normal(key, (c, c)))
            out.append(jnp.matmul(x, jnp.linalg.inv(matrix) if inverse else matrix))
            log_det += x.shape[1] * x.shape[2] * jnp.linalg.slogdet(matrix)[1]
        return (out[0], out[1]), jnp.broadcast_to(-log_det if inverse else log_det, pair[0].shape[:1])


class MixLogisticAttnCoupling(nn.Module):
    """The first half passes; with the context it decides how the second is mapped."""

    variant: Variant

    @nn.compact
    def __call__(self, pair: Pair, context: jax.Array, inverse: bool) -> tuple[Pair, jax.Array]:
        kept, x = pair
        s, shift, logits, means, log_scales = self._parameters(kept, context)
        arguments = (logits, means, log_scales)
        if inverse:
            h = jax.nn.sigmoid((x - shift) / jnp.exp(s))
            out = mixture.inverse_cdf(h, *arguments)
            # The forward map's log-determinant, at the point where it would have been.
            return (kept, out), -self._map(out, s, arguments)[1]
        logit, log_det = self._map(x, s, arguments)
        return (kept, logit * jnp.exp(s) + shift), log_det

    @staticmethod
    def _map(x: jax.Array, s: jax.Array, arguments: Any) -> Pair:
        """The logit of the distribution function h, and the log-determinant with the scale ``[B]``."""
        log_h = mixture.log_cdf(x, *arguments)
        h = jnp.exp(log_h)
        log_det = mixture.log_pdf(x, *arguments) - _safe_log(h) - _safe_log(1.0 - h) + s
        return _logit(h, log_h), _sum(log_det)

    def _parameters(self, x: jax.Array, context: jax.Array) -> tuple[jax.Array, ...]:
        """Scale, shift ``[B, H, W, C]``; logits, means, log-scales ``[B, H, W, C, K]``."""
        v = self.variant
        channels, wide = x.shape[-1], v.convolutions == "weight_normalized" or not v.heads
        positions = position_embedding(self, "pos_emb", (x.shape[1], x.shape[2], v.filters))
        h = convolution(self, x, "c1" if wide else "proj_in", v.filters, v.convolutions)
        for i in range(v.blocks):
            h = gated_residual(self, h, context, f"block{i}_conv", v.convolutions, pointwise_out=True)
            h = layer_norm(self, h, f"block{i}_ln1")
            if v.heads:
                h = attention(self, h, positions, f"block{i}_attn", v.heads)
                h = layer_norm(self, h, f"block{i}_ln2")
        last, features = f"block{v.blocks - 1}", channels * (2 + 3 * v.components)
        if wide:
            h = convolution(self, concat_elu(h), f"{last}_c2", features, v.convolutions, init_scale=0.1)
        else:
            h = convolution(self, h, f"{last}_proj_out", features, v.convolutions, init_scale=0.1)
        h = h.reshape(*x.shape, 2 + 3 * v.components)
        logits, means, log_scales = jnp.split(h[..., 2:], 3, axis=-1)
        return jnp.tanh(h[..., 0]), h[..., 1], logits, means, log_scales


class _Context(nn.Module):
    """The image's features ``[B, H, W / 2, 32]`` that all couplings see."""

    variant: Variant

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        v = self.variant
        h = jnp.concatenate(_split(x - 0.5), axis=-1)
        h = convolution(self, h, "proj", _CONTEXT_WIDTH, v.convolutions)
        if not v.deep_context:
            for i in range(v.context_blocks):
                h = gated_residual(self, h, None, f"c{i}", v.convolutions, pointwise_out=False)
            return h
        positions = position_embedding(self, "pos_emb_dq", (h.shape[1], h.shape[2], _CONTEXT_WIDTH))
        for i in range(v.context_blocks):
            h = gated_residual(self, h, None, f"c{i}", v.convolutions, pointwise_out=False)
            h = layer_norm(self, h, f"dqln{i}")
            if v.context_heads:
                h = attention(self, h, positions, f"dqattn{i}", v.context_heads)
                h = layer_norm(self, h, f"ln{i}")
        return h


class Dequantizer(nn.Module):
    """The flow of the module's description.

    Call with standard normal ``u`` and images ``x`` in [0, 1], both ``[B, H, W, C]`` with even W. Returns the noise
    in (0, 1) of the same shape, and :math:`-\\log q(\\mathrm{noise} | x)` ``[B]`` in nats. With ``inverse`` the first
    argument is the noise, the first result ``u``.

    Attributes:
        variant: its sizes.
    """

    variant: Variant = VARIANTS["cifar10"]

    @nn.compact
    def __call__(self, u: jax.Array, x: jax.Array, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        v = self.variant
        steps: list[list[nn.Module]] = []
        for i in range(v.groups * _STEPS):
            step: list[nn.Module] = [Norm(name=f"Norm_{i}")]
            if v.matrices:
                step.append(Pointwise(name=f"Pointwise_{i}"))
            steps.append([*step, MixLogisticAttnCoupling(v, name=f"MixLogisticAttnCoupling_{i}")])
        context = _Context(v, name="DeepProcessor_0" if v.deep_context else "ShallowProcessor_0")(x)
        if inverse:
            return self._inverse(u, context, steps)
        log_det = jnp.zeros(u.shape[:1])
        h = u
        for group in range(v.groups):
            pair = _split(h)
            for step in steps[group * _STEPS : (group + 1) * _STEPS]:
                for layer in step:
                    pair, change = _apply(layer, pair, context, False)
                    log_det += change
                pair = (pair[1], pair[0])
            h = _join(pair)
        log_det += _sum(-jax.nn.softplus(h) - jax.nn.softplus(-h))
        return jax.nn.sigmoid(h), log_det - _standard_normal(u)

    def _inverse(self, noise: jax.Array, context: jax.Array, steps: Any) -> tuple[jax.Array, jax.Array]:
        noise = jnp.maximum(noise, np.finfo(np.float32).tiny)  # it may have been rounded to 0
        h = _logit(noise, jnp.log(noise))
        log_det = _sum(jax.nn.softplus(h) + jax.nn.softplus(-h))
        for group in reversed(range(self.variant.groups)):
            pair = _split(h)
            for step in reversed(steps[group * _STEPS : (group + 1) * _STEPS]):
                pair = (pair[1], pair[0])
                for layer in reversed(step):
                    pair, change = _apply(layer, pair, context, True)
                    log_det += change
            h = _join(pair)
        return h, -log_det - _standard_normal(h)


def _apply(layer: Any, pair: Pair, context: jax.Array, inverse: bool) -> tuple[Pair, jax.Array]:
    if isinstance(layer, MixLogisticAttnCoupling):
        return layer(pair, context, inverse)
    return layer(pair, inverse)


def _standard_normal(u: jax.Array) -> jax.Array:
    return _sum(-(u**2) / 2.0 - 0.5 * np.log(2 * np.pi))


def create_dequantizer(dataset: str, image_size: int, **sizes: int) -> Dequantizer:
    """The dequantiser of a data set, with ``filters``, ``components`` or ``blocks`` other than the published ones.

    Raises:
        ValueError: images of odd width.
    """
    if image_size % 2:
        raise ValueError(f"the dequantiser halves the width of an image, which must be even: {image_size}")
    name = dataset.lower()
    if name.startswith("imagenet"):
        variant = VARIANTS["imagenet64" if image_size == 64 else "imagenet32"]
    else:
        variant = VARIANTS["cifar10"]
    return Dequantizer(variant._replace(**{key: value for key, value in sizes.items() if value}))


def configured_dequantizer(config: Any) -> Dequantizer:
    """The dequantiser of a configuration.

    Raises:
        UsageError: images of odd width.
    """
    data, deq = config.data, config.deq
    with usage_errors():
        return create_dequantizer(
            data.dataset, data.image_size, filters=deq.filters, components=deq.components, blocks=deq.blocks
        )
