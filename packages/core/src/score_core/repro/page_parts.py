"""Pieces of HTML that the page of one run and the page over all of them share.

Every function takes plain text and returns HTML in which it is escaped; cells of tables are HTML already.
"""

import shlex
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from score_core.repro.compare import Comparison, Verdict
from score_core.repro.figures import Figure, data_uri
from score_core.repro.formatting import duration, size
from score_core.repro.runner import Attempt
from score_core.repro.schema import Reference
from score_core.runs.results import Result

NOT_RUN = "not run"
NOT_RUNNABLE = "not runnable"

# Each verdict, and what is said where there is none, has a sign and a word beside its colour.
SIGNS: dict[str, str] = {
    Verdict.REPRODUCED: "✓",
    Verdict.DEVIATES: "✗",
    Verdict.NOT_COMPARABLE: "–",
    Verdict.MISSING: "?",
    Verdict.MISSING_INPUT: "!",
    NOT_RUN: "○",
    NOT_RUNNABLE: "∅",
}


def asset(name: str) -> str:
    """A style sheet or script that lies beside this file."""
    return resources.files("score_core.repro").joinpath(name).read_text("utf-8")


def css_class(status: str) -> str:
    """The class that colours a verdict."""
    return status.replace(" ", "-")


def badge(status: str) -> str:
    """Sign and word of a verdict."""
    return f'<span class="badge {css_class(status)}"><span aria-hidden="true">{SIGNS[status]}</span> {status}</span>'


def small(text: str) -> str:
    """A smaller line below something; nothing if there is no text."""
    return f"<small>{escape(text)}</small>" if text else ""


def head_row(columns: Iterable[str]) -> str:
    """The head of a table.

    The roles here and in :func:`cells` repeat what the elements mean, because some browsers forget it for elements that
    a narrow screen lays out as blocks.
    """
    head = "".join(f'<th role="columnheader" scope="col">{escape(column)}</th>' for column in columns)
    return f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>'


def cells(columns: Sequence[str], row: Sequence[str]) -> str:
    """One row of a table from HTML cells; the first heads it. A narrow screen shows the other columns' names."""
    first, *rest = row
    body = "".join(
        f'<td role="cell" data-column="{escape(column)}">{cell}</td>'
        for column, cell in zip(columns[1:], rest, strict=True)
    )
    return f'<tr role="row"><th role="rowheader" scope="row">{first}</th>{body}</tr>'


def table(name: str, caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of HTML cells with the class ``name``."""
    body = "\n".join(cells(columns, row) for row in rows)
    return f"""<table role="table" class="{name}">
<caption>{escape(caption)}</caption>
{head_row(columns)}
<tbody role="rowgroup">
{body}
</tbody>
</table>"""


def figure(picture: Figure) -> str:
    """A picture with its caption, in the version that fits the reader's colour scheme."""
    dark = ""
    if picture.dark != picture.light:
        dark = f'<source media="screen and (prefers-color-scheme: dark)" srcset="{data_uri(picture.dark)}">'
    style = ' class="pixelated"' if picture.pixelated else ""
    return f"""<figure>
<picture>{dark}<img{style} src="{data_uri(picture.light)}" width="{picture.width}" height="{picture.height}"
alt="{escape(picture.alt)}"></picture>
<figcaption>{escape(picture.caption)}</figcaption>
</figure>
"""


def conditions(reference: Reference) -> str:
    """What a reference value was computed with, and which way is better."""
    better = {"lower": "lower is better", "higher": "higher is better", "band": ""}[reference.direction]
    extractor = f"extractor {reference.extractor}" if reference.extractor else ""
    protocol = f"protocol {reference.protocol}" if reference.protocol else ""
    return ", ".join(filter(None, (extractor, reference.dataset, protocol, better)))


def measured_count(comparison: Comparison) -> str:
    """The number of samples of the measured value; a dash where there is none."""
    measured = comparison.measured
    return "–" if measured is None or measured.sample_count is None else f"{measured.sample_count:,}"


def attempts_table(attempts: Sequence[Attempt]) -> str:
    """The commands of a run, in the order in which they ran."""
    rows = (
        (
            escape(attempt.stage),
            command_line(["python", *attempt.command[1:]]),
            escape(attempt.utc),
            duration(attempt.seconds),
            str(attempt.exit_code),
        )
        for attempt in attempts
    )
    return table("stages", "Commands, in the order they ran.", ("Stage", "Command", "Started", "Took", "Exit"), rows)


def command_line(arguments: Sequence[str]) -> str:
    """A command line that breaks between arguments, not within them."""
    return f"<code>{' '.join(f'<span>{escape(shlex.quote(argument))}</span>' for argument in arguments)}</code>"


def circumstances(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Names and values of the circumstances, each value that the results agree or differ on."""

    def values(name: str) -> str:
        found = [getattr(result, name) for result in results]
        return ", ".join(dict.fromkeys(_plain(value) for value in found if value is not None))

    def largest(name: str) -> str:
        return size(max((getattr(result, name) or 0 for result in results), default=0) or None) or ""

    versions = {name: version for result in results for name, version in result.versions.items()}
    took = [duration(result.seconds) for result in results if result.seconds is not None]
    devices = ["{count} × {kind}".format_map(d.devices) for d in results if {"count", "kind"} <= d.devices.keys()]
    facts = [
        ("Framework", values("framework")),
        ("Configuration hash", values("config_hash")),
        ("Checkpoint step", values("checkpoint_step")),
        ("Checkpoint SHA-256", values("checkpoint_sha256")),
        ("Seed", ", ".join(dict.fromkeys(str(result.seed) for result in results if result.seed is not None))),
        ("Samples or images", values("sample_count")),
        ("Averaged weights (EMA)", values("ema")),
        ("Last denoising step", values("denoise")),
        ("Protocol", values("protocol")),
        ("Feature extractor", values("extractor")),
        ("Reference statistics", values("statistics_sha256")),
        ("Evaluated", values("utc")),
        ("Evaluation took", ", ".join(dict.fromkeys(took))),
        ("Devices", ", ".join(dict.fromkeys(devices))),
        ("Peak memory, host", largest("peak_memory_bytes")),
        ("Peak memory, device", largest("device_memory_bytes")),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    return [(name, value) for name, value in facts if value]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def circumstances_table(results: Sequence[Result]) -> str:
    """:func:`circumstances` as a table."""
    rows = ((escape(name), escape(value)) for name, value in circumstances(results))
    return table("facts", "Circumstances of the results.", ("Circumstance", "Value"), rows)
