"""One run on one page: ``report.html`` for people, ``verdict.json`` for programs.

The page is a single file without scripts that asks no server for anything: it can be mailed, printed and kept. It
follows the reader's light or dark setting, and is laid out for phones as well.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from score_core.checkpoints.atomic import atomic_write
from score_core.repro.cite import bibtex
from score_core.repro.compare import Comparison, Verdict
from score_core.repro.figures import Figure, data_uri
from score_core.repro.formatting import duration, measured_text, number, size, with_unit
from score_core.repro.outcome import Outcome, verdict_record
from score_core.repro.runner import Attempt
from score_core.repro.schema import Reference

PAGE = "report.html"
VERDICT = "verdict.json"

# Each verdict has a sign and a word beside its colour.
_SIGNS = {
    Verdict.REPRODUCED: "✓",
    Verdict.NOT_COMPARABLE: "–",
    Verdict.MISSING: "?",
    Verdict.MISSING_INPUT: "∅",
    Verdict.DEVIATES: "✗",
}


def write_report(outcome: Outcome, workdir: Path) -> Path:
    """Write both files into ``workdir`` and return the page."""
    page = workdir / PAGE
    atomic_write(page, _page(outcome).encode())
    atomic_write(workdir / VERDICT, (json.dumps(verdict_record(outcome), indent=2, allow_nan=False) + "\n").encode())
    return page


def _page(outcome: Outcome) -> str:
    experiment = outcome.experiment
    style = resources.files("score_core.repro").joinpath("report.css").read_text("utf-8")
    smoke = "<p>This was a smoke run: it shows that everything works, its numbers mean nothing.</p>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(experiment.id)}: {outcome.verdict}</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="id">{escape(experiment.id)}</p>
<h1>{escape(experiment.title)}</h1>
<p class="verdict {_css_class(outcome.verdict)}"><span aria-hidden="true">{_SIGNS[outcome.verdict]}</span>
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
{_attempts_table(outcome.record.attempts)}
{_facts_table(_facts(outcome))}
<h3>Cite</h3>
<pre tabindex="0">{escape(bibtex(experiment.paper))}</pre>
</section>
</main>
<footer><p>Written on {escape(outcome.utc)} by <code>repro</code>; the verdicts for programs are in
<code>{VERDICT}</code>.</p></footer>
</body>
</html>
"""


def _css_class(verdict: Verdict) -> str:
    return verdict.replace(" ", "-")


def _table(name: str, caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells whose first column heads the rows; on a narrow screen each row becomes a block.

    The roles repeat what the elements mean, because some browsers forget it for elements laid out as blocks.
    """
    head = "".join(f'<th role="columnheader" scope="col">{escape(column)}</th>' for column in columns)
    body = []
    for first, *rest in rows:
        cells = "".join(
            f'<td role="cell" data-column="{escape(column)}">{cell}</td>'
            for column, cell in zip(columns[1:], rest, strict=True)
        )
        body.append(f'<tr role="row"><th role="rowheader" scope="row">{first}</th>{cells}</tr>')
    return f"""<table role="table" class="{name}">
<caption>{escape(caption)}</caption>
<thead role="rowgroup"><tr role="row">{head}</tr></thead>
<tbody role="rowgroup">
{chr(10).join(body)}
</tbody>
</table>"""


def _verdict_table(comparisons: Sequence[Comparison]) -> str:
    columns = ("Metric", "Reference", "Tolerance", "Measured", "Samples", "Verdict")
    caption = "Measured values are given with one standard error where one was estimated; tolerances are absolute."
    return _table("verdicts", caption, columns, map(_verdict_row, comparisons))


def _verdict_row(comparison: Comparison) -> tuple[str, ...]:
    reference, measured = comparison.reference, comparison.measured
    count = "–" if measured is None or measured.sample_count is None else f"{measured.sample_count:,}"
    badge = (
        f'<span class="badge {_css_class(comparison.verdict)}">{_SIGNS[comparison.verdict]} {comparison.verdict}</span>'
    )
    return (
        f"{escape(reference.metric)}{_small(_conditions(reference))}",
        escape(with_unit(number(reference.reference), reference.unit)) + _small(reference.source),
        escape(_tolerance(reference)),
        f'<span class="value">{escape(measured_text(comparison))}</span>',
        count,
        f"{badge}{_small(comparison.reason)}",
    )


def _conditions(reference: Reference) -> str:
    better = {"lower": "lower is better", "higher": "higher is better", "band": ""}[reference.direction]
    extractor = f"extractor {reference.extractor}" if reference.extractor else ""
    return ", ".join(filter(None, (extractor, reference.dataset, better)))


def _tolerance(reference: Reference) -> str:
    sign = {"lower": "+", "higher": "−", "band": "±"}[reference.direction]
    return "–" if reference.tolerance is None else sign + number(reference.tolerance)


def _small(text: str) -> str:
    return f"<small>{escape(text)}</small>" if text else ""


def _figure_section(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    return f"""<section aria-labelledby="pictures">
<h2 id="pictures">Samples and training</h2>
<div class="figures">
{"".join(map(_figure, figures))}</div>
</section>"""


def _figure(figure: Figure) -> str:
    dark = ""
    if figure.dark != figure.light:
        dark = f'<source media="screen and (prefers-color-scheme: dark)" srcset="{data_uri(figure.dark)}">'
    style = ' class="pixelated"' if figure.pixelated else ""
    return f"""<figure>
<picture>{dark}<img{style} src="{data_uri(figure.light)}" width="{figure.width}" height="{figure.height}"
alt="{escape(figure.alt)}"></picture>
<figcaption>{escape(figure.caption)}</figcaption>
</figure>
"""


def _attempts_table(attempts: Sequence[Attempt]) -> str:
    rows = (
        (
            escape(attempt.stage),
            _command(["python", *attempt.command[1:]]),
            escape(attempt.utc),
            duration(attempt.seconds),
            str(attempt.exit_code),
        )
        for attempt in attempts
    )
    return _table("stages", "Commands, in the order they ran.", ("Stage", "Command", "Started", "Took", "Exit"), rows)


def _command(arguments: Sequence[str]) -> str:
    """A command line that breaks between arguments, not within them."""
    return f"<code>{' '.join(f'<span>{escape(shlex.quote(argument))}</span>' for argument in arguments)}</code>"


def _facts(outcome: Outcome) -> list[tuple[str, str]]:
    """Names and values of the circumstances, each value that the results agree or differ on."""

    def values(name: str) -> str:
        found = [getattr(result, name) for result in outcome.results]
        return ", ".join(dict.fromkeys(_plain(value) for value in found if value is not None))

    def largest(name: str) -> str:
        return size(max((getattr(result, name) or 0 for result in outcome.results), default=0) or None) or ""

    versions = {name: version for result in outcome.results for name, version in result.versions.items()}
    facts = [
        ("Configuration hash", values("config_hash")),
        ("Checkpoint step", values("checkpoint_step")),
        ("Seed", values("seed")),
        ("Averaged weights (EMA)", values("ema")),
        ("Last denoising step", values("denoise")),
        ("Feature extractor", values("extractor")),
        ("Reference statistics", values("statistics_sha256")),
        ("Evaluated", values("utc")),
        ("Peak memory, host", largest("peak_memory_bytes")),
        ("Peak memory, device", largest("device_memory_bytes")),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _facts_table(facts: Sequence[tuple[str, str]]) -> str:
    rows = ((escape(name), escape(value)) for name, value in facts)
    return _table("facts", "Circumstances of the results.", ("Circumstance", "Value"), rows)
