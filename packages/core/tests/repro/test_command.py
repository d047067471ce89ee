"""The repro command: what it prints, and how it ends."""

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from score_core.repro import __main__ as command
from score_core.repro.schema import Experiment, Row
from score_core.repro.tables import parse_table

EXCERPT = (Path(__file__).parent / "data" / "excerpt.yaml").read_text()

STUB = """
import sys
from pathlib import Path
from score_core.runs.results import Result, add_results
workdir = Path(sys.argv[sys.argv.index("--workdir") + 1])
values = {name: float(value) for name, value in (line.split() for line in open(workdir.parent / "values.txt"))}
if "--mode" in sys.argv and "eval" in sys.argv:
    add_results(workdir / "results.json", [
        Result(metric, value, sample_count=100, extractor="digits:0123") for metric, value in values.items()
    ])
"""


@pytest.fixture
def rows(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> tuple[Row, ...]:
    """The rows that the command sees: an experiment and three published ones."""
    found = (experiment, *parse_table(EXCERPT, package="score_sde", source="excerpt.yaml"))
    monkeypatch.setattr(command, "load_all", lambda: found)
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the stub module that stands for the stages' program."""
    (tmp_path / "stub_stage.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines()[1:]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [0, 1, 2, 3]),
        (["--metric", "fid"], [0, 1]),
        (["--metric", "bits_per_dim"], [0, 2]),
        (["--table", "figure 3"], [3]),
        (["--paper", "score_sde"], [0, 1, 2, 3]),
        (["--paper", "stochastic differential", "--table", "table 2"], [2]),
        (["--runnable"], [0]),
    ],
)
def test_list_selects(arguments: list[str], expected: list[int], rows: tuple[Row, ...], capsys: Any):
    assert command.main(["list", *arguments]) == 0
    assert ids(capsys.readouterr().out) == [rows[i].id for i in expected]


def test_list_prints_values_with_uncertainty_and_unit(rows: tuple[Row, ...], capsys: Any):
    command.main(["list"])
    output = capsys.readouterr().out
    assert "4.98 ± 0.06" in output
    assert "3.28 bits/dim" in output


def test_list_without_a_match_says_so(rows: tuple[Row, ...], capsys: Any):
    assert command.main(["list", "--metric", "none"]) == 0
    assert capsys.readouterr().out == "No row matches.\n"


@pytest.mark.parametrize("number", range(4))
def test_show_prints_every_field_of_every_kind_of_row(number: int, rows: tuple[Row, ...], capsys: Any):
    assert command.main(["show", rows[number].id]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"id: {rows[number].id}\n")
    assert ("  predictor_steps: 1000\n" in output) == (number == 1)
    assert ("  reference: 3\n" in output) == (number == 0)


def test_cite_prints_bibtex(rows: tuple[Row, ...], capsys: Any):
    assert command.main(["cite", rows[0].id]) == 0
    assert capsys.readouterr().out.startswith("@inproceedings{song2021scorebased,")


@pytest.mark.parametrize("name", ["show", "cite", "run"])
def test_an_unknown_id_ends_with_status_2(name: str, rows: tuple[Row, ...], capsys: Any):
    assert command.main([name, "score_sde/tin"]) == 2
    assert "Close ids: score_sde/tiny" in capsys.readouterr().err


def test_a_published_number_without_a_recipe_says_why_it_cannot_be_run(rows: tuple[Row, ...], capsys: Any):
    assert command.main(["run", rows[1].id]) == 2
    assert "cannot be run: no recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "status", "word"),
    [
        ("fid 3.2\nbpd 2.0\n", 0, "reproduced"),
        ("fid 9.9\nbpd 2.0\n", 3, "deviates"),
        ("fid 3.2\n", 4, "missing"),
    ],
)
def test_run_compares_reports_and_ends_with_the_status_of_its_verdict(
    values: str, status: int, word: str, rows: tuple[Row, ...], here: Path, capfd: Any
):
    (here / "values.txt").write_text(values)
    assert command.main(["run", "score_sde/tiny", "--workdir", str(here / "w")]) == status
    output = capfd.readouterr().out
    assert f"score_sde/tiny: {word}" in output
    assert f"Report: {here / 'w' / 'report.html'}" in output
    assert (here / "w" / "verdict.json").exists()


@pytest.mark.parametrize(("values", "status"), [("fid 99\nbpd 99\n", 0), ("fid 99\n", 4)])
def test_a_smoke_run_succeeds_when_every_metric_was_measured(
    values: str, status: int, rows: tuple[Row, ...], here: Path
):
    (here / "values.txt").write_text(values)
    assert command.main(["run", "score_sde/tiny", "--scale", "smoke", "--workdir", str(here / "w")]) == status


def test_a_failing_stage_passes_on_its_status_and_writes_no_report(
    rows: tuple[Row, ...], here: Path, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    broken = replace(experiment, stages={"train": "python -m no_such_module"})
    monkeypatch.setattr(command, "load_all", lambda: (broken,))
    assert command.main(["run", "score_sde/tiny"]) == 1
    assert "The same command resumes it" in capfd.readouterr().err
    assert not (here / "runs/score_sde/tiny/report.html").exists()


def test_report_writes_the_reports_of_all_runs_anew(rows: tuple[Row, ...], here: Path, raw: dict, capfd: Any):
    assert command.main(["report"]) == 2  # nothing there yet
    workdir = here / "runs/score_sde/tiny"
    workdir.mkdir(parents=True)
    (workdir.parent / "values.txt").write_text("fid 9.9\nbpd 2.0\n")
    assert command.main(["run", "score_sde/tiny"]) == 3
    (workdir / "report.html").unlink()
    capfd.readouterr()
    assert command.main(["report"]) == 0
    assert (workdir / "report.html").exists()
    assert "score_sde/tiny: deviates" in capfd.readouterr().out


def test_help_starts_fast_and_imports_nothing_heavy():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "score_core.repro", "--help"], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "import sys, score_core.repro.__main__; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"jax", "torch", "matplotlib", "PIL", "scipy", "numpy", "ml_collections"} & set(modules)
    # Processor time: what a busy machine does beside this does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_reader_that_closes_the_pipe_early_is_no_error():
    read, write = os.pipe()
    os.close(read)
    listing = [sys.executable, "-m", "score_core.repro", "list"]
    done = subprocess.run(listing, check=False, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
