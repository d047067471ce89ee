r"""NCSNv2 (Song & Ermon, "Improved techniques for training score-based generative models", arXiv:2006.09011, appendix).

A RefineNet on ``h = 2 x - 1`` (or ``x`` if the data are centred): stages of two residual blocks going down, of which
the deep ones keep the size and dilate instead; one refine block per stage going up;
``out = Conv(act(norm(h))) / sigmas[labels]``. The noise level enters by this division only.
Three depths, for images of about 64, 128 and 256 pixels.
"""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from score_core.jax.networks.layers import (
    Flavor,
    check_flavor,
    get_activation,
    level_of,
    ncsn_conv,
    noise_levels,
    rescale_input,
)
from score_core.jax.networks.normalization import get_normalization
from score_core.jax.networks.refine import Norm, RefineBlock, ResidualBlock, interpolation_method

__all__ = ["NCSNv2_64", "NCSNv2_128", "NCSNv2_256", "Stage"]


class Stage(NamedTuple):
    """Two residual blocks of ``width * nf`` channels and the refine block of ``refined * nf`` channels they feed.

    ``down``: the first of the two halves the size (``dilation`` 1) or dilates its convolutions.
    """

    width: int
    refined: int
    down: bool = True
    dilation: int = 1


class NCSNv2_64(nn.Module):
    """NCSNv2 for 32 and 64 pixels; the defaults are CIFAR-10.

    Call with ``x`` ``[B, H, W, num_channels]`` (in [0, 1], or [-1, 1] if ``centered``), integer labels ``[B]`` (indices
    of the noise levels, 0 the largest) and ``train`` (no effect). Returns float32 ``[B, H, W, num_channels]``.

    ``dtype`` is the type of the computation; parameters, normalisation statistics and the division by sigma are float32
    always. Parameter names and shapes are those of the official checkpoints. ``flavor``: whose numbers where the two
    original programs differ (:mod:`score_core.torch.networks.layers`).
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
    dtype: Any = jnp.float32
    flavor: Flavor = "jax"

    stages: ClassVar[tuple[Stage, ...]] = (
        Stage(1, 1, down=False),
        Stage(2, 2),
        Stage(2, 2, dilation=2),
        Stage(2, 2, dilation=4),
    )
    residual_block: ClassVar[type[ResidualBlock]] = ResidualBlock
    refine_block: ClassVar[type[RefineBlock]] = RefineBlock
    always_scaled: ClassVar[bool] = True
    """What the PyTorch flavor does whatever ``model.scale_by_sigma`` says."""

    @classmethod
    def from_config(cls, config: Any, flavor: Flavor = "jax") -> "NCSNv2_64":
        """The network of ``config.model`` and ``config.data``."""
        return cls(**cls._options(config, flavor))

    @classmethod
    def _options(cls, config: Any, flavor: Flavor) -> dict[str, Any]:
        check_flavor(flavor)
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
        """The stages; the PyTorch program's third refine block at 64 pixels has nf channels."""
        if self.flavor == "pytorch" and self.stages is NCSNv2_64.stages:
            return (self.stages[0], self.stages[1]._replace(refined=1), *self.stages[2:])
        return self.stages

    def _norms(self, labels: jax.Array) -> tuple[Norm, Norm | None, tuple[jax.Array, ...]]:
        """Normalisation of the residual blocks and of the refine blocks, and the labels they take."""
        del labels
        return get_normalization(self.normalization, self.flavor), None, ()

    @nn.compact
    def __call__(self, x: jax.Array, labels: jax.Array, train: bool = False) -> jax.Array:
        del train  # no dropout
        act = get_activation(self.nonlinearity)
        norm, refine_norm, condition = self._norms(labels)
        stages = self._stages()
        halvings = sum(stage.down and stage.dilation == 1 for stage in stages)
        x = rescale_input(x, self.centered, self.num_channels, halvings).astype(self.dtype)

        h = ncsn_conv(x, self.nf, dtype=self.dtype)
        skips = []
        for stage in stages:
            for down in (stage.down, False):
                width, options = self.nf * stage.width, {"dtype": self.dtype, "flavor": self.flavor}
                h = self.residual_block(width, act, norm, down, stage.dilation, **options)(h, *condition)
            skips.append(h)

        method = interpolation_method(self.interpolation)
        deepest = len(stages) - 1
        for level in range(deepest, -1, -1):
            block = self.refine_block(
                self.nf * stages[level].refined,
                act,
                method,
                refine_norm,
                start=level == deepest,
                end=level == 0,
                dtype=self.dtype,
                flavor=self.flavor,
            )
            h = block([skips[level]] if level == deepest else [skips[level], h], *condition)

        h = act(norm(dtype=self.dtype)(h, *condition))
        h = ncsn_conv(h, self.num_channels, dtype=self.dtype).astype(jnp.float32)
        if not self.scale_by_sigma:
            return h
        return h / level_of(noise_levels(self.sigma_min, self.sigma_max, self.num_scales, self.flavor), labels)


class NCSNv2_128(NCSNv2_64):
    """NCSNv2 for 96 to 128 pixels."""

    stages = (
        Stage(1, 1, down=False),
        Stage(2, 1),
        Stage(2, 2),
        Stage(4, 2, dilation=2),
        Stage(4, 4, dilation=4),
    )


class NCSNv2_256(NCSNv2_64):
    """NCSNv2 for 256 pixels."""

    stages = (
        Stage(1, 1, down=False),
        Stage(2, 1),
        Stage(2, 2),
        Stage(2, 2),
        Stage(4, 2, dilation=2),
        Stage(4, 4, dilation=4),
    )
