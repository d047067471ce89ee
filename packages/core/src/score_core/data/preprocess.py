"""Image operations of the originals as pure functions on numpy arrays ``[..., H, W, C]``.

Resizing along one axis from ``n`` to ``m`` pixels is a weighted mean with a kernel ``k`` of radius ``r`` (the centre of
pixel ``i`` is at ``i + 1/2``, TensorFlow 2's convention):

    s = n / m,   a = max(s, 1)                       a > 1: the kernel is widened when shrinking (antialiasing)
    c_j = (j + 1/2) s                                centre of output pixel j on the input axis
    w_ji = k((i + 1/2 - c_j) / a),   |i + 1/2 - c_j| <= r a
    y_j = sum_i w_ji x_i / sum_i w_ji

    bilinear: k(u) = max(1 - |u|, 0), r = 1
    bicubic:  Keys' cubic with a = -1/2, r = 2

The vertical axis goes first, weights and sums are float32 and terms are added in the order of ``i``, as in TensorFlow,
so that the truncating cast of :func:`crop_resize` gives the same bytes.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from score_core.data.errors import DataError

__all__ = [
    "central_crop",
    "crop_resize",
    "crop_square",
    "resize",
    "resize_bytes",
    "resize_small",
    "resize_square",
    "round_to_bytes",
    "to_channels",
]

Method = Literal["bilinear", "bicubic"]


def _triangle(u: np.ndarray) -> np.ndarray:
    return np.maximum(np.float32(1) - np.abs(u), np.float32(0))


def _keys_cubic(u: np.ndarray) -> np.ndarray:
    u = np.abs(u)
    near = (1.5 * u - 2.5) * u * u + 1
    far = ((-0.5 * u + 2.5) * u - 4) * u + 2
    return np.where(u <= 1, near, np.where(u < 2, far, np.float32(0)))


_KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bilinear": (_triangle, 1.0),
    "bicubic": (_keys_cubic, 2.0),
}


def _taps(n_in: int, n_out: int, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """Input pixels (int64) and weights (float32, rows sum to 1) of each output pixel, both [n_out, taps]."""
    kernel, radius = _KERNELS[method]
    one, half = np.float32(1), np.float32(0.5)
    step = one / (np.float32(n_out) / np.float32(n_in))
    stretch = np.maximum(step, one)
    reach = np.float32(radius) * stretch
    centre = (np.arange(n_out, dtype=np.float32) + half) * step
    first = np.clip(np.ceil(centre - reach - half).astype(np.int64), 0, n_in - 1)
    last = np.clip(np.floor(centre + reach - half).astype(np.int64), 0, n_in - 1)
    pixel = first[:, None] + np.arange((last - first).max() + 1)
    weight = kernel((pixel.astype(np.float32) + half - centre[:, None]) * (one / stretch))
    weight = np.where(pixel <= last[:, None], weight, np.float32(0))
    total = np.cumsum(weight, axis=1)[:, -1:]
    return np.minimum(pixel, n_in - 1), weight * (one / total)


def _resize_axis(image: np.ndarray, axis: int, n_out: int, method: Method) -> np.ndarray:
    pixel, weight = _taps(image.shape[axis], n_out, method)
    shape = [1] * image.ndim
    shape[axis] = n_out
    total = weight[:, 0].reshape(shape) * np.take(image, pixel[:, 0], axis)
    for k in range(1, pixel.shape[1]):
        total += weight[:, k].reshape(shape) * np.take(image, pixel[:, k], axis)
    return total


def resize(image: np.ndarray, height: int, width: int, method: Method = "bilinear") -> np.ndarray:
    """Antialiased resize, equal to ``tf.image.resize(image, [height, width], method, antialias=True)``.

    Arguments:
        image: [..., H, W, C], any real type and range.
        height, width: the wanted size in pixels, at least 1.
        method: ``bilinear`` or ``bicubic`` (which may overshoot the range of its input).

    Returns:
        float32 [..., height, width, C] in the range of the input.
    """
    image = image.astype(np.float32)
    if image.shape[-3:-1] == (height, width):
        return image
    return _resize_axis(_resize_axis(image, -3, height, method), -2, width, method)


def resize_small(image: np.ndarray, size: int) -> np.ndarray:
    """Bilinear resize to float32 so that the shorter side has ``size`` pixels and the aspect ratio is kept.

    The original's helper stops with a TypeError inside a dataset (quirk 13); its evident intention is done here.
    """
    height, width = image.shape[-3:-1]
    ratio = size / min(height, width)
    return resize(image, round(height * ratio), round(width * ratio), "bilinear")


def central_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central [..., size, size, C] of ``image`` with offsets ``(dim - size) // 2``; a view.

    Raises:
        DataError: an image side is shorter than ``size``.
    """
    height, width = image.shape[-3:-1]
    if min(height, width) < size:
        raise DataError(
            f"cannot crop {size}x{size} from an image of {height}x{width}; expected sides of at least {size}."
        )
    top, left = (height - size) // 2, (width - size) // 2
    return image[..., top : top + size, left : left + size, :]


def crop_square(image: np.ndarray) -> np.ndarray:
    """The largest central square of ``image``; a view."""
    return central_crop(image, min(image.shape[-3:-1]))


def crop_resize(image: np.ndarray, size: int) -> np.ndarray:
    """The originals' LSUN operation: central square, bicubic resize on 0..255, truncation to uint8.

    Arguments:
        image: uint8 [..., H, W, C].

    Returns:
        uint8 [..., size, size, C].
    """
    # parity: truncation (no rounding) darkens by half a grey level and is part of the published data. The original's
    # cast of values outside 0..255 depends on the platform; they are clipped here.
    return np.clip(resize(crop_square(image), size, size, "bicubic"), 0, 255).astype(np.uint8)


def round_to_bytes(image: np.ndarray) -> np.ndarray:
    """Nearest uint8 of values on the scale 0..255; out-of-range values are clipped."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def resize_bytes(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [..., H, W, C] to uint8 [..., size, size, C]: bilinear resize to the square, then rounding.

    The originals treat CIFAR-10 and SVHN so at sizes other than their own, but keep the fractions of a grey level.
    """
    return round_to_bytes(resize(image, size, size, "bilinear"))


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [..., H, W, C] to uint8 [..., size, size, C]: central square, bicubic resize, rounding (own images)."""
    return round_to_bytes(resize(crop_square(image), size, size, "bicubic"))


def to_channels(image: np.ndarray, num_channels: int) -> np.ndarray:
    """uint8 [..., H, W, c] with ``num_channels`` channels: grey is repeated, colour becomes luma (ITU-R BT.601).

    Raises:
        DataError: any other change of the number of channels.
    """
    found = image.shape[-1]
    if found == num_channels:
        return image
    if found == 1:
        return np.repeat(image, num_channels, axis=-1)
    if found == 3 and num_channels == 1:
        # Pillow's fixed-point weights, so that decoding to grey and converting later agree.
        luma = image.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32) + 0x8000
        return (luma >> 16).astype(np.uint8)[..., None]
    raise DataError(
        f"images with {found} channels cannot be served with num_channels={num_channels}; expected {found}"
        f"{' or 1' if found == 3 else ''}. Cure: --config.data.num_channels={found}."
    )
