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
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from score_core.torch.networks.blocks import (
    AttnBlockpp,
    Combine,
    Downsample,
    ResnetBlockBigGANpp,
    ResnetBlockDDPMpp,
    Upsample,
    join,
    norm_pp,
)
from score_core.torch.networks.layers import (
    Dense,
    Flavor,
    GaussianFourierProjection,
    ScoreNetwork,
    conv3x3,
    get_activation,
    rescale_input,
    timestep_embedding,
    working_precision,
)

__all__ = ["NCSNpp"]

_CHOICES = {
    "resblock_type": ("ddpm", "biggan"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_combine": ("sum", "cat"),
    "embedding_type": ("fourier", "positional"),
}


@dataclass
class _Level:
    """The children of one level, by name; an empty name is a part the level does not have."""

    blocks: list[tuple[str, str]] = field(default_factory=list)  # residual block, attention after it
    attention: str = ""
    pyramid: str = ""
    combine: str = ""
    projection: tuple[str, str] = ("", "")  # normalisation, convolution
    resample: str = ""


@dataclass(eq=False, repr=False)
class NCSNpp(ScoreNetwork):
    """The network of the module's description; the defaults are NCSN++ (continuous) for CIFAR-10, VE SDE.

    Call with ``x`` ``[B, num_channels, H, W]`` (in [0, 1], or [-1, 1] if ``centered``) and labels ``[B]`` (sigma for
    ``fourier``, a time or index for ``positional``). Returns ``[B, num_channels, H, W]`` in float32. Dropout follows
    ``train()`` and ``eval()``.

    ``image_size`` decides which levels have attention; other sizes can be fed to the finished network. Under autocast
    parameters, normalisation statistics, FIR sums, the embedding of the noise level and the division by sigma stay
    float32. Parameters have the names of the Flax wing's tree.
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
    image_size: int = 32
    flavor: Flavor = "pytorch"

    @classmethod
    def from_config(cls, config: Any, flavor: Flavor = "pytorch") -> "NCSNpp":
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
            image_size=config.data.image_size,
            flavor=flavor,
        )

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if (found := getattr(self, name).lower()) not in known:
                raise ValueError(f"model.{name} is {found!r}, known: {', '.join(known)}")
            setattr(self, name, found)
        if self.embedding_type == "fourier" and not self.continuous:
            raise ValueError(
                "model.embedding_type 'fourier' needs training.continuous=True (labels are noise levels); "
                "use 'positional' with discrete noise levels"
            )
        super().__init__(self.sigma_min, self.sigma_max, self.num_scales, self.flavor)
        self.act = get_activation(self.nonlinearity)
        self._build_embedding()
        widths = self._build_down()
        self.middle = (self._block(widths[-1], widths[-1]), self._attention(widths[-1]))
        self.middle += (self._block(widths[-1], widths[-1]),)
        self._build_up(widths)

    def _build_embedding(self) -> None:
        width = self.nf
        if self.embedding_type == "fourier":
            self.GaussianFourierProjection_0 = GaussianFourierProjection(self.nf, self.fourier_scale)
            width = 2 * self.nf
        if self.conditional:
            self.Dense_0 = Dense(width, 4 * self.nf)
            self.Dense_1 = Dense(4 * self.nf, 4 * self.nf)

    def _build_down(self) -> list[int]:
        """The way down; the widths of the maps that the way up takes."""
        self.Conv_0 = conv3x3(self.num_channels, self.nf)
        self.down: list[_Level] = []
        h = self.nf
        pyramid = self.num_channels
        widths = [h]
        for i, multiplier in enumerate(self.ch_mult):
            level = _Level()
            self.down.append(level)
            for _ in range(self.num_res_blocks):
                block = self._block(h, self.nf * multiplier)
                h = self.nf * multiplier
                level.blocks.append((block, self._attention(h) if self._attended(i) else ""))
                widths.append(h)
            if i == len(self.ch_mult) - 1:
                break
            level.resample = self._resampling_block(Downsample, h, "down")
            if self.progressive_input == "input_skip":
                level.pyramid = self._resampler(Downsample, self.num_channels, with_conv=False)
                level.combine = self.add(Combine(self.num_channels, h, self.progressive_combine))
                h = 2 * h if self.progressive_combine == "cat" else h
            elif self.progressive_input == "residual":
                level.pyramid = self._resampler(Downsample, pyramid, with_conv=True, features=h)
                pyramid = h
            widths.append(h)
        return widths

    def _build_up(self, widths: list[int]) -> None:
        self.up: list[_Level] = []
        h = widths[-1]
        pyramid = 0
        for i in reversed(range(len(self.ch_mult))):
            level = _Level()
            self.up.append(level)
            for _ in range(self.num_res_blocks + 1):
                level.blocks.append((self._block(h + widths.pop(), self.nf * self.ch_mult[i]), ""))
                h = self.nf * self.ch_mult[i]
            # parity: one attention a level on the way up, one a block on the way down.
            level.attention = self._attention(h) if self._attended(i) else ""
            if self.progressive == "output_skip":
                level.pyramid = self._resampler(Upsample, self.num_channels, with_conv=False) if pyramid else ""
                level.projection = self._projection(h, self.num_channels, self.init_scale)
                pyramid = self.num_channels
            elif self.progressive == "residual" and not pyramid:
                level.projection = self._projection(h, h, 1.0)
                pyramid = h
            elif self.progressive == "residual":
                level.pyramid = self._resampler(Upsample, pyramid, with_conv=True, features=h)
                pyramid = h
            if i:
                level.resample = self._resampling_block(Upsample, h, "up")
        self.out = ("", "")
        if self.progressive != "output_skip":
            self.out = self._projection(h, self.num_channels, self.init_scale)

    def _block(self, in_features: int, features: int, resample: str | None = None) -> str:
        """A residual block of the configured type."""
        conditioned = self.conditional or self.flavor == "pytorch"
        shared: dict[str, Any] = {
            "act": self.act,
            "dropout": self.dropout,
            "temb_dim": 4 * self.nf if conditioned else None,
            "init_scale": self.init_scale,
            "skip_rescale": self.skip_rescale,
        }
        if self.resblock_type == "ddpm":
            return self.add(ResnetBlockDDPMpp(in_features, features, **shared))
        return self.add(
            ResnetBlockBigGANpp(
                in_features, features, resample=resample, fir=self.fir, fir_kernel=self.fir_kernel, **shared
            )
        )

    def _attention(self, channels: int) -> str:
        return self.add(AttnBlockpp(channels, init_scale=self.init_scale, skip_rescale=self.skip_rescale))

    def _attended(self, level: int) -> bool:
        return self.image_size // 2**level in self.attn_resolutions

    def _resampler(self, cls: Any, in_features: int, **options: Any) -> str:
        return self.add(cls(in_features, fir=self.fir, fir_kernel=self.fir_kernel, **options))

    def _resampling_block(self, cls: Any, channels: int, direction: str) -> str:
        if self.resblock_type == "ddpm":
            return self._resampler(cls, channels, with_conv=self.resamp_with_conv)
        return self._block(channels, channels, resample=direction)

    def _projection(self, in_features: int, features: int, init_scale: float) -> tuple[str, str]:
        """The children of ``Conv(act(norm(h)))``."""
        return self.add(norm_pp(in_features)), self.add(conv3x3(in_features, features, init_scale=init_scale))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        temb = self._embed(labels)
        skips = self._run_down(rescale_input(x, self.centered, self.num_channels, len(self.ch_mult) - 1), temb)
        first, attention, second = (getattr(self, name) for name in self.middle)
        h = second(attention(first(skips[-1], temb)), temb)
        h = working_precision(self._run_up(h, skips, temb))
        if not self.scale_by_sigma:
            return h
        used = labels if self.embedding_type == "fourier" else self.sigmas[labels.long()]
        return h / used.to(h.dtype)[:, None, None, None]

    def _embed(self, labels: Tensor) -> Tensor | None:
        """``temb`` ``[B, 4 nf]``, in the precision of the parameters; None if unconditional."""
        if not self.conditional:
            return None
        with torch.autocast(labels.device.type, enabled=False):
            dtype = self.Dense_0.weight.dtype
            if self.embedding_type == "fourier":
                embedding = self.GaussianFourierProjection_0(torch.log(labels.to(dtype)))
            else:
                embedding = timestep_embedding(labels, self.nf).to(dtype)
            return self.Dense_1(self.act(self.Dense_0(embedding)))

    def _run_down(self, x: Tensor, temb: Tensor | None) -> list[Tensor]:
        pyramid = x
        h = self.Conv_0(x)
        skips = [h]
        for level in self.down:
            for block, attention in level.blocks:
                h = getattr(self, block)(h, temb)
                h = getattr(self, attention)(h) if attention else h
                skips.append(h)
            if not level.resample:
                break
            h = self._resample(level, h, temb)
            if level.pyramid:
                pyramid = getattr(self, level.pyramid)(pyramid)
                if level.combine:
                    h = getattr(self, level.combine)(pyramid, h)
                else:
                    h = pyramid = join(pyramid, h, self.skip_rescale)
            skips.append(h)
        return skips

    def _run_up(self, h: Tensor, skips: list[Tensor], temb: Tensor | None) -> Tensor:
        pyramid: Tensor | None = None
        for level in self.up:
            for block, _ in level.blocks:
                h = getattr(self, block)(torch.cat([h, skips.pop()], dim=1), temb)
            h = getattr(self, level.attention)(h) if level.attention else h
            if level.pyramid:
                pyramid = getattr(self, level.pyramid)(pyramid)
            if self.progressive == "output_skip":
                image = self._project(level.projection, h)
                pyramid = image if pyramid is None else pyramid + image
            elif self.progressive == "residual" and pyramid is None:
                pyramid = self._project(level.projection, h)
            elif pyramid is not None:
                h = pyramid = join(pyramid, h, self.skip_rescale)
            if level.resample:
                h = self._resample(level, h, temb)
        if self.progressive == "output_skip" and pyramid is not None:
            return pyramid
        return self._project(self.out, h)

    def _resample(self, level: _Level, h: Tensor, temb: Tensor | None) -> Tensor:
        block = getattr(self, level.resample)
        return block(h) if self.resblock_type == "ddpm" else block(h, temb)

    def _project(self, names: tuple[str, str], h: Tensor) -> Tensor:
        """``Conv(act(norm(h)))``."""
        norm, conv = (getattr(self, name) for name in names)
        return conv(self.act(norm(h)))
