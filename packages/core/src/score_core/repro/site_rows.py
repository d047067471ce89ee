"""The lines of the page over all runs: one value a ``tbody``, with a second row that opens to its provenance."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from score_core.repro.catalogue import Block, Line, Run
from score_core.repro.formatting import measured_text, number, tolerance_text, with_unit
from score_core.repro.page_parts import (
    NOT_RUNNABLE,
    badge,
    cells,
    circumstances,
    conditions,
    head_row,
    measured_count,
    small,
)
from score_core.repro.schema import Experiment, Published

_COLUMNS = ("Value", "Published", "Tolerance", "Reproduced", "Samples", "Verdict")
_EXPERIMENT_COLUMNS = ("Metric", "Reference", "Tolerance", "Reproduced", "Samples", "Verdict")
_UNVERIFIED = '<span class="unverified">unverified</span>'
_CERTAINTY = {
    "seed": "read in the text that came with the original code",
    "repo": "read in the original repository",
    "page": "read in a stored copy or summary of the paper",
    "memory": "recalled, not seen: unverified, shown without a verdict",
}


def block_table(block: Block, caption: str, paper: int, anchors: set[str]) -> str:
    """The table of a block.

    Arguments:
        block: its lines.
        caption: in plain text.
        paper: the number of the paper, which the filter looks for.
        anchors: the names of places in the page that are taken; a line's id is added where it is free.
    """
    experiment = any(isinstance(line.row, Experiment) for line in block.lines)
    columns = _EXPERIMENT_COLUMNS if experiment else _COLUMNS
    bodies = "\n".join(_body(line, columns, paper, anchors) for line in block.lines)
    return f"""<table role="table" class="values">
<caption class="unseen">{escape(caption)}</caption>
{head_row(columns)}
{bodies}
</table>"""


def _body(line: Line, columns: Sequence[str], paper: int, anchors: set[str]) -> str:
    name = _anchor(line)
    anchor = "" if name in anchors else f' id="{escape(name)}"'
    anchors.add(name)
    facts = {"paper": paper, "metric": line.metric, "verdict": line.status, "runnable": line.runnable}
    facts["seen"] = "memory" if line.unverified else "seen"
    data = "".join(f' data-{key}="{escape(str(value))}"' for key, value in facts.items())
    return f"""<tbody role="rowgroup"{anchor}{data}>
{cells(columns, _cells(line))}
<tr role="row" class="more"><td role="cell" colspan="{len(columns)}"><details>
<summary><span class="id">{escape(name)}</span></summary>
{_details(line)}</details></td></tr>
</tbody>"""


def _cells(line: Line) -> tuple[str, ...]:
    tolerance = "–" if line.reference is None else tolerance_text(line.reference)
    measured = "–" if line.comparison is None else measured_text(line.comparison)
    count = "–" if line.comparison is None else measured_count(line.comparison)
    return (
        _name(line),
        _published(line),
        _shown(tolerance),
        _shown(measured),
        _shown(count),
        f"{badge(line.status)}{small(line.reason)}",
    )


def _shown(text: str) -> str:
    """A number; one that does not exist takes no room on a narrow screen."""
    return f'<span class="{"zero" if text == "–" else "value"}">{escape(text)}</span>'


def _name(line: Line) -> str:
    if isinstance(line.row, Published):
        return f"{escape(line.row.row)}{small(f'{line.row.column} · {line.metric}')}"
    return f"{escape(line.metric)}{small(conditions(line.reference) if line.reference else '')}"


def _published(line: Line) -> str:
    row = line.row
    if isinstance(row, Experiment):
        reference = line.reference
        if reference is None:
            return "–"
        return _shown(with_unit(number(reference.reference), reference.unit)) + small(reference.source)
    if isinstance(row.value, float):
        pm = "" if row.pm is None else f" ± {row.pm:g}"
        value = f'<span class="value">{escape(with_unit(f"{row.value:g}{pm}", row.unit))}</span>'
    elif row.value is None:
        value = "not known"
    else:
        value = f'<span class="words">{escape(_words(row.value))}</span>'
    return f"{value} {_UNVERIFIED}" if line.unverified else value


def _words(value: Any) -> str:
    """Settings and claims as text."""
    if isinstance(value, dict):
        entries = ((key, _words(entry), isinstance(entry, dict)) for key, entry in value.items())
        return ", ".join(f"{key} = ({text})" if nested else f"{key} = {text}" for key, text, nested in entries)
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _details(line: Line) -> str:
    parts = [] if line.status == NOT_RUNNABLE else [_command("Rerun it", [f"repro run {line.row.id}"])]
    facts = [] if line.status != NOT_RUNNABLE else [("Not runnable", line.reason)]
    if isinstance(line.row, Published):
        facts += _published_facts(line.row)
    if line.reference is not None and isinstance(line.row, Published):
        why = line.reference.source.removeprefix(line.row.source).lstrip("; ")
        facts += [("Compared as", conditions(line.reference)), ("Tolerance", why)]
        facts += [("Samples asked for", "" if line.reference.count is None else f"{line.reference.count:,}")]
    if line.recipe is not None:
        facts += _demands(line.recipe)
    parts.append(facts_list(facts))
    if line.comparison is not None and line.comparison.measured is not None:
        parts += ['<p class="lead-in">Measured</p>', facts_list(circumstances([line.comparison.measured]))]
    if isinstance(line.row, Published):
        if line.recipe is not None:
            parts.append(_command("Its commands", line.recipe.stages.values()))
        parts.append(_run_links(line.runs))
    parts.append(f'<p><a href="#{quote(_anchor(line))}">Link to this line</a></p>\n')
    return "\n".join(filter(None, parts))


def _anchor(line: Line) -> str:
    return line.row.id if isinstance(line.row, Published) else f"{line.row.id}#{line.metric}"


def _published_facts(row: Published) -> list[tuple[str, str]]:
    return [
        ("Read in", row.source),
        ("How it is known", _CERTAINTY[row.certainty]),
        ("Data", row.dataset),
        ("Original code", row.original_repo or ""),
        ("Configuration", " – ".join(filter(None, (row.config, row.config_note)))),
        ("Checkpoint", row.checkpoint or ""),
        ("Settings", _words(row.settings or {})),
        ("Note", row.note or ""),
    ]


def _demands(recipe: Experiment) -> list[tuple[str, str]]:
    """What a run at full scale needs and takes."""
    needs, cost = recipe.needs, recipe.cost
    named = [*(needs.datasets or ()), *([f"weights of {needs.extractor}"] if needs.extractor else ())]
    named += [*(needs.statistics or ()), *(f"the Python module {module}" for module in needs.modules or ())]
    facts = [("Needs", ", ".join(named)), ("Frameworks", ", ".join(recipe.frameworks or ()))]
    if cost is not None:
        facts += [("Training takes", cost.train or ""), ("Evaluation takes", cost.evaluate or "")]
        facts += [("Source of the times", cost.source)]
    return facts


def facts_list(facts: Iterable[tuple[str, str]]) -> str:
    """Names and values, those without a value left out."""
    entries = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    return f"<dl>\n{entries}\n</dl>" if entries else ""


def _command(title: str, commands: Iterable[str]) -> str:
    lines = "\n".join(commands)
    return f'<p class="lead-in">{escape(title)}</p>\n<pre class="copy" tabindex="0">{escape(lines)}</pre>'


def _run_links(runs: Sequence[Run]) -> str:
    links = "".join(f'<li><a href="#{quote(run_anchor(run))}">{escape(str(run.workdir))}</a></li>' for run in runs)
    return f'<p class="lead-in">Runs</p>\n<ul>{links}</ul>' if links else ""


def run_anchor(run: Run) -> str:
    """The name of a run's place in the page."""
    return f"run:{run.workdir}"
