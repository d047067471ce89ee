r"""Resampling of feature maps: FIR filters (StyleGAN2's ``upfirdn``) and the naive forms.

With ``u`` = up, ``d`` = down, a kernel ``k[i, j]`` of size ``K`` and pads ``p0, p1`` the filtered map is

    z[n]   = x[n / u] if u divides n else 0                     (u - 1 zeros after each sample)
    y[n]   = sum_i k[K - 1 - i] z[n + i - p0]                   (true convolution of the padded z)
    out[m] = y[d m]

written here for one axis; the two axes are treated alike. Nothing is multiplied by the inserted zeros: output
``n = u m + r`` meets only the samples ``x[m + (r + i - p0) / u]`` for which the division is exact, so each of the
``u^2`` phases is a sum of shifted copies of ``x``, and the phases are interleaved at the end. This is one fused pass
without temporaries, on a CPU one to two orders of magnitude faster than a grouped convolution
(``benchmarks/networks_jax.py``).

A one-dimensional kernel stands for its outer product; kernels are normalised to sum 1, times ``gain`` (and
``factor^2`` when upsampling, for the inserted zeros).

Reference: Karras et al., "Analyzing and improving the image quality of StyleGAN" (arXiv:1912.04958);
Zhang, "Making convolutional networks shift-invariant again" (arXiv:1904.11486).
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

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
Taps = tuple[tuple[float, ...], ...]
Kernel = Sequence[float] | np.ndarray | None
_NHWC = ("NHWC", "HWIO", "NHWC")


def fir_kernel_2d(kernel: Kernel, factor: int = 2) -> np.ndarray:
    """The 2-D kernel of sum 1 that ``kernel`` stands for, float32 ``[K, K]``.

    ``kernel``: 1-D (outer product taken), 2-D, or None for the box of ``factor`` ones.
    Raises ``ValueError`` for another number of dimensions.
    """
    taps = np.ones(factor, np.float32) if kernel is None else np.asarray(kernel, np.float32)
    if taps.ndim == 1:
        taps = np.outer(taps, taps)
    if taps.ndim != 2:
        raise ValueError(f"an FIR kernel has one or two dimensions, this one has {taps.ndim}: {kernel!r}")
    return taps / taps.sum()


@dataclasses.dataclass(frozen=True)
class _Axis:
    """Which samples of one axis meet which taps.

    ``size``: output length. ``count``: phases, ``up`` in lowest terms of ``up / down``. ``length``: outputs of each
    phase. ``stride``: step of the slices. ``taps[r]``: ``(tap, first sample)`` pairs of phase r. ``pad``: zeros before
    and after (negative: cropped).
    """

    size: int
    count: int
    length: int
    stride: int
    taps: list[list[Pair]]
    pad: Pair


def _axis(n: int, taps: int, up: int, down: int, pad: Pair) -> _Axis:
    """The plan of one axis of ``n`` samples; output ``m = count q + r`` reads ``x[stride q + offset]``."""
    size = (n * up + pad[0] + pad[1] - taps) // down + 1
    count = up // math.gcd(up, down)
    stride = down // math.gcd(up, down)
    length = -(-size // count)
    plan = [
        [(i, (down * r + i - pad[0]) // up) for i in range(taps) if (down * r + i - pad[0]) % up == 0]
        for r in range(count)
    ]
    offsets = [offset for phase in plan for _, offset in phase]
    before = -min(offsets, default=0)
    after = max(offsets, default=0) + stride * (length - 1) + 1 - n
    return _Axis(size, count, length, stride, [[(i, o + before) for i, o in phase] for phase in plan], (before, after))


def upfirdn_2d(
    x: jax.Array, kernel: np.ndarray, *, up: Pair = (1, 1), down: Pair = (1, 1), pad: tuple[Pair, Pair]
) -> jax.Array:
    """Insert zeros, pad, filter and subsample as in the module's formula.

    Arguments:
        x: ``[B, H, W, C]``.
        kernel: ``[Kh, Kw]``, used as it is (neither normalised nor scaled).
        up, down: factors for (H, W).
        pad: (before, after) for H and for W; negative values crop.

    Returns: ``[B, H', W', C]`` in ``x``'s type (summed in float32), ``H' = (H up + before + after - Kh) // down + 1``.
    """
    flipped = np.asarray(kernel, np.float32)[::-1, ::-1]
    return _upfirdn_2d(x, tuple(map(tuple, flipped.tolist())), up, down, pad)


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _upfirdn_2d(x: jax.Array, flipped: Taps, up: Pair, down: Pair, pad: tuple[Pair, Pair]) -> jax.Array:
    sizes = (len(flipped), len(flipped[0]))
    rows, columns = (_axis(x.shape[a + 1], sizes[a], up[a], down[a], pad[a]) for a in (0, 1))
    zero = jnp.zeros((), jnp.float32)
    padded = lax.pad(x.astype(jnp.float32), zero, ((0, 0, 0), (*rows.pad, 0), (*columns.pad, 0), (0, 0, 0)))
    phases = [
        jnp.stack([_phase(padded, flipped, rows, columns, r, c) for c in range(columns.count)], axis=3)
        for r in range(rows.count)
    ]
    shape = (x.shape[0], rows.count * rows.length, columns.count * columns.length, x.shape[3])
    return jnp.stack(phases, axis=2).reshape(shape)[:, : rows.size, : columns.size].astype(x.dtype)


def _phase(padded: jax.Array, flipped: Taps, rows: _Axis, columns: _Axis, r: int, c: int) -> jax.Array:
    """The outputs of phase (r, c): a weighted sum of shifted copies, zero where only inserted zeros are met."""
    terms = []
    for i, top in rows.taps[r]:
        for j, left in columns.taps[c]:
            bottom = top + rows.stride * (rows.length - 1) + 1
            right = left + columns.stride * (columns.length - 1) + 1
            shifted = padded[:, top : bottom : rows.stride, left : right : columns.stride]
            terms.append(flipped[i][j] * shifted)
    if not terms:
        return jnp.zeros((padded.shape[0], rows.length, columns.length, padded.shape[3]), jnp.float32)
    return functools.reduce(operator.add, terms)


def upsample_2d(x: jax.Array, kernel: Kernel = None, factor: int = 2, gain: float = 1.0) -> jax.Array:
    """``x`` ``[B, H, W, C]`` at ``factor`` times the size, filtered by ``kernel`` (None: box)."""
    k = fir_kernel_2d(kernel, factor) * (gain * factor**2)
    p = k.shape[0] - factor
    pad = ((p + 1) // 2 + factor - 1, p // 2)
    return upfirdn_2d(x, k, up=(factor, factor), pad=(pad, pad))


def downsample_2d(x: jax.Array, kernel: Kernel = None, factor: int = 2, gain: float = 1.0) -> jax.Array:
    """``x`` ``[B, H, W, C]`` filtered by ``kernel`` (None: box), every ``factor``-th sample kept."""
    k = fir_kernel_2d(kernel, factor) * gain
    p = k.shape[0] - factor
    pad = ((p + 1) // 2, p // 2)
    return upfirdn_2d(x, k, down=(factor, factor), pad=(pad, pad))


def conv_downsample_2d(
    x: jax.Array, w: jax.Array, kernel: Kernel = None, factor: int = 2, gain: float = 1.0
) -> jax.Array:
    """Filter ``x``, then correlate with ``w`` ``[K, K, Cin, Cout]`` at stride ``factor``, no further padding."""
    k = fir_kernel_2d(kernel, factor) * gain
    p = (k.shape[0] - factor) + (w.shape[0] - 1)
    pad = ((p + 1) // 2, p // 2)
    smooth = upfirdn_2d(x, k, pad=(pad, pad))
    return lax.conv_general_dilated(smooth, w, (factor, factor), "VALID", dimension_numbers=_NHWC)


def upsample_conv_2d(
    x: jax.Array, w: jax.Array, kernel: Kernel = None, factor: int = 2, gain: float = 1.0
) -> jax.Array:
    """Transposed convolution of ``x`` with ``w`` ``[K, K, Cin, Cout]`` at stride ``factor``, then the FIR filter."""
    k = fir_kernel_2d(kernel, factor) * (gain * factor**2)
    p = (k.shape[0] - factor) - (w.shape[0] - 1)
    pad = ((p + 1) // 2 + factor - 1, p // 2 + 1)
    return upfirdn_2d(_dilated_conv(x, w, factor), k, pad=(pad, pad))


def _dilated_conv(x: jax.Array, w: jax.Array, factor: int) -> jax.Array:
    """Put ``factor - 1`` zeros between samples, ``K - 1`` on each side, correlate with ``w``.

    Of ``(H - 1) factor + K`` rows, row ``n = factor m + r`` meets tap ``i = K - 1 + factor (q - T + 1) - r`` at sample
    ``m + q - T + 1`` for ``q < T``: all phases are output channels of one ordinary convolution with ``T x T`` taps.
    (The gradient of a convolution with dilated input is very slow on a CPU, ``benchmarks/networks_jax.py``.)
    """
    size, (cin, cout) = w.shape[0], w.shape[2:]
    taps = -(-(size - 1) // factor) + 1
    front = factor * taps - size
    w = jnp.pad(w, ((front, 0), (front, 0), (0, 0), (0, 0))).reshape(taps, factor, taps, factor, cin, cout)
    w = w[:, ::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5).reshape(taps, taps, cin, factor * factor * cout)
    height, width = ((n - 1) * factor + size for n in x.shape[1:3])
    pads = [(taps - 1, -(-out // factor) - n) for out, n in zip((height, width), x.shape[1:3], strict=True)]
    # Padded beforehand: XLA's CPU gradient of a convolution whose output is larger than its input is very slow.
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    phases = lax.conv_general_dilated(padded, w, (1, 1), "VALID", dimension_numbers=_NHWC)
    batch, rows, columns, _ = phases.shape
    grid = phases.reshape(batch, rows, columns, factor, factor, cout).transpose(0, 1, 3, 2, 4, 5)
    return grid.reshape(batch, rows * factor, columns * factor, cout)[:, :height, :width]


def naive_upsample_2d(x: jax.Array, factor: int = 2) -> jax.Array:
    """Nearest neighbour: every sample of ``[B, H, W, C]`` repeated ``factor`` times along H and W."""
    batch, height, width, channels = x.shape
    tiled = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, factor, width, factor, channels))
    return tiled.reshape(batch, height * factor, width * factor, channels)


def naive_downsample_2d(x: jax.Array, factor: int = 2) -> jax.Array:
    """Mean of each ``factor x factor`` square of ``[B, H, W, C]`` (sides divisible by ``factor``)."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // factor, factor, width // factor, factor, channels).mean(axis=(2, 4))
