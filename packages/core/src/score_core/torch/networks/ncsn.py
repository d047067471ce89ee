r"""NCSN (Song & Ermon, "Generative modeling by estimating gradients of the data distribution", arXiv:1907.05600).

The RefineNet of NCSNv2 at 64 pixels with normalisations conditioned on the noise level: gamma, alpha and beta of
InstanceNorm++ are rows of a table, one row per label.
"""

import functools
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from score_core.torch.networks.layers import Flavor
from score_core.torch.networks.ncsnv2 import NCSNv2_64
from score_core.torch.networks.normalization import ConditionalInstanceNorm2dPlus, Norm
from score_core.torch.networks.refine import ConditionalResidualBlock, CondRefineBlock

__all__ = ["NCSN"]


@dataclass(eq=False, repr=False)
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
    def from_config(cls, config: Any, flavor: Flavor = "pytorch") -> "NCSN":
        """The network of ``config.model`` and ``config.data``; ``num_scales`` stands in for ``model.num_classes``."""
        # The official configs lack the key, so the originals stop there.
        num_classes = config.model.get("num_classes", config.model.num_scales)
        return cls(num_classes=num_classes, **cls._options(config, flavor))

    def _norms(self) -> tuple[Norm, Norm | None]:
        norm = functools.partial(ConditionalInstanceNorm2dPlus, num_classes=self.num_classes, flavor=self.flavor)
        return norm, norm

    def condition(self, labels: Tensor | None) -> tuple[Tensor, ...]:
        return () if labels is None else (labels,)
