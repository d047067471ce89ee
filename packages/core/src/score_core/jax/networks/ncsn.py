r"""NCSN (Song & Ermon, "Generative modeling by estimating gradients of the data distribution", arXiv:1907.05600).

The RefineNet of NCSNv2 at 64 pixels with normalisations conditioned on the noise level: gamma, alpha and beta of
InstanceNorm++ are rows of a table, one row per label.
"""

import functools
from typing import Any

import jax

from score_core.jax.networks.layers import Flavor
from score_core.jax.networks.ncsnv2 import NCSNv2_64
from score_core.jax.networks.normalization import ConditionalInstanceNorm2dPlus
from score_core.jax.networks.refine import ConditionalResidualBlock, CondRefineBlock, Norm

__all__ = ["NCSN"]


class NCSN(NCSNv2_64):
    """NCSN; the defaults are CIFAR-10 with ten levels. Fields as :class:`NCSNv2_64`, and

    ``num_classes``: rows of the normalisation tables; labels are integers in ``[0, num_classes)``.
    ``normalization`` is not read: it is always the conditional InstanceNorm++.
    """

    num_classes: int = 10
    scale_by_sigma: bool = False
    sigma_max: float = 1.0
    num_scales: int = 10

    residual_block = ConditionalResidualBlock
    refine_block = CondRefineBlock
    always_scaled = False

    @classmethod
    def from_config(cls, config: Any, flavor: Flavor = "jax") -> "NCSN":
        """The network of ``config.model`` and ``config.data``; ``num_scales`` stands in for ``model.num_classes``.

        Raises:
            ValueError: fewer rows than noise levels; JAX would read the last row for the others.
        """
        levels = config.model.num_scales
        # The official configs lack the key, so the original stops there.
        num_classes = config.model.get("num_classes", levels)
        if num_classes < levels:
            raise ValueError(
                f"model.num_classes is {num_classes}, fewer than the {levels} noise levels of model.num_scales; "
                f"set model.num_classes to {levels}"
            )
        return cls(num_classes=num_classes, **cls._options(config, flavor))

    def _norms(self, labels: jax.Array) -> tuple[Norm, Norm | None, tuple[jax.Array, ...]]:
        norm = functools.partial(ConditionalInstanceNorm2dPlus, self.num_classes, flavor=self.flavor)
        return norm, norm, (labels,)
