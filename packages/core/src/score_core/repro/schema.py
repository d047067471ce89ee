"""What a row of a ``tables.yaml`` is: two kinds, validated strictly.

``kind: published`` is one cell of a paper's table as printed; ``kind: experiment`` is something a package runs by
itself, with the values that must come out. Tables may be written the short way:

- a row without ``kind`` is published;
- a key whose value may be null may be missing;
- whole numbers are accepted where numbers are, and an unquoted YAML ``yes`` (a boolean) where the text is meant.
"""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from score_core.repro import checks
from score_core.repro.checks import TableError, read

# Which way is better. A band is a fact to match rather than to beat.
DIRECTION = checks.one_of("lower", "higher", "band")


@dataclass(frozen=True)
class Published:
    """One cell of a published table."""

    id: Annotated[str, checks.text]  # package/..., unique
    paper: Annotated[str, checks.text]  # title (venue year)
    table: Annotated[str, checks.text]
    row: Annotated[str, checks.text]
    column: Annotated[str, checks.text]
    metric: Annotated[str, checks.name]
    direction: Annotated[str, DIRECTION]
    # A number, a text for a qualitative claim, a mapping for a schedule; null when the cell is not known.
    value: Annotated[float | str | dict[str, Any] | None, checks.first_of(checks.number, checks.text, checks.mapping)]
    pm: Annotated[float | None, checks.not_negative]  # the printed +/-
    unit: Annotated[str | None, checks.text]
    dataset: Annotated[str, checks.text]
    # compare: a quoted baseline of other code; external: needs judges or services that no code contains.
    runnable: Annotated[str, checks.one_of("yes", "compare", "external")]
    original_repo: Annotated[str | None, checks.text]
    config: Annotated[str | None, checks.text]
    config_note: Annotated[str | None, checks.text]
    checkpoint: Annotated[str | None, checks.text]
    settings: Annotated[dict[str, Any] | None, checks.mapping]
    source: Annotated[str, checks.text]  # where the number was read
    certainty: Annotated[str, checks.one_of("seed", "repo", "page", "memory")]  # how it is known
    note: Annotated[str | None, checks.text]


@dataclass(frozen=True)
class Reference:
    """The value that one metric of an experiment must reproduce."""

    metric: Annotated[str, checks.name]
    direction: Annotated[str, DIRECTION]
    reference: Annotated[float | None, checks.number]  # null: not measured yet
    tolerance: Annotated[float | None, checks.not_negative]  # absolute; covers seeds and machines
    count: Annotated[int | None, checks.positive_int]  # samples or images the metric is computed on
    dataset: Annotated[str | None, checks.text]  # data and split the metric refers to, such as digits/test
    extractor: Annotated[str | None, checks.text]  # feature extractor, for metrics that have one
    unit: Annotated[str | None, checks.text]
    source: Annotated[str, checks.text]  # where reference and tolerance come from


def _commands(value: Any) -> dict[str, str]:
    commands = checks.texts(value)
    if not commands or not all(re.match(r"python -m \w", command) for command in commands.values()):
        raise ValueError("a mapping of stage names to commands that begin with `python -m`")
    return commands


@dataclass(frozen=True)
class Experiment:
    """A run that a package can make, with the values it must reproduce."""

    id: Annotated[str, checks.text]  # package/..., unique
    title: Annotated[str, checks.text]
    description: Annotated[str, checks.text]
    paper: Annotated[str, checks.text]  # title (venue year)
    dataset: Annotated[str, checks.text]
    config: Annotated[str, checks.text]
    stages: Annotated[dict[str, str], _commands]  # in order; {workdir} stands for the work folder
    smoke: Annotated[str, checks.text]  # further arguments of every stage that make it short, for --scale smoke
    metrics: Annotated[tuple[Reference, ...], checks.entries]


Row = Experiment | Published


def parse_rows(rows: Any, *, package: str, source: str) -> tuple[Row, ...]:
    """The validated rows of one table file.

    Arguments:
        rows: what the YAML file holds.
        package: the package it belongs to; every id begins with it.
        source: how messages call the file.

    Raises:
        TableError: at the first breach of the schema.
    """
    if not isinstance(rows, list):
        raise TableError(f"{source}: expected a list of rows, found {type(rows).__name__}.")
    parsed = tuple(_parse_row(raw, _where(source, position, raw)) for position, raw in enumerate(rows, start=1))
    for row in parsed:
        if not row.id.startswith(f"{package}/"):
            raise TableError(f"{source}: the id {row.id!r} must begin with {package}/.")
    repeated = [row_id for row_id, times in Counter(row.id for row in parsed).items() if times > 1]
    if repeated:
        raise TableError(f"{source}: ids used more than once: {', '.join(repeated)}.")
    return parsed


def _where(source: str, position: int, raw: Any) -> str:
    name = f" ({raw['id']})" if isinstance(raw, dict) and "id" in raw else ""
    return f"{source}, row {position}{name}"


def _parse_row(raw: Any, where: str) -> Row:
    if not isinstance(raw, dict):
        raise TableError(f"{where}: expected a mapping, found {type(raw).__name__}.")
    values = dict(raw)
    kind = values.pop("kind", "published")
    if kind == "experiment":
        return _parse_experiment(values, where)
    if kind != "published":
        raise TableError(f"{where}: kind is {kind!r}, expected published or experiment.")
    if values.get("runnable") is True:
        values["runnable"] = "yes"
    row = read(Published, values, where)
    if row.runnable == "yes" and row.original_repo is None:
        raise TableError(f"{where}: original_repo is missing, which a row with runnable: yes needs.")
    return row


def _parse_experiment(values: dict[str, Any], where: str) -> Experiment:
    entries = values.get("metrics")
    if isinstance(entries, list):
        values["metrics"] = [
            _parse_reference(entry, f"{where}, metric {position}") for position, entry in enumerate(entries, start=1)
        ]
    return read(Experiment, values, where)


def _parse_reference(raw: Any, where: str) -> Reference:
    reference = read(Reference, raw, where)
    if (reference.reference is None) != (reference.tolerance is None):
        raise TableError(f"{where}: reference and tolerance belong together; give both, or null for both.")
    return reference
