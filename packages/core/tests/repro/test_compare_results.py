"""Two results beside each other: what is tested against numbers known from elsewhere, and what is not compared."""

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from score_core.repro import __main__ as command
from score_core.repro.compare_results import Statement, compare_results, provenance_differences
from score_core.repro.runner import RunRecord
from score_core.runs.results import Result, add_results

A = Result("bpd", 3.00, standard_error=0.03, sample_count=180, dataset="digits/test", framework="jax", seed=1)
B = replace(A, value=3.10, standard_error=0.04, framework="torch")


def test_z_and_p_are_those_of_two_independent_normal_values():
    (pair,) = compare_results([A], [B])
    assert pair.difference == pytest.approx(0.1)
    assert pair.z == pytest.approx(2.0)  # 0.1 / 0.05
    assert pair.p == pytest.approx(0.0455003, abs=1e-6)  # tables of the normal distribution
    assert (pair.adjusted, pair.statement) == (pair.p, Statement.DIFFER)
    (back,) = compare_results([B], [A])
    assert (back.z, back.p) == (pytest.approx(-2.0), pytest.approx(pair.p))


def test_holm_corrects_for_the_number_of_metrics():
    """The example of p = 0.01, 0.04, 0.03 over three metrics: 0.03, 0.06, 0.06."""
    side_a = [replace(A, metric=name, value=0.0, standard_error=1.0) for name in ("x", "y", "z")]
    side_b = [
        replace(a, value=-NormalDist().inv_cdf(p / 2) * math.sqrt(2), standard_error=1.0)
        for a, p in zip(side_a, (0.01, 0.04, 0.03), strict=True)
    ]
    pairs = compare_results(side_a, side_b)
    assert [pair.p for pair in pairs] == pytest.approx([0.01, 0.04, 0.03])
    assert [pair.adjusted for pair in pairs] == pytest.approx([0.03, 0.06, 0.06])
    assert [pair.statement for pair in pairs] == [Statement.DIFFER, Statement.SAME, Statement.SAME]


def test_the_share_of_false_alarms_is_the_level():
    """2,000 comparisons of equal models: one in twenty differs, within four standard errors of that share."""
    rng = np.random.default_rng(0)
    alarms = 0
    for a, b in rng.normal(3.0, 0.03, (2000, 2)):
        (pair,) = compare_results([replace(A, value=a)], [replace(A, value=b)])
        alarms += pair.statement is Statement.DIFFER
    assert abs(alarms / 2000 - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 2000)


def test_few_trainings_take_students_distribution():
    """Against `scipy.stats.ttest_ind` of the values themselves, with ``equal_var=False`` (SciPy 1.17)."""
    values = [1.0, 1.2, 1.1], [1.5, 1.3, 1.6, 1.9]
    sides = [
        replace(
            A,
            value=float(np.mean(v)),
            standard_error=float(np.std(v, ddof=1) / math.sqrt(len(v))),
            details={"values": v},
        )
        for v in values
    ]
    (pair,) = compare_results(sides[:1], sides[1:])
    assert pair.p == pytest.approx(0.0247237, abs=1e-6)
    assert "degrees of freedom" in pair.reason
    (mixed,) = compare_results(sides[:1], [replace(sides[1], details={})])
    assert pair.p is not None and mixed.p is not None and mixed.p < pair.p


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (A, replace(B, dataset="digits/train"), "on other data: digits/test and digits/train"),
        (replace(A, metric="fid"), replace(B, metric="fid", sample_count=100), "other numbers of samples: 180 and 100"),
        (replace(A, metric="fid_ema"), replace(B, metric="fid_ema", sample_count=100), "other numbers of samples"),
        (
            replace(A, metric="inception_score"),
            replace(B, metric="inception_score", sample_count=None),
            "unknown number",
        ),
        (replace(A, extractor="a:1"), replace(B, extractor="b:1"), "other feature extractors: a:1 and b:1"),
        (replace(A, extractor="a:1"), replace(B, extractor="a:2"), "other feature extractors: a:1 and a:2"),
        (replace(A, protocol="complete"), replace(B, protocol="original"), "other protocols: complete and original"),
        (replace(A, extractor="a"), B, "other feature extractors: a and not recorded"),
    ],
)
def test_other_conditions_are_not_compared(a: Result, b: Result, reason: str):
    (pair,) = compare_results([a], [b])
    assert (pair.statement, pair.difference, pair.p) == (Statement.NOT_COMPARED, None, None)
    assert reason in pair.reason


def test_what_does_not_depend_on_the_number_of_samples_is_compared_across_numbers():
    (pair,) = compare_results(
        [replace(A, metric="kid", extractor="a")], [replace(B, metric="kid", sample_count=9, extractor="a:1")]
    )
    assert pair.p is not None


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        (replace(A, standard_error=None), B, "no standard error in A"),
        (replace(A, standard_error=math.nan), replace(B, standard_error=None), "no standard error in A and B"),
        (replace(A, standard_error=0.0), replace(B, standard_error=0.0), "both standard errors are 0"),
        (replace(A, value=math.inf), B, "a value is not finite"),
    ],
)
def test_without_an_error_the_difference_is_shown_and_not_judged(a: Result, b: Result, reason: str):
    (pair,) = compare_results([a], [b])
    assert (pair.statement, pair.reason, pair.p) == (Statement.UNJUDGED, reason, None)
    assert pair.difference is not None


def test_results_are_paired_by_data_then_checkpoint_then_time():
    old, new = replace(A, utc="2026-01-01T00:00:00Z"), replace(A, value=5.0, utc="2026-02-01T00:00:00Z")
    train = replace(A, dataset="digits/train", value=1.0)
    (pair, on_train) = compare_results([old, new, train], [train, replace(B, utc="2026-01-15T00:00:00Z")])
    assert (pair.a, on_train.a) == (new, train)
    stepped = [replace(old, checkpoint_step=10), replace(new, checkpoint_step=20)]
    (pair,) = compare_results(stepped, [replace(B, checkpoint_step=10)])
    assert pair.a == stepped[0]
    lonely = compare_results([A], [replace(B, metric="kid")])
    assert [p.reason for p in lonely] == ["only A has it", "only B has it"]


def test_what_differs_in_provenance_is_named_once():
    other = replace(B, seed=2, versions={**A.versions, "numpy": "0"})
    pairs = compare_results([A, replace(A, metric="loss")], [other, replace(other, metric="loss", seed=1)])
    found = {name: (a, b, metrics) for name, a, b, metrics in provenance_differences(pairs)}
    assert found["framework"] == ("jax", "torch", ["bpd", "loss"])
    assert found["seed"] == ("1", "2", ["bpd"])
    assert found["versions"][1] == "numpy 0"
    assert found.keys() == {"framework", "seed", "versions"}


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    for name, result in (("a", A), ("b", B), ("none", replace(B, standard_error=None)), ("same", replace(A, seed=2))):
        (tmp_path / name).mkdir()
        add_results(tmp_path / name / "results.json", [result])
    RunRecord("score_sde/tiny", "smoke").write(tmp_path / "b")
    return [str(tmp_path / name) for name in ("a", "b", "none", "same")]


def test_the_command_prints_the_statement_and_ends_with_its_status(folders: list[str], tmp_path: Path, capsys: Any):
    a, b, none, same = folders
    assert command.main(["compare", a, f"{b}/results.json"]) == 3
    output = capsys.readouterr().out
    for text in ("3.000 ± 0.030", "3.100 ± 0.040", "+0.1", "+2", "0.046", "differ", "framework: jax | torch"):
        assert text in output, text
    assert command.main(["compare", a, same]) == 0
    output = capsys.readouterr().out
    assert "no significant difference at 5 %" in output and "seed: 1 | 2" in output
    assert command.main(["compare", a, none]) == 4
    assert "significance cannot be judged" in capsys.readouterr().out
    (Path(none) / "results.json").rename(tmp_path / "results.json")
    assert command.main(["compare", a, str(tmp_path)]) == 4  # its own file before those below
    (tmp_path / "results.json").unlink()
    assert command.main(["compare", b, str(tmp_path)]) in (0, 3)  # those below
    command.main(["compare", a, b])
    assert "(score_sde/tiny, smoke scale, its numbers mean nothing)" in capsys.readouterr().out


def test_the_command_speaks_json(folders: list[str], capsys: Any):
    command.main(["compare", "--json", folders[0], folders[1]])
    record = json.loads(capsys.readouterr().out)
    assert record["metrics"][0]["statement"] == "differ"
    assert record["metrics"][0]["p"] == pytest.approx(0.0455, abs=1e-4)
    assert {"name": "framework", "a": "jax", "b": "torch", "metrics": ["bpd"]} in record["differences"]


@pytest.mark.parametrize("what", ["nothing", "empty", "damaged"])
def test_results_that_are_not_there_end_with_one_clear_error(
    what: str, folders: list[str], tmp_path: Path, capsys: Any
):
    (tmp_path / "side").mkdir()
    file = tmp_path / "side/results.json"
    if what != "nothing":
        file.write_text('{"schema": 1, "results": []}' if what == "empty" else "{")
    status = command.main(["compare", folders[0], str(tmp_path / "side")])
    error = capsys.readouterr().err
    assert status == (1 if what == "damaged" else 2)
    assert error.startswith("error: ") and error.count("\n") == 1
