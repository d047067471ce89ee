r"""NCSNv2 (Song & Ermon, "Improved techniques for training score-based generative models", arXiv:2006.09011, appendix).

A RefineNet on ``h = 2 x - 1`` (or ``x`` if the data are centred): stages of two residual blocks going down, of which
the deep ones keep the size and dilate instead; one refine block per stage going up;
``out = Conv(act(norm(h))) / sigmas[labels]``. The noise level enters by this division only.
Three depths, for images of about 64, 128 and 256 pixels.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from score_core.torch.networks.layers import Flavor, ScoreNetwork, get_activation, ncsn_conv
from score_core.torch.networks.normalization import Norm, get_normalization
from score_core.torch.networks.refine import RefineBlock, ResidualBlock, interpolation_method
from score_core.torch.networks.refinenet.rules import STAGES_2, STAGES_4, STAGES_8, RefineNet, Stage

__all__ = ["NCSNv2_64", "NCSNv2_128", "NCSNv2_256", "Stage"]


@dataclass(eq=False, repr=False)
class NCSNv2_64(ScoreNetwork, RefineNet):
    """NCSNv2 for 32 and 64 pixels; the defaults are CIFAR-10.

    Call with ``x`` ``[B, num_channels, H, W]`` (in [0, 1], or [-1, 1] if ``centered``) and integer labels ``[B]``
    (indices of the noise levels, 0 the largest). Returns ``[B, num_channels, H, W]`` in float32.

    Under autocast parameters, normalisation statistics and the division by sigma stay float32. Parameters have the
    names of the Flax wing's tree.
    """

    nf: int = 128
    normalization: str = "InstanceNorm++"
    nonlinearity: str = "elu"
    interpolation: str = "bilinear"
    scale_by_sigma: bool = True
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    num_scales: int = 232
    centered: bool = False
    num_channels: int = 3
    flavor: Flavor = "pytorch"

    residual_block: ClassVar[type[ResidualBlock]] = ResidualBlock
    refine_block: ClassVar[type[RefineBlock]] = RefineBlock
    always_scaled: ClassVar[bool] = True
    """What the PyTorch flavor does whatever ``model.scale_by_sigma`` says."""

    @classmethod
    def from_config(cls, config: Any, flavor: Flavor = "pytorch") -> "NCSNv2_64":
        """The network of ``config.model`` and ``config.data``."""
        return cls(**cls._options(config, flavor))

    @classmethod
    def _options(cls, config: Any, flavor: Flavor) -> dict[str, Any]:
        model = config.model
        return {
            "nf": model.nf,
            "normalization": model.normalization,
            "nonlinearity": model.nonlinearity,
            "interpolation": model.interpolation,
            # parity: the PyTorch program does not read the key.
            "scale_by_sigma": cls.always_scaled if flavor == "pytorch" else model.scale_by_sigma,
            "sigma_min": model.sigma_min,
            "sigma_max": model.sigma_max,
            "num_scales": model.num_scales,
            "centered": config.data.centered,
            "num_channels": config.data.num_channels,
            "flavor": flavor,
        }

    def _stages(self) -> tuple[Stage, ...]:
        return STAGES_2 if self.flavor == "pytorch" else (STAGES_2[0], Stage(2, 2), *STAGES_2[2:])

    def _norms(self) -> tuple[Norm, Norm | None]:
        """Normalisation of the residual blocks and of the refine blocks."""
        return get_normalization(self.normalization, self.flavor), None

    def __post_init__(self) -> None:
        super().__init__(self.sigma_min, self.sigma_max, self.num_scales, self.flavor)
        self.act = get_activation(self.nonlinearity)
        self.rescaled = self.centered
        method = interpolation_method(self.interpolation)
        norm, refine_norm = self._norms()
        stages = self._stages()
        self.halvings = sum(stage.down and stage.dilation == 1 for stage in stages)

        h = self.nf
        self.begin = self.add(ncsn_conv(self.num_channels, h))
        self.down: list[tuple[str, str]] = []
        for stage in stages:
            names = []
            for down in (stage.down, False):
                options: dict[str, Any] = {"act": self.act, "norm": norm, "down": down, "dilation": stage.dilation}
                width = self.nf * stage.width
                names.append(self.add(self.residual_block(h, width, flavor=self.flavor, **options)))
                h = width
            self.down.append((names[0], names[1]))

        self.refine: list[str] = []
        for level in reversed(range(len(stages))):
            skip = self.nf * stages[level].width
            features = self.nf * stages[level].refined
            block = self.refine_block(
                [skip, h] if self.refine else [skip],
                features,
                act=self.act,
                method=method,
                norm=refine_norm,
                end=level == 0,
                flavor=self.flavor,
            )
            self.refine.append(self.add(block))
            h = features

        self.norm = self.add(norm(h))
        self.end = self.add(ncsn_conv(h, self.num_channels))


class NCSNv2_128(NCSNv2_64):
    """NCSNv2 for 96 to 128 pixels."""

    def _stages(self) -> tuple[Stage, ...]:
        return STAGES_4


class NCSNv2_256(NCSNv2_64):
    """NCSNv2 for 256 pixels."""

    def _stages(self) -> tuple[Stage, ...]:
        return STAGES_8
