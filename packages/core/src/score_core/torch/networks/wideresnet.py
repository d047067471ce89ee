r"""Noise-conditional wide ResNet, the classifier of class-conditional sampling (arXiv:2011.13456, appendix I).

A wide ResNet (Zagoruyko & Komodakis, arXiv:1605.07146) with group normalisation, told the noise level of its input:

    x     (x - mean) / max(std, 1 / sqrt(H W C)) per image
    temb  Dense(swish(Dense(Fourier(log sigma)))), added to every block through a linear map of swish(temb)
    out   three groups of blocks (16 k, 32 k, 64 k channels; strides 1, 2, 2), mean over positions, linear map

The classifier's gradient for ``p(y | x)`` is ``d/dx sum_b log softmax(logits_b)[y_b]``.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from score_core.torch.networks.layers import (
    Compact,
    Conv,
    Dense,
    GaussianFourierProjection,
    lecun_init_,
    working_precision,
)
from score_core.torch.networks.normalization import GroupNorm

__all__ = ["WideResnet", "get_classifier_grad_fn", "get_logit_fn"]

CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_STD = (0.24703223, 0.24348513, 0.26158784)

LogitFn = Callable[[Tensor, Tensor], Tensor]
"""``(x [B, 3, H, W] in [0, 1], sigma [B]) -> logits [B, num_outputs]``."""

_norm = functools.partial(GroupNorm, num_groups=None, epsilon=1e-5)


def _conv_init_(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """Normal with variance ``2 / fan_out``."""
    del bias  # there is none
    nn.init.normal_(weight, 0.0, math.sqrt(2 / (weight.shape[0] * math.prod(weight.shape[2:]))), generator)


def _output_init_(weight: Tensor, bias: Tensor | None, generator: torch.Generator | None) -> None:
    """Uniform in ``[-1, 1] / sqrt(number of outputs)``, bias zero."""
    limit = 1 / math.sqrt(weight.shape[0])
    nn.init.uniform_(weight, -limit, limit, generator)
    if bias is not None:
        nn.init.zeros_(bias)


def _conv(in_features: int, features: int, stride: int = 1) -> Conv:
    # With stride 2 the caller pads, 0 before and 1 after.
    return Conv(in_features, features, stride=stride, padding=int(stride == 1), bias=False, init=_conv_init_)


class WideResnetBlock(Compact):
    """Two convolutions and a shortcut; ``activate_first``: the shortcut too starts from the activated input."""

    def __init__(self, in_features: int, features: int, stride: int = 1, activate_first: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.activate_first = activate_first
        self.missing = features - in_features
        self.init_bn = _norm(in_features)
        self.conv1 = _conv(in_features, features, stride)
        self.Dense_0 = Dense(512, features, lecun_init_)
        self.bn_2 = _norm(features)
        self.conv2 = _conv(features, features)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = F.relu(self.init_bn(x))
        residual = h if self.activate_first else x
        h = self.conv1(h if self.stride == 1 else F.pad(h, (0, 1, 0, 1)))
        h = h + self.Dense_0(F.silu(temb))[:, :, None, None]
        h = self.conv2(F.relu(self.bn_2(h)))
        if self.missing:
            residual = F.pad(F.avg_pool2d(residual, self.stride), (0, 0, 0, 0, 0, self.missing))
        return h + residual


class WideResnetGroup(Compact):
    """``blocks`` blocks of the same width, the first with the stride."""

    def __init__(
        self, in_features: int, features: int, blocks: int, stride: int = 1, activate_first: bool = False
    ) -> None:
        super().__init__()
        self.blocks = [
            self.add(
                WideResnetBlock(features if i else in_features, features, 1 if i else stride, activate_first and not i)
            )
            for i in range(blocks)
        ]

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        for block in self.blocks:
            x = getattr(self, block)(x, temb)
        return x


@dataclass(eq=False, repr=False)
class WideResnet(Compact):
    """The classifier of the module's description; the defaults are the published one (38,913,242 parameters).

    Call with ``x`` ``[B, num_channels, H, W]`` (sides divisible by 4) and noise levels ``sigmas`` ``[B]`` > 0.
    Returns logits ``[B, num_outputs]`` in float32.
    """

    blocks_per_group: int = 4
    channel_multiplier: int = 10
    num_outputs: int = 10
    num_channels: int = 3

    def __post_init__(self) -> None:
        super().__init__()
        self.GaussianFourierProjection_0 = GaussianFourierProjection(128, 16.0)
        self.Dense_0 = Dense(256, 512, lecun_init_)
        self.Dense_1 = Dense(512, 512, lecun_init_)
        h = 16
        self.init_conv = _conv(self.num_channels, h)
        self.groups: list[str] = []
        for width, stride in ((16, 1), (32, 2), (64, 2)):
            features = width * self.channel_multiplier
            group = WideResnetGroup(h, features, self.blocks_per_group, stride, activate_first=stride == 1)
            self.groups.append(self.add(group))
            h = features
        self.add_module("pre-pool-bn", _norm(h))
        self.Dense_2 = Dense(h, self.num_outputs, _output_init_)

    def forward(self, x: Tensor, sigmas: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            dtype = self.Dense_0.weight.dtype
            embedding = self.GaussianFourierProjection_0(torch.log(sigmas.to(dtype)))
            temb = self.Dense_1(F.silu(self.Dense_0(embedding)))

        variance, mean = torch.var_mean(x, (1, 2, 3), correction=0, keepdim=True)
        h = (x - mean) / variance.sqrt().clamp_min(1 / math.sqrt(math.prod(x.shape[1:])))
        h = self.init_conv(h)
        for group in self.groups:
            h = getattr(self, group)(h, temb)
        h = working_precision(F.relu(getattr(self, "pre-pool-bn")(h))).mean((2, 3))
        with torch.autocast(x.device.type, enabled=False):
            return self.Dense_2(h)


def get_logit_fn(model: LogitFn) -> LogitFn:
    """The classifier on images in [0, 1]: CIFAR-10's channel means and standard deviations are taken out first."""

    def logit_fn(x: Tensor, sigmas: Tensor) -> Tensor:
        mean, std = (x.new_tensor(values)[:, None, None] for values in (CIFAR10_MEAN, CIFAR10_STD))
        return model((x - mean) / std, sigmas)

    return logit_fn


def get_classifier_grad_fn(logit_fn: LogitFn) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """``(x [B, C, H, W], sigma [B], labels [B]) -> d/dx log p(label | x)``, of the shape of ``x``."""

    def class_grad(x: Tensor, sigmas: Tensor, labels: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_probs = F.log_softmax(logit_fn(x, sigmas), dim=1)
            (gradient,) = torch.autograd.grad(log_probs.gather(1, labels.long()[:, None]).sum(), x)
        return gradient

    return class_grad
