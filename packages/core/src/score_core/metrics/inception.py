"""Inception score (Salimans et al. 2016): are the classes certain one by one, and varied together?

    p_i = softmax(logits_i),   p = mean_i p_i
    IS  = exp( mean_i KL(p_i | p) ) = exp( mean_i sum_k p_ik log p_ik  -  sum_k p_k log p_k )

between 1 and the number of classes. The second form needs only two running sums, so the probabilities of 50,000 x 1008
logits are never all in memory. All in float64.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from score_core.metrics.validation import MetricError, check_matrix

__all__ = ["inception_score"]

BLOCK_ROWS = 4096


def inception_score(logits: Any, splits: int = 1) -> tuple[float, float]:
    """Inception score of logits [n, K] (all K columns are used).

    Arguments:
        logits: [n, K], unnormalised log-probabilities, any floating dtype.
        splits: number of consecutive, nearly equal parts scored one by one. 1 is TF-GAN's and the published protocol
            of the SDE papers; older tables use 10, which gives lower values.

    Returns:
        (mean, standard deviation over n of the parts' scores); the deviation is NaN with one part, which has none.

    Raises:
        MetricError: NaN or infinity, not a floating-point matrix, fewer than 2 rows in a part.
    """
    array = check_matrix("logits", logits)
    n = len(array)
    if splits < 1 or n < 2 * splits:
        raise MetricError(f"inception score: {n} rows in {splits} splits; needs at least 1 split and 2 rows in each")
    bounds = [n * k // splits for k in range(splits + 1)]
    scores = [_score(array[start:stop]) for start, stop in pairwise(bounds)]
    return float(np.mean(scores)), float(np.std(scores)) if splits > 1 else float("nan")


def _score(logits: np.ndarray) -> float:
    total = np.zeros(logits.shape[1])
    negative_entropy = 0.0
    for start in range(0, len(logits), BLOCK_ROWS):
        block = logits[start : start + BLOCK_ROWS].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        log_p = block - np.log(np.exp(block).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        total += p.sum(axis=0)
        negative_entropy += float((p * log_p).sum())
    marginal = total / len(logits)
    used = marginal[marginal > 0]  # 0 log 0 = 0
    return float(np.exp(negative_entropy / len(logits) - (used * np.log(used)).sum()))
