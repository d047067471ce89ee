"""All scores of a set of samples against a reference, with their uncertainties and what to know about them."""

import math
from typing import Any

from score_core.metrics.frechet import FrechetReference, frechet_standard_error
from score_core.metrics.inception import inception_score
from score_core.metrics.kernel import kernel_distance, number_of_blocks
from score_core.metrics.statistics import Statistics, check_comparable

__all__ = ["compute_metrics"]

PUBLISHED_COUNT = 50_000


def compute_metrics(
    samples: Statistics,
    reference: Statistics,
    *,
    splits: int = 1,
    max_block_size: int = 1024,
    jackknife_groups: int = 10,
) -> dict[str, Any]:
    """FID, Inception score and KID of ``samples``; the result is plain JSON.

    A score that cannot be computed from what the statistics hold is None: IS without logits, KID without activations
    on both sides or with fewer than two rows a block, an uncertainty that has no estimate (one split, one block, no
    activations, too few samples).

    Arguments:
        samples: statistics of the samples, with activations (and logits for the IS).
        reference: statistics of the data.
        splits: of the Inception score.
        max_block_size: of the kernel distance.
        jackknife_groups: of the FID's standard error; 0 leaves it out (it costs this many eigenvalue problems).

    Returns:
        ``fid``, ``fid_se`` (:func:`frechet_standard_error`: over samples, the reference taken as fixed), ``is``,
        ``is_std`` (over splits), ``kid``, ``kid_se`` (over blocks), ``num_samples``, ``num_reference``, ``extractor``,
        ``extractor_sha256``, ``reference_sha256``, ``warning`` (a sentence, or None).

    Raises:
        MetricError: the two were measured with different extractors, or hold data no score can be computed from.
    """
    warnings = check_comparable(samples, reference)
    gaussian = FrechetReference(reference.mean, reference.cov)
    score, score_std = (None, None) if samples.logits is None else inception_score(samples.logits, splits)
    kernel, kernel_se = None, None
    if samples.pool_3 is not None and reference.pool_3 is not None:
        if number_of_blocks(len(reference.pool_3), len(samples.pool_3), max_block_size):
            kernel, kernel_se = kernel_distance(reference.pool_3, samples.pool_3, max_block_size)
        else:
            warnings.append("the two sets differ too much in size for the kernel distance")
    fid_se = None
    if jackknife_groups and samples.pool_3 is not None and len(samples.pool_3) >= 3 * jackknife_groups:
        fid_se = frechet_standard_error(gaussian, samples.pool_3, groups=jackknife_groups)
    if samples.count is None:
        warnings.append("the number of samples is unknown")
    elif samples.count < PUBLISHED_COUNT:
        warnings.append(
            f"FID of {samples.count} samples is biased upwards and not comparable with published numbers, "
            f"which use {PUBLISHED_COUNT}"
        )
    known_by = samples if samples.header["extractor"] is not None else reference
    return {
        "fid": gaussian.distance(samples.mean, samples.cov),
        "fid_se": fid_se,
        "is": score,
        "is_std": _number(score_std),
        "kid": kernel,
        "kid_se": _number(kernel_se),
        "num_samples": samples.count,
        "num_reference": reference.count,
        "extractor": known_by.header["extractor"],
        "extractor_sha256": known_by.header["extractor_sha256"],
        "reference_sha256": reference.digest,
        "warning": "; ".join(warnings) or None,
    }


def _number(value: float | None) -> float | None:
    """None for NaN, which JSON does not have."""
    return None if value is None or math.isnan(value) else value
