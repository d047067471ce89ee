"""Pictures of a report: which grid is shown, how a history is read, what the curve shows."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from score_core.errors import UserError
from score_core.repro.figures import captioned_figures, curve_figure, data_uri, grid_figures, losses_of

HEADER = "step,training_loss,eval_loss,seconds\n"


def save_grid(file: Path, value: int, size: int = 20) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, 2 * size, 3), value, np.uint8)).save(file)


def shown(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_newest_snapshot_is_shown_enlarged_by_a_whole_factor(tmp_path: Path):
    for step, value in (("900", 1), ("10000", 2), ("10000", 3)):
        save_grid(tmp_path / f"samples/iter_{step}_host_{value - 2 if value > 1 else 0}/sample.png", value)
    (figure,) = grid_figures(tmp_path)
    assert (shown(figure.light) == 2).all()
    assert (figure.width, figure.height, figure.pixelated) == (480, 240, True)
    assert "10,000 training steps" in figure.alt


def test_a_large_grid_keeps_its_size(tmp_path: Path):
    save_grid(tmp_path / "samples/iter_5_host_0/sample.png", 1, size=600)
    (figure,) = grid_figures(tmp_path)
    assert (figure.width, figure.height, figure.pixelated) == (1200, 600, False)


def test_pictures_of_the_evaluation_stand_for_those_of_training(tmp_path: Path):
    save_grid(tmp_path / "samples/iter_5_host_0/sample.png", 1)
    for name, value in (("trajectory_26", 3), ("samples_26", 2), ("other", 4)):
        save_grid(tmp_path / f"eval/{name}.png", value)
    samples, trajectory = grid_figures(tmp_path)
    assert (shown(samples.light) == 2).all()
    assert (shown(trajectory.light) == 3).all()
    assert "checkpoint 26" in samples.caption
    assert "from noise" in trajectory.caption


def test_no_pictures_in_an_empty_folder(tmp_path: Path):
    assert grid_figures(tmp_path) == []
    assert losses_of(tmp_path / "history.csv") is None


def test_a_history_with_a_repeated_part_and_a_cut_last_line(tmp_path: Path):
    file = tmp_path / "history.csv"
    file.write_text(HEADER + "0,1.0,,0.1\n0,,2.0,0.2\n50,0.5,,1\n100,0.4,0.6,2\n50,0.45,,1\n100,0.35,,2\n150,0.")
    history = losses_of(file)
    assert history is not None
    assert history.steps == [0, 50, 100]
    assert history.training_loss == [1.0, 0.45, 0.35]
    assert (history.eval_steps, history.eval_loss) == ([0, 100], [2.0, 0.6])


@pytest.mark.parametrize("text", ["", "step,tr", HEADER, HEADER + "0,,2.0,0.1\n"])
def test_a_history_without_a_complete_line_is_none(tmp_path: Path, text: str):
    (tmp_path / "history.csv").write_text(text)
    assert losses_of(tmp_path / "history.csv") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,loss\n0,1\n", "the columns are step,loss, expected step,training_loss,eval_loss,seconds"),
        (HEADER + "0,1.0,,0\n1,much,,0\n", r"history\.csv, line 3: could not convert"),
        (HEADER + "0,1.0\n", r"history\.csv, line 2"),
    ],
)
def test_a_history_that_cannot_be_read_is_an_error(tmp_path: Path, text: str, message: str):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        losses_of(tmp_path / "history.csv")


@pytest.mark.parametrize("losses", ["0,1.0,2.0,0\n50,0.5,,1\n", "0,-1.0,,0\n", "0,nan,,0\n50,1.0,nan,1\n"])
def test_the_curve_is_drawn_for_both_colour_schemes(tmp_path: Path, losses: str):
    (tmp_path / "history.csv").write_text(HEADER + losses)
    history = losses_of(tmp_path / "history.csv")
    assert history is not None
    figure = curve_figure(history)
    light, dark = shown(figure.light), shown(figure.dark)
    assert light.shape == dark.shape == (2 * figure.height, 2 * figure.width, 4)
    assert (light[0, 0, 3], dark[0, 0, 3]) == (0, 0)  # a transparent ground
    ink = light[..., 3] == 255
    assert light[ink][:, :3].mean() < 128 < dark[ink][:, :3].mean()
    assert f"step {history.steps[-1]}" in figure.alt


def test_data_uri():
    assert data_uri(b"\x89PNG") == "data:image/png;base64,iVBORw=="


def test_pictures_that_an_experiment_drew_come_with_their_words(tmp_path: Path):
    for name in ("b", "a", "wordless"):
        save_grid(tmp_path / f"figures/{name}.png", 1, size=860)
    for name in ("a", "b"):
        (tmp_path / f"figures/{name}.json").write_text(json.dumps({"alt": f"alt {name}", "caption": f"caption {name}"}))
    first, second = captioned_figures(tmp_path)
    assert (first.alt, second.caption) == ("alt a", "caption b")
    assert (first.width, first.height, first.pixelated) == (860, 430, False)
    (tmp_path / "figures/b.json").write_text("{}")
    with pytest.raises(UserError, match=r"b\.json does not hold alt and caption"):
        captioned_figures(tmp_path)
