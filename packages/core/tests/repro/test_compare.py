"""Verdicts."""

from dataclasses import replace
from itertools import product

import pytest

from score_core.repro.compare import Verdict, compare, overall
from score_core.repro.schema import Experiment, Reference
from score_core.runs.results import Result


@pytest.fixture
def reference(experiment: Experiment) -> Reference:
    return experiment.metrics[0]  # fid, 3.0 +- 0.5, 100 samples, extractor digits


@pytest.mark.parametrize(
    ("direction", "value", "verdict"),
    [
        ("band", 3.5, Verdict.REPRODUCED),
        ("band", 2.5, Verdict.REPRODUCED),
        ("band", 3.51, Verdict.DEVIATES),
        ("band", 2.49, Verdict.DEVIATES),
        ("lower", 0.1, Verdict.REPRODUCED),
        ("lower", 3.5, Verdict.REPRODUCED),
        ("lower", 3.51, Verdict.DEVIATES),
        ("higher", 9.0, Verdict.REPRODUCED),
        ("higher", 2.5, Verdict.REPRODUCED),
        ("higher", 2.49, Verdict.DEVIATES),
        ("band", float("nan"), Verdict.DEVIATES),
        ("lower", float("-inf"), Verdict.DEVIATES),
    ],
)
def test_a_value_is_judged_by_tolerance_and_direction(
    reference: Reference, fid: Result, direction: str, value: float, verdict: Verdict
):
    comparison = compare(replace(reference, direction=direction), [replace(fid, value=value)])
    assert comparison.verdict is verdict
    assert comparison.reason


def test_the_reason_tells_distance_and_tolerance(reference: Reference, fid: Result):
    assert compare(reference, [replace(fid, value=4.0)]).reason == "+1 from the reference, allowed are 0.5"


def test_a_metric_that_was_not_measured_is_missing(reference: Reference, bpd: Result):
    comparison = compare(reference, [bpd])
    assert (comparison.verdict, comparison.measured) == (Verdict.MISSING, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"extractor": "inception:99"}, "measured with the extractor inception:99, the reference with digits"),
        ({"extractor": "digits2:99"}, "extractor digits2:99"),
        ({"extractor": None}, "extractor None"),
        ({"sample_count": 99}, "too few samples: 99, the reference has 100"),
        ({"sample_count": None}, "too few samples: unknown"),
        ({"sample_count": 101}, "other number of samples: 101"),
    ],
)
def test_other_conditions_are_not_comparable(reference: Reference, fid: Result, change: dict, reason: str):
    comparison = compare(reference, [replace(fid, **change)])
    assert comparison.verdict is Verdict.NOT_COMPARABLE
    assert reason in comparison.reason


def test_another_protocol_is_not_comparable(reference: Reference, fid: Result):
    wanted = replace(reference, protocol="final")
    comparison = compare(wanted, [replace(fid, protocol="selection")])
    assert comparison.verdict is Verdict.NOT_COMPARABLE
    assert "measured by the protocol selection, the reference by final" in comparison.reason
    assert compare(wanted, [replace(fid, protocol="final")]).verdict is Verdict.REPRODUCED


def test_more_samples_do_not_hurt_a_metric_that_does_not_depend_on_them(reference: Reference, fid: Result):
    kid = replace(reference, metric="kid")
    assert compare(kid, [replace(fid, metric="kid", sample_count=101)]).verdict is Verdict.REPRODUCED


def test_other_data_are_not_comparable(experiment: Experiment, bpd: Result):
    reference = replace(experiment.metrics[1], dataset="digits/train")
    assert compare(reference, [bpd]).reason == "measured on digits/test, the reference on digits/train"


def test_bits_per_dim_is_known_under_both_names(experiment: Experiment, bpd: Result):
    for name in ("bpd", "bits_per_dim"):
        assert compare(experiment.metrics[1], [replace(bpd, metric=name)]).verdict is Verdict.REPRODUCED


def test_the_newest_comparable_result_counts(reference: Reference, fid: Result):
    old = replace(fid, utc="2026-01-01T00:00:00Z", value=9.0)
    new = replace(fid, utc="2026-01-02T00:00:00Z", value=3.0)
    newest = replace(fid, utc="2026-01-03T00:00:00Z", value=5.0, sample_count=7)
    for results in ([old, new, newest], [newest, new, old]):
        assert compare(reference, results).measured == new


def test_without_a_reference_value_nothing_is_comparable(reference: Reference, fid: Result):
    comparison = compare(replace(reference, reference=None, tolerance=None), [fid])
    assert comparison.verdict is Verdict.NOT_COMPARABLE
    assert "no reference value yet" in comparison.reason


def test_a_smoke_run_is_not_comparable_whatever_it_measured(reference: Reference, fid: Result):
    for result in (fid, replace(fid, sample_count=1)):
        comparison = compare(reference, [result], full_scale=False)
        assert comparison.verdict is Verdict.NOT_COMPARABLE
        assert "smoke run" in comparison.reason


def test_the_gravest_verdict_is_the_one_of_the_run(reference: Reference, fid: Result):
    comparison = compare(reference, [fid])
    order = [Verdict.REPRODUCED, Verdict.NOT_COMPARABLE, Verdict.MISSING, Verdict.MISSING_INPUT, Verdict.DEVIATES]
    for (i, a), (j, b) in product(enumerate(order), repeat=2):
        pair = [replace(comparison, verdict=a), replace(comparison, verdict=b)]
        assert overall(pair) is order[max(i, j)]
