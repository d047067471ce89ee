"""Kernel distance (KID; Binkowski et al. 2018): unbiased squared maximum mean discrepancy with a cubic kernel.

    k(x, y) = (x . y / D + 1)^3

For m reference rows r and n generated rows g:

    MMD^2 = sum_{i != j} k(r_i, r_j) / (m (m-1)) + sum_{i != j} k(g_i, g_j) / (n (n-1)) - 2 mean_ij k(r_i, g_j)

whose expectation is 0 when both follow one distribution (a single value may be negative). The cost is quadratic, so
both sets are cut, in their order, into b = ceil(max(n_1, n_2) / max_block_size) consecutive blocks of nearly equal size
(the larger ones last, as TF-GAN cuts), and the estimates of the b pairs of blocks are averaged. Float64.
"""

import math
from typing import Any

import numpy as np

from score_core.metrics.validation import MetricError, check_matrix

__all__ = ["kernel_distance", "number_of_blocks"]


def number_of_blocks(count_1: int, count_2: int, max_block_size: int = 1024) -> int:
    """b for sets of these sizes; 0 if the smaller set has fewer than the 2 rows each block needs."""
    blocks = math.ceil(max(count_1, count_2) / max_block_size)
    return blocks if min(count_1, count_2) >= 2 * blocks else 0


def kernel_distance(reference: Any, samples: Any, max_block_size: int = 1024) -> tuple[float, float]:
    """Kernel distance of two sets of activations, symmetric in its arguments.

    Shuffle beforehand if the rows are ordered (by class, say): blocks are consecutive.

    Arguments:
        reference: activations [n_1, D].
        samples: activations [n_2, D].
        max_block_size: largest number of rows of a block.

    Returns:
        (mean over blocks, its standard error: the blocks' sample deviation / sqrt(b)); with one block the standard
        error is NaN, one value having no spread.

    Raises:
        MetricError: NaN or infinity, not floating-point matrices, different D, a block with fewer than 2 rows.
    """
    a = check_matrix("reference activations", reference)
    b = check_matrix("sample activations", samples, columns=a.shape[1])
    if max_block_size < 2:
        raise MetricError(f"kernel distance: max_block_size {max_block_size}, at least 2 rows make a block")
    blocks = number_of_blocks(len(a), len(b), max_block_size)
    if blocks == 0:
        raise MetricError(
            f"kernel distance: {len(a)} reference and {len(b)} sample rows in blocks of at most {max_block_size} leave "
            "fewer than 2 rows of the smaller set for each block; use sets of similar size or larger blocks"
        )
    pairs = zip(_cut(a, blocks), _cut(b, blocks), strict=True)
    estimates = np.array([_squared_mmd(r.astype(np.float64), g.astype(np.float64)) for r, g in pairs])
    error = float(estimates.std(ddof=1) / math.sqrt(blocks)) if blocks > 1 else float("nan")
    return float(estimates.mean()), error


def _cut(rows: np.ndarray, blocks: int) -> list[np.ndarray]:
    size, larger = divmod(len(rows), blocks)
    sizes = [size] * (blocks - larger) + [size + 1] * larger
    return np.split(rows, np.cumsum(sizes)[:-1])


def _squared_mmd(r: np.ndarray, g: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        k = x @ y.T / x.shape[1] + 1
        return k * k * k  # an integer power through `**` is many times slower

    def off_diagonal_mean(k: np.ndarray) -> float:
        return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))

    return float(off_diagonal_mean(kernel(r, r)) + off_diagonal_mean(kernel(g, g)) - 2 * kernel(r, g).mean())
