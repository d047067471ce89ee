r"""The U-Net of DDPM (Ho, Jain & Abbeel, NeurIPS 2020, appendix B; arXiv:2006.11239).

On ``h = 2 x - 1`` (or ``x`` if the data are centred), with ``temb = Dense(act(Dense(sinusoid(labels))))``:

    down    each level: ``num_res_blocks`` residual blocks (attention at ``attn_resolutions``), then half the size
    middle  residual block, attention, residual block
    up      each level: ``num_res_blocks + 1`` residual blocks on [h, the matching map of the way down], attention at
            ``attn_resolutions``, then twice the size
    out     Conv(act(norm(h))), divided by sigmas[labels] with ``scale_by_sigma``
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_core.jax.networks.blocks import AttnBlock, Downsample, ResnetBlockDDPM, Upsample
from score_core.jax.networks.layers import (
    conv3x3,
    get_activation,
    level_of,
    rescale_input,
    time_mlp,
    timestep_embedding,
)
from score_core.jax.networks.normalization import get_normalization
from score_core.noise_scales import model_sigmas

__all__ = ["DDPM"]


class DDPM(nn.Module):
    """The network of the module's description; the defaults are DDPM for CIFAR-10, VP SDE.

    Call with ``x`` ``[B, H, W, num_channels]`` (in [0, 1], or [-1, 1] if ``centered``), labels ``[B]`` (times or
    indices, unscaled; integers with ``scale_by_sigma``) and ``train`` (dropout, which takes ``rngs={"dropout": key}``).
    Returns float32 ``[B, H, W, num_channels]``. With GroupNorm every width must be a multiple of 32.

    ``dtype`` is the type of the computation; parameters, normalisation statistics, softmax, the embedding of the noise
    level and the division by sigma are float32 always. Parameter names and shapes are those of the official
    checkpoints.
    """

    nf: int = 128
    ch_mult: Sequence[int] = (1, 2, 2, 2)
    num_res_blocks: int = 2
    attn_resolutions: Sequence[int] = (16,)
    dropout: float = 0.1
    resamp_with_conv: bool = True
    conditional: bool = True
    normalization: str = "GroupNorm"
    nonlinearity: str = "swish"
    scale_by_sigma: bool = False
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    num_scales: int = 1000
    centered: bool = True
    num_channels: int = 3
    dtype: Any = jnp.float32

    @classmethod
    def from_config(cls, config: Any) -> "DDPM":
        """The network of ``config.model`` and ``config.data``."""
        model = config.model
        return cls(
            nf=model.nf,
            ch_mult=tuple(model.ch_mult),
            num_res_blocks=model.num_res_blocks,
            attn_resolutions=tuple(model.attn_resolutions),
            dropout=model.dropout,
            resamp_with_conv=model.resamp_with_conv,
            conditional=model.conditional,
            normalization=model.normalization,
            nonlinearity=model.nonlinearity,
            scale_by_sigma=model.scale_by_sigma,
            sigma_min=model.sigma_min,
            sigma_max=model.sigma_max,
            num_scales=model.num_scales,
            centered=config.data.centered,
            num_channels=config.data.num_channels,
        )

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        act = get_activation(self.nonlinearity)
        norm = get_normalization(self.normalization)
        temb = time_mlp(timestep_embedding(labels, self.nf), self.nf, act) if self.conditional else None

        def block(h: jax.Array, features: int) -> jax.Array:
            return ResnetBlockDDPM(features, act, self.dropout, norm=norm, dtype=self.dtype)(h, temb, train)

        def attention(h: jax.Array) -> jax.Array:
            return AttnBlock(norm=norm, dtype=self.dtype)(h)

        x = rescale_input(x, self.centered, self.num_channels, len(self.ch_mult) - 1).astype(self.dtype)
        h = conv3x3(self.nf, dtype=self.dtype)(x)
        skips = [h]
        for level, multiplier in enumerate(self.ch_mult):
            for _ in range(self.num_res_blocks):
                h = block(h, self.nf * multiplier)
                # parity: the height alone decides.
                h = attention(h) if h.shape[1] in self.attn_resolutions else h
                skips.append(h)
            if level != len(self.ch_mult) - 1:
                h = Downsample(with_conv=self.resamp_with_conv, dtype=self.dtype)(h)
                skips.append(h)

        h = block(h, h.shape[-1])
        h = attention(h)
        h = block(h, h.shape[-1])

        for level in reversed(range(len(self.ch_mult))):
            for _ in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), self.nf * self.ch_mult[level])
            # parity: one attention a level on the way up, one a block on the way down.
            h = attention(h) if h.shape[1] in self.attn_resolutions else h
            if level:
                h = Upsample(with_conv=self.resamp_with_conv, dtype=self.dtype)(h)

        h = act(norm(dtype=self.dtype)(h))
        h = conv3x3(self.num_channels, init_scale=0.0, dtype=self.dtype)(h).astype(jnp.float32)
        if not self.scale_by_sigma:
            return h
        return h / level_of(model_sigmas(self.sigma_min, self.sigma_max, self.num_scales), labels)
