"""Table files: what is accepted, what it becomes, and what the messages say."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from score_core.repro.checks import TableError
from score_core.repro.schema import Experiment, Published, parse_rows
from score_core.repro.tables import PACKAGES, find_row, load_all, load_package, parse_table

EXCERPT = (Path(__file__).parent / "data" / "excerpt.yaml").read_text()


def parse(*rows: Any) -> Any:
    return parse_rows(list(rows), package="score_sde", source="tables.yaml")


@pytest.fixture
def published() -> dict[str, Any]:
    return {
        "id": "score_sde/table1/x/fid",
        "paper": "A paper (ICLR 2021)",
        "table": "Table 1",
        "row": "x",
        "column": "FID",
        "metric": "fid",
        "direction": "lower",
        "value": 3,
        "dataset": "CIFAR-10",
        "runnable": "compare",
        "source": "Table 1",
        "certainty": "page",
    }


def test_published_rows_of_the_research_tables_are_taken_as_they_are():
    number, baseline, claim = parse_table(EXCERPT, package="score_sde", source="excerpt.yaml")
    assert isinstance(number, Published)
    assert (number.value, number.pm, number.runnable) == (4.98, 0.06, "yes")
    assert number.settings is not None
    assert number.settings["predictor_steps"] == 1000
    assert isinstance(baseline, Published)
    assert (baseline.value, baseline.pm, baseline.unit, baseline.config) == (3.28, None, "bits/dim", None)
    assert isinstance(claim, Published)
    assert claim.value == "over 90 percent fewer evaluations without visible loss"


def test_short_forms_are_normalised(published: dict[str, Any]):
    published |= {"runnable": True, "original_repo": "someone/something"}
    (row,) = parse(published)
    assert isinstance(row, Published)
    assert row.runnable == "yes"
    assert isinstance(row.value, float)
    assert (row.pm, row.unit, row.note) == (None, None, None)


def test_an_experiment_is_read(experiment: Experiment):
    fid, bpd = experiment.metrics
    assert list(experiment.stages) == ["train", "eval"]
    assert (fid.reference, fid.tolerance, fid.count, fid.extractor) == (3.0, 0.5, 100, "digits")
    assert (bpd.reference, bpd.unit, bpd.count) == (2.0, "bits/dim", None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valeu": 3}, r"row 1 \(score_sde/table1/x/fid\): unknown key 'valeu'; did you mean 'value'\?"),
        ({"zzz": 3}, "unknown key 'zzz'; known keys: id, paper,"),
        ({"direction": "up"}, "direction is 'up', expected one of lower, higher, band"),
        ({"metric": "FID score"}, "metric is 'FID score', expected a snake_case name"),
        ({"value": [1]}, r"value is \[1\], expected a number or a text or a mapping"),
        ({"value": True}, "value is True, expected a number"),
        ({"pm": -1}, "pm is -1, expected a number, 0 or more"),
        ({"dataset": " "}, "dataset is ' ', expected a text"),
        ({"settings": "x"}, "settings is 'x', expected a mapping"),
        ({"certainty": "sure"}, "certainty is 'sure', expected one of seed, repo, page, memory"),
        ({"kind": "guess"}, "kind is 'guess', expected published, experiment, recipe or gap"),
        ({"runnable": "yes"}, "original_repo is missing, which a row with runnable: yes needs"),
        ({"id": "ncsn/x"}, "id 'ncsn/x' must begin with score_sde/"),
        ({"source": None}, "source is None, expected a text"),
    ],
)
def test_a_published_row_that_breaks_the_schema_is_refused(published: dict[str, Any], change: dict, message: str):
    with pytest.raises(TableError, match=message):
        parse(published | change)


def test_a_missing_key_is_named(published: dict[str, Any]):
    del published["certainty"]
    with pytest.raises(TableError, match="certainty is missing"):
        parse(published)


def test_an_id_used_twice_is_refused(published: dict[str, Any]):
    with pytest.raises(TableError, match="used more than once: score_sde/table1/x/fid"):
        parse(published, deepcopy(published))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": {}}, "stages is {}, expected a mapping of stage names"),
        ({"stages": {"train": "rm -r {workdir}"}}, "commands that begin with `python -m`"),
        ({"metrics": []}, r"metrics is \[\], expected a list with at least one entry"),
        ({"metrics": "fid"}, "metrics is 'fid', expected a list"),
        ({"metrics": [{"metric": "fid"}]}, r"\(score_sde/tiny\), metric 1: direction is missing"),
        ({"value": 3}, "unknown key 'value'"),
    ],
)
def test_an_experiment_that_breaks_the_schema_is_refused(raw: dict[str, Any], change: dict, message: str):
    with pytest.raises(TableError, match=message):
        parse(raw | change)


@pytest.mark.parametrize("absent", ["reference", "tolerance"])
def test_a_reference_without_its_tolerance_is_refused(raw: dict[str, Any], absent: str):
    raw["metrics"][0][absent] = None
    with pytest.raises(TableError, match="metric 1: reference and tolerance belong together"):
        parse(raw)


def test_a_table_is_a_list_of_mappings():
    with pytest.raises(TableError, match="expected a list of rows, found dict"):
        parse_rows({}, package="score_sde", source="tables.yaml")
    with pytest.raises(TableError, match="row 1: expected a mapping, found str"):
        parse("x")


@pytest.mark.parametrize("text", ["- id: [", "- id: a\n  id: b\n", "- !!python/name:os.system\n"])
def test_broken_repeated_and_executable_yaml_is_refused(text: str):
    with pytest.raises(TableError, match=r"tables\.yaml is not valid YAML"):
        parse_table(text, package="score_sde", source="tables.yaml")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packaged_tables_are_valid(package: str):
    assert all(row.id.startswith(f"{package}/") for row in load_package(package))


def test_a_package_that_is_not_installed_has_no_rows():
    assert load_package("no_such_package") == ()


def test_an_unknown_id_lists_close_ones(experiment: Experiment):
    assert find_row([experiment], "score_sde/tiny") is experiment
    with pytest.raises(Exception, match=r"There is no row 'score_sde/tinny'. Close ids: score_sde/tiny\."):
        find_row([experiment], "score_sde/tinny")
    assert {row.id for row in load_all()} >= {"score_sde/digits", "score_sde/photos"}
