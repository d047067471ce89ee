"""One run on one page: ``report.html`` for people, ``verdict.json`` for programs.

The page is a single file without scripts that asks no server for anything: it can be mailed, printed and kept. It
follows the reader's light or dark setting, and is laid out for phones as well.
"""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from score_core.checkpoints.atomic import atomic_write
from score_core.repro.cite import bibtex
from score_core.repro.compare import Comparison
from score_core.repro.figures import Figure
from score_core.repro.formatting import measured_text, number, tolerance_text, with_unit
from score_core.repro.outcome import Outcome, verdict_record
from score_core.repro.page_parts import (
    SIGNS,
    asset,
    attempts_table,
    badge,
    circumstances_table,
    conditions,
    css_class,
    figure,
    measured_count,
    small,
    table,
)

PAGE = "report.html"
VERDICT = "verdict.json"


def write_report(outcome: Outcome, workdir: Path) -> Path:
    """Write both files into ``workdir`` and return the page."""
    page = workdir / PAGE
    atomic_write(page, _page(outcome).encode())
    atomic_write(workdir / VERDICT, (json.dumps(verdict_record(outcome), indent=2, allow_nan=False) + "\n").encode())
    return page


def _page(outcome: Outcome) -> str:
    experiment = outcome.experiment
    smoke = "<p>This was a smoke run: it shows that everything works, its numbers mean nothing.</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(experiment.id)}: {outcome.verdict}</title>
<style>
{asset("report.css")}</style>
</head>
<body>
<header>
<p class="id">{escape(experiment.id)}</p>
<h1>{escape(experiment.title)}</h1>
<p class="verdict {css_class(outcome.verdict)}"><span aria-hidden="true">{SIGNS[outcome.verdict]}</span>
{str(outcome.verdict).capitalize()}</p>
<p>{escape(outcome.summary)}</p>
{smoke if outcome.record.scale == "smoke" else ""}
</header>
<main>
<section aria-labelledby="ran">
<h2 id="ran">What was run</h2>
<p>{escape(experiment.description)}</p>
<p>Data: {escape(experiment.dataset)}. Configuration: <code>{escape(experiment.config)}</code>.</p>
</section>
<section aria-labelledby="verdicts">
<h2 id="verdicts">Verdicts</h2>
{_verdict_table(outcome.comparisons)}
</section>
{_figure_section(outcome.figures)}
<section aria-labelledby="provenance">
<h2 id="provenance">Provenance</h2>
{attempts_table(outcome.record.attempts)}
{circumstances_table(outcome.results)}
<h3>Cite</h3>
<pre tabindex="0">{escape(bibtex(experiment.paper))}</pre>
</section>
</main>
<footer><p>Written on {escape(outcome.utc)} by <code>repro</code>; the verdicts for programs are in
<code>{VERDICT}</code>.</p></footer>
</body>
</html>
"""


def _verdict_table(comparisons: Sequence[Comparison]) -> str:
    columns = ("Metric", "Reference", "Tolerance", "Measured", "Samples", "Verdict")
    caption = "Measured values are given with one standard error where one was estimated; tolerances are absolute."
    return table("verdicts", caption, columns, map(_verdict_row, comparisons))


def _verdict_row(comparison: Comparison) -> tuple[str, ...]:
    reference = comparison.reference
    return (
        f"{escape(reference.metric)}{small(conditions(reference))}",
        escape(with_unit(number(reference.reference), reference.unit)) + small(reference.source),
        escape(tolerance_text(reference)),
        f'<span class="value">{escape(measured_text(comparison))}</span>',
        measured_count(comparison),
        f"{badge(comparison.verdict)}{small(comparison.reason)}",
    )


def _figure_section(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    return f"""<section aria-labelledby="pictures">
<h2 id="pictures">Samples and training</h2>
<div class="figures">
{"".join(map(figure, figures))}</div>
</section>"""
