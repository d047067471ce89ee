r"""What the RefineNets of NCSN and NCSNv2 compute (after Lin et al., arXiv:1611.06612), apart from parameter names.

    residual     y = s(x) + conv(act(norm(conv(act(norm(x))))));  halved by the mean of 2x2, or dilated at the same size
    RCU          x + conv(act(conv(act(x)))), repeated
    MSF          sum_i resize(conv(x_i)) to the size of the first input
    CRP          x = act(x);  p_0 = x;  p_{k+1} = conv(pool_5x5(p_k));  x + sum_k p_k
    refine       CRP(MSF(RCU(x_1), RCU(x_2))), then RCU
    network      stages of two residual blocks going down, of which the deep ones keep the size and dilate instead; one
                 refine block per stage going up; h = norm, act, convolution;  h / sigma_label in NCSNv2

With normalisations in the refine blocks (NCSN) one stands before every activation or pooling inside them, and CRP
pools by the mean; without (NCSNv2) CRP pools by the maximum. Modules take ``*labels``: nothing, or the integer labels
``[B]`` which are handed to every normalisation.

The classes here hold the names of their submodules and compute with them; subclasses create the submodules: under the
names of Flax (:mod:`score_core.torch.networks.refine`) or of the original checkpoints
(:mod:`score_core.torch.networks.refinenet.blocks`).
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from score_core.torch.networks.layers import Activation, level_of, rescale_input, working_precision

__all__ = [
    "STAGES_2",
    "STAGES_4",
    "STAGES_8",
    "ChainedPooling",
    "ConvolutionUnits",
    "Fusion",
    "RefineNet",
    "Refinement",
    "Residual",
    "Stage",
    "avg_pool_5x5",
    "max_pool_5x5",
]

Pairs = list[tuple[str, str]]
"""Names of a normalisation (empty: none) and of the convolution that follows it, in the order of the calls."""


class Stage(NamedTuple):
    """Two residual blocks of ``width * nf`` channels and the refine block of ``refined * nf`` channels they feed.

    ``down``: the first of the two halves the size (``dilation`` 1) or dilates its convolutions.
    """

    width: int
    refined: int
    down: bool = True
    dilation: int = 1


STAGES_2 = (Stage(1, 1, down=False), Stage(2, 1), Stage(2, 2, dilation=2), Stage(2, 2, dilation=4))
"""NCSN and NCSNv2, for about 64 pixels: the deepest map has half the size."""
STAGES_4 = (Stage(1, 1, down=False), Stage(2, 1), Stage(2, 2), Stage(4, 2, dilation=2), Stage(4, 4, dilation=4))
"""For about 128 pixels: a quarter."""
STAGES_8 = (*STAGES_4[:3], Stage(2, 2), *STAGES_4[3:])
"""For 256 pixels: an eighth."""


def max_pool_5x5(x: Tensor) -> Tensor:
    """Maximum over the 5x5 neighbourhood of each position, outside is -inf."""
    return F.max_pool2d(x, 5, stride=1, padding=2)


def avg_pool_5x5(x: Tensor) -> Tensor:
    """Mean over the 5x5 neighbourhood, zeros outside."""
    # parity: the divisor is 25 at the border too.
    return F.avg_pool2d(x, 5, stride=1, padding=2)


class _Rule(nn.Module):
    """A module that calls its submodules by name."""

    def call(self, name: str, x: Tensor, *labels: Tensor) -> Tensor:
        """What the submodule ``name`` (possibly dotted) makes of ``x``; ``x`` itself for an empty name."""
        return self.get_submodule(name)(x, *labels) if name else x


class Residual(_Rule):
    """Residual block; ``skip``: name of what is applied to the input of the sum, empty: nothing."""

    act: Activation
    norms: tuple[str, str]
    convs: tuple[str, str]
    skip: str

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        h = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            h = self.call(conv, self.act(self.call(norm, h, *labels)))
        return self.call(self.skip, x) + h


class ConvolutionUnits(_Rule):
    """Residual convolution units; ``blocks``: per unit its pairs."""

    act: Activation
    blocks: list[Pairs]

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        for block in self.blocks:
            residual = x
            for norm, conv in block:
                x = self.call(conv, self.act(self.call(norm, x, *labels)))
            x = x + residual
        return x


class Fusion(_Rule):
    """Multi-resolution fusion; ``inputs``: one pair an input, resized to ``size`` (that of the first) and summed."""

    method: str = "bilinear"
    # parity: the original programs in PyTorch align the corners.
    align_corners: bool | None = True
    inputs: Pairs

    def forward(self, xs: list[Tensor], *labels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        target = tuple(xs[0].shape[2:]) if size is None else size
        total: Tensor | None = None
        for x, (norm, conv) in zip(xs, self.inputs, strict=True):
            h = self.call(conv, self.call(norm, x, *labels))
            if tuple(h.shape[2:]) != target:
                h = F.interpolate(h, target, mode=self.method, align_corners=self.align_corners)
            total = h if total is None else total + h
        if total is None:
            raise ValueError("there is nothing to fuse: no input was given")
        return total


class ChainedPooling(_Rule):
    """Chained residual pooling by the maximum, or by the mean (``average``); ``stages``: one pair a pooling."""

    act: Activation
    stages: Pairs
    average: bool

    def forward(self, x: Tensor, *labels: Tensor) -> Tensor:
        x = path = self.act(x)
        pool = avg_pool_5x5 if self.average else max_pool_5x5
        for norm, conv in self.stages:
            path = self.call(conv, pool(self.call(norm, path, *labels)))
            x = path + x
        return x


class Refinement(_Rule):
    """Refine block: units per input (``adapt``), fusion (``fuse``, empty for one input), pooling, units (``last``)."""

    adapt: list[str]
    fuse: str
    pool: str
    last: str

    def forward(self, xs: list[Tensor], *labels: Tensor) -> Tensor:
        hs = [self.call(name, x, *labels) for name, x in zip(self.adapt, xs, strict=True)]
        h = self.get_submodule(self.fuse)(hs, *labels) if self.fuse else hs[0]
        return self.call(self.last, self.call(self.pool, h, *labels), *labels)


class RefineNet(_Rule):
    """The network: ``begin`` and ``end`` name its outer convolutions, ``norm`` the normalisation before the last.

    ``down``: names of the residual blocks, stage by stage; ``refine``: names of the refine blocks from the deepest
    stage up. ``rescaled``: the images are in [-1, 1] or in logits and taken as they are, else ``2 x - 1`` is.
    """

    act: Activation
    begin: str
    end: str
    norm: str
    down: list[tuple[str, str]]
    refine: list[str]
    halvings: int
    num_channels: int
    rescaled: bool
    scale_by_sigma: bool
    sigmas: Tensor

    def condition(self, labels: Tensor | None) -> tuple[Tensor, ...]:
        """What the normalisations take besides the map."""
        del labels
        return ()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.score(x, labels)

    def score(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """The network's output for images ``[B, C, H, W]``; ``labels`` None: a network that reads none."""
        condition = self.condition(labels)
        h = self.call(self.begin, rescale_input(x, self.rescaled, self.num_channels, self.halvings))
        skips = []
        for names in self.down:
            for name in names:
                h = self.call(name, h, *condition)
            skips.append(h)

        hs: list[Tensor] = []
        for name in self.refine:
            hs = [self.get_submodule(name)([skips.pop(), *hs], *condition)]

        h = self.act(self.call(self.norm, hs[0], *condition))
        h = working_precision(self.call(self.end, h))
        if not self.scale_by_sigma or labels is None:
            return h
        return h / level_of(self.sigmas, labels).to(h.dtype)
