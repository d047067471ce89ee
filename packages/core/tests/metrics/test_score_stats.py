"""The ``score-stats`` command: make, show, convert, fid and compare on real files, and what they refuse."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from score_core.data import load_source
from score_core.metrics import (
    collect_statistics,
    compute_metrics,
    get_extractor,
    load_statistics,
    original_statistics_path,
)
from score_core.metrics.__main__ import main

SIZE = 16


def images(split: str) -> np.ndarray:
    source = load_source("digits", split, image_size=SIZE)
    return source.fetch(np.arange(len(source)))[0]


def make(out: Path, *images: Any, **options: Any) -> Path:
    flags = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in options.items()]
    assert main(["make", *map(str, images), "--extractor=digits", f"--out={out}", *flags]) == 0
    return out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Statistics of both splits and the test split's images in every form."""
    tmp_path = tmp_path_factory.mktemp("files")
    test = images("test")
    (tmp_path / "png").mkdir()
    for i, image in enumerate(test):
        Image.fromarray(image[..., 0]).save(tmp_path / "png" / f"sample_{i}.png")
    (tmp_path / "rounds").mkdir()
    for i, part in enumerate(np.array_split(test, 12)):  # round 10 must not come before round 2
        np.savez(tmp_path / "rounds" / f"samples_{i}.npz", samples=part, nfe=1)
        np.savez(tmp_path / "rounds" / f"statistics_{i}.npz", pool_3=np.zeros((len(part), 3), np.float32))
    np.savez(tmp_path / "images.npz", images=test[..., 0])
    return {
        "train": make(tmp_path / "train.npz", "digits", image_size=SIZE),
        "test": make(tmp_path / "test.npz", "Digits", image_size=SIZE, split="test", batch_size=7),
        "png": tmp_path / "png",
        "rounds": tmp_path / "rounds",
        "npz": tmp_path / "images.npz",
    }


def test_a_dataset_is_measured_once_and_described(files: dict[str, Path]) -> None:
    found = load_statistics(files["test"])
    source = load_source("digits", "test", image_size=SIZE)
    extractor = get_extractor("digits")
    assert dict(found.header) == {
        "dataset": "digits",
        "split": "test",
        "image_size": SIZE,
        "preprocessing": source.fingerprint,
        "extractor": "digits",
        "extractor_sha256": extractor.sha256,
    }
    assert found.pool_3 is not None
    np.testing.assert_array_equal(found.pool_3, extractor(images("test"))[0])


def test_the_same_images_in_every_form_have_the_same_statistics(files: dict[str, Path], tmp_path: Path) -> None:
    expected = load_statistics(files["test"])
    for form in ("png", "rounds", "npz"):
        found = load_statistics(make(tmp_path / "again.npz", files[form], overwrite=True))
        assert (found.count, found.header["split"], found.header["image_size"]) == (len(images("test")), None, None)
        np.testing.assert_allclose(found.pool_3, expected.pool_3, rtol=1e-4, atol=1e-5)
    rounds = sorted(files["rounds"].glob("samples_?.npz")) + sorted(files["rounds"].glob("samples_??.npz"))
    found = load_statistics(make(tmp_path / "list.npz", *rounds))
    np.testing.assert_array_equal(found.pool_3, expected.pool_3)
    resized = load_statistics(make(tmp_path / "8.npz", files["npz"], image_size=8))
    assert resized.header["image_size"] == 8
    assert resized.digest != expected.digest
    part = load_statistics(make(tmp_path / "part.npz", files["png"], split="test", image_size=SIZE))
    assert part.count == round(0.1 * len(images("test")))


def test_moments_alone(files: dict[str, Path], tmp_path: Path) -> None:
    found = load_statistics(make(tmp_path / "moments.npz", files["npz"], moments_only=True))
    assert found.pool_3 is None
    np.testing.assert_allclose(found.cov, load_statistics(files["test"]).cov, rtol=1e-9, atol=1e-9)


def test_forms_are_converted_and_come_back(files: dict[str, Path], tmp_path: Path, capsys) -> None:
    expected = load_statistics(files["test"])
    keys = {"original": {"pool_3", "logits"}, "ttur": {"mu", "sigma"}}
    kinds = {"original": "original (activations)", "ttur": "ttur (moments)"}
    for form, names in keys.items():
        out, back = tmp_path / f"{form}.npz", tmp_path / f"{form}_back.npz"
        assert main(["convert", str(files["test"]), str(out), f"--to={form}"]) == 0
        with np.load(out) as arrays:
            assert set(arrays.files) == names
        assert main(["convert", str(out), str(back), "--to=native", "--extractor=digits", "--dataset=digits"]) == 0
        found = load_statistics(back)
        np.testing.assert_allclose(found.cov, expected.cov, rtol=1e-12, atol=1e-12)
        assert (found.header["extractor"], found.header["split"]) == ("digits", None)
        capsys.readouterr()
        assert main(["show", str(out), "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["kind"], shown["features"], shown["extractor"]) == (kinds[form], 64, None)
    assert main(["show", str(files["test"])]) == 0
    assert "extractor         digits" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "ttur.npz"), str(tmp_path / "no.npz"), "--to=original"]) == 2
    assert "holds moments only" in capsys.readouterr().err


def test_scores_of_files_and_of_images(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    train = load_statistics(files["train"])
    test = collect_statistics(get_extractor("digits"), [images("test")], header={})
    expected = compute_metrics(test, train)
    capsys.readouterr()
    for samples in ("test", "rounds"):
        assert main(["fid", str(files[samples]), str(files["train"]), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["samples"], found["num_samples"]) == (str(files[samples]), len(images("test")))
        assert found["reference_sha256"] == train.digest
        for key in ("fid", "fid_se", "is", "kid"):
            assert found[key] == pytest.approx(expected[key], rel=1e-6)
    assert main(["fid", str(files["test"]), str(files["train"])]) == 0
    heading, line, warning = capsys.readouterr().out.splitlines()
    assert heading.split() == ["extractor", "FID", "IS", "KID", "samples", "reference"]
    assert line.split()[:2] == ["digits", f"{expected['fid']:.6g}"]
    assert "biased upwards" in warning


def test_extractors_side_by_side(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from score_core.metrics import extractors

    class Grey:
        """The second extractor: means of the four quarters."""

        name, sha256, feature_dim, num_logits = "grey", "00", 4, None

        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, None]:
            quarters = images.reshape(len(images), 2, SIZE // 2, 2, SIZE // 2, -1)
            return quarters.mean((2, 4, 5), dtype=np.float32).reshape(-1, 4) / 255, None

    monkeypatch.setitem(extractors.EXTRACTORS, "grey", lambda weights, download: Grey())
    compare = ["compare", str(files["npz"]), "--extractor", "digits", "grey", "--reference"]
    capsys.readouterr()
    assert main([*compare, str(files["train"]), "digits", f"--image-size={SIZE}", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["extractor"], row["reference"]) for row in rows] == [
        ("digits", str(files["train"])),
        ("grey", "digits"),
    ]
    assert rows[0]["fid"] != pytest.approx(rows[1]["fid"])
    assert (rows[1]["is"], rows[1]["num_reference"]) == (None, len(images("train")))
    assert main([*compare, str(files["train"])]) == 2
    assert "none of the references" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make", "nosuch", "--extractor=digits", "--out=x.npz"], "'nosuch' is no dataset, folder of images"),
        (["make", "digits", "--extractor=vgg", "--out=x.npz"], "unknown feature extractor 'vgg'"),
        (["make", "digits", "--extractor=digits", "--out=x.txt"], "ends in .npz"),
        (["make", "digits", "--extractor=digits", "--out={train}"], "exists; choose another name"),
        (["make", "{empty}", "--extractor=digits", "--out=x.npz"], "holds no images"),
        (["make", "{float}", "--extractor=digits", "--out=x.npz"], "expected images uint8"),
        (["make", "{train}", "--extractor=digits", "--out=x.npz"], "expected images under one of samples"),
        (["make", "{damaged}", "--extractor=digits", "--out=x.npz"], "not a readable .npz file"),
        (["make", "{mixed}", "--extractor=digits", "--out=x.npz"], "b.png: images of [9, 8, 3] beside others of"),
        (["show", "{damaged}"], "not a readable statistics file"),
        (["show", "nosuch.npz"], "no such statistics file"),
        (["fid", "{npz}", "{foreign}"], "no extractor is known"),
        (["fid", "{test}", "{train}", "--extractor=inception"], "measured with 'digits', not 'inception'"),
        (["fid", "{test}", "{other}"], "'digits' (SHA-256"),
    ],
)
def test_refusals(
    files: dict[str, Path], tmp_path: Path, monkeypatch, capsys, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mixed").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "mixed" / "a.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "mixed" / "b.png")
    np.savez(tmp_path / "float.npz", samples=np.zeros((3, 8, 8, 3)))
    np.savez(tmp_path / "foreign.npz", mu=np.zeros(64), sigma=np.eye(64))
    (tmp_path / "damaged.npz").write_bytes(b"no archive")
    assert main(["convert", str(files["test"]), "original.npz", "--to=original"]) == 0
    assert main(["convert", "original.npz", "other.npz", "--to=native", "--extractor=inception"]) == 0
    before = sorted(tmp_path.iterdir())
    places = {name: tmp_path / name for name in ("empty", "mixed")} | files
    places |= {name: tmp_path / f"{name}.npz" for name in ("float", "foreign", "damaged", "other")}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_killed_run_leaves_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.mkfifo(folder / "a.png")
    command = [sys.executable, "-m", "score_core.metrics", "make", str(folder), "--extractor=digits"]
    with subprocess.Popen([*command, f"--out={tmp_path / 'x.npz'}"]) as process:
        with (folder / "a.png").open("wb"):  # returns when the command has opened it to read
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == [folder]


def test_help_does_not_wait_for_numpy() -> None:
    program = (
        "import sys; from score_core.metrics.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "compare" in done.stdout


def test_the_originals_file_names() -> None:
    assert original_statistics_path("CIFAR10", None, 32) == Path("assets/stats/cifar10_stats.npz")
    assert original_statistics_path("celeba", None, 64) == Path("assets/stats/celeba_stats.npz")
    assert original_statistics_path("LSUN", "church_outdoor", 256) == Path(
        "assets/stats/lsun_church_outdoor_256_stats.npz"
    )
    assert original_statistics_path("lsun", None, 256) is None
    assert original_statistics_path("FFHQ", None, 1024) is None
