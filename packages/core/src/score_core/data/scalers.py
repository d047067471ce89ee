"""From bytes to network input and back.

    to_float:    x = k / 255                               k = 0..255, x in [0, 1]
    dequantize:  x = (u + 255 x) / 256,  u ~ U[0, 1)        uniform dequantisation, the same density per grey level
    centred:     y = 2x - 1,  x = (y + 1) / 2               network range [-1, 1]; otherwise y = x

All are pure and take arrays of any library.
"""

from collections.abc import Callable
from typing import Any

from array_api_compat import array_namespace

__all__ = ["dequantize", "get_data_inverse_scaler", "get_data_scaler", "to_float"]


def to_float(image: Any) -> Any:
    """uint8 images as float32 in [0, 1], any shape."""
    xp = array_namespace(image)
    # parity: TensorFlow multiplies by float32(1/255), which differs from a division in the last bit for half the bytes.
    return image * xp.asarray(1 / 255, dtype=xp.float32)


def dequantize(image: Any, u: Any) -> Any:
    """Uniform dequantisation ``(u + 255 image) / 256`` (score SDE, section 4.3).

    Arguments:
        image: float, any shape, multiples of 1/255 in [0, 1].
        u: uniform on [0, 1), same shape.

    Returns:
        Values in [0, 1), same shape.
    """
    return (u + 255.0 * image) / 256.0


def _centre(x: Any) -> Any:
    return x * 2.0 - 1.0


def _uncentre(y: Any) -> Any:
    return (y + 1.0) / 2.0


def _same(x: Any) -> Any:
    return x


def get_data_scaler(centered: bool) -> Callable[[Any], Any]:
    """The map from [0, 1] to the network's range: [-1, 1] if ``centered``, else [0, 1]."""
    return _centre if centered else _same


def get_data_inverse_scaler(centered: bool) -> Callable[[Any], Any]:
    """The inverse of :func:`get_data_scaler`."""
    return _uncentre if centered else _same
