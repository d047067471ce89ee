"""Frechet distance between the Gaussians fitted to two sets of activations (FID; Heusel et al. 2017, eq. 6).

    d(1, 2) = |m_1 - m_2|^2 + Tr C_1 + Tr C_2 - 2 Tr (C_1 C_2)^{1/2}

C_1 C_2 is not symmetric, but has the eigenvalues of the symmetric C_1^{1/2} C_2 C_1^{1/2}. With C_1 = U diag(w) U^T
and F = U diag(w)^{1/2} these are the eigenvalues v of F^T C_2 F (the same matrix turned by U), hence

    Tr (C_1 C_2)^{1/2} = sum_i v_i^{1/2}

Two symmetric eigenvalue problems instead of the root of a general matrix: exact for singular covariances (fewer samples
than features), real by construction and faster (``benchmarks/frechet_sqrt.py``). All in float64.
"""

from typing import Any

import numpy as np

from score_core.metrics.streaming import StreamingMoments, moments
from score_core.metrics.validation import MetricError, check_matrix, check_moments

__all__ = ["FrechetReference", "frechet_distance", "frechet_distance_from_activations", "frechet_standard_error"]

UNROOTED_BELOW = 1e-10
NEGATIVE_TOLERANCE = 1e-5  # relative: what float32 storage does to the zero eigenvalues of a singular covariance


class FrechetReference:
    """One side of the distance, its root computed once; :meth:`distance` is then one eigenvalue problem.

    Arguments:
        mean: m_1 [D].
        cov: C_1 [D, D], symmetric positive semi-definite.
    """

    def __init__(self, mean: Any, cov: Any) -> None:
        self.mean, self.cov = check_moments("reference moments", mean, cov)
        w, u = np.linalg.eigh(self.cov)
        _check_semidefinite("reference moments", w, scale=abs(w[-1]))
        self._largest = w[-1]
        self._factor = u * _root(w)

    def distance(self, mean: Any, cov: Any) -> float:
        """The Frechet distance to the Gaussian with mean [D] and covariance [D, D]."""
        mean, cov = check_moments("sample moments", mean, cov)
        if mean.size != self.mean.size:
            raise MetricError(
                f"Frechet distance: {self.mean.size} reference features, {mean.size} sample features; "
                "both sets must come from the same extractor"
            )
        product = self._factor.T @ cov @ self._factor
        v = np.linalg.eigvalsh((product + product.T) / 2)
        _check_semidefinite("sample moments", v, scale=self._largest * np.trace(cov))
        difference = self.mean - mean
        return float(difference @ difference + np.trace(self.cov) + np.trace(cov) - 2 * _root(v).sum())


def frechet_distance(mean_1: Any, cov_1: Any, mean_2: Any, cov_2: Any) -> float:
    """Frechet distance between two Gaussians; the argument order (reference, samples) does not change the value.

    Arguments:
        mean_1: [D]. cov_1: [D, D].
        mean_2: [D]. cov_2: [D, D].

    Returns:
        The distance (squared units of the activations); may be of the order -1e-13 * trace for equal arguments.

    Raises:
        MetricError: shapes, dtypes, NaN or infinity, or a matrix that is no covariance.
    """
    return FrechetReference(mean_1, cov_1).distance(mean_2, cov_2)


def frechet_distance_from_activations(reference: Any, samples: Any) -> float:
    """Frechet distance between activations [n_1, D] and [n_2, D], n >= 2, covariances over n - 1."""
    reference = check_matrix("reference activations", reference)
    samples = check_matrix("sample activations", samples, columns=reference.shape[1])
    return frechet_distance(*moments(reference), *moments(samples))


def frechet_standard_error(reference: FrechetReference, samples: Any, *, groups: int = 10, seed: int = 0) -> float:
    """Standard error of the Frechet distance from the finite number of samples: a delete-one-group jackknife.

    The n samples are shuffled (fixed seed) into g groups; theta_k is the distance without group k:

        se^2 = (g - 1)/g sum_k (theta_k - mean theta)^2

    The spread over disjoint g-ths would be wrong here: the distance is biased upwards by a term of order 1/n, which is
    g times larger for each part; with one group left out every theta_k has nearly the bias of the whole set, and the
    bias drops out of the difference. The reference counts as fixed. With g = 10 the error itself is known to about a
    quarter. Costs one pass over the samples and g eigenvalue problems.

    Arguments:
        reference: the other side.
        samples: activations [n, D], n >= 3 g (so that a group has a spread of its own).
        groups: g >= 2.
        seed: of the shuffle; the default gives every user the same number.
    """
    samples = check_matrix("sample activations", samples, columns=reference.mean.size)
    if groups < 2 or len(samples) < 3 * groups:
        raise MetricError(
            f"Frechet standard error: {len(samples)} samples in {groups} groups; "
            "needs at least 2 groups and 3 samples in each"
        )
    parts = np.array_split(np.random.default_rng(seed).permutation(len(samples)), groups)
    states = [StreamingMoments(reference.mean.size).update(samples[part]) for part in parts]
    total = StreamingMoments(reference.mean.size)
    for state in states:
        total.merge(state)
    left_out = (total.without(state) for state in states)
    theta = np.array([reference.distance(rest.mean, rest.cov) for rest in left_out])
    return float(np.sqrt((groups - 1) * theta.var()))


def _root(eigenvalues: np.ndarray) -> np.ndarray:
    # parity: TF-GAN leaves singular values below 1e-10 un-rooted. Zero eigenvalues come out of the solver as +-1e-16
    # and would add 1e-8 each once rooted; published numbers do not have them.
    return np.where(eigenvalues < UNROOTED_BELOW, eigenvalues, np.sqrt(np.maximum(eigenvalues, 0)))


def _check_semidefinite(name: str, eigenvalues: np.ndarray, scale: float) -> None:
    """``scale``: the size eigenvalues can have, which the product of two covariances need not come near."""
    if eigenvalues[0] < -NEGATIVE_TOLERANCE * scale:
        raise MetricError(
            f"{name}: found the eigenvalue {eigenvalues[0]:.3g}, expected none below zero (scale {scale:.3g}); "
            "this is not a covariance, compute it with score_core.metrics.moments"
        )
