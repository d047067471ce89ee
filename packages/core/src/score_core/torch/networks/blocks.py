r"""Blocks of the U-Nets: resampling, residual blocks and attention.

The classes of DDPM and of NCSN++ differ in name and defaults only, and the names are those of the Flax wing's
checkpoints: a module is called after its class and its running number in the parent.

    residual block   h = Conv(act(norm(x))) + Dense(act(temb));  h = Conv(dropout(act(norm(h))));  y = x' + h
                     x' = x, or a linear map of x where the widths differ
    attention        y = x + NIN(sum_j softmax_j(q . k_j / sqrt C) v_j),  q, k, v = NIN(norm(x)), j over all positions
    skip_rescale     y / sqrt 2 (Song et al. 2021, appendix H.1)
"""

import functools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from score_core.torch.networks import resampling
from score_core.torch.networks.layers import NIN, Activation, Compact, Dense, conv1x1, conv3x3, default_init_
from score_core.torch.networks.normalization import GroupNorm, Norm

__all__ = [
    "AttnBlock",
    "AttnBlockpp",
    "Combine",
    "Conv2d",
    "Downsample",
    "ResnetBlockBigGANpp",
    "ResnetBlockDDPM",
    "ResnetBlockDDPMpp",
    "Upsample",
    "higher_derivatives",
]

norm_pp: Norm = functools.partial(GroupNorm, num_groups=None)
"""The normalisation of NCSN++: ``min(C // 4, 32)`` groups."""


def higher_derivatives() -> AbstractContextManager[Any]:
    """Inside it networks can be differentiated forwards (``torch.func.jvp``) and more than once.

    PyTorch's fused attention has first-order reverse derivatives only; this takes the plain form instead.
    """
    return sdpa_kernel(SDPBackend.MATH)


def join(x: Tensor, h: Tensor, skip_rescale: bool) -> Tensor:
    """``x + h``, over ``sqrt 2`` with ``skip_rescale``: the variance of two independent unit signals stays 1."""
    # Multiplied: dividing a map takes a CPU longer than reading it.
    return (x + h) * (1 / math.sqrt(2)) if skip_rescale else x + h


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``sum_j softmax_j(q . k_j / sqrt C) v_j`` over all positions of ``[B, C, H, W]`` maps."""
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":
        # There two matrix products take half the time of the fused form.
        q_flat, k_flat, v_flat = (a.flatten(2) for a in (q, k, v))
        weights = torch.softmax(q_flat.transpose(1, 2) * (1 / math.sqrt(q.shape[1])) @ k_flat, dim=-1)
        return (v_flat @ weights.transpose(1, 2)).reshape(q.shape)
    # One head: [B, 1, H W, C].
    q_flat, k_flat, v_flat = (a.flatten(2).transpose(1, 2).unsqueeze(1) for a in (q, k, v))
    return F.scaled_dot_product_attention(q_flat, k_flat, v_flat).squeeze(1).transpose(1, 2).reshape(q.shape)


def _doubled(x: Tensor, taps: Tensor | None) -> Tensor:
    """Twice the size, through the FIR filter if there is one."""
    return resampling.naive_upsample_2d(x) if taps is None else resampling.upsample_2d(x, taps)


def _halved(x: Tensor, taps: Tensor | None) -> Tensor:
    """Half the size, through the FIR filter if there is one."""
    return resampling.naive_downsample_2d(x) if taps is None else resampling.downsample_2d(x, taps)


class Conv2d(nn.Module):
    """A 3x3 convolution that also resamples by 2 with an FIR filter; parameters ``weight`` (OIHW) and ``bias``."""

    taps: Tensor

    def __init__(self, in_features: int, features: int, *, up: bool, fir_kernel: Sequence[float]) -> None:
        super().__init__()
        self.up = up
        self.register_buffer("taps", resampling.fir_kernel_2d(fir_kernel), persistent=False)
        self.weight = nn.Parameter(torch.empty(features, in_features, 3, 3))
        self.bias = nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh parameters."""
        default_init_(self.weight, self.bias, generator)

    def forward(self, x: Tensor) -> Tensor:
        resample = resampling.upsample_conv_2d if self.up else resampling.conv_downsample_2d
        return resample(x, self.weight, self.taps, bias=self.bias)


class Downsample(Compact):
    """Half the size: strided 3x3 convolution (``with_conv``) or mean, each preceded by the FIR filter with ``fir``.

    ``features``: channels after the convolution; None: as before.
    """

    taps: Tensor | None

    def __init__(
        self,
        in_features: int,
        *,
        with_conv: bool,
        features: int | None = None,
        fir: bool = False,
        fir_kernel: Sequence[float] = (1, 3, 3, 1),
    ) -> None:
        super().__init__()
        self.register_buffer("taps", resampling.fir_kernel_2d(fir_kernel) if fir else None, persistent=False)
        self.conv: str | None = None
        if with_conv and fir:
            self.conv = self.add(Conv2d(in_features, features or in_features, up=False, fir_kernel=fir_kernel))
        elif with_conv:
            self.conv = self.add(conv3x3(in_features, features or in_features, stride=2, padding=0))

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            # An even side is padded by 0 before and 1 after.
            return getattr(self, self.conv)(x if self.taps is not None else F.pad(x, (0, 1, 0, 1)))
        return _halved(x, self.taps)


class Upsample(Compact):
    """Twice the size: nearest neighbour or, with ``fir``, zeros inserted and filtered; ``with_conv``: then convolved.

    ``features``: channels after the convolution; None: as before.
    """

    taps: Tensor | None

    def __init__(
        self,
        in_features: int,
        *,
        with_conv: bool,
        features: int | None = None,
        fir: bool = False,
        fir_kernel: Sequence[float] = (1, 3, 3, 1),
    ) -> None:
        super().__init__()
        self.register_buffer("taps", resampling.fir_kernel_2d(fir_kernel) if fir else None, persistent=False)
        self.conv: str | None = None
        if with_conv and fir:
            self.conv = self.add(Conv2d(in_features, features or in_features, up=True, fir_kernel=fir_kernel))
        elif with_conv:
            self.conv = self.add(conv3x3(in_features, features or in_features))

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None and self.taps is not None:
            return getattr(self, self.conv)(x)
        h = _doubled(x, self.taps)
        return h if self.conv is None else getattr(self, self.conv)(h)


class Combine(Compact):
    """Join a pyramid of the input to the features: its 1x1 convolution is added (``sum``) or put in front (``cat``)."""

    def __init__(self, in_features: int, features: int, method: str) -> None:
        super().__init__()
        self.method = method
        self.Conv_0 = conv1x1(in_features, features)

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        projected = self.Conv_0(pyramid)
        return projected + h if self.method == "sum" else torch.cat([projected, h], dim=1)


class AttnBlock(Compact):
    """Single-head self-attention over all positions, with its residual connection."""

    def __init__(
        self, channels: int, *, norm: Norm = GroupNorm, init_scale: float = 0.0, skip_rescale: bool = False
    ) -> None:
        super().__init__()
        self.skip_rescale = skip_rescale
        self.norm = self.add(norm(channels))
        self.NIN_0 = NIN(channels, channels)
        self.NIN_1 = NIN(channels, channels)
        self.NIN_2 = NIN(channels, channels)
        self.NIN_3 = NIN(channels, channels, init_scale=init_scale)

    def forward(self, x: Tensor) -> Tensor:
        h = getattr(self, self.norm)(x)
        h = self.NIN_3(attend(self.NIN_0(h), self.NIN_1(h), self.NIN_2(h)))
        return join(x, h, self.skip_rescale)


class AttnBlockpp(AttnBlock):
    """Attention of NCSN++: ``min(C // 4, 32)`` groups."""

    def __init__(self, channels: int, *, init_scale: float = 0.0, skip_rescale: bool = False) -> None:
        super().__init__(channels, norm=norm_pp, init_scale=init_scale, skip_rescale=skip_rescale)


class _ResidualBlock(Compact):
    """What the residual blocks share.

    ``features``: channels out; ``temb_dim``: width of ``temb``, None: no Dense layer; ``init_scale``: initial scale of
    the last convolution. Call with ``x`` ``[B, C, H, W]`` and ``temb`` ``[B, temb_dim]`` or None.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        act: Activation,
        dropout: float,
        temb_dim: int | None,
        norm: Norm,
        init_scale: float,
        skip_rescale: bool,
    ) -> None:
        super().__init__()
        self.act = act
        self.dropout = dropout
        self.skip_rescale = skip_rescale
        self.norms = [self.add(norm(in_features))]
        self.Conv_0 = conv3x3(in_features, features)
        if temb_dim is not None:
            self.Dense_0 = Dense(temb_dim, features)
        self.norms.append(self.add(norm(features)))
        self.Conv_1 = conv3x3(features, features, init_scale=init_scale)

    def _activated(self, x: Tensor) -> Tensor:
        """``act(norm(x))`` with the first normalisation."""
        return self.act(getattr(self, self.norms[0])(x))

    def _convolved(self, h: Tensor, temb: Tensor | None) -> Tensor:
        """Everything from the first convolution to the last."""
        h = self.Conv_0(h)
        if temb is not None:
            h = h + self.Dense_0(self.act(temb))[:, :, None, None]
        h = self.act(getattr(self, self.norms[1])(h))
        return self.Conv_1(F.dropout(h, self.dropout, self.training))


class ResnetBlockDDPM(_ResidualBlock):
    """Residual block of DDPM."""

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        act: Activation,
        dropout: float,
        temb_dim: int | None = None,
        norm: Norm = GroupNorm,
        init_scale: float = 0.0,
        skip_rescale: bool = False,
    ) -> None:
        super().__init__(
            in_features,
            features,
            act=act,
            dropout=dropout,
            temb_dim=temb_dim,
            norm=norm,
            init_scale=init_scale,
            skip_rescale=skip_rescale,
        )
        self.NIN_0 = NIN(in_features, features) if in_features != features else None

    def forward(self, x: Tensor, temb: Tensor | None) -> Tensor:
        h = self._convolved(self._activated(x), temb)
        return join(x if self.NIN_0 is None else self.NIN_0(x), h, self.skip_rescale)


class ResnetBlockDDPMpp(ResnetBlockDDPM):
    """Residual block of DDPM with the group rule of NCSN++."""

    def __init__(self, in_features: int, features: int, **options: Any) -> None:
        super().__init__(in_features, features, norm=norm_pp, **options)


class ResnetBlockBigGANpp(_ResidualBlock):
    """Residual block of NCSN++ after BigGAN's; ``resample`` "up" or "down": by 2, before the first convolution."""

    taps: Tensor | None

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        act: Activation,
        dropout: float,
        temb_dim: int | None = None,
        resample: str | None = None,
        fir: bool = False,
        fir_kernel: Sequence[float] = (1, 3, 3, 1),
        init_scale: float = 0.0,
        skip_rescale: bool = True,
    ) -> None:
        super().__init__(
            in_features,
            features,
            act=act,
            dropout=dropout,
            temb_dim=temb_dim,
            norm=norm_pp,
            init_scale=init_scale,
            skip_rescale=skip_rescale,
        )
        self.resample = resample
        self.register_buffer("taps", resampling.fir_kernel_2d(fir_kernel) if fir else None, persistent=False)
        self.Conv_2 = conv1x1(in_features, features) if in_features != features or resample else None

    def forward(self, x: Tensor, temb: Tensor | None) -> Tensor:
        h = self._convolved(self._resampled(self._activated(x)), temb)
        x = self._resampled(x)
        return join(x if self.Conv_2 is None else self.Conv_2(x), h, self.skip_rescale)

    def _resampled(self, h: Tensor) -> Tensor:
        if self.resample is None:
            return h
        return _doubled(h, self.taps) if self.resample == "up" else _halved(h, self.taps)
