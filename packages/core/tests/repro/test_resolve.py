"""Published cells become experiments through recipes, or say why they do not."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from score_core.repro.checks import TableError
from score_core.repro.compare import Verdict, compare
from score_core.repro.resolve import CHECKPOINT, Unrunnable, resolve, why_not
from score_core.repro.schema import Experiment, Row, parse_rows
from score_core.runs.results import Result

PAPER = "Score-Based Generative Modeling through Stochastic Differential Equations (ICLR 2021)"


def cell(name: str, **change: Any) -> dict[str, Any]:
    return {
        "id": f"score_sde/{name}",
        "paper": PAPER,
        "table": "Table 1",
        "row": "VP",
        "column": "P1000",
        "metric": "fid",
        "direction": "lower",
        "value": 3.24,
        "pm": 0.02,
        "dataset": "CIFAR-10",
        "runnable": "yes",
        "original_repo": "yang-song/score_sde",
        "source": "paper Table 1",
        "certainty": "page",
        **change,
    }


def recipe(**change: Any) -> dict[str, Any]:
    return {
        "id": "score_sde/recipes/tiny",
        "kind": "recipe",
        "title": "Samples",
        "description": "Draws and scores them.",
        "config": "vp/first",
        "stages": {
            "train": "python -m stub_stage --config {config} --workdir {workdir}",
            "eval": "python -m stub_stage --config {config} --workdir {workdir} --number {number}",
        },
        "checkpoint": "python -m stub_place {checkpoint} {workdir}/checkpoint_{number}",
        "option": "--option {key}={value}",
        "smoke": "--small",
        "frameworks": ["jax", "torch"],
        "places": {"number": 26},
        "set": {"data.flip": True},
        "evaluate": {"eval.loss": False},
        "needs": {"datasets": ["CIFAR10"]},
        "cost": {"train": "7 days", "evaluate": None, "source": "the authors"},
        "metrics": {"fid": {"count": 50000, "extractor": "a or b", "tolerance": 0.1, "tolerance_source": "judged"}},
        "rows": {
            "table1/*": {"evaluate": {"sampling.method": "pc"}},
            "table1/*/P2000": {"evaluate": {"model.num_scales": 2000, "sampling.method": "ode"}},
            "table1/last/*": {"places": {"number": 14, "config": "vp/last"}},
        },
        **change,
    }


def rows_of(*raw: dict[str, Any]) -> tuple[Row, ...]:
    return parse_rows(deepcopy(list(raw)), package="score_sde", source="tables.yaml")


@pytest.fixture
def rows() -> tuple[Row, ...]:
    return rows_of(recipe(), cell("table1/first/P1000", pm=None), cell("table1/last/P2000"))


def test_recipes_are_no_rows_themselves(rows: tuple[Row, ...]):
    assert [row.id for row in rows] == ["score_sde/table1/first/P1000", "score_sde/table1/last/P2000"]


def test_a_row_is_its_recipe_with_every_pattern_that_matches_in_order(rows: tuple[Row, ...]):
    experiment = resolve("score_sde/table1/last/P2000", rows)
    assert isinstance(experiment, Experiment)
    assert experiment.stages == {
        "train": "python -m stub_stage --config vp/last --workdir {workdir} --option data.flip=True",
        "eval": "python -m stub_stage --config vp/last --workdir {workdir} --number 14 --option data.flip=True "
        "--option eval.loss=False --option sampling.method=ode --option model.num_scales=2000",
    }
    assert experiment.config == "vp/last"
    assert experiment.needs.datasets == ("CIFAR10",)


def test_a_given_checkpoint_stands_in_for_training(rows: tuple[Row, ...]):
    experiment = resolve("score_sde/table1/first/P1000", rows, checkpoint=Path("a folder/file.pth"))
    assert list(experiment.stages) == [CHECKPOINT, "eval"]
    assert experiment.stages[CHECKPOINT] == "python -m stub_place 'a folder/file.pth' {workdir}/checkpoint_26"


def test_the_printed_uncertainty_is_the_tolerance_else_a_judgement_that_says_so(rows: tuple[Row, ...]):
    printed = resolve("score_sde/table1/last/P2000", rows).metrics[0]
    judged = resolve("score_sde/table1/first/P1000", rows).metrics[0]
    assert (printed.reference, printed.tolerance) == (3.24, pytest.approx(0.06))
    assert printed.source.endswith("the tolerance is 3 times the printed +/- 0.02")
    assert (judged.tolerance, judged.count, judged.extractor) == (0.1, 50000, "a or b")
    assert judged.source.endswith("no printed uncertainty: judged")


def test_a_value_recalled_from_memory_is_never_gated_on():
    rows = rows_of(recipe(rows={"a": {}}), cell("a", certainty="memory"))
    result = Result("fid", 99.0, sample_count=50000, extractor="b:0123")
    comparison = compare(resolve("score_sde/a", rows).metrics[0], [result])
    assert comparison.verdict is Verdict.NOT_COMPARABLE
    assert "unverified" in comparison.reason
    assert "+95.76" in comparison.reason


def test_a_claim_in_words_is_shown_and_not_judged():
    rows = rows_of(recipe(rows={"a": {}}), cell("a", value="sharp pictures", pm=None))
    reference = resolve("score_sde/a", rows).metrics[0]
    assert reference.claim == "sharp pictures"
    assert compare(reference, []).verdict is Verdict.NOT_COMPARABLE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"runnable": "compare"}, "quoted for comparison"),
        ({"runnable": "external"}, "judges or services"),
        ({"value": None, "pm": None}, "not known"),
        ({"id": "score_sde/b"}, "no recipe"),
        ({"id": "score_sde/c"}, "needs four GPUs"),
    ],
)
def test_a_row_that_cannot_run_says_why(change: dict[str, Any], reason: str):
    gap = {"kind": "gap", "id": "score_sde/gaps/gpu", "rows": ["c"], "reason": "needs four GPUs"}
    others = [cell(name) for name in ("a", "c") if change.get("id", "score_sde/a") != f"score_sde/{name}"]
    rows = rows_of(recipe(rows={"z": {}}), gap, cell("z"), *others, cell("a") | change)[-1:]
    assert reason in (why_not(rows[0]) or "")
    with pytest.raises(Unrunnable, match=reason):
        resolve(rows[0].id, rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {"nothing/*": {}}}, "no published row matches 'nothing/\\*'"),
        ({"rows": {"a": {"sets": {}}}}, "unknown key 'sets'; did you mean 'set'"),
        ({"rows": {"a": {"needs": {"dataset": ["x"]}}}}, "unknown key 'dataset'"),
        ({"stages": {"eval": "bash -c x"}}, "commands that begin"),
        ({"cost": None}, "cost: expected a mapping"),
        ({"metrics": {"fid": {"counts": 3}}}, "unknown key 'counts'"),
    ],
)
def test_a_recipe_that_breaks_the_schema_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(TableError, match=message):
        rows_of(recipe(rows={"a": {}}) | change, cell("a"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"places": None}, "nothing fills {number}"),
        ({"metrics": {"kid": {}}}, "yields no fid"),
        ({"metrics": {"fid": {"count": 3}}}, "must give tolerance"),
        ({"rows": {"a": {"yields": {"amount": 3}}}}, "unknown keys of yields: amount"),
    ],
)
def test_a_recipe_that_does_not_fit_its_row_is_refused(change: dict[str, Any], message: str):
    rows = rows_of(recipe(rows={"a": {}}) | change, cell("a", pm=None))
    with pytest.raises(TableError, match=message):
        resolve("score_sde/a", rows)


def test_a_row_of_two_recipes_is_refused():
    with pytest.raises(TableError, match="claimed by"):
        rows_of(recipe(rows={"a": {}}), recipe(id="score_sde/recipes/other", rows={"*": {}}), cell("a"))
