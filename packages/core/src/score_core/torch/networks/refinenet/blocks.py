"""The blocks of NCSN and NCSNv2, named and initialised as in their original checkpoints.

What they compute is in :mod:`score_core.torch.networks.refinenet.rules`. ``norm`` None: no normalisation inside
(NCSNv2). ``conv`` makes every convolution, :func:`~score_core.torch.networks.layers.ncsn_conv` or with spectral
normalisation :func:`spectral_conv`. The order of registration is that of the original's keys, optimiser states and
random draws; with labels (and only there) ``norms`` of CRP and MSF are drawn between their ``convs``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from score_core.torch.networks.layers import Activation, ncsn_conv
from score_core.torch.networks.normalization import Norm
from score_core.torch.networks.refinenet.rules import (
    ChainedPooling,
    ConvolutionUnits,
    Fusion,
    Pairs,
    Refinement,
    Residual,
)
from score_core.torch.networks.resampling import naive_downsample_2d

__all__ = [
    "CRPBlock",
    "ConvMaker",
    "ConvMeanPool",
    "MSFBlock",
    "MeanPoolConv",
    "RCUBlock",
    "RefineBlock",
    "ResidualBlock",
    "UpsampleConv",
    "spectral_conv",
]

ConvMaker = Callable[..., nn.Module]
"""Called as :func:`~score_core.torch.networks.layers.ncsn_conv`."""


def spectral_conv(in_features: int, features: int, **options: Any) -> nn.Module:
    """A convolution with spectral normalisation (keys ``weight_orig``, ``weight_u``, ``weight_v``)."""
    return spectral_norm(ncsn_conv(in_features, features, **options))


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each 2x2 square of the even-sized map.

    ``adjust_padding``: a row of zeros on top and a column at the left first, which makes odd sizes even.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        size: int = 3,
        *,
        adjust_padding: bool = False,
        conv: ConvMaker = ncsn_conv,
    ) -> None:
        super().__init__()
        made = conv(in_features, features, size=size)
        self.conv = nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), made) if adjust_padding else made

    def forward(self, x: Tensor) -> Tensor:
        return naive_downsample_2d(self.conv(x))


class MeanPoolConv(nn.Module):
    """The mean of each 2x2 square, then a convolution."""

    def __init__(self, in_features: int, features: int, size: int = 3) -> None:
        super().__init__()
        self.conv = ncsn_conv(in_features, features, size=size)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(naive_downsample_2d(x))


class UpsampleConv(nn.Module):
    """Twice the size by a pixel shuffle of four copies of the channels, then a convolution."""

    def __init__(self, in_features: int, features: int, size: int = 3) -> None:
        super().__init__()
        self.conv = ncsn_conv(in_features, features, size=size)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(nn.functional.pixel_shuffle(torch.cat([x] * 4, dim=1), 2))


class ResidualBlock(Residual):
    """Residual block with ``features`` channels out; ``down``: half the size, or for ``dilation > 1`` the size kept."""

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        act: Activation,
        norm: Norm,
        down: bool = False,
        dilation: int = 1,
        adjust_padding: bool = False,
        conv: ConvMaker = ncsn_conv,
    ) -> None:
        super().__init__()
        self.act = act
        self.norms, self.convs = ("normalize1", "normalize2"), ("conv1", "conv2")
        middle = in_features if down else features
        self.conv1 = conv(in_features, middle, dilation=dilation)
        self.normalize2 = norm(middle)
        shortcut: nn.Module | None = None
        if down and dilation == 1:
            self.conv2 = ConvMeanPool(middle, features, 3, adjust_padding=adjust_padding, conv=conv)
            shortcut = ConvMeanPool(in_features, features, 1, adjust_padding=adjust_padding, conv=conv)
        else:
            self.conv2 = conv(middle, features, dilation=dilation)
            if dilation > 1 and (down or in_features != features):
                # parity: also where the width does not change.
                shortcut = conv(in_features, features, dilation=dilation)
            elif in_features != features:
                shortcut = conv(in_features, features, size=1)
        if shortcut is not None:
            self.shortcut = shortcut
        self.skip = "" if shortcut is None else "shortcut"
        self.normalize1 = norm(in_features)


class RCUBlock(ConvolutionUnits):
    """Residual convolution units: ``blocks`` times ``stages`` activations and convolutions, width kept."""

    def __init__(
        self,
        channels: int,
        blocks: int,
        *,
        act: Activation,
        norm: Norm | None = None,
        stages: int = 2,
        conv: ConvMaker = ncsn_conv,
    ) -> None:
        super().__init__()
        self.act = act
        self.blocks = []
        for i in range(1, blocks + 1):
            pairs: Pairs = []
            for j in range(1, stages + 1):
                name = ""
                if norm is not None:
                    name = f"{i}_{j}_norm"
                    self.add_module(name, norm(channels))
                self.add_module(f"{i}_{j}_conv", conv(channels, channels, bias=False))
                pairs.append((name, f"{i}_{j}_conv"))
            self.blocks.append(pairs)


def _pairs(count: int, normalized: bool) -> Pairs:
    return [(f"norms.{i}" if normalized else "", f"convs.{i}") for i in range(count)]


class CRPBlock(ChainedPooling):
    """Chained residual pooling; the mean is pooled after a normalisation, the maximum without, unless said."""

    def __init__(
        self,
        channels: int,
        *,
        act: Activation,
        norm: Norm | None = None,
        stages: int = 2,
        average: bool | None = None,
        conv: ConvMaker = ncsn_conv,
    ) -> None:
        super().__init__()
        self.act = act
        self.average = norm is not None if average is None else average
        self.stages = _pairs(stages, norm is not None)
        norms, convs = [], []
        for _ in range(stages):
            if norm is not None:
                norms.append(norm(channels))
            convs.append(conv(channels, channels, bias=False))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(norms)


class MSFBlock(Fusion):
    """Multi-resolution fusion: the inputs brought to ``features`` channels and one size, summed."""

    def __init__(
        self, in_widths: Sequence[int], features: int, *, norm: Norm | None = None, conv: ConvMaker = ncsn_conv
    ) -> None:
        super().__init__()
        self.inputs = _pairs(len(in_widths), norm is not None)
        norms, convs = [], []
        for width in in_widths:
            convs.append(conv(width, features))
            if norm is not None:
                norms.append(norm(width))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(norms)


class RefineBlock(Refinement):
    """Fuse the inputs (of ``in_widths`` channels, size of the first) to ``features`` channels and refine them.

    A single input has ``features`` channels already and nothing to be fused with; ``end``: three units at the end, not
    one.
    """

    def __init__(
        self,
        in_widths: Sequence[int],
        features: int,
        *,
        act: Activation,
        norm: Norm | None = None,
        end: bool = False,
        conv: ConvMaker = ncsn_conv,
    ) -> None:
        super().__init__()
        fused = len(in_widths) > 1
        self.adapt = [f"adapt_convs.{i}" for i in range(len(in_widths))]
        self.fuse, self.pool, self.last = "msf" if fused else "", "crp", "output_convs"
        self.adapt_convs = nn.ModuleList([RCUBlock(width, 2, act=act, norm=norm, conv=conv) for width in in_widths])
        self.output_convs = RCUBlock(features, 3 if end else 1, act=act, norm=norm, conv=conv)
        if fused:
            self.msf = MSFBlock(in_widths, features, norm=norm, conv=conv)
        self.crp = CRPBlock(features, act=act, norm=norm, conv=conv)
