"""One clear error, the right exit status, and nothing lost."""

import subprocess
import sys

import numpy as np
import pytest
import yaml
from ncsnv2_cases import GOLDEN_CONFIGS
from PIL import Image

from ncsnv2.__main__ import main
from score_core.data.masks import known_pixels
from score_core.errors import UsageError


def write_config(folder, **changes):
    config = {section: dict(keys) for section, keys in GOLDEN_CONFIGS["tiny.yml"].items()}
    config["data"] |= {"dataset": "photos", "image_size": 8}
    for name, value in changes.items():
        section, key = name.split("__")
        if value is ...:
            del config[section][key]
        else:
            config[section][key] = value
    file = folder / "tiny.yml"
    file.write_text(yaml.safe_dump(config))
    return file


def run(folder, *arguments, **changes):
    config = write_config(folder, **changes)
    return main(["--config", str(config), "--exp", str(folder / "exp"), "--doc", "a", *arguments])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert run(folder, training__snapshot_sampling=False) == 0
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training__n_iters": ...}, "lacks training.n_iters"),
        ({"training__batch_size": 0}, "training.batch_size is 0"),
        ({"model__num_classes": "ten"}, "model.num_classes is 'ten'"),
        ({"model__sigma_dist": "cubic"}, "model.sigma_dist is 'cubic'"),
        ({"model__architecture": "UNet"}, "expected one of NCSNv2"),
        ({"model__normalization": "LayerNorm"}, "LayerNorm"),
        ({"model__nonlinearity": "tanh"}, "tanh"),
        ({"model__sigma_begin": 0.01}, "largest noise"),
        ({"optim__optimizer": "AdamW"}, "optim.optimizer is 'AdamW'"),
        ({"optim__lr": -1}, "optim.lr is -1"),
        ({"data__dataset": "CIFAR10"}, "was not found"),
        ({"data__dataset": "CIFAR11"}, "unknown dataset"),
        ({"data__dataset": "LSUN", "data__category": "castle"}, "church_outdoor"),
    ],
)
def test_a_wrong_configuration_starts_nothing(tmp_path, capsys, changes, said):
    assert run(tmp_path, **changes) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error
    assert not list(tmp_path.glob("exp/**/checkpoint*")) and not list(tmp_path.glob("exp/**/stdout.txt"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--doc", ".."], "must name a folder below"),
        (["--doc", "."], "must name a folder below"),
        (["--verbose", "loud"], "no such level"),
        (["--config", "nothing.yml"], "cifar10.yml"),
        (["--sample", "-i", "../../a"], "must name a folder below"),
    ],
)
def test_a_wrong_command_line(tmp_path, capsys, arguments, said):
    config = write_config(tmp_path)
    assert main(["--config", str(config), "--exp", str(tmp_path / "exp"), "--doc", "a", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_no_terminal_no_question_and_nothing_removed(trained, tmp_path, capsys):
    log = trained / "exp" / "logs" / "a"
    before = {file: file.read_bytes() for file in log.rglob("*") if file.is_file()}
    config = write_config(tmp_path)
    command = [sys.executable, "-m", "ncsnv2", "--config", str(config), "--exp", str(trained / "exp"), "--doc", "a"]
    result = subprocess.run(command, input="y\n", capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "--ni" in result.stderr and "--resume_training" in result.stderr
    assert {file: file.read_bytes() for file in log.rglob("*") if file.is_file()} == before


def test_missing_and_hostile_checkpoints(trained, tmp_path, capsys):
    exp = trained / "exp"
    config = write_config(tmp_path, sampling__ckpt_id=3)
    arguments = ["--config", str(config), "--exp", str(exp), "--doc", "a", "--sample", "--ni"]
    assert main(arguments) == 1
    assert "checkpoint_2.pth, checkpoint_4.pth" in capsys.readouterr().err
    hostile = exp / "logs" / "a" / "checkpoint_3.pth"
    marker = tmp_path / "run"
    hostile.write_bytes(b"\x80\x02cposix\nsystem\n(S'touch %s'\ntR." % str(marker).encode())
    assert main(arguments) == 1
    assert not marker.exists()
    hostile.write_bytes((exp / "logs" / "a" / "checkpoint_4.pth").read_bytes()[:5000])
    assert main(arguments) == 1
    assert "damaged" in capsys.readouterr().err
    hostile.unlink()


def test_ranges_of_checkpoints_are_checked_before_anything_is_computed(trained, tmp_path, capsys):
    for mode, section in (("--test", "test"), ("--fast_fid", "fast_fid")):
        config = write_config(
            tmp_path, **{f"{section}__begin_ckpt": 2, f"{section}__end_ckpt": 6, f"{section}__stride": 2}
        )
        assert main(["--config", str(config), "--exp", str(trained / "exp"), "--doc", "a", mode]) == 1
        assert "no checkpoint_6.pth" in capsys.readouterr().err
    config = write_config(
        tmp_path, fast_fid__begin_ckpt=4, fast_fid__end_ckpt=4, fast_fid__extractor="inception_ncsnv2"
    )
    assert main(["--config", str(config), "--exp", str(trained / "exp"), "--doc", "a", "--fast_fid"]) == 2
    assert "weights" in capsys.readouterr().err
    assert not list((trained / "exp").glob("fid_samples/**/*.png"))


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_checkpoints(tmp_path, capsys):
    assert run(tmp_path, training__n_iters=5, training__snapshot_freq=1, optim__lr=1e18, optim__optimizer="SGD") == 1
    assert "lower optim.lr" in capsys.readouterr().err
    log = tmp_path / "exp" / "logs" / "a"
    assert "ERROR" in (log / "stdout.txt").read_text()
    steps = list(log.glob("checkpoint_*.pth"))
    for file in steps:
        from score_core.checkpoints.list_checkpoint import read_list_checkpoint

        assert all(np.isfinite(value).all() for value in read_list_checkpoint(file).network.values())


def test_a_full_disk_loses_nothing(trained, tmp_path, capsys, monkeypatch):
    import errno

    from score_core.checkpoints import atomic

    log = trained / "exp" / "logs" / "a"
    before = (log / "checkpoint.pth").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    config = write_config(tmp_path, training__n_iters=7, training__snapshot_sampling=False)
    assert main(["--config", str(config), "--exp", str(trained / "exp"), "--doc", "a", "--resume_training"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert (log / "checkpoint.pth").read_bytes() == before


def test_masks(tmp_path):
    right = known_pixels("right", 8)
    assert right[:, :4].all() and not right[:, 4:].any()
    assert known_pixels("top", 8).sum() == 32 and known_pixels("center", 8).sum() == 64 - 16
    picture = np.zeros((8, 8), np.uint8)
    picture[2, 3] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    assert (~known_pixels(str(tmp_path / "mask.png"), 8)).sum() == 1
    for name, said in (
        ("round", "expected one of"),
        (str(tmp_path / "mask.png"), "expected 16x16"),
    ):
        with pytest.raises(UsageError, match=said):
            known_pixels(name, 16)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "empty.png")
    with pytest.raises(UsageError, match="no pixel"):
        known_pixels(str(tmp_path / "empty.png"), 8)


def test_inpainting_with_any_mask_keeps_the_known_part_near_the_reference(trained, tmp_path):
    from score_core.checkpoints.pth_format import load_pth

    options = {"sampling__inpainting": True, "sampling__mask": "center", "sampling__ckpt_id": None}
    config = write_config(tmp_path, **options, model__sigma_end=0.05)
    assert main(["--config", str(config), "--exp", str(trained / "exp"), "--doc", "a", "--sample", "-i", "paint"]) == 0
    folder = trained / "exp" / "image_samples" / "paint"
    references, found = load_pth(folder / "refer_image.pth"), load_pth(folder / "completion_None.pth")
    known = known_pixels("center", 8)
    difference = np.abs(found - np.repeat(references, 2, axis=0))
    assert difference[..., known].mean() < 0.2 < difference[..., ~known].mean() + 0.15
