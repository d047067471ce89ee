"""The ``score-data`` command: what it prints, what it writes, and its exit codes."""

import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from score_core.data import SOURCES, load_source
from score_core.data.__main__ import main
from score_core.data.survey import draw, gather, summarize


@pytest.fixture
def archive(tmp_path) -> tuple[Path, np.ndarray]:
    """An npz file with 12 labelled training and 4 test images, and the training images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    file = tmp_path / "mine.npz"
    np.savez(file, x_train=images, y_train=np.arange(12) % 3, x_test=images[:4], y_test=np.zeros(4, int))
    return file, images


def farthest(images: np.ndarray) -> float:
    flat = images.reshape(len(images), -1) / 255
    return float(np.sqrt(((flat[:, None] - flat) ** 2).sum(axis=-1)).max())


def test_help_is_quick_and_loads_no_numpy():
    """The best of three, so that another process on the machine does not fail it."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "score_core.data", "sigma-max", "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds.append(time.perf_counter() - begin)
    assert "--write-config" in result.stdout and " numpy" not in result.stderr
    assert min(seconds) < 1


def test_list_has_every_dataset_and_says_which_are_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCORE_DATA", str(tmp_path))
    (tmp_path / "svhn").mkdir()
    (tmp_path / "svhn" / "test_32x32.mat").write_bytes(b"")
    (tmp_path / "tower_val_lmdb").mkdir()
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    states = {line.split()[0]: line.split()[1] for line in printed.splitlines() if line[:1].strip()}
    assert {name: states[name] for name in SOURCES} == {
        name: "embedded"
        if name in ("digits", "photos")
        else "your"
        if name in ("folder", "npz", "zip")
        else "present"
        if name in ("svhn", "lsun")
        else "missing"
        for name in SOURCES
    }
    assert "found: svhn/test_32x32.mat" in printed and "found: tower_val_lmdb" in printed
    assert f"put into {tmp_path}/mnist: train-images-idx3-ubyte.gz" in " ".join(printed.split())


def test_inspect_prints_counts_labels_and_exact_moments(archive, capsys):
    file, images = archive
    assert main(["inspect", "npz", "--path", str(file), "--image-size", "16"]) == 0
    printed = capsys.readouterr().out
    flat = images.reshape(-1, 3) / 255
    source = load_source("npz", "train", image_size=16, path=file)
    for line in (
        "npz, train split: 12 images of 16x16x3",
        "looked at        all",
        "classes          3",
        "labels           0: 4, 1: 4, 2: 4",
        f"mean of channels {', '.join(f'{v:.4f}' for v in flat.mean(axis=0))} (images in [0, 1])",
        f"std of channels  {', '.join(f'{v:.4f}' for v in flat.std(axis=0))}",
        f"fingerprint      {source.fingerprint}",
    ):
        assert line in printed.splitlines()
    assert main(["inspect", "digits", "--split", "test", "--max-images", "7"]) == 0
    assert "looked at        7 (seed 0)" in capsys.readouterr().out


def test_inspect_says_when_a_published_dataset_is_not_complete(tmp_path, capsys):
    stem = "valid_32x32"
    (tmp_path / stem).mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / stem / "1.png")
    assert main(["inspect", "imagenet32_old", "--split", "test", "--root", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "published split  49,999 images: THESE ARE NOT ALL" in printed and "classes          no labels" in printed


def test_grid_draws_the_images_of_its_seed(archive, tmp_path, capsys):
    file, images = archive
    out = tmp_path / "grid.png"
    options = ["grid", "npz", "--path", str(file), "--image-size", "16", "--n", "9", "--out", str(out)]
    assert main([*options, "--seed", "3"]) == 0
    picture = np.asarray(Image.open(out))
    assert picture.shape == (3 * 18 + 2, 3 * 18 + 2, 3)
    source = load_source("npz", "train", image_size=16, path=file)
    chosen = draw(source, 9, 3)
    np.testing.assert_array_equal(picture[20:36, 38:54], images[chosen[5]])
    before = out.read_bytes()
    assert main(options) == 2
    assert "grid.png exists" in capsys.readouterr().err and out.read_bytes() == before
    assert main([*options, "--force"]) == 0 and out.read_bytes() != before


def test_sigma_max_is_the_largest_distance_exact_or_of_a_seeded_part(archive, capsys):
    file, images = archive
    options = ["sigma-max", "npz", "--path", str(file), "--image-size", "16"]
    assert main(options) == 0
    printed = capsys.readouterr().out
    assert f"sigma_max = {farthest(images):.4f} (exact, over all pairs of 12 images)" in printed
    assert main([*options, "--max-images", "5", "--seed", "7"]) == 0
    printed = capsys.readouterr().out
    chosen = draw(load_source("npz", "train", image_size=16, path=file), 5, 7)
    assert f"sigma_max = {farthest(images[chosen]):.4f} (over all pairs of 5 images drawn from 12 with" in printed
    first, second = (int(word) for word in printed.splitlines()[2].split() if word.isdigit())
    pair = images[[first, second]]
    assert {first, second} <= set(chosen.tolist()) and farthest(pair) == pytest.approx(farthest(images[chosen]))


def test_a_written_config_is_a_complete_one_for_the_images(archive, tmp_path, capsys):
    load_config = pytest.importorskip("score_sde.configs.load").load_config
    file, images = archive
    config_file = tmp_path / "mine.py"
    options = ["sigma-max", "npz", "--path", str(file), "--image-size", "16", "--write-config", str(config_file)]
    assert main([*options, "--base", "photos"]) == 0
    config, base = load_config(str(config_file)), load_config("photos")
    assert (config.data.dataset, config.data.path, config.data.image_size, config.data.num_channels) == (
        "npz",
        str(file),
        16,
        3,
    )
    assert config.model.sigma_max == round(farthest(images), 4) and config.data.centered is False
    with config.unlocked(), base.unlocked():
        del config.data, base.data, config.model.sigma_max, base.model.sigma_max
    assert config.to_dict() == base.to_dict()
    written = config_file.read_text()
    capsys.readouterr()
    assert main([*options, "--base", "photos"]) == 2
    assert "mine.py exists" in capsys.readouterr().err and config_file.read_text() == written
    assert main([*options, "--base", "ve/cifar10_ncsnpp_continuous", "--force"]) == 0
    assert load_config(str(config_file)).model.nf == 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "nothing"], "unknown dataset 'nothing'; expected one of celeba"),
        (["inspect", "svhn", "--root", "empty"], "dataset 'svhn' was not found"),
        (["inspect", "folder", "--path", "."], "has no usual image size. Cure: --image-size"),
        (["inspect", "lsun"], "needs a category"),
        (["grid", "digits", "--out", "no/such/folder/x.png"], "there is no folder"),
        (["sigma-max", "digits", "--write-config", "x.py"], "belong together"),
        (["sigma-max", "digits", "--base", "photos"], "belong together"),
        (["sigma-max", "digits", "--write-config", "x.py", "--base", "digits"], "has no sigma_max; expected vesde"),
        (["sigma-max", "digits", "--write-config", "x.py", "--base", "nothing"], "nothing"),
        (
            ["sigma-max", "digits", "--image-size", "18", "--write-config", "x.py", "--base", "photos"],
            "cannot take image_size=18",
        ),
    ],
    ids=range(10),
)
def test_errors_of_the_user_are_one_message_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [[], ["inspect"], ["grid", "digits"], ["inspect", "digits", "--image-size", "0"], ["grid", "x", "--n", "y"]],
)
def test_a_wrong_command_line_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: score-data" in capsys.readouterr().err


def test_images_that_would_fill_the_memory_go_to_a_file(monkeypatch, tmp_path):
    source = load_source("digits", "train", image_size=8)
    monkeypatch.setattr("score_core.data.survey._MEMORY", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    indices = draw(source, 300, 1)
    images = gather(source, indices)
    assert isinstance(images, np.memmap) and not list(tmp_path.iterdir())
    np.testing.assert_array_equal(images, source.fetch(indices)[0])


def test_a_draw_is_seeded_ascending_without_repeats_and_whole_when_it_can_be():
    source = load_source("digits", "test", image_size=8)
    np.testing.assert_array_equal(draw(source, 180, 5), np.arange(180))
    first, again, other = draw(source, 50, 5), draw(source, 50, 5), draw(source, 50, 6)
    np.testing.assert_array_equal(first, again)
    assert (np.diff(first) > 0).all() and len(first) == 50 and not np.array_equal(first, other)


def test_summaries_do_not_depend_on_the_batches(tmp_path):
    file = tmp_path / "images.zip"
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (300, 4, 4), dtype=np.uint8)
    with zipfile.ZipFile(file, "w") as archive:
        for k, image in enumerate(images):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "PNG")
            archive.writestr(f"{'train' if k < 299 else 'test'}/{k % 2}/{k:03d}.png", stream.getvalue())
    source = load_source("zip", "train", image_size=4, path=file)
    summary = summarize(source, np.arange(299))
    assert summary.labels == [150, 149]
    np.testing.assert_allclose(summary.mean, [images[:299].mean() / 255], rtol=1e-12)
    np.testing.assert_allclose(summary.std, [images[:299].std() / 255], rtol=1e-12)
