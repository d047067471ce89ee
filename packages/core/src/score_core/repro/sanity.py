"""FID against the number of samples: as measured on parts of the samples at hand, and as expected.

The FID of n samples is biased upwards by a term of order 1/n (Chong and Forsyth 2020), so that

    FID(n) = FID_inf + c / n

once n is well above the number of features. FID_inf and c are fitted to disjoint parts of the samples; below the curve
lies a floor: as many images drawn from the reference's own (with replacement) against the reference, which is what a
model that reproduced its training data exactly would get.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from score_core.metrics import FrechetReference, Statistics, check_comparable, frechet_standard_error, moments
from score_core.metrics.evaluate import PUBLISHED_COUNT
from score_core.metrics.validation import MetricUsageError

__all__ = ["PUBLISHED_COUNT", "Curve", "Fit", "Point", "fid_curve", "fit_bias", "sample_counts"]

_GROUPS = 10  # of the jackknife
_SMALLEST = 3 * _GROUPS
_FITTED = 4  # the fit starts at a quarter of the samples

# FID by number of samples that users of NCSN++ (continuous, VE) on CIFAR-10 report for its released checkpoint.
REPORTED_CIFAR10 = {200: 100.0, 1000: 32.0, 3000: 11.0, 50_000: 2.46}


@dataclass(frozen=True)
class Point:
    """The FID of ``count`` samples: mean over ``parts`` sets, their standard deviation (None for a single one)."""

    count: int
    mean: float
    spread: float | None
    parts: int


@dataclass(frozen=True)
class Fit:
    """FID(n) = ``limit`` + ``slope`` / n, fitted to ``counts``; ``misfit`` is the largest deviation, relative."""

    limit: float
    slope: float
    counts: tuple[int, ...]
    misfit: float

    def at(self, count: float) -> float:
        """The expected FID of ``count`` samples."""
        return self.limit + self.slope / count


@dataclass(frozen=True)
class Curve:
    """Everything that ``repro sanity`` shows; ``warnings`` are sentences."""

    measured: list[Point]
    standard_error: float | None  # of the last point, by the jackknife
    floor: list[Point]  # empty if the reference has no activations
    fit: Fit | None
    published_count: int
    features: int
    reference_count: int | None
    extractor: str | None
    warnings: list[str]


def sample_counts(total: int) -> list[int]:
    """``total``, its half, its quarter, ... as long as a part has enough samples, ascending."""
    counts = [total]
    while counts[-1] // 2 >= _SMALLEST and len(counts) < 7:
        counts.append(counts[-1] // 2)
    return counts[::-1]


def fid_curve(
    samples: Statistics,
    reference: Statistics,
    *,
    published_count: int = PUBLISHED_COUNT,
    parts: int = 5,
    seed: int = 0,
) -> Curve:
    """Measure FID against the number of samples.

    Arguments:
        samples: with activations.
        reference: statistics of the data; with activations the floor is measured too.
        published_count: of the number that the FID will be compared with.
        parts: at most so many disjoint sets of a size; each costs an eigenvalue problem.
        seed: of the shuffle and of the draws of the floor.

    Raises:
        MetricUsageError: other extractors, no activations, or too few samples.
    """
    warnings = check_comparable(samples, reference)
    pool_3 = samples.pool_3
    if pool_3 is None:
        raise MetricUsageError("the samples' statistics hold moments only; the curve needs their activations")
    if len(pool_3) < _SMALLEST:
        raise MetricUsageError(f"{len(pool_3)} samples are too few for a curve; at least {_SMALLEST} are needed")
    gaussian = FrechetReference(reference.mean, reference.cov)
    rng = np.random.default_rng(seed)
    shuffled = pool_3[rng.permutation(len(pool_3))]
    counts = sample_counts(len(pool_3))
    measured = [
        _point(gaussian, [shuffled[k * n : (k + 1) * n] for k in range(min(parts, len(shuffled) // n))]) for n in counts
    ]
    floor = []
    if reference.pool_3 is not None:
        data = reference.pool_3
        floor = [_point(gaussian, [data[rng.integers(0, len(data), n)] for _ in range(max(2, parts))]) for n in counts]
    fit = fit_bias(measured)
    warnings += _warnings(measured, fit, published_count, gaussian.mean.size)
    return Curve(
        measured,
        frechet_standard_error(gaussian, pool_3, groups=_GROUPS),
        floor,
        fit,
        published_count,
        gaussian.mean.size,
        reference.count,
        reference.header["extractor"] or samples.header["extractor"],
        warnings,
    )


def _point(reference: FrechetReference, sets: Sequence[np.ndarray]) -> Point:
    values = np.array([reference.distance(*moments(activations)) for activations in sets])
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return Point(len(sets[0]), float(values.mean()), spread, len(values))


def fit_bias(points: Sequence[Point]) -> Fit | None:
    """Least squares in 1/n over the largest counts, each point as certain as its number of sets makes it.

    Arguments:
        points: by ascending count.

    Returns: the fit; None if there is a single count to fit.
    """
    used = [point for point in points if point.count * _FITTED >= points[-1].count]
    if len(used) < 2:
        return None
    n = np.array([point.count for point in used], dtype=float)
    fid = np.array([point.mean for point in used])
    # The spread of a set's FID falls about as 1/n; the mean over k sets of size n varies by 1/(n sqrt(k)).
    weights = n * np.sqrt([point.parts for point in used])
    slope, limit = np.polyfit(1 / n, fid, 1, w=weights)
    misfit = np.abs(limit + slope / n - fid).max() / np.abs(fid).max()
    return Fit(float(limit), float(slope), tuple(point.count for point in used), float(misfit))


def _warnings(measured: Sequence[Point], fit: Fit | None, published_count: int, features: int) -> list[str]:
    found, total = [], measured[-1].count
    if total < published_count:
        there = "" if fit is None else f"; the fit expects {fit.at(published_count):.4g} there"
        found.append(
            f"{total:,} samples, the published number used {published_count:,}: the FID is biased upwards and must not "
            f"be compared with it{there}"
        )
    elif total > published_count:
        found.append(f"{total:,} samples, the published number used {published_count:,}: compare at that number")
    if fit is not None and fit.counts[0] < 2 * features:
        found.append(
            f"the fit starts at {fit.counts[0]:,} samples for {features:,} features: FID falls slower than 1/n there, "
            "so the extrapolation is rough"
        )
    if fit is not None and fit.limit < 0:
        found.append("the extrapolated FID is negative: there are too few samples to extrapolate")
    return found
