"""Samples as files: bytes for arrays, a grid for the eye.

array:  k = floor(clip(255 x, 0, 255))
grid:   k = floor(clip(255 x + 1/2, 0, 255)), images row by row, `nrow` to a row, `padding` pixels around each
"""

import math
import os
from pathlib import Path

import numpy as np

__all__ = ["image_grid", "save_png", "to_uint8"]


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Samples in [0, 1] (any shape) as uint8, the form in which the originals store and score them."""
    # parity: truncation without +1/2 is what the published scores were computed on.
    return _truncate(np.asarray(image) * 255.0)


def _truncate(value: np.ndarray) -> np.ndarray:
    # The cast of NaN (a diverged sample) is undefined in C; black is as good as any and the same everywhere.
    return np.clip(np.nan_to_num(value, nan=0.0), 0, 255).astype(np.uint8)


def image_grid(images: np.ndarray, nrow: int | None = None, padding: int = 2) -> np.ndarray:
    """One picture of a batch.

    Arguments:
        images: [n, H, W, C], float in [0, 1] (clipped) or uint8 (taken as they are). One channel is shown as grey; of
            more than three the first three are shown; the third of two is black.
        nrow: images in a row; default ``int(sqrt(n))``.
        padding: black pixels between images and around them.

    Returns:
        uint8 [(H + padding) * ceil(n / nrow) + padding, (W + padding) * nrow + padding, 3].

    Raises:
        ValueError: no images, or an array that is not [n, H, W, C].
    """
    images = np.asarray(images)
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"a grid needs images of shape [n, H, W, C] with n >= 1, found shape {images.shape}")
    if images.dtype != np.uint8:
        images = _truncate(images * 255.0 + 0.5)
    n, height, width, channels = images.shape
    if channels == 1:
        images = np.repeat(images, 3, axis=-1)
    elif channels == 2:
        images = np.concatenate([images, np.zeros_like(images[..., :1])], axis=-1)
    nrow = math.isqrt(n) if nrow is None else nrow
    rows = -(-n // nrow)
    cells = np.zeros((rows * nrow, height + padding, width + padding, 3), np.uint8)
    cells[:n, padding:, padding:] = images[..., :3]
    table = cells.reshape(rows, nrow, *cells.shape[1:]).transpose(0, 2, 1, 3, 4)
    table = table.reshape(rows * (height + padding), nrow * (width + padding), 3)
    return np.pad(table, ((0, padding), (0, padding), (0, 0)))


def save_png(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] or [H, W, 1] as a PNG, through a temporary name so that no half file is ever seen."""
    from PIL import Image

    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(temporary, format="PNG")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
