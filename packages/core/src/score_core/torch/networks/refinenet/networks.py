"""NCSN (arXiv:1907.05600) and NCSNv2 (arXiv:2006.09011), with the parameter names of the original checkpoints.

    network                     stages     labels enter by            refine blocks         output
    NCSN, NCSNdeeper            2, 4       every normalisation        normalised, mean      the score
    RefineNetDilated            2          not at all                 normalised, mean      the score
    NCSNv2, Deeper, Deepest     2, 4, 8    the division               plain, maximum        divided by sigma

``CondRefineNetDilated`` is NCSN and ``CondRefineNetDeeperDilated`` NCSNdeeper, by their names of 2019. A network made
after ``torch.manual_seed(s)`` starts from the original's values for that seed (PyTorch's generator on the CPU).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from score_core.noise_scales import langevin_sigmas
from score_core.torch.networks.layers import get_activation, ncsn_conv
from score_core.torch.networks.normalization import InstanceNorm2dPlus, Norm
from score_core.torch.networks.refinenet import norms
from score_core.torch.networks.refinenet.blocks import ConvMaker, RefineBlock, ResidualBlock, spectral_conv
from score_core.torch.networks.refinenet.rules import STAGES_2, STAGES_4, STAGES_8, RefineNet, Stage

__all__ = [
    "NCSN",
    "CondRefineNetDeeperDilated",
    "CondRefineNetDilated",
    "NCSNdeeper",
    "NCSNv2",
    "NCSNv2Deeper",
    "NCSNv2Deepest",
    "RefineNetDilated",
]


class _Original(RefineNet):
    """The tree of submodules all the networks share."""

    stages: ClassVar[tuple[Stage, ...]] = STAGES_2
    numbers: ClassVar[tuple[str, ...]] = ("1", "2", "3", "4")
    """What the stages are called in ``res<number>``, from the top down, and in ``refine<number>``, upwards."""
    refine_numbers: ClassVar[tuple[str, ...] | None] = None
    """If the refine blocks are called otherwise."""

    def build(
        self,
        *,
        channels: int,
        ngf: int,
        nonlinearity: str,
        rescaled: bool,
        norm: Norm,
        refine_norm: Norm | None,
        last_norm: Norm,
        conv: ConvMaker = ncsn_conv,
    ) -> None:
        """Create the submodules, in the original's order."""
        self.act = get_activation(nonlinearity)
        self.num_channels, self.rescaled = channels, rescaled
        self.halvings = sum(stage.down and stage.dilation == 1 for stage in self.stages)
        self.begin, self.norm, self.end = "begin_conv", "normalizer", "end_conv"
        self.begin_conv = ncsn_conv(channels, ngf)
        self.normalizer = last_norm(ngf)
        self.end_conv = ncsn_conv(ngf, channels)

        h, self.down = ngf, []
        options: dict[str, Any] = {"act": self.act, "norm": norm, "conv": conv}
        for number, stage in zip(self.numbers, self.stages, strict=True):
            width = ngf * stage.width
            # parity: at 28 pixels the original asks the fourth stage for a padding that a dilated block never applies.
            first = ResidualBlock(h, width, down=stage.down, dilation=stage.dilation, **options)
            second = ResidualBlock(width, width, dilation=stage.dilation, **options)
            self.add_module(f"res{number}", nn.ModuleList([first, second]))
            self.down.append((f"res{number}.0", f"res{number}.1"))
            h = width

        # The blocks take each other's width on the way up, but are made in the order of their numbers.
        upwards = list(reversed(self.stages))
        order = self.refine_numbers or self.numbers
        inputs: dict[str, tuple[list[int], int]] = {}
        for number, stage in zip(order, upwards, strict=True):
            skip = ngf * stage.width
            inputs[number] = ([skip, h] if inputs else [skip], ngf * stage.refined)
            h = ngf * stage.refined
        for number in self.numbers:
            widths, features = inputs[number]
            end = number == order[-1]
            block = RefineBlock(widths, features, act=self.act, norm=refine_norm, end=end, conv=conv)
            self.add_module(f"refine{number}", block)
        self.refine = [f"refine{number}" for number in order]


class NCSN(_Original):
    """NCSN: call with ``x`` ``[B, C, H, W]`` in [0, 1] and integer labels ``[B]``, 0 the largest noise; float32 scores.

    Arguments:
        channels: C.
        ngf: base width.
        num_classes: number of noise levels.
        normalization: see :mod:`score_core.torch.networks.refinenet.norms`.
        nonlinearity: elu, relu, lrelu or swish.
        spec_norm: spectral normalisation of every convolution between the first and the last.
        rescaled: the images come in [-1, 1], or in logits, and are taken as they are.

    Raises: UsageError or ValueError for a name that is not known.
    """

    scale_by_sigma = False

    def __init__(
        self,
        channels: int,
        ngf: int,
        num_classes: int,
        *,
        normalization: str | None = "InstanceNorm++",
        nonlinearity: str = "elu",
        spec_norm: bool = False,
        rescaled: bool = False,
    ) -> None:
        super().__init__()
        norm = norms.conditional_normalization(normalization, num_classes)
        self.build(
            channels=channels,
            ngf=ngf,
            nonlinearity=nonlinearity,
            rescaled=rescaled,
            norm=norm,
            refine_norm=norm,
            last_norm=norm,
            conv=spectral_conv if spec_norm else ncsn_conv,
        )

    @classmethod
    def from_config(cls, config: Any) -> "NCSN":
        """The network of ``config.model`` and ``config.data`` of either package; keys of NCSNv2 may be absent."""
        model = config.model
        return cls(
            config.data.channels,
            model.ngf,
            model.num_classes,
            normalization=getattr(model, "normalization", "InstanceNorm++"),
            nonlinearity=getattr(model, "nonlinearity", "elu"),
            spec_norm=getattr(model, "spec_norm", False),
            rescaled=_rescaled(config),
        )

    def condition(self, labels: Tensor | None) -> tuple[Tensor, ...]:
        return () if labels is None else (labels,)


class NCSNdeeper(NCSN):
    """NCSN one halving deeper; never trained in the papers."""

    stages = STAGES_4
    numbers = ("1", "2", "3", "4", "5")


CondRefineNetDilated = NCSN


class CondRefineNetDeeperDilated(NCSNdeeper):
    """NCSNdeeper with instance normalisation by label, the deeper network of 2019."""

    def __init__(self, channels: int, ngf: int, num_classes: int, *, rescaled: bool = False) -> None:
        super().__init__(channels, ngf, num_classes, normalization="InstanceNorm", rescaled=rescaled)

    @classmethod
    def from_config(cls, config: Any) -> "CondRefineNetDeeperDilated":
        """The network of ``config.model`` and ``config.data``."""
        return cls(config.data.channels, config.model.ngf, config.model.num_classes, rescaled=_rescaled(config))


class RefineNetDilated(_Original):
    """NCSN without labels: the score of data with one noise level. Call with ``x`` ``[B, C, H, W]`` alone."""

    scale_by_sigma = False

    def __init__(self, channels: int, ngf: int, *, rescaled: bool = False) -> None:
        super().__init__()
        self.build(
            channels=channels,
            ngf=ngf,
            nonlinearity="elu",
            rescaled=rescaled,
            norm=InstanceNorm2dPlus,
            refine_norm=InstanceNorm2dPlus,
            last_norm=InstanceNorm2dPlus,
        )

    @classmethod
    def from_config(cls, config: Any) -> "RefineNetDilated":
        """The network of ``config.model`` and ``config.data``."""
        return cls(config.data.channels, config.model.ngf, rescaled=_rescaled(config))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.score(x, labels)


class NCSNv2(_Original):
    """NCSNv2: call with ``x`` ``[B, C, H, W]`` and integer labels ``[B]``, 0 the largest noise; float32 scores.

    Arguments as :class:`NCSN`, and ``sigmas`` ``[K]``: the noise levels, descending, which become the first entry of
    the state dict.
    """

    scale_by_sigma = True

    def __init__(
        self,
        channels: int,
        ngf: int,
        sigmas: Tensor,
        *,
        normalization: str | None = "InstanceNorm++",
        nonlinearity: str = "elu",
        rescaled: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("sigmas", sigmas.to(torch.float32))
        self.build(
            channels=channels,
            ngf=ngf,
            nonlinearity=nonlinearity,
            rescaled=rescaled,
            norm=norms.unconditional_normalization(normalization),
            refine_norm=None,
            last_norm=norms.final_normalization(normalization, len(sigmas)),
        )

    @classmethod
    def from_config(cls, config: Any) -> "NCSNv2":
        """The network of ``config.model`` and ``config.data``."""
        model = config.model
        # parity: model.spec_norm is not read.
        levels = langevin_sigmas(model.sigma_begin, model.sigma_end, model.num_classes, model.sigma_dist)
        return cls(
            config.data.channels,
            model.ngf,
            torch.from_numpy(levels),
            normalization=model.normalization,
            nonlinearity=model.nonlinearity,
            rescaled=_rescaled(config),
        )


class NCSNv2Deeper(NCSNv2):
    """NCSNv2 for 96 to 128 pixels."""

    stages = STAGES_4
    numbers = ("1", "2", "3", "4", "5")


class NCSNv2Deepest(NCSNv2):
    """NCSNv2 for 256 pixels."""

    stages = STAGES_8
    numbers = ("1", "2", "3", "31", "4", "5")
    refine_numbers = ("1", "2", "31", "3", "4", "5")


def _rescaled(config: Any) -> bool:
    """Whether the images are not in [0, 1] when the network sees them."""
    return bool(config.data.logit_transform or getattr(config.data, "rescaled", False))
