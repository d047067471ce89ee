"""The page over all tables and runs: what stands on it, that it stands alone, and that nothing can break out of it."""

import base64
import hashlib
import io
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_pages import Page
from PIL import Image

from score_core.repro import __main__ as command
from score_core.repro.catalogue import Run, catalogue, load_runs
from score_core.repro.figures import Figure, data_uri, light_weight
from score_core.repro.outcome import gather
from score_core.repro.page_parts import SIGNS
from score_core.repro.runner import RunRecord
from score_core.repro.schema import Experiment, Published, Row
from score_core.repro.site import page
from score_core.repro.tables import load_all, parse_table
from score_core.runs.results import Result, add_results

EXCERPT = (Path(__file__).parent / "data" / "excerpt.yaml").read_text()


@pytest.fixture
def rows(experiment: Experiment) -> tuple[Row, ...]:
    return (experiment, *parse_table(EXCERPT, package="score_sde", source="excerpt.yaml"))


def written(rows: tuple[Row, ...], runs: list[Run] | None = None, **more: Any) -> str:
    return page(catalogue(rows, runs or []), utc="2026-01-01T00:00:00Z", **more)


def lines_of(parsed: Page) -> dict[str, dict[str, str | None]]:
    """The line of each id, by what the filters see of it."""
    return {line.get("id") or "": line for line in parsed.all("tbody") if "data-metric" in line}


def test_every_row_stands_on_the_page_with_what_became_of_it(
    rows: tuple[Row, ...], run: tuple[Path, RunRecord], experiment: Experiment
):
    workdir, record = run
    parsed = Page(written(rows, [Run(workdir, gather(experiment, record, workdir))]))
    verdicts = {name: line["data-verdict"] for name, line in lines_of(parsed).items()}
    assert verdicts == {
        "score_sde/tiny#fid": "reproduced",
        "score_sde/tiny#bits_per_dim": "reproduced",
        **{row.id: "not runnable" for row in rows if isinstance(row, Published)},
    }
    for text in (
        "4.98 ± 0.06",
        "3.28 bits/dim",
        "over 90 percent fewer",
        "2.050 ± 0.012 bits/dim",
        "±0.5",
        "2011.13456",
    ):
        assert text in parsed.text, text
    for text in (
        "repro run score_sde/tiny",
        "digits:0123abcd",
        "12,345",
        "predictor_steps = 1000",
        "1 min 15 s",
        "numpy",
    ):
        assert text in parsed.text, text  # the command and the provenance
    assert "quoted for comparison" in parsed.text  # why a baseline cannot be run


def test_a_published_row_shows_the_run_that_says_most(
    rows: tuple[Row, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A full run before a newer smoke run; a value that was only recalled is shown and not judged."""
    cell = next(row for row in rows if isinstance(row, Published) and row.metric == "fid")
    recipe = Experiment(
        cell.id, "t", "d", cell.paper, "data", "tiny", {"eval": "python -m x --workdir {workdir}"}, "--small", ()
    )

    def resolve(row_id: str, rows: Any) -> Experiment:
        row = next(row for row in rows if row.id == row_id)
        reference = replace(
            experiment_reference, reference=4.98, tolerance=0.18, certainty=row.certainty, count=None, extractor=None
        )
        return replace(recipe, metrics=(reference,))

    experiment_reference = next(row for row in rows if isinstance(row, Experiment)).metrics[0]
    for module in ("catalogue.resolve", "catalogue.why_not"):
        monkeypatch.setattr(f"score_core.repro.{module}", resolve if module.endswith("resolve") else lambda row: None)
    for name, scale, value, utc in (
        ("full", "full", 5.0, "2026-01-01T00:00:00Z"),
        ("newer", "smoke", 400.0, "2026-02-01T00:00:00Z"),
    ):
        (tmp_path / name).mkdir()
        RunRecord(cell.id, scale).write(tmp_path / name)
        add_results(tmp_path / name / "results.json", [Result("fid", value, sample_count=50_000, utc=utc)])
    for certainty, verdict in (("page", "reproduced"), ("memory", "not comparable")):
        known = (replace(cell, certainty=certainty),)
        runs, problems = load_runs(sorted(tmp_path.iterdir()), known)
        parsed = Page(written(known, runs))
        assert problems == []
        assert lines_of(parsed)[cell.id]["data-verdict"] == verdict
        assert ("unverified: the published value is recalled" in parsed.text) == (certainty == "memory")
        links = {a["href"] for a in parsed.all("a")}
        assert {f"#run%3A{tmp_path / 'full'}", f"#run%3A{tmp_path / 'newer'}"} <= links


def test_a_damaged_run_is_named_and_keeps_no_other_from_the_page(
    rows: tuple[Row, ...], run: tuple[Path, RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/repro.json").write_text("{")
    monkeypatch.setattr(command, "load_all", lambda: rows)
    out = tmp_path / "new/all.html"
    assert command.main(["report", "--all", "-o", str(out), str(run[0]), str(run[0]), str(tmp_path / "bad")]) == 0
    printed = capsys.readouterr()
    assert "4 rows, 1 run:" in printed.out
    assert "bad: Cannot read" in printed.err
    text = Page(out.read_text("utf-8")).text
    assert "Not on this page" in text
    assert lines_of(Page(out.read_text("utf-8")))["score_sde/tiny#fid"]["data-verdict"] == "reproduced"
    assert command.main(["report", "-o", str(out)]) == 2
    capsys.readouterr()
    assert command.main(["report", "--all", "-o", str(out / "below/a/file.html"), str(run[0])]) == 1
    assert capsys.readouterr().err.startswith("error: Cannot make the folder")


@pytest.fixture(scope="module")
def everything() -> tuple[Row, ...]:
    """The rows of all packages."""
    return load_all()


def test_the_page_of_all_packages_is_light_and_complete(everything: tuple[Row, ...]):
    rows = everything
    text = written(rows)
    assert len(rows) > 200  # whatever this environment has installed
    assert len(text.encode()) < 2e6
    known = lines_of(Page(text))
    assert {row.id for row in rows if isinstance(row, Published)} <= known.keys()


def test_without_any_run_the_page_tells_what_could_be_run(
    rows: tuple[Row, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setattr(command, "load_all", lambda: rows)
    monkeypatch.chdir(tmp_path)
    assert command.main(["report", "--all"]) == 0
    assert "4 rows, 0 runs: 3 not runnable, 2 not run" in capsys.readouterr().out
    assert (tmp_path / "runs/report.html").exists()


def test_the_page_stands_alone_and_lets_nothing_else_run(rows: tuple[Row, ...], run: tuple[Path, RunRecord]):
    text = written(rows)
    assert not re.search(r"""(src|srcset|href|action)=["'](?!#|data:image/)""", text)
    assert "url(" not in text and "@import" not in text
    policy = next(meta["content"] for meta in Page(text).all("meta") if meta.get("http-equiv")) or ""
    assert "default-src 'none'" in policy
    for kind in ("style", "script"):
        (inside,) = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()}'" in policy


HOSTILE = """"><img src=x onerror=alert(1)></script><script>alert(1)</script>'<!--&lt;"""


def test_hostile_names_stay_text(rows: tuple[Row, ...], run: tuple[Path, RunRecord], experiment: Experiment):
    workdir, record = run
    cell = next(row for row in rows if isinstance(row, Published))
    fields = ("id", "paper", "table", "row", "column", "metric", "dataset", "unit", "config", "source", "note")
    cell = replace(cell, **dict.fromkeys(fields, HOSTILE), settings={HOSTILE: HOSTILE}, gap=HOSTILE)
    bad = replace(experiment, id=HOSTILE, title=HOSTILE, description=HOSTILE, paper=HOSTILE, dataset=HOSTILE)
    outcome = gather(bad, record, workdir)
    figure = Figure(b"", b"", 1, 1, HOSTILE, HOSTILE)
    picture = [replace(figure, light=small_png(8), dark=small_png(8))]
    outcome = replace(outcome, figures=picture, record=replace(record, id=HOSTILE, framework=HOSTILE))
    text = written((bad, cell), [Run(Path(HOSTILE), outcome)], problems=[HOSTILE])
    parsed = Page(text)  # nests
    assert len(parsed.all("script")) == 1
    assert all(image.get("src", "").startswith("data:") and "onerror" not in image for image in parsed.all("img"))
    assert not any(name.startswith("on") for _, attributes in parsed.tags for name in attributes)
    assert parsed.text.count(HOSTILE) > 15


def test_the_page_is_accessible(rows: tuple[Row, ...], run: tuple[Path, RunRecord], experiment: Experiment):
    workdir, record = run
    parsed = Page(written(rows, [Run(workdir, gather(experiment, record, workdir))]))
    assert parsed.all("html") == [{"lang": "en"}]
    for landmark in ("header", "nav", "main", "footer"):
        assert len(parsed.all(landmark)) == 1, landmark
    assert parsed.all("form")[0]["role"] == "search"
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert all(cell.get("scope") in ("row", "col") for cell in parsed.all("th"))
    names = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(names) == len(set(names))
    labelled = {label["for"] for label in parsed.all("label")}
    assert {field["id"] for field in parsed.all("input") + parsed.all("select")} == labelled
    assert {section["aria-labelledby"] for section in parsed.all("section") if "aria-labelledby" in section} <= set(
        names
    )
    assert {(link["href"] or "#")[1:] for link in parsed.all("a")} <= {
        name.replace("#", "%23") for name in names if name
    }


def test_each_status_has_its_colour_and_its_meaning(rows: tuple[Row, ...]):
    css = "".join((Path(command.__file__).parent / name).read_text() for name in ("report.css", "site.css"))
    legend = Page(written(rows)).text
    for status in SIGNS:
        assert f".{status.replace(' ', '-')} {{" in css, status
        assert status in legend
    assert len(set(SIGNS.values())) == len(SIGNS)


def small_png(width: int, height: int = 4) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def test_pictures_are_made_light_for_a_page_of_many():
    small, large = small_png(40), small_png(4000, 300)
    figure = Figure(large, large, 800, 60, "alt", "caption")
    assert light_weight(replace(figure, light=small, dark=small)).light == small  # untouched, to the pixel
    shrunk = light_weight(figure)
    assert shrunk.light is shrunk.dark
    assert len(shrunk.light) < len(large) / 4
    assert Image.open(io.BytesIO(shrunk.light)).size == (1280, 96)
    assert data_uri(shrunk.light).startswith("data:image/webp;base64,")
    assert (shrunk.width, shrunk.height) == (800, 60)
