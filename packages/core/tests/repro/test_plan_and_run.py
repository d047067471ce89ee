"""Planning and running a published cell: what it needs, which model it evaluates, what a lack leaves behind."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from score_core.checkpoints.manifest import Entry
from score_core.errors import UsageError
from score_core.repro import __main__ as command
from score_core.repro import needs, probe
from score_core.repro.planning import make_plan
from score_core.repro.schema import Experiment, Published, Row, parse_rows
from score_core.repro.tables import load_all

STUB = """
import sys
from pathlib import Path
from score_core.runs.results import Result, add_results
workdir = Path(sys.argv[sys.argv.index("--workdir") + 1])
with open(workdir.parent / "calls.txt", "a") as file:
    print(*sys.argv[1:], file=file)
if "--eval" in sys.argv:
    add_results(workdir / "results.json", [Result("fid", 3.25, sample_count=100, extractor="digits:0123")])
"""
CELL: dict[str, Any] = {
    "id": "score_sde/table9/cell",
    "paper": "Score-Based Generative Modeling through Stochastic Differential Equations (ICLR 2021)",
    "table": "Table 9",
    "row": "VP",
    "column": "FID",
    "metric": "fid",
    "direction": "lower",
    "value": 3.24,
    "pm": 0.02,
    "dataset": "digits",
    "runnable": "yes",
    "original_repo": "none",
    "source": "paper",
    "certainty": "page",
}
RECIPE: dict[str, Any] = {
    "id": "score_sde/recipes/cell",
    "kind": "recipe",
    "title": "A cell",
    "description": "Evaluates.",
    "config": "digits",
    "stages": {
        "train": "python -m stub_stage --workdir {workdir} --train",
        "eval": "python -m stub_stage --workdir {workdir} --eval",
    },
    "checkpoint": "python -m stub_stage --workdir {workdir} --from {checkpoint}",
    "option": "--option {key}={value}",
    "smoke": "--small",
    "frameworks": ["torch"],
    "cost": {"train": "7 days", "evaluate": "an hour", "source": "the authors"},
    "metrics": {"fid": {"count": 100, "extractor": "digits"}},
    "rows": {"table9/*": {}},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, without data and checkpoints, with the stub module of the stages' program."""
    (tmp_path / "stub_stage.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for name in ("SCORE_DATA", "SCORE_CHECKPOINTS", "SCORE_INCEPTION_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    entry = Entry("score_sde/vp/cell/checkpoint_3", "score_sde", "digits", "them", ("jax",), ("flax",), 3, ("*/cell",))
    monkeypatch.setattr(needs, "entries", lambda: (entry,))
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, **change: Any) -> tuple[Row, ...]:
    """The rows that the command sees: one cell of a recipe."""
    rows = parse_rows([{**RECIPE, **change}, dict(CELL)], package="score_sde", source="tables.yaml")
    monkeypatch.setattr(command, "load_all", lambda: rows)
    return rows


def calls(here: Path) -> list[str]:
    return [
        line.split("--")[-1].strip() for line in (here / "runs/score_sde/table9/calls.txt").read_text().splitlines()
    ]


def test_a_cell_is_trained_if_asked_for_and_judged(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch)
    assert command.main(["run", CELL["id"], "--train"]) == 0
    assert calls(here) == ["train", "eval"]
    workdir = here / "runs" / CELL["id"]
    verdict = json.loads((workdir / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["metrics"][0]["reference"]) == ("reproduced", 3.24)
    assert verdict["metrics"][0]["tolerance"] == pytest.approx(0.06)
    assert {file.name for file in workdir.iterdir()} >= {"repro.json", "results.json", "report.html"}


def test_a_given_checkpoint_and_the_authors_own_are_evaluated(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch)
    (here / "mine.pth").touch()
    assert command.main(["run", CELL["id"], "--checkpoint", "mine.pth"]) == 0
    official = here / "checkpoints/score_sde/vp/cell/checkpoint_3.pth"
    official.parent.mkdir(parents=True)
    official.touch()
    assert command.main(["run", CELL["id"], "--workdir", "runs/score_sde/table9/official"]) == 0
    assert calls(here) == ["from mine.pth", "eval", f"from {official.relative_to(here)}", "eval"]
    record = json.loads((here / "runs" / CELL["id"] / "repro.json").read_text())
    assert record["checkpoint"] == str(here / "mine.pth")


def test_a_folder_keeps_its_checkpoint(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch)
    (here / "mine.pth").touch()
    assert command.main(["run", CELL["id"], "--checkpoint", "mine.pth"]) == 0
    assert command.main(["run", CELL["id"], "--train"]) == 2
    assert "was started with --checkpoint" in capfd.readouterr().err


def test_missing_input_is_refused_early_listed_and_recorded(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch, needs={"datasets": ["cifar10"], "extractor": "inception"})
    assert command.main(["run", CELL["id"]]) == 2
    err = capfd.readouterr().err
    assert "nothing was run" in err
    for cure in ("cifar-10-python.tar.gz", "SCORE_INCEPTION_WEIGHTS", "checkpoints/score_sde/vp/cell/checkpoint_3"):
        assert cure in err
    assert not (here / "runs/score_sde/table9/calls.txt").exists()
    workdir = here / "runs" / CELL["id"]
    verdict = json.loads((workdir / "verdict.json").read_text())
    assert verdict["verdict"] == verdict["metrics"][0]["verdict"] == "missing input"
    assert "cifar10" in verdict["metrics"][0]["reason"]
    assert "missing input" in (workdir / "report.html").read_text().lower()


def test_a_run_that_lacked_something_goes_on_once_it_is_there(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch)
    assert command.main(["run", CELL["id"]]) == 2
    assert command.main(["run", CELL["id"], "--train"]) == 0
    assert json.loads((here / "runs" / CELL["id"] / "verdict.json").read_text())["verdict"] == "reproduced"


def test_a_smoke_run_needs_nothing_and_is_never_compared(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch, needs={"datasets": ["cifar10"]})
    assert command.main(["run", CELL["id"], "--scale", "smoke"]) == 0
    verdict = json.loads((here / f"runs/{CELL['id']}-smoke/verdict.json").read_text())
    assert verdict["verdict"] == "not comparable"
    assert calls(here) == ["small", "small"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"framework": "jax"}, "runs with --framework torch, not jax"),
        ({"checkpoint": Path("a"), "train": True}, "one of the two"),
        ({"checkpoint": Path("a"), "scale": "smoke"}, "leave out --checkpoint"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str, here: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(UsageError, match=message):
        make_plan(CELL["id"], use(monkeypatch), **options)


def test_a_checkpoint_that_is_not_there_is_missing_input(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch)
    assert command.main(["run", CELL["id"], "--checkpoint", "none.pth"]) == 2
    assert "there is no file none.pth" in capfd.readouterr().err


def test_an_experiment_takes_no_checkpoint(experiment: Experiment):
    with pytest.raises(UsageError, match="takes no --checkpoint"):
        make_plan(experiment.id, [experiment], checkpoint=Path("a"))


def test_a_plan_says_what_is_missing_what_runs_and_what_it_is_judged_by(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
):
    use(monkeypatch, needs={"datasets": ["cifar10", "digits"]})
    assert command.main(["plan", CELL["id"], "--no-probe"]) == 2
    out = capfd.readouterr().out
    assert re.search(r"MISSING  dataset cifar10: .*cifar-10-python.tar.gz", out)
    assert "present  dataset digits" in out
    assert "MISSING  published checkpoint" in out
    assert "--train" in out
    assert "reference: 3.24, tolerance 0.06" in out
    assert "recorded (the authors): training 7 days; evaluation an hour" in out
    assert not (here / "runs").exists()


def test_a_plan_of_something_that_needs_nothing_is_ready(here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any):
    use(monkeypatch)
    assert command.main(["plan", CELL["id"], "--no-probe", "--train"]) == 0
    assert f"Ready: repro run {CELL['id']}" in capfd.readouterr().out


def test_an_estimate_is_arithmetic_on_measured_times(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probe, "measure", lambda name: (0.01, 0.04) if name == "score_sde:digits" else (0, 0))
    more = {
        "network": "score_sde:{config}",
        "places": {"updates": 1000, "batch": 50},
        "metrics": {"fid": {"count": 100, "nfe": 20}},
    }
    (row,) = parse_rows([{**RECIPE, **more}, dict(CELL)], package="score_sde", source="tables.yaml")
    assert isinstance(row, Published)
    assert row.use is not None
    lines = probe.estimate(row, row.use, train=True)
    assert lines[1].startswith("evaluation: 20.0 s (100 images of 20 evaluations")
    assert lines[2].startswith("training: 33 min 20 s (1,000 updates of 50 images")
    assert len(probe.estimate(row, row.use, train=False)) == 3


def test_the_network_of_a_configuration_is_timed():
    forward, update = probe.measure("score_sde:digits")
    assert 0 < forward < update < 60


def test_every_network_that_recipes_name_exists():
    from score_core.checkpoints.providers import load_config

    named = {
        row.use.command(row.use.recipe.network)
        for row in load_all()
        if isinstance(row, Published) and row.use is not None and row.use.recipe.network is not None
    }
    assert len(named) > 10
    for name in named:
        assert load_config(name).model.name


def test_every_dataset_that_recipes_name_is_known():
    from score_core.data.sources import SOURCES

    rows = [row for row in load_all() if isinstance(row, Published)]
    assert {name for row in rows if row.use for name in row.use.needs.datasets or ()} <= set(SOURCES)


def test_every_official_checkpoint_is_behind_cells_that_exist():
    from fnmatch import fnmatchcase

    from score_core.checkpoints.manifest import entries

    ids = [row.id for row in load_all()]
    lost = [p for entry in entries() for p in entry.tables if not any(fnmatchcase(row_id, p) for row_id in ids)]
    assert lost == []
