"""Recipes: how published cells are computed. One serves many rows of a table.

    - id: score_sde/recipes/evaluate
      kind: recipe
      stages:
        train: python -m score_sde --config={config} --workdir={workdir} --mode=train
        eval: python -m score_sde --config={config} --workdir={workdir} --mode=eval
      option: --config.{key}={value}
      rows:                               # pattern of row ids without the package -> what makes it that cell
        table1/*: {set: {eval.enable_sampling: true}}
        table1/vp/*: {places: {config: vp/ddpm/cifar10}}
        table1/*/P2000/*: {set: {model.num_scales: 2000}}

A row belongs to a recipe if one of its patterns matches and no gap (``kind: gap``) takes it out; all matching patterns
apply, in the order of the file. ``places`` fill the {names} in commands; ``set`` are options of every stage, and
``evaluate`` those of every stage that does not train (those are named train...). {workdir}, {checkpoint} and {data}
(the root of the datasets) are filled in when it runs.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, Any

from score_core.repro import checks
from score_core.repro.checks import TableError, read

RUN_PLACES = ("workdir", "checkpoint", "data")  # filled in when a row runs
TRAIN = "train"  # how the names of stages begin that a given checkpoint stands in for


@dataclass(frozen=True)
class Needs:
    """What must be there before a run at full scale."""

    datasets: Annotated[tuple[str, ...] | None, checks.strings] = None  # names of `score_core.data`
    extractor: Annotated[str | None, checks.text] = None  # of `score_core.metrics`, whose weights are not packaged
    statistics: Annotated[tuple[str, ...] | None, checks.strings] = None  # made from the dataset if they are not there
    modules: Annotated[tuple[str, ...] | None, checks.strings] = None  # python modules of an extra


@dataclass(frozen=True)
class Cost:
    """What a run at full scale takes, as published or measured."""

    train: Annotated[str | None, checks.text]
    evaluate: Annotated[str | None, checks.text]
    source: Annotated[str, checks.text]


@dataclass(frozen=True)
class Yield:
    """How a recipe's run records a metric, and how far from the printed value it may be."""

    result: Annotated[str | None, checks.name]  # its name in results.json, if it is another one
    count: Annotated[int | None, checks.positive_int]  # samples or images
    dataset: Annotated[str | None, checks.text]
    extractor: Annotated[str | None, checks.text]
    protocol: Annotated[str | None, checks.text]  # of the programs that know several
    tolerance: Annotated[float | None, checks.not_negative]  # absolute; of values printed without uncertainty
    tolerance_source: Annotated[str | None, checks.text]
    nfe: Annotated[int | None, checks.positive_int]  # evaluations of the network for an image, for estimates of time
    printed_times: Annotated[float | None, checks.not_negative]  # tolerance in printed uncertainties; None: 3


@dataclass(frozen=True)
class Match:
    """What a pattern of rows adds to the recipe."""

    places: Annotated[dict[str, Any] | None, checks.mapping]
    set: Annotated[dict[str, Any] | None, checks.mapping]
    evaluate: Annotated[dict[str, Any] | None, checks.mapping]
    needs: Annotated[dict[str, Any] | None, checks.mapping]
    yields: Annotated[dict[str, Any] | None, checks.mapping]  # keys of `Yield` that differ, whatever the metric


@dataclass(frozen=True)
class Recipe:
    """How some published cells are computed."""

    id: Annotated[str, checks.text]
    title: Annotated[str, checks.text]
    description: Annotated[str, checks.text]
    stages: Annotated[dict[str, str], checks.commands]  # in order; see the module
    checkpoint: Annotated[str | None, checks.text]  # the command that puts {checkpoint} where training would have
    option: Annotated[str, checks.any_text]  # how a stage takes an option, with {key} and {value}
    smoke: Annotated[str, checks.any_text]  # further arguments for --scale smoke
    smoke_of: Annotated[dict[str, str] | None, checks.texts]  # and further ones of single stages
    options_of: Annotated[tuple[str, ...] | None, checks.strings]  # the stages that take options; None: all
    frameworks: Annotated[tuple[str, ...], checks.strings]
    results: Annotated[str | None, checks.text]  # pattern of the results' files below {workdir}; None: results.json
    network: Annotated[str | None, checks.text]  # its configuration as `score-convert` takes it, for estimates of time
    config: Annotated[str, checks.text]  # {config} of commands, unless a row has its own
    places: Annotated[dict[str, Any] | None, checks.mapping]
    set: Annotated[dict[str, Any] | None, checks.mapping]
    evaluate: Annotated[dict[str, Any] | None, checks.mapping]
    metrics: Annotated[dict[str, Yield], checks.mapping]
    rows: Annotated[dict[str, Match], checks.mapping]
    needs: Annotated[Needs, lambda value: value]
    cost: Annotated[Cost, lambda value: value]


@dataclass(frozen=True)
class Gap:
    """Published cells that should be runnable and are not, and why."""

    id: Annotated[str, checks.text]
    rows: Annotated[tuple[str, ...], checks.strings]
    reason: Annotated[str, checks.text]


@dataclass(frozen=True)
class RecipeUse:
    """A recipe with everything that makes it one row's."""

    recipe: Recipe
    places: dict[str, str]
    set: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)
    needs: Needs = field(default_factory=Needs)
    yields: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> str:
        return self.places["config"]

    def command(self, text: str) -> str:
        """A command with its places filled in, but for those known when it runs.

        Raises:
            TableError: a place is not known.
        """

        def fill(match: re.Match[str]) -> str:
            name = match[1]
            if name in RUN_PLACES:
                return match[0]
            if name not in self.places:
                raise TableError(f"{self.recipe.id}: nothing fills {{{name}}} in `{text}`.")
            return self.places[name]

        return re.sub(r"\{(\w+)\}", fill, text)

    def stage(self, name: str) -> str:
        """The whole command of a stage, with its options."""
        options = self.set if name.startswith(TRAIN) else {**self.set, **self.evaluate}
        if name not in (self.recipe.options_of or self.recipe.stages):
            options = {}
        parts = [self.recipe.option.format(key=key, value=_text(value)) for key, value in options.items()]
        return " ".join([self.command(self.recipe.stages[name]), *map(self.command, parts)])


def _text(value: Any) -> str:
    """An option's value as a command line has it."""
    return str(value) if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def parse_recipe(values: dict[str, Any], where: str) -> Recipe:
    """A recipe from its mapping.

    Raises:
        TableError: it breaks the schema.
    """
    parts: dict[str, type] = {"metrics": Yield, "rows": Match}
    for key, kind in parts.items():
        if isinstance(values.get(key), dict):
            values[key] = {name: read(kind, raw or {}, f"{where}, {key} {name}") for name, raw in values[key].items()}
    values["needs"] = read(Needs, values.get("needs") or {}, f"{where}, needs")
    values["cost"] = read(Cost, values.get("cost"), f"{where}, cost")
    return read(Recipe, values, where)


def attach(
    ids: Sequence[str], recipes: Sequence[Recipe], gaps: Sequence[Gap], source: str
) -> tuple[dict[str, RecipeUse], dict[str, str]]:
    """Which recipe each row has, and which reason for having none.

    Raises:
        TableError: two recipes claim a row, or a pattern matches none.
    """
    uses: dict[str, RecipeUse] = {}
    reasons: dict[str, str] = {}
    claims: dict[str, Recipe | Gap] = {}
    for owner in (*gaps, *recipes):
        patterns = list(owner.rows)
        for pattern in patterns:
            if not any(_matches(row_id, pattern) for row_id in ids):
                raise TableError(f"{source} ({owner.id}): no published row matches {pattern!r}.")
        for row_id in ids:
            matching = [pattern for pattern in patterns if _matches(row_id, pattern)]
            if not matching:
                continue
            if isinstance(claims.get(row_id), Gap) and isinstance(owner, Recipe):
                continue
            if row_id in claims:
                raise TableError(f"{source}: {row_id} is claimed by {claims[row_id].id} and by {owner.id}.")
            claims[row_id] = owner
            if isinstance(owner, Gap):
                reasons[row_id] = owner.reason
            else:
                uses[row_id] = _use(owner, [owner.rows[pattern] for pattern in matching], f"{source} ({row_id})")
    return uses, reasons


def _matches(row_id: str, pattern: str) -> bool:
    return fnmatchcase(row_id.split("/", 1)[1], pattern)


def _use(recipe: Recipe, matches: Sequence[Match], where: str) -> RecipeUse:
    def merged(first: Mapping[str, Any] | None, key: str) -> dict[str, Any]:
        result = dict(first or {})
        for match in matches:
            result.update(getattr(match, key) or {})
        return result

    places = {name: _text(value) for name, value in merged(recipe.places, "places").items()}
    if taken := places.keys() & set(RUN_PLACES):
        raise TableError(f"{where}: the places {', '.join(sorted(taken))} are filled in when it runs.")
    needs = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(recipe.needs).items()}
    return RecipeUse(
        recipe,
        {"config": recipe.config, **places},
        merged(recipe.set, "set"),
        merged(recipe.evaluate, "evaluate"),
        read(Needs, merged(needs, "needs"), f"{where}, needs"),
        merged(None, "yields"),
    )
