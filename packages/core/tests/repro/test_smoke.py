"""Published cells from their first command to their verdict, in small on embedded data.

One cell of every recipe that is quick in PyTorch runs always. One cell of every recipe and configuration (in the
program's own framework) runs where SCORE_NIGHTLY is set: minutes each, most of it compilation. The experiments' smoke
runs are tests of their packages.
"""

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from score_core.repro import __main__ as command
from score_core.repro import runner
from score_core.repro.resolve import why_not
from score_core.repro.schema import Published
from score_core.repro.tables import load_all

CELLS = [(row, row.use) for row in load_all() if isinstance(row, Published) and row.use and why_not(row) is None]
OF_RECIPE = {use.recipe.id: row for row, use in reversed(CELLS)}
OF_CONFIG = {f"{use.recipe.id} {use.config}": row for row, use in reversed(CELLS)}
# Not quick: nine trainings; two of three orders; compilation alone (JAX only); a wide ResNet; two trainings. The last
# two are commands of experiments, which tests of their packages run.
LONG = (
    "score_flow_hdsm/recipes/toy",
    "score_flow_hdsm/recipes/high_order",
    "score_flow_hdsm/recipes/score_flow",
    "score_sde/recipes/class",
    "variational_sde/recipes/debias",
    "variational_sde/recipes/swissroll",
    "ncsn/recipes/figures",
)
QUICK = [recipe for recipe in OF_RECIPE if recipe not in LONG]


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stages run in the test's own process, which has imported the frameworks already."""

    def call(arguments: list[str]) -> int:
        _python, _dash_m, module, *rest = arguments
        monkeypatch.setattr(sys, "argv", ["program", *rest])
        monkeypatch.delitem(sys.modules, f"{module}.__main__", raising=False)  # runpy warns of it
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0

    monkeypatch.setattr(runner, "_call", call)
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


@pytest.mark.parametrize("recipe", QUICK)
def test_a_cell_of_each_recipe_runs_from_its_first_command_to_its_verdict(
    recipe: str, in_this_process: None, tmp_path: Path
):
    run(OF_RECIPE[recipe], tmp_path / "run", "--framework", "torch")


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SCORE_NIGHTLY"), reason="nightly: SCORE_NIGHTLY=1 runs every configuration")
@pytest.mark.parametrize("config", OF_CONFIG)
def test_a_cell_of_each_configuration_runs_from_its_first_command_to_its_verdict(
    config: str, in_this_process: None, tmp_path: Path
):
    run(OF_CONFIG[config], tmp_path / "run")
