"""FID against the number of samples: the fit finds what is known of Gaussians, and the command says what it lacks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from score_core.metrics import FrechetReference, Statistics, moments
from score_core.repro import __main__ as command
from score_core.repro.figures import captioned_figures
from score_core.repro.runner import RunRecord
from score_core.repro.sanity import Point, fid_curve, fit_bias, sample_counts
from score_core.runs.results import Result, add_results

D = 8


def gaussian(count: int, shift: float = 0.0, seed: int = 0) -> Statistics:
    """Statistics of standard normal activations whose first feature is moved."""
    activations = np.random.default_rng(seed).normal(size=(count, D)).astype(np.float32)
    activations[:, 0] += shift
    return Statistics.from_activations(activations, header={"extractor": "digits"})


@pytest.fixture(scope="module")
def reference() -> Statistics:
    """The exact moments of a standard normal, with activations for the floor."""
    drawn = gaussian(20_000, seed=1)
    return Statistics(np.zeros(D), np.eye(D), 20_000, {"extractor": "digits"}, drawn.pool_3)


def test_the_extrapolation_finds_the_distance_of_infinitely_many_samples(reference: Statistics):
    """Of N(shift, I) and N(0, I) it is shift^2 = 0.25. The bias of n samples is (D + D (D + 1) / 4) / n to first order:
    D / n from the mean, and from the covariance the expectation of |C - I|^2 / 4.
    """
    curve = fid_curve(gaussian(8000, shift=0.5), reference, parts=8)
    assert curve.fit is not None
    assert curve.fit.limit == pytest.approx(0.25, abs=3 * (curve.standard_error or 0))
    bias = D + D * (D + 1) / 4
    floor = curve.floor[2]
    assert floor.count == 500
    assert floor.mean == pytest.approx(bias / 500, abs=4 * floor.spread / floor.parts**0.5)
    assert [point.parts for point in curve.measured] == [8, 8, 8, 8, 4, 2, 1]
    assert all(early.mean > late.mean for early, late in zip(curve.floor, curve.floor[1:], strict=False))


def test_the_fit_is_exact_for_an_exact_law_and_uses_the_larger_counts_alone():
    points = [Point(n, 2 + 300 / n, 0.1, 3) for n in (250, 500, 1000)]
    fit = fit_bias([Point(125, 99.0, 0.1, 3), *points])
    assert fit is not None
    assert (fit.limit, fit.slope, fit.misfit) == (pytest.approx(2), pytest.approx(300), pytest.approx(0, abs=1e-12))
    assert fit.at(50_000) == pytest.approx(2.006)
    assert fit.counts == (250, 500, 1000)
    assert fit_bias(points[:1]) is None


def test_the_last_point_is_the_fid_of_all_samples(reference: Statistics):
    samples = gaussian(400, shift=1.0)
    curve = fid_curve(samples, reference)
    assert samples.pool_3 is not None
    expected = FrechetReference(reference.mean, reference.cov).distance(*moments(samples.pool_3))
    assert curve.measured[-1].mean == pytest.approx(expected, rel=1e-10)
    assert (curve.measured[-1].spread, curve.measured[-1].parts) == (None, 1)
    assert curve.standard_error is not None and 0 < curve.standard_error < expected


def test_without_activations_of_the_reference_there_is_no_floor():
    assert fid_curve(gaussian(100), Statistics(np.zeros(D), np.eye(D), None, {})).floor == []


@pytest.mark.parametrize(
    ("total", "counts"),
    [(30, [30]), (59, [59]), (60, [30, 60]), (1000, [31, 62, 125, 250, 500, 1000]), (50_000, 7)],
)
def test_counts_are_halved_while_a_part_is_large_enough(total: int, counts: Any):
    found = sample_counts(total)
    assert len(found) == counts if isinstance(counts, int) else found == counts


@pytest.mark.parametrize(
    ("samples", "published", "text"),
    [
        (gaussian(100), 50_000, "100 samples, the published number used 50,000: the FID is biased upwards"),
        (gaussian(100), 50, "compare at that number"),
        (gaussian(40), 40, None),
    ],
)
def test_it_warns_of_what_cannot_be_compared(
    samples: Statistics, published: int, text: str | None, reference: Statistics
):
    warnings = fid_curve(samples, reference, published_count=published).warnings
    assert warnings == [] if text is None else any(text in warning for warning in warnings)


def test_it_warns_where_the_bias_does_not_fall_as_1_over_n():
    activations = np.random.default_rng(0).normal(size=(100, 40)).astype(np.float32)
    samples = Statistics.from_activations(activations, header={})
    warnings = fid_curve(samples, Statistics(np.zeros(40), np.eye(40), None, {}), published_count=100).warnings
    assert any("50 samples for 40 features" in warning for warning in warnings)


@pytest.fixture
def evaluated(tmp_path: Path, reference: Statistics) -> Path:
    """A run with activations in two rounds of two checkpoints, of which the newer counts."""
    workdir = tmp_path / "run"
    for checkpoint, count in ((2, 40), (10, 60)):
        folder = workdir / f"eval/ckpt_{checkpoint}_host_0"
        folder.mkdir(parents=True)
        for round_ in range(2):
            np.savez(folder / f"statistics_{round_}.npz", pool_3=gaussian(count, seed=round_).pool_3)
    (workdir / "statistics").mkdir()
    reference.save(workdir / "statistics/data.npz")
    add_results(workdir / "results.json", [Result("fid", 1.0, extractor="digits:0123")])
    return workdir


def test_the_command_reads_a_run_and_adds_the_picture_to_its_report(evaluated: Path, capsys: Any):
    assert command.main(["sanity", str(evaluated), "--published-count", "200"]) == 0
    output = capsys.readouterr().out
    for text in ("Extractor digits, 8 features", "120 ", "infinitely many", "Fit: FID(n) =", "used 200"):
        assert text in output, text
    assert "unknown" not in output
    (picture,) = captioned_figures(evaluated)
    assert picture.width > 600
    assert "FID against the number of samples" in picture.alt
    assert "used 200" in picture.caption
    numbers = json.loads((evaluated / "figures/fid_against_count.json").read_text())["numbers"]
    assert [point["count"] for point in numbers["measured"]] == [30, 60, 120]


def test_the_command_measures_images(tmp_path: Path, capsys: Any):
    from score_core.metrics import collect_statistics, get_extractor

    images = np.random.default_rng(0).integers(0, 255, (70, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "samples.npz", samples=images)
    collect_statistics(get_extractor("digits"), [images], header={"dataset": "d"}).save(tmp_path / "data.npz")
    arguments = ["--samples", f"{tmp_path}/samples.npz", "--statistics", f"{tmp_path}/data.npz", "-o", str(tmp_path)]
    assert command.main(["sanity", *arguments]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("70 "))
    assert abs(float(line.split()[1])) < 1e-6  # the images against themselves
    assert (tmp_path / "fid_against_count.png").exists()


def test_the_count_to_compare_with_is_that_of_the_experiment(evaluated: Path, capsys: Any):
    RunRecord("score_sde/digits", "full").write(evaluated)
    assert command.main(["sanity", str(evaluated)]) == 0
    assert "the published number used 1,000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "Name a work folder, or samples"),
        (["{}", "--samples", "x"], "Name a work folder, or samples"),
        (["{}/eval"], "found in"),
        (["{}/eval", "--statistics", "{}/statistics/data.npz"], "holds no activations"),
        (["{}", "--statistics", "{}/none.npz"], "no such statistics file"),
        (["--samples", "{}/none"], "needs --statistics"),
        (["--samples", "{}/none", "--statistics", "{}/statistics/data.npz"], "is no dataset, folder"),
        (["{}", "--parts", "0"], "whole numbers"),
    ],
)
def test_what_is_lacking_ends_with_one_clear_error(arguments: list[str], text: str, evaluated: Path, capsys: Any):
    assert command.main(["sanity", *(argument.replace("{}", str(evaluated)) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert text in error and error.startswith("error: ") and error.count("\n") == 1


def test_other_extractors_and_too_few_samples_are_refused(evaluated: Path, capsys: Any):
    Statistics(np.zeros(D), np.eye(D), 100, {"extractor": "fid"}).save(evaluated / "other.npz")
    assert command.main(["sanity", str(evaluated), "--statistics", f"{evaluated}/other.npz"]) == 2
    assert "extractor 'digits', the reference with extractor 'fid'" in capsys.readouterr().err
    for file in evaluated.glob("eval/*/statistics_*.npz"):
        np.savez(file, pool_3=gaussian(5).pool_3)
    assert command.main(["sanity", str(evaluated)]) == 2
    assert "10 samples are too few" in capsys.readouterr().err
