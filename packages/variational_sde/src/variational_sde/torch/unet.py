"""The U-net of Ho et al. (2020) as the paper uses it: a(y, t) for images ``[B, C, H, H]``.

Modules, their names and their order are those of the original's state dict. Skips are taken after every block and
downsampling and joined to the input of the blocks on the way up, ``[h, skip]``.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_core.torch.networks.layers import timestep_embedding

__all__ = ["ResidualBlock", "SelfAttention", "Swish", "TimestepEmbedding", "UNet", "group_norm"]

Normalize = Callable[[int], nn.Module]


class Swish(nn.Module):
    """x sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


def group_norm(channels: int, groups: int = 32) -> nn.GroupNorm:
    """Group normalisation; ``groups`` divides ``channels``.

    Raises:
        ValueError: it does not.
    """
    if channels % groups:
        raise ValueError(
            f"{channels} channels cannot be normalised in {groups} groups; use multiples of {groups} (--ch)"
        )
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _initialised(layer: nn.Linear | nn.Conv2d, scale: float = 1.0) -> nn.Linear | nn.Conv2d:
    """Uniform weights in +-sqrt(3 scale / fan_out), zero biases."""
    kernel = layer.weight[0, 0].numel() if layer.weight.ndim > 2 else 1
    # parity: fan_out, though the mean of both fans was meant
    bound = math.sqrt(3 * scale / max(1, layer.weight.shape[0] * kernel))
    nn.init.uniform_(layer.weight, -bound, bound)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


_ZERO = 1e-10  # parity: "zero" initialisation is tiny, not zero


def _conv(channels: int, out: int, *, kernel: int = 3, stride: int = 1, scale: float = 1.0) -> nn.Module:
    return _initialised(nn.Conv2d(channels, out, kernel, stride, kernel // 2), scale)


def _upsample(channels: int, with_conv: bool) -> nn.Sequential:
    up = nn.Sequential()
    up.add_module("up_nn", nn.Upsample(scale_factor=2.0, mode="nearest"))
    if with_conv:
        up.add_module("up_conv", _conv(channels, channels))
    return up


def _downsample(channels: int, with_conv: bool) -> nn.Module:
    # symmetric padding, unlike the TensorFlow original of the network
    return _conv(channels, channels, stride=2) if with_conv else nn.AvgPool2d(2, 2)


class TimestepEmbedding(nn.Module):
    """Sinusoidal features of ``t`` ``[B]``, two linear layers: ``[B, output_dim]``."""

    def __init__(self, embedding_dim: int, hidden_dim: int, output_dim: int, act: nn.Module | None = None) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.output_dim = output_dim
        self.hidden_dim = hidden_dim
        self.main = nn.Sequential(
            _initialised(nn.Linear(embedding_dim, hidden_dim)),
            act or Swish(),
            _initialised(nn.Linear(hidden_dim, output_dim)),
        )

    def forward(self, t: Tensor) -> Tensor:
        # parity: raw times in [0, T], so that most of the sinusoids are nearly constant
        return self.main(timestep_embedding(t, self.embedding_dim))


class ResidualBlock(nn.Module):
    """Two convolutions with the time embedding between them; the shortcut is a convolution where the width changes."""

    def __init__(
        self,
        in_ch: int,
        temb_ch: int,
        out_ch: int | None = None,
        conv_shortcut: bool = False,
        dropout: float = 0.0,
        normalize: Normalize = group_norm,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        out_ch = in_ch if out_ch is None else out_ch
        self.in_ch = in_ch
        self.temb_ch = temb_ch
        self.out_ch = out_ch
        self.conv_shortcut = conv_shortcut
        self.act = act or Swish()
        self.temb_proj = _initialised(nn.Linear(temb_ch, out_ch))
        self.norm1 = normalize(in_ch)
        self.conv1 = _conv(in_ch, out_ch)
        self.norm2 = normalize(out_ch)
        self.dropout = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()
        self.conv2 = _conv(out_ch, out_ch, scale=_ZERO)
        if in_ch == out_ch:
            self.shortcut = nn.Identity()
        else:
            self.shortcut = _conv(in_ch, out_ch, kernel=3 if conv_shortcut else 1)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(self.act(self.norm1(x)))
        h = h + self.temb_proj(self.act(temb))[:, :, None, None]
        h = self.conv2(self.dropout(self.act(self.norm2(h))))
        return self.shortcut(x) + h


class SelfAttention(nn.Module):
    """One head over all positions, added to the input."""

    def __init__(self, in_channels: int, normalize: Normalize = group_norm) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.attn_q = _conv(in_channels, in_channels, kernel=1)
        self.attn_k = _conv(in_channels, in_channels, kernel=1)
        self.attn_v = _conv(in_channels, in_channels, kernel=1)
        self.proj_out = _conv(in_channels, in_channels, kernel=1, scale=_ZERO)
        self.softmax = nn.Softmax(dim=-1)
        self.norm = normalize(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2) for layer in (self.attn_q, self.attn_k, self.attn_v))
        # Not scaled_dot_product_attention: its fast kernels have no forward-mode or second derivatives.
        weights = self.softmax(torch.einsum("bcq,bck->bqk", q, k) * self.in_channels**-0.5)
        h = torch.einsum("bqk,bck->bcq", weights, v).reshape(x.shape)
        return x + self.proj_out(h)


class UNet(nn.Module):
    """a(y, t): images ``[B, input_channels, H, H]`` and times ``[B]`` to ``[B, output_channels, H, H]``.

    Arguments:
        input_channels, input_height: of the images; the height is a multiple of 2^(levels - 1).
        ch: width of the first level; level i has ``ch * ch_mult[i]``.
        output_channels: the input's by default.
        num_res_blocks: blocks a level on the way down; one more on the way up.
        attn_resolutions: heights at which every block is followed by attention; the middle always has one.
        dropout: channel-wise, in every block.
        resamp_with_conv: convolutions with the resampling instead of plain averaging and repeating.
        act, normalize: activation module, and normalisation from the number of channels.

    Raises:
        ValueError: impossible sizes.
    """

    def __init__(
        self,
        input_channels: int,
        input_height: int,
        ch: int,
        output_channels: int | None = None,
        ch_mult: Sequence[int] = (1, 2, 4, 8),
        num_res_blocks: int = 2,
        attn_resolutions: Sequence[int] = (16,),
        dropout: float = 0.0,
        resamp_with_conv: bool = True,
        act: nn.Module | None = None,
        normalize: Normalize = group_norm,
    ) -> None:
        super().__init__()
        levels = len(ch_mult)
        if not levels or input_height % 2 ** (levels - 1):
            raise ValueError(f"height {input_height} cannot be halved {levels - 1} times; ch_mult has {levels} levels")
        self.input_channels = input_channels
        self.input_height = input_height
        self.ch = ch
        self.output_channels = input_channels if output_channels is None else output_channels
        self.ch_mult = tuple(ch_mult)
        self.num_res_blocks = num_res_blocks
        self.attn_resolutions = tuple(attn_resolutions)
        self.dropout = dropout
        self.resamp_with_conv = resamp_with_conv
        self.normalize = normalize
        self.num_resolutions = levels
        self.act = act or Swish()

        def block(in_ch: int, out_ch: int) -> ResidualBlock:
            return ResidualBlock(in_ch, 4 * ch, out_ch, dropout=dropout, normalize=normalize, act=self.act)

        self.temb_net = TimestepEmbedding(ch, 4 * ch, 4 * ch, self.act)
        self.begin_conv = _conv(input_channels, ch)
        self.down_modules = nn.ModuleList()
        widths, width, height = [ch], ch, input_height
        for i, mult in enumerate(self.ch_mult):
            level = nn.ModuleDict()
            for j in range(num_res_blocks):
                level[f"{i}a_{j}a_block"] = block(width, ch * mult)
                width = ch * mult
                if height in self.attn_resolutions:
                    level[f"{i}a_{j}b_attn"] = SelfAttention(width, normalize)
                widths.append(width)
            if i < levels - 1:
                level[f"{i}b_downsample"] = _downsample(width, resamp_with_conv)
                widths.append(width)
                height //= 2
            self.down_modules.append(level)
        self.mid_modules = nn.ModuleList([block(width, width), SelfAttention(width, normalize), block(width, width)])
        self.up_modules = nn.ModuleList()
        for i, mult in reversed(list(enumerate(self.ch_mult))):
            level = nn.ModuleDict()
            for j in range(num_res_blocks + 1):
                level[f"{i}a_{j}a_block"] = block(width + widths.pop(), ch * mult)
                width = ch * mult
                if height in self.attn_resolutions:
                    level[f"{i}a_{j}b_attn"] = SelfAttention(width, normalize)
            if i > 0:
                level[f"{i}b_upsample"] = _upsample(width, resamp_with_conv)
                height *= 2
            self.up_modules.append(level)
        self.end_conv = nn.Sequential(normalize(width), self.act, _conv(width, self.output_channels, scale=_ZERO))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        expected = (self.input_channels, self.input_height, self.input_height)
        if tuple(x.shape[1:]) != expected or t.shape != x.shape[:1]:
            raise ValueError(
                f"the network takes [B, {', '.join(map(str, expected))}] and times [B], "
                f"found {list(x.shape)} and {list(t.shape)}"
            )
        temb = self.temb_net(t)
        h = self.begin_conv(x)
        skips = [h]
        for level in self.down_modules:
            assert isinstance(level, nn.ModuleDict)
            for name, module in level.items():
                h = module(h, temb) if name.endswith("block") else module(h)
                if name.endswith("attn"):
                    skips.pop()  # the skip of a block is taken after its attention
                skips.append(h)
        for module in self.mid_modules:
            h = module(h, temb) if isinstance(module, ResidualBlock) else module(h)
        for level in self.up_modules:
            assert isinstance(level, nn.ModuleDict)
            for name, module in level.items():
                if name.endswith("block"):
                    h = module(torch.cat([h, skips.pop()], dim=1), temb)
                else:
                    h = module(h)
        return self.end_conv(h)
