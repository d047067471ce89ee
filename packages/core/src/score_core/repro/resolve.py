"""From the id of any row to the experiment that reproduces it.

An experiment's row is itself. A published cell is compiled through its recipe: the recipe's commands with the row's
places and options, and the printed value as the one reference. Whatever runs, compares, reports or schedules then knows
experiments alone.
"""

import shlex
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from score_core.errors import UsageError
from score_core.repro.checks import TableError
from score_core.repro.recipes import TRAIN, RecipeUse, Yield
from score_core.repro.schema import Experiment, Published, Reference, Row
from score_core.repro.tables import find_row

CHECKPOINT = "checkpoint"  # the stage that puts a given checkpoint in its place
PRINTED_TIMES = 3  # printed uncertainties are standard deviations


class Unrunnable(UsageError):
    """A row that nothing can run; the message says why."""


def why_not(row: Row) -> str | None:
    """Why a row cannot be run; None if it can."""
    if isinstance(row, Experiment) or (row.runnable == "yes" and row.use is not None and row.value is not None):
        return None
    if row.runnable == "compare":
        return "compare: a number of other code, quoted for comparison"
    if row.runnable == "external":
        return "external: it needs judges or services that no code contains"
    if row.gap is not None:
        return row.gap
    if row.value is None:
        return "unknown value: the cell's number is not known, so there is nothing to compare with"
    return "no recipe: nobody has written down yet how this package computes it"


def resolve(row_id: str, rows: Iterable[Row], *, checkpoint: Path | None = None) -> Experiment:
    """The experiment that reproduces a row.

    Arguments:
        row_id: an id of ``rows``.
        rows: of `score_core.repro.tables.load_all`.
        checkpoint: put in the place of training; None: the run trains.

    Raises:
        UsageError: there is no such row, or it takes no checkpoint.
        Unrunnable: it cannot be run.
    """
    row = find_row(rows, row_id)
    if isinstance(row, Experiment):
        if checkpoint is not None:
            raise UsageError(f"{row_id} trains what it measures: it takes no --checkpoint.")
        return row
    reason = why_not(row)
    if reason is not None or row.use is None:
        raise Unrunnable(f"{row_id} cannot be run: {reason}.")
    return compile_row(row, row.use, checkpoint)


def compile_row(row: Published, use: RecipeUse, checkpoint: Path | None = None) -> Experiment:
    """The experiment of a published row and its recipe (see :func:`resolve`)."""
    recipe = use.recipe
    training = [name for name in recipe.stages if name.startswith(TRAIN)]
    stages: dict[str, str] = {}
    for name in recipe.stages:
        if checkpoint is None or name not in training:
            stages[name] = use.stage(name)
        elif recipe.checkpoint is None:
            raise UsageError(f"{row.id} takes no --checkpoint: its training is what is measured.")
        elif name == training[-1]:
            stages[CHECKPOINT] = use.command(recipe.checkpoint).replace("{checkpoint}", shlex.quote(str(checkpoint)))
    if checkpoint is not None and not training:
        raise UsageError(f"{row.id} takes no --checkpoint: nothing in it is trained first.")
    return Experiment(
        id=row.id,
        title=f"{row.table}: {row.row}, {row.column}",
        description=f"{recipe.title}. {recipe.description}",
        paper=row.paper,
        dataset=row.dataset,
        config=use.config,
        stages=stages,
        smoke=use.command(recipe.smoke),
        metrics=(_reference(row, use),),
        published=row,
        frameworks=recipe.frameworks,
        options_of=recipe.options_of or tuple(recipe.stages),
        smoke_of={name: use.command(text) for name, text in (recipe.smoke_of or {}).items()},
        results=recipe.results or "results.json",
        needs=use.needs,
        cost=recipe.cost,
    )


def yield_of(row: Published, use: RecipeUse) -> Yield:
    """How a published row's metric is recorded and judged.

    Raises:
        TableError: its recipe does not yield it.
    """
    base = use.recipe.metrics.get(row.metric)
    if base is None:
        known = ", ".join(use.recipe.metrics)
        raise TableError(f"{row.id}: {use.recipe.id} yields no {row.metric}; it yields {known}.")
    unknown = use.yields.keys() - {field.name for field in fields(Yield)}
    if unknown:
        raise TableError(f"{row.id}: unknown keys of yields: {', '.join(sorted(unknown))}.")
    return Yield(**{**vars(base), **use.yields})


def _reference(row: Published, use: RecipeUse) -> Reference:
    made = yield_of(row, use)
    number = row.value if isinstance(row.value, float) else None
    tolerance, why = _tolerance(row, made) if number is not None else (None, "")
    return Reference(
        metric=made.result or row.metric,
        direction=row.direction,
        reference=number,
        tolerance=tolerance,
        count=made.count,
        dataset=made.dataset,
        extractor=made.extractor,
        unit=row.unit,
        source=f"{row.source}{why}",
        certainty=row.certainty,
        protocol=made.protocol,
        claim=None if number is not None else str(row.value),
    )


def _tolerance(row: Published, made: Yield) -> tuple[float, str]:
    if row.pm is not None:
        times = PRINTED_TIMES if made.printed_times is None else made.printed_times
        return times * row.pm, f"; the tolerance is {times:g} times the printed +/- {row.pm:g}"
    if made.tolerance is None or made.tolerance_source is None:
        raise TableError(f"{row.id}: no +/- is printed, so its recipe must give tolerance and tolerance_source.")
    return made.tolerance, f"; no printed uncertainty: {made.tolerance_source}"
