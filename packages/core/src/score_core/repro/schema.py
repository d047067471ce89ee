"""What a row of a ``tables.yaml`` is, validated strictly.

``kind: published`` is one cell of a paper's table as printed; ``kind: experiment`` is something a package runs by
itself, with the values that must come out. ``kind: recipe`` says how published cells are computed, and ``kind: gap``
why some are not (`score_core.repro.recipes`); both are attached to the published rows they name and are no rows
themselves.
Tables may be written the short way:

- a row without ``kind`` is published;
- a key whose value may be null may be missing;
- whole numbers are accepted where numbers are, and an unquoted YAML ``yes`` (a boolean) where the text is meant.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from score_core.repro import checks
from score_core.repro.checks import TableError, read
from score_core.repro.recipes import Cost, Gap, Needs, Recipe, RecipeUse, attach, parse_recipe

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
    use: RecipeUse | None = None  # how it is computed
    gap: str | None = None  # why it is not


@dataclass(frozen=True)
class Reference:
    """The value that one metric of an experiment must reproduce."""

    metric: Annotated[str, checks.name]
    direction: Annotated[str, DIRECTION]
    reference: Annotated[float | None, checks.number]  # null: not measured yet
    tolerance: Annotated[float | None, checks.not_negative]  # absolute; covers seeds and machines
    count: Annotated[int | None, checks.positive_int]  # samples or images the metric is computed on
    dataset: Annotated[str | None, checks.text]  # data and split the metric refers to, such as digits/test
    extractor: Annotated[str | None, checks.text]  # feature extractor, for metrics that have one; "a or b": either
    unit: Annotated[str | None, checks.text]
    source: Annotated[str, checks.text]  # where reference and tolerance come from
    certainty: str | None = None  # of a published value, how it is known; memory is never gated on
    protocol: str | None = None  # how programs that know several ways must have measured it
    claim: str | None = None  # what was published where it is no number


@dataclass(frozen=True)
class Experiment:
    """A run that a package can make, with the values it must reproduce."""

    id: Annotated[str, checks.text]  # package/..., unique
    title: Annotated[str, checks.text]
    description: Annotated[str, checks.text]
    paper: Annotated[str, checks.text]  # title (venue year)
    dataset: Annotated[str, checks.text]
    config: Annotated[str, checks.text]
    stages: Annotated[dict[str, str], checks.commands]  # in order; {workdir} stands for the work folder
    smoke: Annotated[str, checks.text]  # further arguments of every stage that make it short, for --scale smoke
    metrics: Annotated[tuple[Reference, ...], checks.entries]
    # Of published cells, from their recipe.
    published: Published | None = None
    frameworks: tuple[str, ...] | None = None  # what --framework may be; None: not known
    options_of: tuple[str, ...] | None = None  # the stages that take smoke arguments and --framework; None: all
    smoke_of: dict[str, str] = field(default_factory=dict)  # further smoke arguments of single stages
    results: str = "results.json"  # pattern of the results' files below the work folder
    needs: Needs = field(default_factory=Needs)
    cost: Cost | None = None


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
    parsed = [_parse_row(raw, _where(source, position, raw)) for position, raw in enumerate(rows, start=1)]
    for row in parsed:
        if not row.id.startswith(f"{package}/"):
            raise TableError(f"{source}: the id {row.id!r} must begin with {package}/.")
    repeated = [row_id for row_id, times in Counter(row.id for row in parsed).items() if times > 1]
    if repeated:
        raise TableError(f"{source}: ids used more than once: {', '.join(repeated)}.")
    uses, gaps = attach(
        [row.id for row in parsed if isinstance(row, Published) and row.runnable == "yes"],
        [row for row in parsed if isinstance(row, Recipe)],
        [row for row in parsed if isinstance(row, Gap)],
        source,
    )
    return tuple(
        replace(row, use=uses.get(row.id), gap=gaps.get(row.id)) if isinstance(row, Published) else row
        for row in parsed
        if isinstance(row, Experiment | Published)
    )


def _where(source: str, position: int, raw: Any) -> str:
    name = f" ({raw['id']})" if isinstance(raw, dict) and "id" in raw else ""
    return f"{source}, row {position}{name}"


def _parse_row(raw: Any, where: str) -> Row | Recipe | Gap:
    if not isinstance(raw, dict):
        raise TableError(f"{where}: expected a mapping, found {type(raw).__name__}.")
    values = dict(raw)
    kind = values.pop("kind", "published")
    if kind == "experiment":
        return _parse_experiment(values, where)
    if kind == "recipe":
        return parse_recipe(values, where)
    if kind == "gap":
        return read(Gap, values, where)
    if kind != "published":
        raise TableError(f"{where}: kind is {kind!r}, expected published, experiment, recipe or gap.")
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
