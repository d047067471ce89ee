"""The page and verdict.json: complete, self-contained, well-formed, readable in both colour schemes."""

import json
import re
from dataclasses import replace
from importlib import resources
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from html_pages import Page, contrast
from PIL import Image

from score_core.repro.compare import Verdict
from score_core.repro.formatting import duration, size, with_error
from score_core.repro.outcome import Outcome, gather, verdict_record
from score_core.repro.report import write_report
from score_core.repro.runner import RunRecord
from score_core.repro.schema import Experiment
from score_core.runs.results import Result, add_results


@pytest.fixture
def complete(run: tuple[Path, RunRecord]) -> tuple[Path, RunRecord]:
    """A run that also has pictures."""
    workdir, record = run
    (workdir / "samples/iter_12345_host_0").mkdir(parents=True)
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(workdir / "samples/iter_12345_host_0/sample.png")
    (workdir / "history.csv").write_text("step,training_loss,eval_loss,seconds\n0,1.0,1.1,0\n50,0.5,,1\n")
    return workdir, record


def written(experiment: Experiment, run: tuple[Path, RunRecord]) -> tuple[Outcome, Page, dict]:
    workdir, record = run
    outcome = gather(experiment, record, workdir)
    page = write_report(outcome, workdir)
    return outcome, Page(page.read_text("utf-8")), json.loads((workdir / "verdict.json").read_text())


def test_the_page_tells_what_ran_what_came_out_and_where_it_comes_from(
    experiment: Experiment, complete: tuple[Path, RunRecord]
):
    outcome, page, _ = written(experiment, complete)
    assert outcome.verdict is Verdict.REPRODUCED
    for text in (
        "Tiny & <quick>",  # escaped in the page, plain once parsed
        "Trains for a moment.",
        "Reproduced",
        "2 metrics: 2 reproduced.",
        "3.2",
        "±0.5",
        "2.050 ± 0.012 bits/dim",
        "+0.2 from the reference",
        "ten seeds",
        "python -m stub_stage",
        "1 min 15 s",
        "digits:0123abcd",
        "12,345",
        "Peak memory, host",
        "numpy",
        "2011.13456",
    ):
        assert text in page.text, text


def test_the_page_asks_no_server_for_anything(experiment: Experiment, complete: tuple[Path, RunRecord]):
    workdir, _ = complete
    _, page, _ = written(experiment, complete)
    assert not re.search(r"(https?:)?//\w", re.sub(r"base64,[\w+/=]*", "", (workdir / "report.html").read_text()))
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"} == set()
    addresses = [a.get(key) for _, a in page.tags for key in ("src", "srcset", "href") if key in a]
    assert len(addresses) == 3  # the grid, the curve, the curve in dark
    assert all((address or "").startswith("data:image/png;base64,") for address in addresses)


def test_the_page_is_accessible(experiment: Experiment, complete: tuple[Path, RunRecord]):
    _, page, _ = written(experiment, complete)
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table")) == 3
    assert all(cell.get("scope") in ("row", "col") for cell in page.all("th"))
    assert all(len(image.get("alt") or "") > 20 for image in page.all("img"))
    names = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {section["aria-labelledby"] for section in page.all("section")} <= names


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_is_at_least_that_of_wcag_aa(scheme: str):
    css = resources.files("score_core.repro").joinpath("report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", light if scheme == "light" else dark))
    pairs = [
        ("ink", "paper"),
        ("faint", "paper"),
        ("ink", "well"),
        ("link", "paper"),
        ("warn", "paper"),
        ("faint", "well"),
    ]
    pairs += [(name, f"{name}-well") for name in ("good", "bad", "warn", "mute")]
    for front, back in pairs:
        assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
    # What is no text: the edge of a field and the mark of the focus.
    for front, back in [("edge", "paper"), ("focus", "paper")]:
        assert contrast(colours[front], colours[back]) >= 3, (front, back)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_each_verdict_is_said_in_words_and_has_its_colour(
    experiment: Experiment, run: tuple[Path, RunRecord], fid: Result, verdict: Verdict
):
    workdir, ran = run
    (workdir / "results.json").unlink()
    results = {
        Verdict.REPRODUCED: [fid],
        Verdict.DEVIATES: [replace(fid, value=9.0)],
        Verdict.NOT_COMPARABLE: [replace(fid, sample_count=3)],
        Verdict.MISSING: [],
        Verdict.MISSING_INPUT: [],
    }
    if verdict is Verdict.MISSING_INPUT:
        ran.missing = ["the dataset CIFAR10"]
        ran.write(workdir)
    add_results(workdir / "results.json", results[verdict])
    outcome, page, record = written(replace(experiment, metrics=experiment.metrics[:1]), run)
    assert outcome.verdict is verdict
    assert record["verdict"] == record["metrics"][0]["verdict"] == str(verdict)
    assert str(verdict) in page.text
    name = verdict.replace(" ", "-")
    assert f".{name} {{" in resources.files("score_core.repro").joinpath("report.css").read_text()
    assert any(name in (attributes.get("class") or "") for attributes in page.all("span"))


def test_verdict_json_holds_the_numbers(experiment: Experiment, run: tuple[Path, RunRecord]):
    _, _, record = written(experiment, run)
    fid, bpd = record["metrics"]
    assert (record["id"], record["scale"], record["verdict"]) == ("score_sde/tiny", "full", "reproduced")
    assert (fid["value"], fid["reference"], fid["tolerance"], fid["sample_count"]) == (3.2, 3.0, 0.5, 100)
    assert (bpd["metric"], bpd["standard_error"]) == ("bits_per_dim", 0.0123)


def test_a_value_that_is_not_finite_is_valid_json(experiment: Experiment, run: tuple[Path, RunRecord], fid: Result):
    workdir, record = run
    add_results(workdir / "results.json", [replace(fid, value=float("nan"), utc="2999-01-01T00:00:00Z")])
    contents = verdict_record(gather(experiment, record, workdir))
    assert contents["metrics"][0]["value"] == "nan"
    json.dumps(contents, allow_nan=False)


def test_a_smoke_run_says_so_and_a_run_without_pictures_has_no_section_for_them(
    experiment: Experiment, run: tuple[Path, RunRecord]
):
    workdir, record = run
    outcome, page, _ = written(experiment, (workdir, replace(record, scale="smoke")))
    assert outcome.verdict is Verdict.NOT_COMPARABLE
    assert "This was a smoke run" in page.text
    assert "Samples and training" not in page.text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (3.2134, 0.0412, "3.213 ± 0.041"),
        (646.66, 24.3, "647 ± 24"),
        (27631.4, 4104.0, "27,600 ± 4,100"),
        (15.504916, 0.0004, "15.50492 ± 0.00040"),
        (0.0996, 0.0996, "0.100 ± 0.100"),
        (2.0, 0.0, "2 ± 0"),
        (2.0, float("nan"), "2 ± nan"),
        (float("inf"), 1.0, "inf ± 1"),
        (2.34567, None, "2.346"),
        (27631.4, None, "27,631"),
    ],
)
def test_a_value_is_cut_where_its_error_is(value: float, error: float | None, text: str):
    assert with_error(value, error) == text


def test_durations_and_sizes():
    assert [duration(s) for s in (1.23, 59.94, 60, 3599.4, 12000, 1e8)] == [
        "1.2 s",
        "59.9 s",
        "1 min 00 s",
        "59 min 59 s",
        "3 h 20 min",
        "1,157 days",
    ]
    assert [size(n) for n in (None, 5_400_000, 2_345_000_000)] == [None, "5 MB", "2.35 GB"]
