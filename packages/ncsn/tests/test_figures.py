"""The paper's toy figures: the numbers of Figure 3 in full, the others in small; rows of the table."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ncsn.toy import figures
from ncsn.toy.__main__ import main
from ncsn.toy.distributions import GMMDist
from ncsn.toy.plots import Bounds
from score_core.repro.schema import Experiment
from score_core.repro.tables import load_package


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def results():
    return {r["metric"]: r for r in json.loads(Path("w/results.json").read_text())["results"]}


@pytest.mark.slow
def test_figure_3(capsys):
    """Annealing finds the weight of 0.8 to 0.03; Langevin dynamics keeps the half of a uniform start."""
    assert main(["figure3", "--workdir", "w", "--points", "2000"]) == 0
    found = results()
    assert abs(found["weight_annealed"]["value"] - 0.8) < 0.03
    assert abs(found["weight_iid"]["value"] - 0.8) < 0.04
    assert abs(found["weight_langevin"]["value"] - 0.8) > 0.2
    assert found["weight_annealed"]["sample_count"] == 2000
    with Image.open("w/eval/figure_3.png") as picture:
        assert picture.width > 2 * picture.height
    assert "weight_annealed: 0." in capsys.readouterr().out


def test_figure_2_in_small():
    assert main(["figure2", "--workdir", "w", "--steps", "20"]) == 0
    assert results().keys() == {"score_error_where_data_are", "score_error_elsewhere"}
    assert Path("w/eval/figure_2.png").is_file()


def test_errors_of_scores():
    """Of the true score none; of one that is zero, everything."""
    teacher = GMMDist(2)
    torch.manual_seed(0)
    assert figures.score_errors(teacher.score, teacher, Bounds()) == (0.0, 0.0)
    np.testing.assert_allclose(figures.score_errors(torch.zeros_like, teacher, Bounds()), (1.0, 1.0), rtol=1e-6)


def test_figure_1_in_small():
    assert main(["figure1", "--workdir", "w", "--steps", "3"]) == 0
    assert results().keys() == {"roughness_without_noise", "roughness_with_noise", "loss_with_noise"}
    assert Path("w/eval/figure_1.png").is_file()
    drawn = {}
    for folder, seed in (("again", 1234), ("other", 1)):
        assert main(["figure1", "--workdir", folder, "--steps", "3", "--seed", str(seed)]) == 0
        drawn[folder] = Path(folder, "losses.csv").read_text()
    assert drawn["again"] == Path("w/losses.csv").read_text() != drawn["other"]


def test_roughness_is_of_the_second_half():
    assert figures.roughness(np.array([1e9, -1e9, 5.0, 5.0])) == 0
    np.testing.assert_allclose(figures.roughness(np.array([0, 0, 1.0, 3.0])), 0.5)


def test_bad_numbers(capsys):
    assert main(["figure3", "--workdir", "w", "--points", "1"]) == 2
    assert "--points is 1" in capsys.readouterr().err


def test_rows_of_the_table():
    rows = load_package("ncsn")
    experiments = {row.id: row for row in rows if isinstance(row, Experiment)}
    assert experiments.keys() == {"ncsn/figure1", "ncsn/figure2", "ncsn/figure3", "ncsn/digits"}
    assert len(rows) - len(experiments) == 29
    published = {row.id: row for row in rows if row.id not in experiments}
    assert published["ncsn/table1/ncsn/fid"].value == 25.32
    assert published["ncsn/table1/ncsn/is"].value == 8.87
