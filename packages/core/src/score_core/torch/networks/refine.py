r"""Blocks of the RefineNets of NCSN and NCSNv2 under the names of score_sde's Flax tree.

What they compute is in :mod:`score_core.torch.networks.refinenet.rules`. Each block exists for NCSNv2 (normalisation
without labels, none inside the refine blocks) and, under the name of the checkpoints, for NCSN (``Cond...``).
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from score_core.torch.networks.layers import Activation, Compact, Conv, Flavor, lecun_init_, ncsn_conv, ncsn_init_
from score_core.torch.networks.normalization import Norm
from score_core.torch.networks.refinenet.rules import ChainedPooling, ConvolutionUnits, Fusion, Refinement, Residual
from score_core.torch.networks.resampling import naive_downsample_2d

__all__ = ["CondRefineBlock", "ConditionalResidualBlock", "RefineBlock", "ResidualBlock", "interpolation_method"]

_METHODS = {"bilinear": "bilinear", "nearest_neighbor": "nearest-exact"}


def interpolation_method(name: str) -> str:
    """The ``interpolate`` mode for a value of ``config.model.interpolation``; ``ValueError`` if unknown."""
    if name not in _METHODS:
        raise ValueError(f"unknown interpolation {name!r}; known: {', '.join(_METHODS)}")
    return _METHODS[name]


class ConvMeanPool(Compact):
    """A convolution, then the mean of each 2x2 square."""

    def __init__(self, in_features: int, features: int, size: int, flavor: Flavor) -> None:
        super().__init__()
        init = lecun_init_ if flavor == "jax" else ncsn_init_
        self.Conv_0 = Conv(in_features, features, size, padding=size // 2, init=init)

    def forward(self, x: Tensor) -> Tensor:
        return naive_downsample_2d(self.Conv_0(x))


class ResidualBlock(Compact, Residual):
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
        flavor: Flavor = "pytorch",
    ) -> None:
        super().__init__()
        self.act = act
        middle = in_features if down else features
        pooled = down and dilation == 1
        self.norms = (self.add(norm(in_features)), self.add(norm(middle)))
        # Names follow Flax: without "down" the shortcut comes first, with it last.
        self.skip = ""
        if not down and in_features != features:
            size = 1 if dilation == 1 else 3
            self.skip = self.add(ncsn_conv(in_features, features, size=size, dilation=dilation))
        first = self.add(ncsn_conv(in_features, middle, dilation=dilation))
        if pooled:
            self.convs = (first, self.add(ConvMeanPool(middle, features, 3, flavor)))
            self.skip = self.add(ConvMeanPool(in_features, features, 1, flavor))
        else:
            self.convs = (first, self.add(ncsn_conv(middle, features, dilation=dilation)))
            if down:
                self.skip = self.add(ncsn_conv(in_features, features, dilation=dilation))


class ConditionalResidualBlock(ResidualBlock):
    """The residual block of NCSN."""


class RCUBlock(Compact, ConvolutionUnits):
    """Residual convolution units: ``blocks`` times two activations and convolutions, width kept."""

    def __init__(self, channels: int, blocks: int, act: Activation, norm: Norm | None = None) -> None:
        super().__init__()
        self.act = act
        self.blocks = [
            [("" if norm is None else self.add(norm(channels)), self.add(_unbiased(channels))) for _ in range(2)]
            for _ in range(blocks)
        ]


class MSFBlock(Compact, Fusion):
    """Multi-resolution fusion: the inputs brought to ``features`` channels and the size of the first, summed."""

    def __init__(
        self, in_widths: Sequence[int], features: int, method: str, flavor: Flavor, norm: Norm | None = None
    ) -> None:
        super().__init__()
        self.method = method
        self.align_corners = flavor == "pytorch" if method == "bilinear" else None
        self.inputs = [
            ("" if norm is None else self.add(norm(width)), self.add(ncsn_conv(width, features))) for width in in_widths
        ]


class CRPBlock(Compact, ChainedPooling):
    """Chained residual pooling, two stages."""

    def __init__(self, channels: int, act: Activation, norm: Norm | None = None) -> None:
        super().__init__()
        self.act, self.average = act, norm is not None
        self.stages = [
            ("" if norm is None else self.add(norm(channels)), self.add(_unbiased(channels))) for _ in range(2)
        ]


def _unbiased(channels: int) -> Conv:
    return ncsn_conv(channels, channels, bias=False)


class CondRCUBlock(RCUBlock):
    """The residual convolution units of NCSN."""


class CondMSFBlock(MSFBlock):
    """The multi-resolution fusion of NCSN."""


class CondCRPBlock(CRPBlock):
    """The chained residual pooling of NCSN."""


class RefineBlock(Compact, Refinement):
    """Fuse the inputs (of ``in_widths`` channels, size of the first) to ``features`` channels and refine them.

    A single input has ``features`` channels already and nothing to be fused with; ``end``: three units at the end, not
    one.
    """

    rcu: ClassVar[type[RCUBlock]] = RCUBlock
    msf: ClassVar[type[MSFBlock]] = MSFBlock
    crp: ClassVar[type[CRPBlock]] = CRPBlock

    def __init__(
        self,
        in_widths: Sequence[int],
        features: int,
        *,
        act: Activation,
        method: str,
        norm: Norm | None = None,
        end: bool = False,
        flavor: Flavor = "pytorch",
    ) -> None:
        super().__init__()
        self.adapt = [self.add(self.rcu(width, 2, act, norm)) for width in in_widths]
        self.fuse = self.add(self.msf(in_widths, features, method, flavor, norm)) if len(in_widths) > 1 else ""
        self.pool = self.add(self.crp(features, act, norm))
        self.last = self.add(self.rcu(features, 3 if end else 1, act, norm))


class CondRefineBlock(RefineBlock):
    """The refine block of NCSN."""

    rcu = CondRCUBlock
    msf = CondMSFBlock
    crp = CondCRPBlock
