r"""Resampling of feature maps: FIR filters (StyleGAN2's ``upfirdn``) and the naive forms.

With ``u`` = up, ``d`` = down, a kernel ``k[i, j]`` of size ``K`` and pads ``p0, p1`` the filtered map is

    z[n]   = x[n / u] if u divides n else 0                     (u - 1 zeros after each sample)
    y[n]   = sum_i k[K - 1 - i] z[n + i - p0]                   (true convolution of the padded z)
    out[m] = y[d m]

written here for one axis; the two axes are treated alike. Without inserted zeros this is a convolution with one group a
channel; with them a transposed one, whose full output starts at ``n = p0 - (K - 1)`` and is cropped or padded. Both are
several times faster on a CPU with ``channels_last`` tensors (``benchmarks/networks_torch.py``).

A one-dimensional kernel stands for its outer product; kernels are normalised to sum 1, times ``gain`` (and
``factor^2`` when upsampling, for the inserted zeros).

Reference: Karras et al., "Analyzing and improving the image quality of StyleGAN" (arXiv:1912.04958);
Zhang, "Making convolutional networks shift-invariant again" (arXiv:1904.11486).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from score_core.torch.networks.layers import working_precision

__all__ = [
    "conv_downsample_2d",
    "downsample_2d",
    "fir_kernel_2d",
    "naive_downsample_2d",
    "naive_upsample_2d",
    "upfirdn_2d",
    "upsample_2d",
    "upsample_conv_2d",
]

Pair = tuple[int, int]
Kernel = Sequence[float] | np.ndarray | Tensor | None
"""Taps of a filter; a tensor is the finished kernel of :func:`fir_kernel_2d`, on the device of the images."""


def fir_kernel_2d(kernel: Sequence[float] | np.ndarray | None, factor: int = 2) -> Tensor:
    """The 2-D kernel of sum 1 that ``kernel`` stands for, float32 ``[K, K]``.

    ``kernel``: 1-D (outer product taken), 2-D, or None for the box of ``factor`` ones.
    Raises ``ValueError`` for another number of dimensions.
    """
    taps = np.ones(factor, np.float32) if kernel is None else np.asarray(kernel, np.float32)
    if taps.ndim == 1:
        taps = np.outer(taps, taps)
    if taps.ndim != 2:
        raise ValueError(f"an FIR kernel has one or two dimensions, this one has {taps.ndim}: {kernel!r}")
    return torch.from_numpy(taps / taps.sum())


def _finished(x: Tensor, kernel: Kernel, factor: int) -> Tensor:
    return kernel if isinstance(kernel, Tensor) else fir_kernel_2d(kernel, factor).to(x.device)


def upfirdn_2d(x: Tensor, kernel: Tensor, *, up: Pair = (1, 1), down: Pair = (1, 1), pad: tuple[Pair, Pair]) -> Tensor:
    """Insert zeros, pad, filter and subsample as in the module's formula.

    Arguments:
        x: ``[B, C, H, W]``.
        kernel: ``[Kh, Kw]``, used as it is (neither normalised nor scaled).
        up, down: factors for (H, W).
        pad: (before, after) for H and for W; negative values crop.

    Returns: ``[B, C, H', W']`` in ``x``'s type (summed in float32), ``H' = (H up + before + after - Kh) // down + 1``.
    """
    channels = x.shape[1]
    with torch.autocast(x.device.type, enabled=False):
        h = working_precision(x)
        taps = kernel.to(h.dtype)
        weight = taps.expand(channels, 1, *taps.shape)
        if up == (1, 1):
            # What is padded on both sides is left to the convolution, which needs no copy for it.
            both = tuple(max(min(axis), 0) for axis in pad)
            rows, columns = (_shifted(axis, -common) for axis, common in zip(pad, both, strict=True))
            h = _padded(h, rows, columns)
            return F.conv2d(h, weight.flip(2, 3), stride=down, padding=both, groups=channels).to(x.dtype)
        windows = [_window(x.shape[a + 2], taps.shape[a], up[a], pad[a]) for a in (0, 1)]
        both = tuple(max(-max(axis), 0) for axis in windows)
        rows, columns = (_shifted(axis, common) for axis, common in zip(windows, both, strict=True))
        full = F.conv_transpose2d(h, weight, stride=up, padding=both, groups=channels)
        return _padded(full, rows, columns)[:, :, :: down[0], :: down[1]].to(x.dtype)


def _window(n: int, taps: int, up: int, pad: Pair) -> Pair:
    """What to add (negative: to crop) before and after the full convolution of ``n`` values along one axis."""
    before = pad[0] - (taps - 1)
    size = n * up + pad[0] + pad[1] - taps + 1
    full = (n - 1) * up + taps
    return before, size - full - before


def _shifted(axis: Pair, by: int) -> Pair:
    return axis[0] + by, axis[1] + by


def _padded(x: Tensor, rows: Pair, columns: Pair) -> Tensor:
    return F.pad(x, (*columns, *rows)) if any((*rows, *columns)) else x


def upsample_2d(x: Tensor, kernel: Kernel = None, factor: int = 2, gain: float = 1.0) -> Tensor:
    """``x`` ``[B, C, H, W]`` at ``factor`` times the size, filtered by ``kernel`` (None: box)."""
    k = _finished(x, kernel, factor) * (gain * factor**2)
    p = k.shape[0] - factor
    pad = ((p + 1) // 2 + factor - 1, p // 2)
    return upfirdn_2d(x, k, up=(factor, factor), pad=(pad, pad))


def downsample_2d(x: Tensor, kernel: Kernel = None, factor: int = 2, gain: float = 1.0) -> Tensor:
    """``x`` ``[B, C, H, W]`` filtered by ``kernel`` (None: box), every ``factor``-th sample kept."""
    k = _finished(x, kernel, factor) * gain
    p = k.shape[0] - factor
    pad = ((p + 1) // 2, p // 2)
    return upfirdn_2d(x, k, down=(factor, factor), pad=(pad, pad))


def conv_downsample_2d(
    x: Tensor, w: Tensor, kernel: Kernel = None, factor: int = 2, gain: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """Filter ``x``, then correlate with ``w`` ``[Cout, Cin, K, K]`` at stride ``factor``, no further padding."""
    k = _finished(x, kernel, factor) * gain
    p = (k.shape[0] - factor) + (w.shape[2] - 1)
    pad = ((p + 1) // 2, p // 2)
    return F.conv2d(upfirdn_2d(x, k, pad=(pad, pad)), w, bias, stride=factor)


def upsample_conv_2d(
    x: Tensor, w: Tensor, kernel: Kernel = None, factor: int = 2, gain: float = 1.0, bias: Tensor | None = None
) -> Tensor:
    """Correlate ``x``, zeros inserted, with ``w`` ``[Cout, Cin, K, K]``, then the FIR filter, then ``bias``."""
    k = _finished(x, kernel, factor) * (gain * factor**2)
    p = (k.shape[0] - factor) - (w.shape[2] - 1)
    pad = ((p + 1) // 2 + factor - 1, p // 2 + 1)
    # A transposed convolution convolves: the flip makes it the correlation.
    spread = F.conv_transpose2d(x, w.flip(2, 3).transpose(0, 1), stride=factor)
    h = upfirdn_2d(spread, k, pad=(pad, pad))
    return h if bias is None else h + bias.to(h.dtype)[:, None, None]


def naive_upsample_2d(x: Tensor, factor: int = 2) -> Tensor:
    """Nearest neighbour: every sample of ``[B, C, H, W]`` repeated ``factor`` times along H and W."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


def naive_downsample_2d(x: Tensor, factor: int = 2) -> Tensor:
    """Mean of each ``factor x factor`` square of ``[B, C, H, W]`` (sides divisible by ``factor``)."""
    return F.avg_pool2d(x, factor)
