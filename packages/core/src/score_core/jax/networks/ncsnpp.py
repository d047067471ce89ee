r"""NCSN++ and DDPM++ (Song et al., "Score-based generative modeling through SDEs", arXiv:2011.13456, appendix H).

A U-Net on ``h = 2 x - 1`` (or ``x`` if the data are centred) with ``len(ch_mult)`` levels of ``num_res_blocks``
residual blocks, conditioned on the noise level through ``temb = Dense(act(Dense(embedding)))``:

    down    each level: residual blocks (attention at ``attn_resolutions``), then half the size;
            the image itself may be shrunk alongside and joined at every level (``progressive_input``)
    middle  residual block, attention, residual block
    up      each level: residual blocks on [h, the matching map of the way down], attention, then twice the size;
            an image may be built up alongside (``progressive``)
    out     Conv(act(norm(h))), divided by sigma with ``scale_by_sigma``

    embedding_type   fourier      labels are sigma, Fourier features of log sigma (continuous training)
                     positional   labels are times or indices, sinusoidal features; sigma = sigmas[int(label)]
    progressive      none | output_skip: the output is the sum of upsampled projections | residual: joined and continued
    progressive_input none | input_skip: shrunk images joined by 1x1 convolutions | residual: joined and continued

DDPM++ is the case ``fir=False``, ``progressive="none"``, ``progressive_input="none"``, ``embedding_type="positional"``.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_core.jax.networks.blocks import (
    AttnBlockpp,
    Combine,
    Downsample,
    ResnetBlockBigGANpp,
    ResnetBlockDDPMpp,
    Upsample,
    join,
)
from score_core.jax.networks.layers import (
    GaussianFourierProjection,
    conv3x3,
    get_activation,
    rescale_input,
    time_mlp,
    timestep_embedding,
)
from score_core.jax.networks.normalization import GroupNorm
from score_core.noise_scales import model_sigmas

__all__ = ["NCSNpp"]

_CHOICES = {
    "resblock_type": ("ddpm", "biggan"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_combine": ("sum", "cat"),
    "embedding_type": ("fourier", "positional"),
}


class NCSNpp(nn.Module):
    """The network of the module's description; the defaults are NCSN++ (continuous) for CIFAR-10, VE SDE.

    Call with ``x`` ``[B, H, W, num_channels]`` (in [0, 1], or [-1, 1] if ``centered``), labels ``[B]`` (sigma for
    ``fourier``, a time or index for ``positional``) and ``train`` (dropout, which takes ``rngs={"dropout": key}``).
    Returns float32 ``[B, H, W, num_channels]``.

    ``dtype`` is the type of the computation; parameters, normalisation statistics, softmax, FIR sums, the embedding of
    the noise level and the division by sigma are float32 always. Parameter names and shapes are those of the official
    checkpoints. ``remat``: of every block only what goes in is kept for the gradient, the rest is computed again.
    """

    nf: int = 128
    ch_mult: Sequence[int] = (1, 2, 2, 2)
    num_res_blocks: int = 4
    attn_resolutions: Sequence[int] = (16,)
    dropout: float = 0.1
    resamp_with_conv: bool = True
    conditional: bool = True
    fir: bool = True
    fir_kernel: Sequence[float] = (1, 3, 3, 1)
    skip_rescale: bool = True
    resblock_type: str = "biggan"
    progressive: str = "none"
    progressive_input: str = "residual"
    progressive_combine: str = "sum"
    embedding_type: str = "fourier"
    fourier_scale: float = 16.0
    init_scale: float = 0.0
    nonlinearity: str = "swish"
    scale_by_sigma: bool = True
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    num_scales: int = 1000
    continuous: bool = True
    centered: bool = False
    num_channels: int = 3
    dtype: Any = jnp.float32
    remat: bool = False

    @classmethod
    def from_config(cls, config: Any) -> "NCSNpp":
        """The network of ``config.model``, ``config.data`` and ``config.training.continuous``."""
        model = config.model
        fourier = model.embedding_type.lower() == "fourier"
        return cls(
            nf=model.nf,
            ch_mult=tuple(model.ch_mult),
            num_res_blocks=model.num_res_blocks,
            attn_resolutions=tuple(model.attn_resolutions),
            dropout=model.dropout,
            resamp_with_conv=model.resamp_with_conv,
            conditional=model.conditional,
            fir=model.fir,
            fir_kernel=tuple(model.fir_kernel),
            skip_rescale=model.skip_rescale,
            resblock_type=model.resblock_type,
            progressive=model.progressive,
            progressive_input=model.progressive_input,
            progressive_combine=model.progressive_combine,
            embedding_type=model.embedding_type,
            # Configs with positional embeddings do not have the key.
            fourier_scale=model.fourier_scale if fourier else 0.0,
            init_scale=model.init_scale,
            nonlinearity=model.nonlinearity,
            scale_by_sigma=model.scale_by_sigma,
            sigma_min=model.sigma_min,
            sigma_max=model.sigma_max,
            num_scales=model.num_scales,
            continuous=config.training.continuous,
            centered=config.data.centered,
            num_channels=config.data.num_channels,
        )

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            if (found := getattr(self, field).lower()) not in known:
                raise ValueError(f"model.{field} is {found!r}, known: {', '.join(known)}")
            object.__setattr__(self, field, found)
        if self.embedding_type == "fourier" and not self.continuous:
            raise ValueError(
                "model.embedding_type 'fourier' needs training.continuous=True (labels are noise levels); "
                "use 'positional' with discrete noise levels"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        temb, used_sigmas = self._embed(labels)
        x = rescale_input(x, self.centered, self.num_channels, len(self.ch_mult) - 1).astype(self.dtype)
        skips = self._down(x, temb, train)
        h = skips[-1]
        h = self._block(h.shape[-1])(h, temb, train)
        h = self._attention()(h)
        h = self._block(h.shape[-1])(h, temb, train)
        h = self._up(h, skips, temb, train).astype(jnp.float32)
        return h / used_sigmas[:, None, None, None] if self.scale_by_sigma else h

    def _embed(self, labels: jax.Array) -> tuple[jax.Array | None, jax.Array]:
        """``temb`` ``[B, 4 nf]`` (None if unconditional) and the noise levels ``[B]``."""
        if self.embedding_type == "fourier":
            used_sigmas = labels.astype(jnp.float32)
            embedding = GaussianFourierProjection(self.nf, self.fourier_scale)(jnp.log(used_sigmas))
        else:
            sigmas = jnp.asarray(model_sigmas(self.sigma_min, self.sigma_max, self.num_scales))
            used_sigmas = sigmas[labels.astype(jnp.int32)]
            embedding = timestep_embedding(labels, self.nf)
        temb = time_mlp(embedding, self.nf, get_activation(self.nonlinearity)) if self.conditional else None
        return temb, used_sigmas

    def _down(self, x: jax.Array, temb: jax.Array | None, train: bool) -> list[jax.Array]:
        pyramid = x
        h = conv3x3(self.nf, dtype=self.dtype)(x)
        skips = [h]
        for level, multiplier in enumerate(self.ch_mult):
            for _ in range(self.num_res_blocks):
                h = self._attended(self._block(self.nf * multiplier)(h, temb, train))
                skips.append(h)
            if level == len(self.ch_mult) - 1:
                break
            h = self._halved(h, temb, train)
            if self.progressive_input == "input_skip":
                pyramid = self._resampler(Downsample, with_conv=False)(pyramid)
                h = Combine(self.progressive_combine, dtype=self.dtype)(pyramid, h)
            elif self.progressive_input == "residual":
                pyramid = self._resampler(Downsample, with_conv=True, features=h.shape[-1])(pyramid)
                h = pyramid = join(pyramid, h, self.skip_rescale)
            skips.append(h)
        return skips

    def _up(self, h: jax.Array, skips: list[jax.Array], temb: jax.Array | None, train: bool) -> jax.Array:
        pyramid = None
        for level in reversed(range(len(self.ch_mult))):
            for _ in range(self.num_res_blocks + 1):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = self._block(self.nf * self.ch_mult[level])(h, temb, train)
            # parity: one attention a level on the way up, one a block on the way down.
            h = self._attended(h)
            if self.progressive == "output_skip":
                if pyramid is not None:
                    pyramid = self._resampler(Upsample, with_conv=False)(pyramid)
                image = self._projection(h, self.num_channels, self.init_scale)
                pyramid = image if pyramid is None else pyramid + image
            elif self.progressive == "residual" and pyramid is None:
                pyramid = self._projection(h, h.shape[-1], 1.0)
            elif self.progressive == "residual":
                pyramid = self._resampler(Upsample, with_conv=True, features=h.shape[-1])(pyramid)
                h = pyramid = join(pyramid, h, self.skip_rescale)
            if level:
                h = self._doubled(h, temb, train)
        if self.progressive == "output_skip" and pyramid is not None:
            return pyramid
        return self._projection(h, self.num_channels, self.init_scale)

    def _block(self, features: int, resample: str | None = None) -> nn.Module:
        """A residual block of the configured type."""
        shared: dict[str, Any] = {
            "features": features,
            "act": get_activation(self.nonlinearity),
            "dropout": self.dropout,
            "init_scale": self.init_scale,
            "skip_rescale": self.skip_rescale,
            "dtype": self.dtype,
        }
        if self.resblock_type == "ddpm":
            return self._kept(ResnetBlockDDPMpp)(**shared)
        cls = self._kept(ResnetBlockBigGANpp)
        return cls(resample=resample, fir=self.fir, fir_kernel=self.fir_kernel, **shared)

    def _kept(self, cls: Any, flags: Sequence[int] = (3,)) -> Any:
        """``cls``, or with ``remat`` the same under the same name (which names parameters) that recomputes itself.

        Arguments:
            flags: positions of arguments that are no arrays, with ``self`` as 0; of the residual blocks ``train``.
        """
        if not self.remat:
            return cls
        recomputing = nn.remat(cls, static_argnums=tuple(flags))
        recomputing.__name__ = cls.__name__
        return recomputing

    def _attention(self) -> nn.Module:
        return self._kept(AttnBlockpp, ())(init_scale=self.init_scale, skip_rescale=self.skip_rescale, dtype=self.dtype)

    def _attended(self, h: jax.Array) -> jax.Array:
        # parity: the height alone decides.
        return self._attention()(h) if h.shape[1] in self.attn_resolutions else h

    def _resampler(self, cls: Any, **options: Any) -> nn.Module:
        return cls(fir=self.fir, fir_kernel=self.fir_kernel, dtype=self.dtype, **options)

    def _halved(self, h: jax.Array, temb: jax.Array | None, train: bool) -> jax.Array:
        if self.resblock_type == "ddpm":
            return self._resampler(Downsample, with_conv=self.resamp_with_conv)(h)
        return self._block(h.shape[-1], resample="down")(h, temb, train)

    def _doubled(self, h: jax.Array, temb: jax.Array | None, train: bool) -> jax.Array:
        if self.resblock_type == "ddpm":
            return self._resampler(Upsample, with_conv=self.resamp_with_conv)(h)
        return self._block(h.shape[-1], resample="up")(h, temb, train)

    def _projection(self, h: jax.Array, features: int, init_scale: float) -> jax.Array:
        """``Conv(act(norm(h)))``."""
        h = get_activation(self.nonlinearity)(GroupNorm(num_groups=None, dtype=self.dtype)(h))
        return conv3x3(features, init_scale=init_scale, dtype=self.dtype)(h)
