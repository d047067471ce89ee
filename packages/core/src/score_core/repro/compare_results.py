"""Two results beside each other: per metric the difference, and whether it is more than chance.

With values a, b and their standard errors s_a, s_b, taken as independent,

    z = (b - a) / (s_a^2 + s_b^2)^{1/2},    p = P(|Z| >= |z|)

where Z is normal, or has Student's distribution with Welch's degrees of freedom where an error is the spread over few
trainings (``values`` or ``fids`` among a result's details). Over m metrics the p values are adjusted by Holm's method,
p'_(k) = max_{j <= k} min(1, (m - j + 1) p_(j)): the chance that any of them is called different without being so is
then at most :data:`LEVEL`.

What was measured under other conditions (data, extractor, protocol, for FID and IS the number of samples) is not
compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from score_core.errors import UsageError
from score_core.repro.compare import COUNT_DEPENDENT
from score_core.runs.results import Result, read_results

LEVEL = 0.05
RESULTS = "results.json"

# What is listed when it differs, and how it is called.
_PROVENANCE = {
    "framework": "framework",
    "seed": "seed",
    "config_hash": "configuration hash",
    "checkpoint_step": "checkpoint step",
    "checkpoint_sha256": "checkpoint SHA-256",
    "ema": "averaged weights (EMA)",
    "denoise": "last denoising step",
    "extractor": "feature extractor",
    "statistics_sha256": "reference statistics",
    "sample_count": "samples or images",
    "protocol": "protocol",
    "dataset": "data",
    "devices": "devices",
    "versions": "versions",
}


class Statement(StrEnum):
    """What is said of a metric."""

    DIFFER = "differ"
    SAME = "no significant difference at 5 %"
    UNJUDGED = "significance cannot be judged"
    NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class Pair:
    """One metric in both results.

    ``difference`` is b - a, ``p`` the value of one test and ``adjusted`` Holm's; None where there is none.
    """

    metric: str
    a: Result | None
    b: Result | None
    statement: Statement
    reason: str = ""
    difference: float | None = None
    z: float | None = None
    p: float | None = None
    adjusted: float | None = None


def load_side(path: Path) -> list[Result]:
    """The results of a ``results.json``, or of all such files of a work folder (its own, or else those below it).

    Raises:
        UsageError: there are none.
        ResultsError: a file is damaged.
    """
    own = path / RESULTS if path.is_dir() else path
    files = sorted(path.rglob(RESULTS)) if path.is_dir() and not own.exists() else [own]
    if not files or not files[0].is_file():
        raise UsageError(f"{own} does not exist. Name a work folder that was evaluated, or its {RESULTS}.")
    results = [result for file in files for result in read_results(file)]
    if not results:
        raise UsageError(f"{own} holds no results. Finish the run first.")
    return results


def compare_results(side_a: Sequence[Result], side_b: Sequence[Result]) -> list[Pair]:
    """All metrics of either side, in the order of the first."""
    pairs = []
    for metric in dict.fromkeys(result.metric for result in (*side_a, *side_b)):
        of_a, of_b = ([r for r in side if r.metric == metric] for side in (side_a, side_b))
        if not of_a or not of_b:
            only = "A" if of_a else "B"
            reason = f"only {only} has it"
            newest = max((*of_a, *of_b), key=_time)
            pairs.append(
                Pair(metric, newest if of_a else None, newest if of_b else None, Statement.NOT_COMPARED, reason)
            )
            continue
        shared = [d for d in dict.fromkeys(r.dataset for r in of_a) if d in {r.dataset for r in of_b}]
        pairs.extend(
            _pair(*([result for result in side if result.dataset == dataset] for side in (of_a, of_b)))
            for dataset in shared
        )
        if not shared:
            pairs.append(_pair(of_a, of_b))
    return _holm(pairs)


def _time(result: Result) -> str:
    return result.utc


def _pair(of_a: Sequence[Result], of_b: Sequence[Result]) -> Pair:
    """The two results that fit together best: comparable, of one checkpoint step, then the newest."""

    def misfit(pair: tuple[Result, Result]) -> tuple[int, bool]:
        return len(obstacles(*pair)), pair[0].checkpoint_step != pair[1].checkpoint_step

    newest_first = sorted(
        ((a, b) for a in of_a for b in of_b), key=lambda pair: (pair[0].utc, pair[1].utc), reverse=True
    )
    a, b = min(newest_first, key=misfit)
    return _judge(a, b)


def obstacles(a: Result, b: Result) -> list[str]:
    """Why two results of one metric cannot be compared."""
    found = []
    if a.dataset != b.dataset and a.dataset and b.dataset:
        found.append(f"on other data: {a.dataset} and {b.dataset}")
    if _extractors_differ(a.extractor, b.extractor):
        found.append(f"with other feature extractors: {_said(a.extractor)} and {_said(b.extractor)}")
    if a.protocol != b.protocol and a.protocol and b.protocol:
        found.append(f"by other protocols: {a.protocol} and {b.protocol}")
    if a.metric.startswith(COUNT_DEPENDENT):
        if a.sample_count is None or b.sample_count is None:
            found.append("from an unknown number of samples, which it depends on")
        elif a.sample_count != b.sample_count:
            found.append(f"from other numbers of samples: {a.sample_count:,} and {b.sample_count:,}")
    return found


def _extractors_differ(a: str | None, b: str | None) -> bool:
    """Recorded as a name, or a name, a colon and the hash of the weights; the hash counts where both have it."""
    if a is None or b is None:
        return a != b
    parts = list(zip(a.split(":"), b.split(":"), strict=False))
    return any(x != y for x, y in parts)


def _judge(a: Result, b: Result) -> Pair:
    if reasons := obstacles(a, b):
        return Pair(a.metric, a, b, Statement.NOT_COMPARED, "measured " + "; ".join(reasons))
    difference = b.value - a.value
    if not math.isfinite(difference):
        return Pair(a.metric, a, b, Statement.UNJUDGED, "a value is not finite", difference)
    lacking = [side for side, result in (("A", a), ("B", b)) if not _usable(result.standard_error)]
    if lacking:
        return Pair(a.metric, a, b, Statement.UNJUDGED, f"no standard error in {' and '.join(lacking)}", difference)
    error = math.hypot(a.standard_error or 0, b.standard_error or 0)
    if error == 0:
        return Pair(a.metric, a, b, Statement.UNJUDGED, "both standard errors are 0", difference)
    z = difference / error
    freedom = _welch(a, b)
    p = math.erfc(abs(z) / math.sqrt(2)) if freedom is None else _student(z, freedom)
    reason = "" if freedom is None else f"Student's t with {freedom:.3g} degrees of freedom: few trainings"
    return Pair(a.metric, a, b, Statement.SAME, reason, difference, z, p)


def _usable(error: float | None) -> bool:
    return error is not None and math.isfinite(error) and error >= 0


def _trainings(result: Result) -> int | None:
    """The number of trainings whose spread the standard error is; None if it is not one."""
    for name in ("values", "fids"):
        values = result.details.get(name)
        if isinstance(values, list) and len(values) > 1:
            return len(values)
    return None


def _welch(a: Result, b: Result) -> float | None:
    """Welch's degrees of freedom; None: so many that the distribution is normal."""
    parts = [((result.standard_error or 0) ** 2, _trainings(result)) for result in (a, b)]
    uncertain = sum(variance**2 / (count - 1) for variance, count in parts if count is not None)
    return sum(variance for variance, _ in parts) ** 2 / uncertain if uncertain > 0 else None


def _student(z: float, freedom: float) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(z)))


def _holm(pairs: Sequence[Pair]) -> list[Pair]:
    order = sorted((k for k, pair in enumerate(pairs) if pair.p is not None), key=lambda k: pairs[k].p or 0.0)
    judged, floor = list(pairs), 0.0
    for rank, k in enumerate(order):
        floor = max(floor, min(1.0, (len(order) - rank) * (pairs[k].p or 0.0)))
        statement = Statement.DIFFER if floor < LEVEL else Statement.SAME
        judged[k] = replace(pairs[k], adjusted=floor, statement=statement)
    return judged


def provenance_differences(pairs: Sequence[Pair]) -> list[tuple[str, str, str, list[str]]]:
    """What differs between the two sides: name, value in A, value in B, and the metrics it holds for."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for pair in pairs:
        if pair.a is None or pair.b is None:
            continue
        for field, name in _PROVENANCE.items():
            a, b = _differing(getattr(pair.a, field), getattr(pair.b, field))
            if a != b:
                found.setdefault((name, a, b), []).append(pair.metric)
    order = list(_PROVENANCE.values())
    return [(*key, metrics) for key, metrics in sorted(found.items(), key=lambda item: order.index(item[0][0]))]


def _differing(a: Any, b: Any) -> tuple[str, str]:
    """Both values as text; of mappings the entries that differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = [key for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)]
        shown = [", ".join(f"{key} {_said(side.get(key))}" for key in keys) for side in (a, b)]
        return shown[0], shown[1]
    return _said(a), _said(b)


def _said(value: Any) -> str:
    if value is None:
        return "not recorded"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
