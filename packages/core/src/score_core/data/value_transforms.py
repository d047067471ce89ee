r"""What NCSN and NCSNv2 do to pixel values before the network sees them, and the inverse for samples.

In this order, each if asked for, on :math:`x \in [0, 1]`:

    uniform dequantisation      x <- (255 x + u) / 256,          u ~ U[0, 1)
    Gaussian dequantisation     x <- x + 0.01 z,                 z ~ N(0, 1)
    rescaling                   x <- 2 x - 1
    logit (unless rescaled)     x <- log v - log(1 - v),         v = 10^-6 + (1 - 2 10^-6) x
    mean                        x <- x - image_mean

Everything is pure: random numbers are arguments. Arrays of any library, any shape.
"""

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from score_core.data.scalers import dequantize, get_data_inverse_scaler, get_data_scaler

__all__ = ["ValueTransform", "logit", "sigmoid"]

GAUSSIAN_STD = 0.01
_MARGIN = 1e-6


def logit(x: Any) -> Any:
    """The logit of ``x`` in [0, 1], which is moved into the open interval first; NaN outside."""
    xp = array_namespace(x)
    v = _MARGIN + (1 - 2 * _MARGIN) * x
    return xp.log(v) - xp.log1p(-v)


def sigmoid(y: Any) -> Any:
    """The inverse of :func:`logit` without its margin, as in both programs: values in (0, 1)."""
    xp = array_namespace(y)
    # with exp of a number that is never positive, so that nothing overflows
    e = xp.exp(-xp.abs(y))
    return xp.where(y >= 0, 1 / (1 + e), e / (1 + e))


@dataclass(frozen=True)
class ValueTransform:
    """The transform that a ``data`` section asks for."""

    uniform_dequantization: bool = False
    gaussian_dequantization: bool = False
    rescaled: bool = False
    logit_transform: bool = False
    image_mean: Any = None
    """An image ``[C, H, W]`` to subtract, or None."""

    def __call__(self, x: Any, u: Any = None, z: Any = None) -> Any:
        """Values as the network takes them.

        Arguments:
            x: images in [0, 1].
            u, z: uniform and standard normal numbers of their shape, where dequantisation asks for them.
        """
        if self.uniform_dequantization:
            x = dequantize(x, u)
        if self.gaussian_dequantization:
            x = x + GAUSSIAN_STD * z
        # parity: asked for both, the transform rescales and the inverse is that of the logit
        if self.rescaled:
            x = get_data_scaler(True)(x)
        elif self.logit_transform:
            x = logit(x)
        return x if self.image_mean is None else x - self.image_mean

    def inverse(self, y: Any) -> Any:
        """Images in [0, 1] from network values; dequantisation is not undone, the result is clipped."""
        if self.image_mean is not None:
            y = y + self.image_mean
        if self.logit_transform:
            y = sigmoid(y)
        elif self.rescaled:
            y = get_data_inverse_scaler(True)(y)
        xp = array_namespace(y)
        return xp.clip(y, 0.0, 1.0)
