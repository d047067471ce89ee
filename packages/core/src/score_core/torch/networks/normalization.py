r"""Normalisation layers. Statistics are computed in float32 (or float64) whatever the type of the activations.

With ``m_c``, ``v_c`` the mean and population variance of channel c over height and width, per image:

    GroupNorm          (x - m_g) / sqrt(v_g + eps) * weight + bias,
                       m_g, v_g over height, width and the channels of group g; groups are contiguous channels
    InstanceNorm2d     h_c = (x - m_c) / sqrt(v_c + eps);  h_c * weight + bias
    VarianceNorm2d     x / sqrt(v_c + eps) * weight
    InstanceNorm2dPlus h_c + alpha * (m_c - mean_c m) / sqrt(var_c m + eps), then * gamma + beta
                       (the channel means, lost by instance normalisation, are added back normalised over the channels)
    ConditionalInstanceNorm2dPlus  the same with gamma, alpha, beta looked up by the integer label

The PyTorch flavor (:data:`~score_core.torch.networks.layers.Flavor`) divides ``var_c m`` and VarianceNorm's ``v_c`` by
the number of values less one, and its InstanceNorm2d has no parameters. Parameters have shape ``(C,)``.
References: Wu & He (arXiv:1803.08494); Song & Ermon (arXiv:1907.05600, appendix A.1; arXiv:2006.09011, appendix A).
"""

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from score_core.torch.networks.layers import Compact, Flavor, working_precision

__all__ = [
    "NORMALIZATIONS",
    "ConditionalInstanceNorm2dPlus",
    "Embed",
    "GroupNorm",
    "InstanceNorm2d",
    "InstanceNorm2dPlus",
    "Norm",
    "VarianceNorm2d",
    "around_one_",
    "get_normalization",
    "instance_norm_plus",
    "variance_norm",
]

Norm = Callable[[int], nn.Module]
"""Number of channels to a new normalisation layer, itself called with ``x`` and the labels if it takes any."""

_INSTANCE_EPS = 1e-5


def around_one_(weight: Tensor, generator: torch.Generator | None) -> None:
    """Initial scales of the instance norms: ``1 + 0.02 n``, n standard normal."""
    nn.init.normal_(weight, 1.0, 0.02, generator)


def _standardize(
    x: Tensor, axes: tuple[int, ...], correction: int = 0, epsilon: float = _INSTANCE_EPS
) -> tuple[Tensor, Tensor]:
    """``((x - mean) / sqrt(var + epsilon), mean)`` over ``axes``; the variance divides by n - ``correction``."""
    # On a CPU two passes are twice as fast as torch.var_mean, whose one pass is not vectorised.
    mean = x.mean(axes, keepdim=True)
    centred = x - mean
    count = math.prod(x.shape[axis] for axis in axes) - correction
    variance = centred.square().sum(axes, keepdim=True) / count
    return centred * torch.rsqrt(variance + epsilon), mean


def instance_norm_plus(x: Tensor, alpha: Tensor, gamma: Tensor, beta: Tensor | None, flavor: Flavor) -> Tensor:
    """InstanceNorm++ of ``[B, C, H, W]``; alpha, gamma, beta ``[1 or B, C]``, beta None: zero."""
    h, means = _standardize(working_precision(x), (2, 3))
    means, _ = _standardize(means, (1,), correction=int(flavor == "pytorch"))
    h = (h + means * alpha[:, :, None, None]) * gamma[:, :, None, None]
    return (h if beta is None else h + beta[:, :, None, None]).to(x.dtype)


def variance_norm(x: Tensor, flavor: Flavor) -> Tensor:
    """``x`` ``[B, C, H, W]`` divided by the standard deviation of each channel, in working precision."""
    h = working_precision(x)
    return h * torch.rsqrt(h.var((2, 3), correction=int(flavor == "pytorch"), keepdim=True) + _INSTANCE_EPS)


class GroupNorm(nn.Module):
    """Group normalisation of ``[B, C, H, W]`` with affine parameters ``weight`` (ones) and ``bias`` (zeros).

    ``num_groups``: number of groups, a divisor of C; None: ``min(C // 4, 32)``, the rule of NCSN++ and the classifier.
    """

    def __init__(self, channels: int, num_groups: int | None = 32, epsilon: float = 1e-6) -> None:
        super().__init__()
        groups = min(channels // 4, 32) if num_groups is None else num_groups
        if groups == 0 or channels % groups:
            raise ValueError(
                f"GroupNorm splits {channels} channels into {groups} groups, which is not possible: "
                "choose a width (model.nf times model.ch_mult) that is a multiple of the number of groups"
            )
        self.num_groups = groups
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Back to ones and zeros; nothing is drawn."""
        del generator
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = F.group_norm(working_precision(x), self.num_groups, self.weight, self.bias, self.epsilon)
        return h.to(x.dtype)


class InstanceNorm2d(nn.Module):
    """Instance normalisation, with ``weight`` (ones) and ``bias`` (zeros) in the JAX flavor."""

    def __init__(self, channels: int, flavor: Flavor = "pytorch", epsilon: float = _INSTANCE_EPS) -> None:
        super().__init__()
        self.epsilon = epsilon
        affine = flavor == "jax"
        self.weight = nn.Parameter(torch.empty(channels)) if affine else None
        self.bias = nn.Parameter(torch.empty(channels)) if affine else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Back to ones and zeros; nothing is drawn."""
        del generator
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = _standardize(working_precision(x), (2, 3), epsilon=self.epsilon)
        if self.weight is not None and self.bias is not None:
            h = h * self.weight[:, None, None] + self.bias[:, None, None]
        return h.to(x.dtype)


class VarianceNorm2d(nn.Module):
    """Division by the standard deviation of each channel, times ``weight``; the mean is kept."""

    def __init__(self, channels: int, flavor: Flavor = "pytorch") -> None:
        super().__init__()
        self.flavor: Flavor = flavor
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        around_one_(self.weight, generator)

    def forward(self, x: Tensor) -> Tensor:
        return (variance_norm(x, self.flavor) * self.weight[:, None, None]).to(x.dtype)


class InstanceNorm2dPlus(nn.Module):
    """InstanceNorm++: instance normalisation plus the normalised channel means, with ``alpha``, ``gamma``, ``beta``.

    ``bias`` false: no ``beta``.
    """

    def __init__(self, channels: int, flavor: Flavor = "pytorch", bias: bool = True) -> None:
        super().__init__()
        self.flavor: Flavor = flavor
        self.alpha = nn.Parameter(torch.empty(channels))
        self.gamma = nn.Parameter(torch.empty(channels))
        self.beta = nn.Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        around_one_(self.alpha, generator)
        around_one_(self.gamma, generator)
        if self.beta is not None:
            nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        beta = None if self.beta is None else self.beta[None]
        return instance_norm_plus(x, self.alpha[None], self.gamma[None], beta, self.flavor)


class Embed(nn.Module):
    """The table ``embedding`` ``[num_classes, 3 C]``: gamma and alpha around one, beta zero."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(num_classes, 3 * channels))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        around_one, zero = self.embedding.detach().tensor_split([2 * (self.embedding.shape[1] // 3)], dim=1)
        around_one_(around_one, generator)
        nn.init.zeros_(zero)

    def forward(self, labels: Tensor) -> Tensor:
        return F.embedding(labels, self.embedding)


class ConditionalInstanceNorm2dPlus(Compact):
    """InstanceNorm++ whose gamma, alpha, beta are rows of the table ``Embed_0.embedding`` ``[num_classes, 3 C]``.

    Call with ``x`` ``[B, C, H, W]`` and integer labels ``[B]`` in ``[0, num_classes)``.
    """

    def __init__(self, channels: int, num_classes: int, flavor: Flavor = "pytorch") -> None:
        super().__init__()
        self.flavor: Flavor = flavor
        self.Embed_0 = Embed(num_classes, channels)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        gamma, alpha, beta = self.Embed_0(labels).chunk(3, dim=1)
        return instance_norm_plus(x, alpha, gamma, beta, self.flavor)


NORMALIZATIONS: dict[str, Callable[..., nn.Module]] = {
    "GroupNorm": GroupNorm,
    "InstanceNorm": InstanceNorm2d,
    "InstanceNorm++": InstanceNorm2dPlus,
    "VarianceNorm": VarianceNorm2d,
}
"""``config.model.normalization`` to layer."""


def get_normalization(name: str, flavor: Flavor = "pytorch") -> Norm:
    """What makes the layers behind a value of ``config.model.normalization``; ``ValueError`` for an unknown one."""
    if name not in NORMALIZATIONS:
        raise ValueError(f"unknown normalization {name!r}; known: {', '.join(NORMALIZATIONS)}")
    layer = NORMALIZATIONS[name]
    return layer if layer is GroupNorm else functools.partial(layer, flavor=flavor)
