"""Verdicts: what a run measured against what it must reproduce.

A metric is comparable when it was computed with the feature extractor and on the data of its reference, and on as many
samples: FID and Inception Score depend on the number of samples, the other metrics only become more certain with more.
A comparable value x with reference r and tolerance d

    reproduces a band if |x - r| <= d, a "lower is better" value if x <= r + d, a "higher is better" one if x >= r - d,

and deviates otherwise. The tolerance is absolute and covers the change between seeds and machines, so the standard
error of x is reported and not added to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from score_core.repro.schema import Reference
from score_core.runs.results import Result

# Metrics whose expectation depends on the number of samples.
COUNT_DEPENDENT = ("fid", "inception_score")

# Names in results.json whose name in the tables is another one.
TABLE_NAMES = {"bpd": "bits_per_dim"}


_SMOKE = "a smoke run: the number means nothing"

UNVERIFIED = "memory"  # the certainty of published values that nobody has looked up


class Verdict(StrEnum):
    """What a comparison says; the order is the order of gravity."""

    REPRODUCED = "reproduced"
    NOT_COMPARABLE = "not comparable"
    MISSING = "missing"
    MISSING_INPUT = "missing input"
    DEVIATES = "deviates"


@dataclass(frozen=True)
class Comparison:
    """One metric: what was asked for, what was measured (None: nothing), the verdict and the reason for it."""

    reference: Reference
    measured: Result | None
    verdict: Verdict
    reason: str


def compare(
    reference: Reference, results: Sequence[Result], *, full_scale: bool = True, missing: Sequence[str] = ()
) -> Comparison:
    """Compare the newest fitting result with a reference.

    Arguments:
        reference: the metric and its value.
        results: all results of the run.
        full_scale: False for a smoke run, whose numbers mean nothing.
        missing: what the run lacked, so that it was not started.
    """
    if missing:
        return Comparison(reference, None, Verdict.MISSING_INPUT, "; ".join(missing))
    newest_first = sorted(results, key=lambda result: result.utc, reverse=True)
    candidates = [result for result in newest_first if table_name(result.metric) == reference.metric]
    if reference.claim is not None:
        words = "published is a claim in words, to be judged by eye" if full_scale else _SMOKE
        return Comparison(reference, candidates[0] if candidates else None, Verdict.NOT_COMPARABLE, words)
    if not candidates:
        return Comparison(reference, None, Verdict.MISSING, "the run recorded no such metric")
    if not full_scale:
        return Comparison(reference, candidates[0], Verdict.NOT_COMPARABLE, _SMOKE)
    obstacles = [_obstacle(reference, result) for result in candidates]
    if None not in obstacles:
        return Comparison(reference, candidates[0], Verdict.NOT_COMPARABLE, obstacles[0] or "")
    measured = candidates[obstacles.index(None)]
    if reference.certainty == UNVERIFIED:
        return Comparison(reference, measured, Verdict.NOT_COMPARABLE, _unverified(reference, measured.value))
    return Comparison(reference, measured, *_judge(reference, measured.value))


def table_name(metric: str) -> str:
    """What the tables call a metric of ``results.json``."""
    return TABLE_NAMES.get(metric, metric)


def overall(comparisons: Sequence[Comparison]) -> Verdict:
    """The gravest verdict."""
    return max((comparison.verdict for comparison in comparisons), key=list(Verdict).index)


def _obstacle(reference: Reference, result: Result) -> str | None:
    """Why a result of the right metric cannot be compared; None if it can."""
    # Recorded as the extractor's name, a colon, and the hash of its weights.
    if reference.extractor and (result.extractor or "").split(":")[0] not in reference.extractor.split(" or "):
        return f"measured with the extractor {result.extractor}, the reference with {reference.extractor}"
    if reference.dataset and result.dataset != reference.dataset:
        return f"measured on {result.dataset}, the reference on {reference.dataset}"
    if reference.protocol and result.protocol != reference.protocol:
        return f"measured by the protocol {result.protocol}, the reference by {reference.protocol}"
    if reference.count is None or result.sample_count == reference.count:
        return None
    found = "unknown" if result.sample_count is None else f"{result.sample_count:,}"
    if result.sample_count is None or result.sample_count < reference.count:
        return f"too few samples: {found}, the reference has {reference.count:,}"
    if reference.metric in COUNT_DEPENDENT:
        return f"other number of samples: {found}, the reference has {reference.count:,}"
    return None


def _unverified(reference: Reference, value: float) -> str:
    distance = f": {value - reference.reference:+.4g} from it" if reference.reference is not None else ""
    return f"unverified: the published value is recalled, not read{distance}"


def _judge(reference: Reference, value: float) -> tuple[Verdict, str]:
    if reference.reference is None or reference.tolerance is None:
        return Verdict.NOT_COMPARABLE, "the table gives no reference value yet"
    if not math.isfinite(value):
        return Verdict.DEVIATES, "the measured value is not finite"
    difference = value - reference.reference
    missed_by = {"lower": difference, "higher": -difference, "band": abs(difference)}[reference.direction]
    distance = f"{difference:+.4g} from the reference"
    if missed_by <= reference.tolerance:
        return Verdict.REPRODUCED, distance
    return Verdict.DEVIATES, f"{distance}, allowed are {reference.tolerance:.4g}"
