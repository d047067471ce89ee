"""A run that is stopped or killed anywhere goes on to the numbers of one that never was."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from ncsnv2_cases import GOLDEN_CONFIGS

from ncsnv2.__main__ import main
from score_core.checkpoints.list_checkpoint import find_newest, read_list_checkpoint
from score_core.checkpoints.pth_format import load_pth


def write_config(folder, **changes):
    config = {section: dict(keys) for section, keys in GOLDEN_CONFIGS["tiny.yml"].items()}
    config["data"] |= {"dataset": "photos", "image_size": 8}
    config["training"] |= {"n_iters": 9, "snapshot_freq": 4}
    config["model"]["normalization"] = "BatchNorm"  # running statistics are state, too
    for name, value in changes.items():
        section, key = name.split("__")
        config[section][key] = value
    file = folder / "tiny.yml"
    file.write_text(yaml.safe_dump(config))
    return file


def train(folder, config, *more):
    return main(["--config", str(config), "--exp", str(folder / "exp"), "--doc", "a", *more])


def same(one, other):
    """All arrays of two checkpoints are the same bits."""
    for a, b in ((one.network, other.network), (one.average, other.average)):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    assert (one.epoch, one.step, one.resume) == (other.epoch, other.step, other.resume)
    for number, state in one.optimizer["state"].items():
        for key, value in state.items():
            np.testing.assert_array_equal(other.optimizer["state"][number][key], value)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of nine steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, write_config(folder)) == 0
    return folder / "exp" / "logs" / "a"


def test_resumed_after_an_early_end(tmp_path, whole):
    """Stopped by n_iters after the first snapshot, with the flips and draws of the rest still to come."""
    assert train(tmp_path, write_config(tmp_path, training__n_iters=6)) == 0
    assert train(tmp_path, write_config(tmp_path), "--resume_training") == 0
    log = tmp_path / "exp" / "logs" / "a"
    same(read_list_checkpoint(log / "checkpoint_8.pth"), read_list_checkpoint(whole / "checkpoint_8.pth"))
    for step in (4, 8):
        name = f"samples/samples_{step}.pth"
        np.testing.assert_array_equal(load_pth(log / name), load_pth(whole / name))


def test_samples_that_a_killed_run_did_not_finish_are_drawn_when_it_resumes(tmp_path, whole):
    assert train(tmp_path, write_config(tmp_path, training__n_iters=5)) == 0
    log = tmp_path / "exp" / "logs" / "a"
    (log / "samples" / "samples_4.pth").unlink()
    assert train(tmp_path, write_config(tmp_path), "--resume_training") == 0
    np.testing.assert_array_equal(
        load_pth(log / "samples" / "samples_4.pth"), load_pth(whole / "samples" / "samples_4.pth")
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_in_the_middle(tmp_path, whole, number):
    config = write_config(tmp_path)
    command = [sys.executable, "-m", "ncsnv2", "--config", str(config), "--exp", str(tmp_path / "exp"), "--doc", "a"]
    log = tmp_path / "exp" / "logs" / "a"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        for line in process.stderr:
            if b"step: 5," in line:
                process.send_signal(number)
                break
        process.stderr.read()
    expected = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    if process.returncode != 0:  # it may have finished before the signal came
        assert process.returncode == expected
        if number is not signal.SIGKILL:
            assert find_newest(log).step >= 5
        assert train(tmp_path, config, "--resume_training") == 0
    same(read_list_checkpoint(log / "checkpoint_8.pth"), read_list_checkpoint(whole / "checkpoint_8.pth"))


def test_a_damaged_latest_checkpoint_is_reported_and_the_one_before_used(tmp_path, whole, caplog):
    assert train(tmp_path, write_config(tmp_path, training__n_iters=6)) == 0
    log = tmp_path / "exp" / "logs" / "a"
    latest = log / "checkpoint.pth"
    data = bytearray(latest.read_bytes())
    data[len(data) // 2] ^= 1
    latest.write_bytes(data)
    assert train(tmp_path, write_config(tmp_path), "--resume_training") == 0
    assert any("damaged" in record.message for record in caplog.records)
    same(read_list_checkpoint(log / "checkpoint_8.pth"), read_list_checkpoint(whole / "checkpoint_8.pth"))


def test_a_changed_configuration_is_refused_with_the_difference(tmp_path, capsys):
    assert train(tmp_path, write_config(tmp_path, training__n_iters=5)) == 0
    assert train(tmp_path, write_config(tmp_path, model__ngf=5), "--resume_training") == 2
    assert "model.ngf: 4 -> 5" in capsys.readouterr().err
    assert train(tmp_path, write_config(tmp_path, optim__eps=1e-4), "--resume_training") == 0
    assert train(tmp_path, write_config(tmp_path), "--resume_training", "--seed", "7") == 2
    assert "started with 1234" in capsys.readouterr().err


def test_a_finished_run_has_nothing_to_do(tmp_path, caplog):
    assert train(tmp_path, write_config(tmp_path, training__n_iters=5)) == 0
    caplog.clear()
    assert train(tmp_path, write_config(tmp_path, training__n_iters=4), "--resume_training") == 0
    assert any("complete" in record.message for record in caplog.records)


def test_a_dump_of_images_goes_on(tmp_path):
    folder = tmp_path / "exp" / "image_samples" / "fid"
    config = write_config(
        tmp_path, training__n_iters=5, sampling__fid=True, sampling__num_samples4fid=8, sampling__batch_size=4
    )
    assert train(tmp_path, config) == 0
    arguments = ["--sample", "--ni", "-i", "fid"]
    assert train(tmp_path, config, *arguments) == 0
    first = {file.name: file.read_bytes() for file in folder.glob("*.png")}
    assert len(first) == 8
    record = json.loads((folder / ".image.json").read_text())
    (folder / ".image.json").write_text(json.dumps({**record, "done": 4}))
    for k in (5, 6):
        (folder / f"image_{k}.png").unlink()
    before = (folder / "image_0.png").stat().st_mtime_ns
    time.sleep(0.01)
    assert train(tmp_path, config, *arguments) == 0
    assert {file.name: file.read_bytes() for file in folder.glob("*.png")} == first
    assert (folder / "image_0.png").stat().st_mtime_ns == before


def test_samples_do_not_depend_on_the_batch_size(tmp_path):
    config = write_config(tmp_path, training__n_iters=5, model__normalization="InstanceNorm++")
    assert train(tmp_path, config) == 0
    found = {}
    for size in (9, 4):
        config = write_config(tmp_path, sampling__batch_size=size, model__normalization="InstanceNorm++")
        assert train(tmp_path, config, "--sample", "--ni") == 0
        found[size] = load_pth(tmp_path / "exp" / "image_samples" / "images" / "samples_4.pth")
    np.testing.assert_allclose(found[9][:4], found[4], atol=1e-5)
