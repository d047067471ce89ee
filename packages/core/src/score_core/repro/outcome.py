"""What came out of a run: its results against the references, its pictures, and ``verdict.json`` for programs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_core.repro.compare import Comparison, Verdict, compare, overall
from score_core.repro.figures import HISTORY, Figure, captioned_figures, curve_figure, grid_figures, losses_of
from score_core.repro.runner import RunRecord
from score_core.repro.schema import Experiment
from score_core.runs.provenance import utc_now
from score_core.runs.results import Result, read_results


@dataclass(frozen=True)
class Outcome:
    """Everything a report tells."""

    experiment: Experiment
    record: RunRecord
    results: list[Result]
    comparisons: list[Comparison]
    figures: list[Figure]
    utc: str

    @property
    def verdict(self) -> Verdict:
        """The gravest verdict of the metrics."""
        return overall(self.comparisons)

    @property
    def summary(self) -> str:
        """The verdicts counted, as a sentence."""
        total = len(self.comparisons)
        counts = {verdict: sum(c.verdict is verdict for c in self.comparisons) for verdict in Verdict}
        parts = [f"{count} {verdict}" for verdict, count in counts.items() if count]
        return f"{total} metric{'s' * (total != 1)}: {', '.join(parts)}."


def gather(experiment: Experiment, record: RunRecord, workdir: Path) -> Outcome:
    """Compare the results in ``workdir`` with the references of ``experiment`` and collect its pictures.

    Raises:
        UserError: a file in the folder is damaged.
    """
    results = [result for file in sorted(workdir.glob(experiment.results)) for result in read_results(file)]
    full_scale = record.scale == "full"
    comparisons = [
        compare(reference, results, full_scale=full_scale, missing=record.missing) for reference in experiment.metrics
    ]
    return Outcome(experiment, record, results, comparisons, _figures(workdir), utc_now())


def _figures(workdir: Path) -> list[Figure]:
    history = losses_of(workdir / HISTORY)
    curves = [] if history is None else [curve_figure(history)]
    return [*grid_figures(workdir), *captioned_figures(workdir), *curves]


def verdict_record(outcome: Outcome) -> dict[str, Any]:
    """The contents of ``verdict.json``; numbers that are not finite become texts, which JSON lacks as numbers."""
    return {
        "schema": 1,
        "id": outcome.experiment.id,
        "scale": outcome.record.scale,
        "framework": outcome.record.framework,
        "checkpoint": outcome.record.checkpoint,
        "verdict": outcome.verdict,
        "utc": outcome.utc,
        "metrics": [_metric_record(comparison) for comparison in outcome.comparisons],
    }


def _metric_record(comparison: Comparison) -> dict[str, Any]:
    reference, measured = comparison.reference, comparison.measured
    return {
        "metric": reference.metric,
        "verdict": comparison.verdict,
        "reason": comparison.reason,
        "reference": reference.reference,
        "tolerance": reference.tolerance,
        "direction": reference.direction,
        "published_as": reference.claim,
        "certainty": reference.certainty,
        "source": reference.source,
        "value": None if measured is None else finite(measured.value),
        "standard_error": None if measured is None else finite(measured.standard_error),
        "sample_count": None if measured is None else measured.sample_count,
        "extractor": None if measured is None else measured.extractor,
    }


def finite(value: float | None) -> float | str | None:
    """A number as JSON has it: what is not finite as text."""
    return value if value is None or math.isfinite(value) else str(value)
