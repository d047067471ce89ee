"""Mean and covariance of activations, in one pass and mergeable.

For n rows a_i in R^D the state is the triple

    n,    m = (1/n) sum_i a_i,    S = sum_i (a_i - m)(a_i - m)^T

Two triples combine exactly (Chan, Golub and LeVeque 1979), with delta = m_2 - m_1 and n = n_1 + n_2:

    m = m_1 + (n_2 / n) delta,    S = S_1 + S_2 + (n_1 n_2 / n) delta delta^T

S is a sum of centred products, so nothing cancels when the mean is large beside the spread. The covariance is
S / (n - 1). All of it is float64 whatever the activations are.
"""

from typing import Any, Self

import numpy as np

from score_core.metrics.validation import MetricError, check_matrix, check_moments

__all__ = ["StreamingMoments", "moments"]

BLOCK_ROWS = 4096  # rows converted to float64 at a time: 64 MB at D = 2048


class StreamingMoments:
    """Moments of a set of activations that arrives in batches, from several workers, in any order.

    Arguments:
        dim: D, the number of features.
    """

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise MetricError(f"moments: {dim} features, at least 1 is needed")
        self.dim = dim
        self.count = 0
        self._mean = np.zeros(dim)
        self._scatter = np.zeros((dim, dim))

    @classmethod
    def from_moments(cls, mean: Any, cov: Any, count: int) -> Self:
        """The state of ``count`` rows with this mean [D] and covariance [D, D] (over count - 1)."""
        mean, cov = check_moments("moments", mean, cov)
        if count < 2:
            raise MetricError(f"moments: count {count}, a covariance needs at least 2 rows")
        state = cls(mean.size)
        state.count, state._mean, state._scatter = count, mean, cov * (count - 1)
        return state

    def update(self, activations: Any) -> Self:
        """Take in activations [n, D], n >= 1 (any floating dtype). Returns self.

        Raises:
            MetricError: other D, NaN or infinity, not floating point; the state is then unchanged.
        """
        array = check_matrix("activations", activations, min_rows=1, columns=self.dim)
        for start in range(0, len(array), BLOCK_ROWS):
            block = array[start : start + BLOCK_ROWS].astype(np.float64)
            mean = block.mean(axis=0)
            block -= mean
            self._combine(len(block), mean, block.T @ block)
        return self

    def merge(self, other: "StreamingMoments") -> Self:
        """Take in everything ``other`` (same D) has seen. Returns self; ``other`` is unchanged."""
        if other.dim != self.dim:
            raise MetricError(f"moments: cannot merge {other.dim} features into {self.dim}; use one extractor")
        self._combine(other.count, other._mean, other._scatter)
        return self

    def without(self, part: "StreamingMoments") -> "StreamingMoments":
        """The state of the rows that are left when ``part``, a subset of the rows seen, is taken out.

        The formulas above solved for the second triple. Meant for small parts (a tenth, say): taking out nearly all
        rows would subtract nearly equal numbers.
        """
        if part.dim != self.dim or not 0 <= part.count < self.count:
            raise MetricError(
                f"moments: cannot take {part.count} rows of {part.dim} features out of {self.count} rows of {self.dim}"
            )
        rest = StreamingMoments(self.dim)
        rest.count = self.count - part.count
        rest._mean = self._mean + (part.count / rest.count) * (self._mean - part._mean)
        delta = part._mean - rest._mean
        rest._scatter = self._scatter - part._scatter
        rest._scatter -= (rest.count * part.count / self.count) * np.outer(delta, delta)
        # A feature that varies within the part only leaves a rounding error, of either sign.
        np.fill_diagonal(rest._scatter, np.maximum(rest._scatter.diagonal(), 0))
        return rest

    @property
    def mean(self) -> np.ndarray:
        """m [D], float64."""
        if self.count < 1:
            raise MetricError("moments: no activations seen yet; call update first")
        return self._mean.copy()

    @property
    def cov(self) -> np.ndarray:
        """S / (n - 1) [D, D], float64."""
        if self.count < 2:
            raise MetricError(f"moments: {self.count} row(s) seen, a covariance needs at least 2")
        return self._scatter / (self.count - 1)

    def _combine(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if count == 0:
            return
        total = self.count + count
        delta = mean - self._mean
        self._mean = self._mean + (count / total) * delta
        self._scatter = self._scatter + scatter + (self.count * count / total) * np.outer(delta, delta)
        self.count = total


def moments(activations: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D] and unbiased covariance [D, D] (over n - 1) of activations [n, D], both float64.

    Raises:
        MetricError: fewer than two rows, NaN or infinity, not a floating-point matrix.
    """
    array = check_matrix("activations", activations)
    state = StreamingMoments(array.shape[1]).update(array)
    return state.mean, state.cov
