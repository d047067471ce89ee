"""The largest Euclidean distance between two images, exactly: technique 1 of NCSNv2 makes it the largest noise scale.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y                      x, y: bytes minus 128, whole numbers in -128 .. 127

Inner products come from matrix products of float32, which are exact here: 1024 products of two such numbers sum to at
most 2^24, the last whole number up to which float32 has all of them. So the dimensions are taken 1024 at a time, and
the pieces are added in float64. Of the images sorted by their distance r from the mean image only those pairs of blocks
are multiplied for which r_i + r_j, a bound by the triangle inequality, exceeds the best distance so far.
"""

import math
from typing import NamedTuple

import numpy as np

__all__ = ["FarthestPair", "max_pairwise_distance"]

_CHUNK = 1024
_NUMBERS = 1 << 23
"""Numbers that are held at once when means are taken."""


class FarthestPair(NamedTuple):
    """Two images and their distance."""

    distance: float
    """Euclidean, of images in [0, 1]."""
    first: int
    second: int


def _radii(images: np.ndarray) -> np.ndarray:
    """Distance of each row from the mean row, on the scale of bytes: float64 [n]."""
    rows = max(1, _NUMBERS // images.shape[1])
    parts = [images[a : a + rows] for a in range(0, len(images), rows)]
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(images)
    return np.concatenate([np.linalg.norm(part - mean, axis=1) for part in parts])


def _centred(images: np.ndarray, rows: np.ndarray, columns: slice) -> np.ndarray:
    return images[rows, columns].astype(np.float32) - np.float32(128)


def _squared_norms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    total = np.zeros(len(rows))
    for c in range(0, images.shape[1], _CHUNK):
        x = _centred(images, rows, slice(c, c + _CHUNK))
        total += np.einsum("ij,ij->i", x, x, dtype=np.float64)
    return total


def _farthest_of_blocks(images: np.ndarray, rows: np.ndarray, others: np.ndarray) -> tuple[float, int, int]:
    """Largest squared distance between an image of ``rows`` and one of ``others``, and the two."""
    products = np.zeros((len(rows), len(others)))
    for c in range(0, images.shape[1], _CHUNK):
        columns = slice(c, c + _CHUNK)
        products += _centred(images, rows, columns) @ _centred(images, others, columns).T
    squared = _squared_norms(images, rows)[:, None] + _squared_norms(images, others) - 2 * products
    i, j = np.unravel_index(np.argmax(squared), squared.shape)
    return float(squared[i, j]), int(rows[i]), int(others[j])


def max_pairwise_distance(images: np.ndarray, *, block: int = 1024, progress: bool = False) -> FarthestPair:
    """The largest distance between two of ``images`` (NCSNv2, technique 1: sigma_1 is chosen as large as this).

    Arguments:
        images: uint8 [n, ...], n >= 2; may lie in a memory-mapped file.
        block: images in a block; the memory needed beside the images is about ``28 block^2`` bytes, or 130 MB if that
            is more.
        progress: show a progress bar when standard error is a terminal.

    Returns:
        The distance, exact up to the rounding of one square root, and two images that have it (others may, too).

    Raises:
        ValueError: not uint8, or fewer than two images.
    """
    if images.dtype != np.uint8 or len(images) < 2:
        raise ValueError(f"expected at least 2 images of uint8, found {len(images)} of {images.dtype}")
    from tqdm import tqdm

    images = images.reshape(len(images), -1)
    radii = _radii(images)
    order = np.argsort(-radii, kind="stable")
    blocks = [order[a : a + block] for a in range(0, len(order), block)]
    best = (-1.0, 0, 0)
    with tqdm(total=len(blocks) * (len(blocks) + 1) // 2, desc="pairs", disable=None if progress else True) as bar:
        for number, rows in enumerate(blocks):
            for later in range(number, len(blocks)):
                others = blocks[later]
                # A little more than the bound, for the rounding of the radii. Radii only fall: so do later bounds.
                if (radii[rows[0]] + radii[others[0]]) ** 2 * (1 + 1e-9) <= best[0]:
                    bar.update(len(blocks) - later)
                    break
                best = max(best, _farthest_of_blocks(images, rows, others), key=lambda found: found[0])
                bar.update()
    return FarthestPair(math.sqrt(best[0]) / 255, best[1], best[2])
