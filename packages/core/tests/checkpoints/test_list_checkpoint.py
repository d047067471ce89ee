"""List checkpoints: what is read, how damage is found, what a killed writer leaves."""

import json
from collections import OrderedDict

import numpy as np
import pytest
import torch

from score_core.checkpoints import list_checkpoint
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.checkpoints.list_checkpoint import (
    ResumePoint,
    find_newest,
    list_steps,
    read_list_checkpoint,
    save_list_checkpoint,
)
from score_core.torch.pth import dumps


def content(value, length=5, ids=(140001, 140000)):
    network = OrderedDict([("module.a", torch.full((2, 3), value)), ("module.b", torch.zeros(2))])
    state = {ids[0]: {"step": 3, "exp_avg": torch.ones(2, 3)}, ids[1]: {"step": 3, "exp_avg": torch.ones(2)}}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": list(ids)}]}
    return [network, optimizer, 0, 3, {"a": torch.full((2, 3), -value), "b": torch.ones(2)}][:length]


def point(step, **changes):
    return ResumePoint(**{"step": step, "seed": 1, "config_hash": "c", "data": "d", **changes})


@pytest.mark.parametrize("length", [2, 4, 5])
def test_all_three_lengths(tmp_path, length):
    save_list_checkpoint(tmp_path, dumps(content(1.5, length)), point(3))
    found = read_list_checkpoint(tmp_path / "checkpoint_3.pth")
    assert list(found.network) == ["a", "b"] and found.network["a"][0, 0] == 1.5
    assert (found.epoch, found.step) == ((None, None) if length == 2 else (0, 3))
    assert (found.average is None) == (length < 5)
    assert found.optimizer["param_groups"][0]["params"] == [0, 1]
    assert found.optimizer["state"][0]["exp_avg"].shape == (2, 3)
    assert found.resume == point(3)


def test_files_of_other_programs_have_no_resume_point(tmp_path):
    (tmp_path / "checkpoint.pth").write_bytes(dumps(content(1.0)))
    assert find_newest(tmp_path).resume is None


def test_between_any_two_writes_the_old_or_the_new_file_is_good(tmp_path, monkeypatch):
    save_list_checkpoint(tmp_path, dumps(content(1.0)), point(1))
    real, left = list_checkpoint.atomic_write, 0

    def dies(path, data):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        real(path, data)

    monkeypatch.setattr(list_checkpoint, "atomic_write", dies)
    for writes in range(4):
        left = writes
        with pytest.raises(KeyboardInterrupt):
            save_list_checkpoint(tmp_path, dumps(content(2.0)), point(2))
        found = find_newest(tmp_path)
        assert found.resume.step == 1 and found.network["a"][0, 0] == 1.0
    left = 4
    save_list_checkpoint(tmp_path, dumps(content(2.0)), point(2))
    assert find_newest(tmp_path).resume.step == 2
    assert len(json.loads((tmp_path / ".checkpoint.pth.json").read_text())["entries"]) == 2


def test_a_flipped_bit_is_found_and_the_numbered_file_used(tmp_path, caplog):
    for step in (1, 2):
        save_list_checkpoint(tmp_path, dumps(content(float(step))), point(step))
    for name, value in (("checkpoint.pth", 2.0), ("checkpoint_2.pth", 1.0)):
        file = tmp_path / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 4
        file.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged"):
            read_list_checkpoint(file)
        assert find_newest(tmp_path).network["a"][0, 0] == value
    assert "damaged" in caplog.text


def test_a_stopped_run_writes_the_latest_alone(tmp_path):
    save_list_checkpoint(tmp_path, dumps(content(1.0)), point(4))
    save_list_checkpoint(tmp_path, dumps(content(2.0)), point(5), numbered=False)
    assert list_steps(tmp_path) == [4] and find_newest(tmp_path).resume.step == 5


def test_missing_files_say_what_is_there(tmp_path):
    with pytest.raises(MissingCheckpointError, match="does not exist"):
        find_newest(tmp_path / "nowhere")
    save_list_checkpoint(tmp_path, dumps(content(1.0)), point(4))
    with pytest.raises(MissingCheckpointError, match=r"checkpoint_4\.pth, checkpoint\.pth"):
        read_list_checkpoint(tmp_path / "checkpoint_5.pth")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"model": 1}, "holds a dict"),
        ([1, 2, 3], "holds a list of 3"),
        ([{}, {"state": {}, "param_groups": []}], "not a state dict"),
        ([{"a": torch.ones(1)}, {}], "not the state of an optimiser"),
        ([{"a": 3}, {"state": {}, "param_groups": []}], "'a', which is no array"),
        ([{"a": torch.ones(1)}, {"state": {7: {}}, "param_groups": [{"params": []}]}], "makes no sense"),
        ([{"a": torch.ones(1)}, {"state": {}, "param_groups": []}, -1, 2], "expected an epoch and a step"),
    ],
)
def test_what_is_no_such_list_is_refused(tmp_path, made, said):
    file = tmp_path / "x.pth"
    file.write_bytes(dumps(made))
    with pytest.raises(CheckpointError, match=said):
        read_list_checkpoint(file)


def test_arrays_keep_their_bits(tmp_path):
    values = np.array([np.float32(1e-40), np.float32(-0.0), np.inf], np.float32)
    made = [OrderedDict(a=torch.from_numpy(values)), {"state": {}, "param_groups": [{"params": [0]}]}]
    save_list_checkpoint(tmp_path, dumps(made), point(1))
    np.testing.assert_array_equal(read_list_checkpoint(tmp_path / "checkpoint.pth").network["a"], values, strict=True)
