r"""The U-Net of DDPM (Ho, Jain & Abbeel, NeurIPS 2020, appendix B; arXiv:2006.11239).

On ``h = 2 x - 1`` (or ``x`` if the data are centred), with ``temb = Dense(act(Dense(sinusoid(labels))))``:

    down    each level: ``num_res_blocks`` residual blocks (attention at ``attn_resolutions``), then half the size
    middle  residual block, attention, residual block
    up      each level: ``num_res_blocks + 1`` residual blocks on [h, the matching map of the way down], attention at
            ``attn_resolutions``, then twice the size
    out     Conv(act(norm(h))), divided by sigmas[labels] with ``scale_by_sigma``
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from score_core.torch.networks.blocks import AttnBlock, Downsample, ResnetBlockDDPM, Upsample
from score_core.torch.networks.layers import (
    Dense,
    Flavor,
    ScoreNetwork,
    conv3x3,
    get_activation,
    level_of,
    rescale_input,
    timestep_embedding,
    working_precision,
)
from score_core.torch.networks.normalization import get_normalization

__all__ = ["DDPM"]


@dataclass(eq=False, repr=False)
class DDPM(ScoreNetwork):
    """The network of the module's description; the defaults are DDPM for CIFAR-10, VP SDE.

    Call with ``x`` ``[B, num_channels, H, W]`` (in [0, 1], or [-1, 1] if ``centered``) and labels ``[B]`` (times or
    indices, unscaled; integers with ``scale_by_sigma``). Returns ``[B, num_channels, H, W]`` in float32. Dropout
    follows ``train()`` and ``eval()``. With GroupNorm every width must be a multiple of 32.

    ``image_size`` decides which levels have attention; other sizes can be fed to the finished network. Under autocast
    parameters, normalisation statistics, the embedding of the noise level and the division by sigma stay float32.
    Parameters have the names of the Flax wing's tree.
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
    image_size: int = 32
    flavor: Flavor = "pytorch"

    @classmethod
    def from_config(cls, config: Any, flavor: Flavor = "pytorch") -> "DDPM":
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
            image_size=config.data.image_size,
            flavor=flavor,
        )

    def __post_init__(self) -> None:
        super().__init__(self.sigma_min, self.sigma_max, self.num_scales, self.flavor)
        self.act = get_activation(self.nonlinearity)
        norm = get_normalization(self.normalization, self.flavor)
        if self.conditional:
            self.Dense_0 = Dense(self.nf, 4 * self.nf)
            self.Dense_1 = Dense(4 * self.nf, 4 * self.nf)
        conditioned = self.conditional or self.flavor == "pytorch"
        temb_dim = 4 * self.nf if conditioned else None

        def block(in_features: int, features: int) -> str:
            options: dict[str, Any] = {"act": self.act, "dropout": self.dropout, "temb_dim": temb_dim, "norm": norm}
            return self.add(ResnetBlockDDPM(in_features, features, **options))

        def attention(level: int, channels: int) -> str:
            attended = self.image_size // 2**level in self.attn_resolutions
            return self.add(AttnBlock(channels, norm=norm)) if attended else ""

        # Children by name; an empty name is a part the level does not have.
        self.down: list[tuple[list[tuple[str, str]], str]] = []
        self.up: list[tuple[list[str], str, str]] = []
        last = len(self.ch_mult) - 1

        h = self.nf
        self.Conv_0 = conv3x3(self.num_channels, h)
        widths = [h]
        for level, multiplier in enumerate(self.ch_mult):
            blocks = []
            for _ in range(self.num_res_blocks):
                name, h = block(h, self.nf * multiplier), self.nf * multiplier
                blocks.append((name, attention(level, h)))
                widths.append(h)
            halved = self.add(Downsample(h, with_conv=self.resamp_with_conv)) if level != last else ""
            self.down.append((blocks, halved))
            if halved:
                widths.append(h)

        self.middle = (block(h, h), self.add(AttnBlock(h, norm=norm)), block(h, h))

        for level in reversed(range(len(self.ch_mult))):
            blocks = []
            for _ in range(self.num_res_blocks + 1):
                name, h = block(h + widths.pop(), self.nf * self.ch_mult[level]), self.nf * self.ch_mult[level]
                blocks.append(name)
            # parity: one attention a level on the way up, one a block on the way down.
            attended = attention(level, h)
            self.up.append((blocks, attended, self.add(Upsample(h, with_conv=self.resamp_with_conv)) if level else ""))

        self.norm = self.add(norm(h))
        self.Conv_1 = conv3x3(h, self.num_channels, init_scale=0.0)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        temb = self._embed(labels)
        h = self.Conv_0(rescale_input(x, self.centered, self.num_channels, len(self.ch_mult) - 1))
        skips = [h]
        for blocks, halved in self.down:
            for block, attention in blocks:
                h = getattr(self, block)(h, temb)
                h = getattr(self, attention)(h) if attention else h
                skips.append(h)
            if halved:
                h = getattr(self, halved)(h)
                skips.append(h)

        first, attention, second = (getattr(self, name) for name in self.middle)
        h = second(attention(first(h, temb)), temb)

        for blocks, attention, doubled in self.up:
            for block in blocks:
                h = getattr(self, block)(torch.cat([h, skips.pop()], dim=1), temb)
            h = getattr(self, attention)(h) if attention else h
            h = getattr(self, doubled)(h) if doubled else h

        h = working_precision(self.Conv_1(self.act(getattr(self, self.norm)(h))))
        return h / level_of(self.sigmas, labels).to(h.dtype) if self.scale_by_sigma else h

    def _embed(self, labels: Tensor) -> Tensor | None:
        """``temb`` ``[B, 4 nf]``, in the precision of the parameters; None if unconditional."""
        if not self.conditional:
            return None
        with torch.autocast(labels.device.type, enabled=False):
            embedding = timestep_embedding(labels, self.nf).to(self.Dense_0.weight.dtype)
            return self.Dense_1(self.act(self.Dense_0(embedding)))
