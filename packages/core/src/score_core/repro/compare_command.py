"""What ``repro compare A B`` prints, and how it ends."""

import argparse
import json
from pathlib import Path
from typing import Any

from score_core.errors import UserError
from score_core.repro.compare_results import (
    LEVEL,
    Pair,
    Statement,
    compare_results,
    load_side,
    provenance_differences,
)
from score_core.repro.formatting import number, with_error
from score_core.repro.outcome import finite
from score_core.repro.printing import columns
from score_core.repro.runner import RECORD, read_record
from score_core.runs.results import Result

_CAUTION = (
    "The errors are those of one checkpoint's samples or images, unless the details of a result say otherwise, and are "
    "taken as independent: two trainings that differ in their seed alone may differ by more."
)


def add_command(commands: Any) -> None:
    """Add ``compare`` to the sub-commands."""
    parser = commands.add_parser(
        "compare",
        help="compare two results, with a statement of significance",
        description="Compare two results metric by metric. Exit status: 0 no metric differs, 3 one does, 4 none could "
        f"be judged. Level: {LEVEL:g}, adjusted for the number of metrics by Holm's method.",
    )
    parser.add_argument("a", type=Path, metavar="A", help="work folder or results.json")
    parser.add_argument("b", type=Path, metavar="B", help="work folder or results.json")
    parser.add_argument("--json", action="store_true", help="print it for programs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    pairs = compare_results(load_side(options.a), load_side(options.b))
    differences = provenance_differences(pairs)
    if options.json:
        print(json.dumps(_record(options, pairs, differences), indent=1, allow_nan=False))
    else:
        print("\n".join(_text(options, pairs, differences)))
    statements = {pair.statement for pair in pairs}
    if Statement.DIFFER in statements:
        return 3
    return 0 if Statement.SAME in statements else 4


def _text(
    options: argparse.Namespace, pairs: list[Pair], differences: list[tuple[str, str, str, list[str]]]
) -> list[str]:
    table = [("METRIC", "DATA", "A", "B", "B - A", "z", "p", "p (Holm)", "STATEMENT", "")]
    for pair in pairs:
        statement = str(pair.statement)
        reason = f"({pair.reason})" if pair.reason else ""
        data = next((side.dataset for side in (pair.a, pair.b) if side and side.dataset), None) or "–"
        tested = (_signed(pair.difference), _signed(pair.z), _p(pair.p), _p(pair.adjusted))
        table.append((pair.metric, data, _value(pair.a), _value(pair.b), *tested, statement, reason))
    lines = [f"A: {_name(options.a)}", f"B: {_name(options.b)}", "", columns(table), ""]
    every = {pair.metric for pair in pairs if pair.a and pair.b}
    if every:
        lines.append("What else differs:" if differences else "Nothing else that was recorded differs.")
    for name, a, b, metrics in differences:
        where = "" if set(metrics) == every else f" ({', '.join(dict.fromkeys(metrics))})"
        lines.append(f"  {name}: {a} | {b}{where}")
    return [*lines, "", _CAUTION] if any(pair.p is not None for pair in pairs) else lines


def _name(path: Path) -> str:
    """The path, and of a run what it is a run of."""
    if not (path / RECORD).is_file():
        return str(path)
    try:
        record = read_record(path)
    except UserError as error:
        return f"{path} ({error})"
    return f"{path} ({record.id}, {record.scale} scale{', its numbers mean nothing' * (record.scale == 'smoke')})"


def _value(result: Result | None) -> str:
    return "–" if result is None else with_error(result.value, result.standard_error)


def _signed(value: float | None) -> str:
    return "–" if value is None else ("+" if value > 0 else "") + number(value)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2g}" if value >= 1e-4 else "<0.0001"


def _record(
    options: argparse.Namespace, pairs: list[Pair], differences: list[tuple[str, str, str, list[str]]]
) -> dict[str, Any]:
    return {
        "a": str(options.a),
        "b": str(options.b),
        "level": LEVEL,
        "metrics": [
            {
                "metric": pair.metric,
                "a": _side(pair.a),
                "b": _side(pair.b),
                **{name: finite(getattr(pair, name)) for name in ("difference", "z", "p", "adjusted")},
                "statement": pair.statement,
                "reason": pair.reason,
            }
            for pair in pairs
        ],
        "differences": [{"name": n, "a": a, "b": b, "metrics": metrics} for n, a, b, metrics in differences],
    }


def _side(result: Result | None) -> dict[str, Any] | None:
    if result is None:
        return None
    facts = {
        name: getattr(result, name) for name in ("dataset", "sample_count", "framework", "seed", "checkpoint_step")
    }
    return {"value": finite(result.value), "standard_error": finite(result.standard_error), **facts}
