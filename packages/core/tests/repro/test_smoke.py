"""Published cells from their first command to their verdict, in small on embedded data.

One cell of every configuration runs always, by the quickest of its recipes. One cell of every other pair of recipe and
configuration runs where SCORE_NIGHTLY is set: to torch or jax for the programs that know both, or to 1 for their own
choice. Every experiment on embedded or generated data runs always.
"""

import json
import os
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from score_core.repro import __main__ as command
from score_core.repro import runner
from score_core.repro.recipes import Needs
from score_core.repro.resolve import why_not
from score_core.repro.schema import Experiment, Published
from score_core.repro.tables import load_all

EXPERIMENTS = [row for row in load_all() if isinstance(row, Experiment)]
CELLS = [(row, row.use) for row in load_all() if isinstance(row, Published) and row.use and why_not(row) is None]
OF_PAIR = {(use.recipe.id, use.config): row for row, use in reversed(CELLS)}
# The others take two trainings, nine, another program's classifier, or compile for minutes.
QUICKEST_FIRST = (
    "ncsn/recipes/table1",
    "ncsn/recipes/figure3",
    "ncsn/recipes/pictures",
    "ncsnv2/recipes/fid",
    "score_sde/recipes/evaluate",
    "score_sde/recipes/pictures",
    "variational_sde/recipes/image",
    "score_flow_hdsm/recipes/first_order",
    "score_flow_hdsm/recipes/score_flow",
)
PAIRS = sorted(OF_PAIR, key=lambda pair: (*QUICKEST_FIRST, pair[0]).index(pair[0]))
REPRESENTATIVE = {config: recipe for recipe, config in reversed(PAIRS)}
ALWAYS = [(recipe, config) for config, recipe in REPRESENTATIVE.items()]
NIGHTLY = [pair for pair in PAIRS if pair not in ALWAYS]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stages run in the test's own process, which has imported the frameworks already."""

    def call(arguments: list[str]) -> int:
        _python, _dash_m, module, *rest = arguments
        monkeypatch.setattr(sys, "argv", ["program", *rest])
        file = f"{module}.__main__" if hasattr(sys.modules.get(module), "__path__") else module
        monkeypatch.delitem(sys.modules, file, raising=False)  # runpy warns of it
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    monkeypatch.setattr(runner, "run_command", call)
    monkeypatch.chdir(tmp_path)


def run(row: Published, workdir: Path, *options: str) -> dict[str, Any]:
    assert command.main(["run", row.id, "--scale", "smoke", "--workdir", str(workdir), *options]) == 0
    (metric,) = json.loads((workdir / "verdict.json").read_text())["metrics"]
    assert metric["verdict"] == "not comparable"
    assert "smoke run" in metric["reason"]
    if isinstance(row.value, float):
        assert isinstance(metric["value"], float)
    else:
        assert metric["published_as"] == row.value
    return metric


@pytest.mark.parametrize(("recipe", "config"), ALWAYS)
def test_a_cell_of_each_configuration_runs_from_its_first_command_to_its_verdict(
    recipe: str, config: str, in_this_process: None, tmp_path: Path
):
    row = OF_PAIR[recipe, config]
    known = row.use is not None and "torch" in row.use.recipe.frameworks
    run(row, tmp_path / "run", *(["--framework", "torch"] if known else []))


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.id)
def test_every_experiment_runs_in_small_and_its_page_shows_what_it_drew(
    experiment: Experiment, in_this_process: None, tmp_path: Path
):
    workdir = tmp_path / "run"
    framework = ["--framework", "torch"] if experiment.id.startswith("score_sde/") else []  # nothing to compile
    assert command.main(["run", experiment.id, "--scale", "smoke", "--workdir", str(workdir), *framework]) == 0
    metrics = json.loads((workdir / "verdict.json").read_text())["metrics"]
    assert {metric["verdict"] for metric in metrics} == {"not comparable"}
    assert all(isinstance(metric["value"], float) for metric in metrics)
    assert "<figure" in (workdir / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("SCORE_NIGHTLY"), reason="nightly, one cell of its configuration runs above: set SCORE_NIGHTLY"
)
@pytest.mark.parametrize(("recipe", "config"), NIGHTLY)
def test_a_cell_of_each_pair_of_recipe_and_configuration_does(
    recipe: str, config: str, in_this_process: None, tmp_path: Path
):
    row, framework = OF_PAIR[recipe, config], os.environ["SCORE_NIGHTLY"]
    known = row.use is not None and framework in row.use.recipe.frameworks
    run(row, tmp_path / "run", *(["--framework", framework] if known else []))


def test_a_checkpoint_of_another_format_is_converted_and_evaluated(
    in_this_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The way of a published cell with a model of one's own, at full scale, with the network of the digits."""
    from score_core.checkpoints.__main__ import main as convert
    from score_sde.__main__ import main as program

    short = ["training.n_iters=1", "training.snapshot_freq=1", "training.snapshot_freq_for_preemption=1"]
    short += ["training.batch_size=2", "training.snapshot_sampling=False", "training.eval_freq=1"]
    flags = [f"--config.{option}" for option in [*short, "training.log_freq=1"]]
    assert program(["--config=digits", "--workdir=trained", "--framework=torch", *flags]) == 0
    to = ["model.safetensors", "--to", "safetensors", "--config", "score_sde:digits"]
    assert convert(["trained/checkpoints/checkpoint_1.pth", *to]) == 0

    published, use = next((row, use) for row, use in CELLS if row.id == "score_sde/table3/ncsnpp/fid")
    settings = {"eval.enable_sampling": True, "eval.enable_bpd": False, "eval.enable_loss": False}
    settings |= {"eval.num_samples": 20, "eval.batch_size": 20, "model.num_scales": 4, "model.beta_max": 3.0}
    of_digits = replace(
        published,
        value=1e9,
        use=replace(
            use,
            places={**use.places, "config": "digits", "number": "3"},
            evaluate={**settings, "sampling.method": "pc", "eval.trajectory": False},
            needs=Needs(),
            yields={"count": 20, "dataset": "digits/train", "extractor": "digits"},
        ),
    )
    monkeypatch.setattr(command, "load_all", lambda: (of_digits,))
    options = ["--checkpoint", "model.safetensors", "--framework", "torch", "--workdir", "run"]
    assert command.main(["run", of_digits.id, *options]) == 0
    (metric,) = json.loads(Path("run/verdict.json").read_text())["metrics"]
    assert (metric["verdict"], metric["sample_count"]) == ("reproduced", 20)
    record = json.loads(Path("run/repro.json").read_text())
    assert [attempt["stage"] for attempt in record["attempts"]] == ["checkpoint", "eval"]
    assert Path("run/checkpoints/checkpoint_3").is_file(), "safetensors became the JAX program's format"
