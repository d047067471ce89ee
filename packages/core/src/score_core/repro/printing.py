"""What the ``repro`` command prints."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from score_core.repro.formatting import measured_text, number, with_unit
from score_core.repro.outcome import Outcome
from score_core.repro.resolve import compile_row, why_not
from score_core.repro.schema import Experiment, Published, Row

# Fields that `details` tells in another way.
_ELSEWHERE = ("use", "gap", "published")


def listing(rows: Sequence[Row]) -> str:
    """One line a row: id, where it stands, metric, value."""
    lines = [("ID", "TABLE", "METRIC", "VALUE", "RUNNABLE")]
    for row in rows:
        if isinstance(row, Experiment):
            metrics = ", ".join(reference.metric for reference in row.metrics)
            lines.append((row.id, "experiment", metrics, "", "yes"))
        else:
            lines.append((row.id, row.table, row.metric, _published_value(row), _runnable(row)))
    return columns(lines)


def _published_value(row: Published) -> str:
    if not isinstance(row.value, float):
        return "see `repro show`" if row.value is not None else "not known"
    pm = "" if row.pm is None else f" ± {row.pm:g}"
    return with_unit(f"{row.value:g}{pm}", row.unit)


def _runnable(row: Published) -> str:
    """In a word or two whether the row can be run, else the first words of the reason."""
    reason = why_not(row)
    if reason is None:
        return "yes"
    return row.runnable if row.runnable != "yes" else reason.split(":")[0]


def details(row: Row) -> str:
    """Every field of a row that has a value; of a published cell also what its recipe makes of it."""
    lines = _fields(row, indent="")
    if isinstance(row, Experiment):
        return "\n".join(lines)
    reason = why_not(row)
    if reason is not None or row.use is None:
        return "\n".join([*lines, f"cannot be run: {reason}"])
    experiment = compile_row(row, row.use)
    made = {name: getattr(experiment, name) for name in ("config", "stages", "metrics", "frameworks", "cost")}
    return "\n".join([*lines, f"recipe: {row.use.recipe.id}", *_lines(made, indent="  ")])


def _fields(record: Any, indent: str) -> list[str]:
    return _lines({field.name: getattr(record, field.name) for field in fields(record)}, indent)


def _lines(values: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for name, value in values.items():
        if value is None or name in _ELSEWHERE:
            continue
        if isinstance(value, tuple) and all(is_dataclass(entry) for entry in value):
            for entry in value:
                lines += [f"{indent}{name}:", *_fields(entry, indent + "  ")]
        elif is_dataclass(value):
            nested = _fields(value, indent + "  ")
            lines += [f"{indent}{name}:", *nested] if nested else []
        elif isinstance(value, dict):
            lines += [f"{indent}{name}:", *(f"{indent}  {key}: {_plain(item)}" for key, item in value.items())]
        else:
            lines.append(f"{indent}{name}: {_plain(value)}")
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def verdicts(outcome: Outcome) -> str:
    """The verdict of each metric, and the one of the run."""
    lines = [("METRIC", "REFERENCE", "TOLERANCE", "MEASURED", "VERDICT", "")]
    for comparison in outcome.comparisons:
        reference = comparison.reference
        lines.append(
            (
                reference.metric,
                with_unit(number(reference.reference), reference.unit),
                number(reference.tolerance),
                measured_text(comparison),
                str(comparison.verdict),
                f"({comparison.reason})",
            )
        )
    return f"{columns(lines)}\n{outcome.experiment.id}: {outcome.verdict} ({outcome.summary.rstrip('.')})"


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells below each other."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
