r"""Normalisations of NCSN and NCSNv2 under the names of their checkpoints, with and without labels.

With ``h(x)`` one of the normalisations of :mod:`score_core.torch.networks.normalization` without parameters and
g, a, b the row of the table ``embed.weight`` ``[num_classes, n C]`` for the image's label:

    name             without labels              with labels         columns of the table, first values
    InstanceNorm++   gamma (h + alpha m) + beta  g (h + a m) + b     g, a ~ N(1, 0.02), b = 0
    InstanceNorm     h                           g h + b             g ~ U(0, 1), b = 0
    BatchNorm        weight h + bias             g h + b             g ~ U(0, 1), b = 0
    VarianceNorm     alpha h                     g h                 g ~ N(1, 0.02)
    NoneNorm         x                           g x + b             g ~ U(0, 1), b = 0
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from score_core.errors import UsageError
from score_core.torch.networks.normalization import (
    InstanceNorm2d,
    InstanceNorm2dPlus,
    Norm,
    around_one_,
    instance_norm_plus,
    variance_norm,
)

__all__ = [
    "CONDITIONAL",
    "UNCONDITIONAL",
    "ConditionalBatchNorm2d",
    "ConditionalInstanceNorm2d",
    "ConditionalInstanceNorm2dPlus",
    "ConditionalNoneNorm2d",
    "ConditionalVarianceNorm2d",
    "LabelTable",
    "NoneNorm2d",
    "VarianceNorm2d",
    "conditional_normalization",
    "final_normalization",
    "unconditional_normalization",
]


class VarianceNorm2d(nn.Module):
    """Division by the standard deviation of each channel, times ``alpha``; the mean is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        around_one_(self.alpha, generator)

    def forward(self, x: Tensor) -> Tensor:
        return (variance_norm(x, "pytorch") * self.alpha[:, None, None]).to(x.dtype)


class NoneNorm2d(nn.Module):
    """No normalisation."""

    def __init__(self, channels: int) -> None:
        del channels
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class LabelTable(nn.Embedding):
    """Rows of parameters by label: ``weight`` ``[num_classes, (scales + biased) C]``, the scales first.

    ``around_one``: the scales start at N(1, 0.02), else at U(0, 1). ``biased``: the last C columns start at zero.
    """

    def __init__(self, num_classes: int, channels: int, scales: int, *, biased: bool, around_one: bool) -> None:
        self.columns = scales * channels  # before the base class, whose constructor calls reset_parameters
        self.parts = scales + biased
        self.around_one = around_one
        super().__init__(num_classes, self.parts * channels)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        # parity: the whole table is drawn once as an embedding's before it is drawn as it starts.
        nn.init.normal_(self.weight, generator=generator)
        scales, biases = self.weight.detach().tensor_split([self.columns], dim=1)
        if self.around_one:
            around_one_(scales, generator)
        else:
            nn.init.uniform_(scales, generator=generator)
        nn.init.zeros_(biases)


class _Conditional(nn.Module):
    """A normalisation without parameters, then scale and shift by label.

    Call with ``x`` ``[B, C, H, W]`` and integer labels ``[B]`` in ``[0, num_classes)``. ``bias`` false: no shift.
    """

    around_one = False
    biased = True
    scales = 1

    def __init__(self, channels: int, num_classes: int, bias: bool = True) -> None:
        super().__init__()
        self.embed = LabelTable(
            num_classes, channels, self.scales, biased=bias and self.biased, around_one=self.around_one
        )

    def normalized(self, x: Tensor) -> Tensor:
        """``h(x)``."""
        return x

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        scale, *shift = (row[:, :, None, None] for row in self.embed(labels).chunk(self.embed.parts, dim=1))
        h = scale * self.normalized(x)
        return (h + shift[0] if shift else h).to(x.dtype)


class ConditionalInstanceNorm2dPlus(_Conditional):
    """InstanceNorm++ by label: gamma, alpha and beta are columns of the table, in this order."""

    around_one = True
    scales = 2

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        gamma, alpha, *beta = self.embed(labels).chunk(self.embed.parts, dim=1)
        return instance_norm_plus(x, alpha, gamma, beta[0] if beta else None, "pytorch")


class ConditionalInstanceNorm2d(_Conditional):
    """Instance normalisation by label."""

    def __init__(self, channels: int, num_classes: int, bias: bool = True) -> None:
        super().__init__(channels, num_classes, bias)
        self.instance_norm = InstanceNorm2d(channels)

    def normalized(self, x: Tensor) -> Tensor:
        return self.instance_norm(x)


class ConditionalBatchNorm2d(_Conditional):
    """Batch normalisation by label; the running statistics are ``bn.running_mean`` and ``bn.running_var``."""

    def __init__(self, channels: int, num_classes: int, bias: bool = True) -> None:
        super().__init__(channels, num_classes, bias)
        self.bn = nn.BatchNorm2d(channels, affine=False)

    def normalized(self, x: Tensor) -> Tensor:
        return self.bn(x)


class ConditionalVarianceNorm2d(_Conditional):
    """VarianceNorm by label."""

    around_one = True
    biased = False

    def normalized(self, x: Tensor) -> Tensor:
        return variance_norm(x, "pytorch")


class ConditionalNoneNorm2d(_Conditional):
    """Scale and shift by label, no normalisation."""


UNCONDITIONAL: dict[str, Norm] = {
    "InstanceNorm++": InstanceNorm2dPlus,
    "InstanceNorm": InstanceNorm2d,
    "BatchNorm": nn.BatchNorm2d,
    "VarianceNorm": VarianceNorm2d,
    "NoneNorm": NoneNorm2d,
}
"""``model.normalization`` to the layers of the networks that take no labels there."""

CONDITIONAL: dict[str, Callable[..., nn.Module]] = {
    "InstanceNorm++": ConditionalInstanceNorm2dPlus,
    "InstanceNorm": ConditionalInstanceNorm2d,
    "BatchNorm": ConditionalBatchNorm2d,
    "VarianceNorm": ConditionalVarianceNorm2d,
    "NoneNorm": ConditionalNoneNorm2d,
}
"""``model.normalization`` to the layers of the networks that take labels there."""


def _known(table: dict[str, Callable[..., nn.Module]], name: str | None) -> Callable[..., nn.Module]:
    if name is None or name not in table:
        raise UsageError(f"unknown model.normalization {name!r}; known: {', '.join(table)}")
    return table[name]


def unconditional_normalization(name: str | None) -> Norm:
    """What makes the layers of the networks without labels; ``UsageError`` for an unknown name."""
    return _known(UNCONDITIONAL, name)


def conditional_normalization(name: str | None, num_classes: int) -> Norm:
    """What makes the layers of the networks with labels; ``UsageError`` for an unknown name."""
    return functools.partial(_known(CONDITIONAL, name), num_classes=num_classes)


def final_normalization(name: str | None, num_classes: int) -> Norm:
    """What makes the last normalisation of NCSNv2."""
    norm = _known(UNCONDITIONAL, name)
    # parity: the original hands the number of noise levels to a place where these two layers read their epsilon.
    if norm is InstanceNorm2d:
        return functools.partial(InstanceNorm2d, epsilon=float(num_classes))
    if norm is nn.BatchNorm2d:
        return functools.partial(nn.BatchNorm2d, eps=float(num_classes))
    return norm
