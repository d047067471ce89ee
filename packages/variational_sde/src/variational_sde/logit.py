"""Images in [0, 1] to the real line and back: s = alpha + (1 - 2 alpha) x, y = log s - log(1 - s).

Log-determinant of the map, summed over an image: sum of -log(s - s^2) + log(1 - 2 alpha). Arrays ``[B, ...]`` of NumPy,
JAX or PyTorch.
"""

import math
from dataclasses import dataclass

from score_core.arrays import Array, namespace, sum_dims

__all__ = ["LogitTransform", "dequantise"]


def dequantise(images: Array, u: Array) -> Array:
    """8-bit images with uniform noise, in [0, 1).

    Arguments:
        images: whole numbers 0..255 as float32, ``[B, ...]``.
        u: uniform in [0, 1), of the same shape.
    """
    # parity: through [0, 1], as torchvision serves images; (images + u) / 256 differs in the last bit
    return images / 255 * 255 / 256 + u / 256


@dataclass(frozen=True)
class LogitTransform:
    """The transform; without a log-density only the transformed value is returned."""

    alpha: float = 0.05

    def __str__(self) -> str:
        return f"LogitTransform({self.alpha})"

    def _log_det(self, s: Array) -> Array:
        xp = namespace(s)
        return sum_dims(-xp.log(s - s**2) + math.log(1 - 2 * self.alpha))

    def forward(self, x: Array) -> Array:
        """Real numbers of images in [0, 1]."""
        xp = namespace(x)
        s = self.alpha + (1 - 2 * self.alpha) * x
        return xp.log(s) - xp.log(1 - s)

    def log_det(self, x: Array) -> Array:
        """The log-determinant at ``x`` in [0, 1], ``[B]``: log p(x) = log p(forward(x)) + log_det(x)."""
        return self._log_det(self.alpha + (1 - 2 * self.alpha) * x)

    def inverse(self, y: Array) -> Array:
        """Images of real numbers; up to alpha / (1 - 2 alpha) outside [0, 1]."""
        xp = namespace(y)
        return (1 / (1 + xp.exp(-y)) - self.alpha) / (1 - 2 * self.alpha)
