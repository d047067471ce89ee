"""PyTorch files that somebody else made: read if they are checkpoints, refused without being run if they are not."""

import argparse
import io
import os
import pickle
import random
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.checkpoints.pth_format import load_pth, loads_pth, outline_pth

FORMS = pytest.mark.parametrize("zipped", [True, False])


def content():
    base = torch.arange(24.0)
    return {
        "optimizer": {"param_groups": [{"lr": np.float64(2e-4), "params": [0]}], "state": {0: {"step": 3}}},
        "model": OrderedDict(
            [
                ("module.weight", base.reshape(4, 6)[1:, ::2]),  # a view with strides, of a shared storage
                ("module.whole", base),
                ("module.sigmas", torch.ones(4, dtype=torch.float64)),
                ("module.half", torch.tensor([1.5, -2.0], dtype=torch.float16)),
                ("module.brain", torch.tensor([1.5, -2.0], dtype=torch.bfloat16)),
                ("module.count", torch.tensor(7)),
                ("module.flags", torch.tensor([True, False])),
                ("module.none", torch.zeros(0, 3)),
            ]
        ),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ema": {"decay": 0.999, "num_updates": 3, "shadow_params": [torch.zeros(2, 3)]},
        "config": argparse.Namespace(sigma=1.0, name="anneal", inner=argparse.Namespace(levels=(1, 2))),
        "shape": torch.Size([2, 3]),
        "step": 3,
    }


def saved(value, zipped):
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@FORMS
def test_everything_in_a_file_is_what_torch_put_there(tmp_path, zipped):
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(saved(content(), zipped))
    assert zipfile.is_zipfile(path) == zipped
    read = load_pth(path)
    assert list(read) == list(content())
    assert list(read["model"]) == list(content()["model"])
    for name, tensor in content()["model"].items():
        wanted = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
        np.testing.assert_array_equal(read["model"][name], wanted.numpy())
        assert read["model"][name].dtype == wanted.numpy().dtype
        assert read["model"][name].flags.writeable and read["model"][name].flags.c_contiguous
    np.testing.assert_array_equal(read["parameter"], np.ones(2, np.float32))
    assert read["optimizer"] == content()["optimizer"]
    assert read["config"].inner.levels == (1, 2)
    assert read["shape"] == (2, 3)


@FORMS
def test_an_outline_has_the_shapes_without_the_numbers(zipped):
    data = saved(content(), zipped)
    whole, outline = loads_pth(data), outline_pth(data)
    for name, array in whole["model"].items():
        assert outline["model"][name].shape == array.shape and outline["model"][name].dtype == array.dtype
        assert not outline["model"][name].any() and outline["model"][name].strides == (0,) * array.ndim
    assert outline["optimizer"] == whole["optimizer"] and outline["step"] == 3


class Hostile:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@FORMS
def test_code_in_a_file_is_named_and_not_run(tmp_path, zipped):
    place = tmp_path / "made"
    with pytest.raises(CheckpointError, match="mkdir, which is code and was not run"):
        loads_pth(saved({"model": Hostile(place)}, zipped))
    with pytest.raises(CheckpointError, match="mkdir"):
        loads_pth(pickle.dumps(Hostile(place)))
    with pytest.raises(CheckpointError, match=r"torch\.nn\.modules\.linear\.Linear"):
        loads_pth(saved(torch.nn.Linear(2, 2), zipped))
    assert not place.exists()


@FORMS
def test_thousands_of_changed_files_are_refused_or_read(zipped):
    good = saved(content(), zipped)
    chance = random.Random(0)
    refused = 0
    for _ in range(2500):
        data = bytearray(good)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        else:
            for _ in range(chance.randint(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            loads_pth(bytes(data))
        except CheckpointError:
            refused += 1
    assert refused > 750


def tensor_pickle(shape, strides, count=4):
    """A file of the old form whose one tensor claims any shape."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    integers = lambda values: b"(" + b"".join(pickle.dumps(v, 2)[2:-1] for v in values) + b"t"  # noqa: E731
    pid = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu" + pickle.dumps(count, 2)[2:-1] + b"Nt"
    body = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"QK\x00" + integers(shape) + integers(strides)
    body += b"\x89ccollections\nOrderedDict\n)RtR."
    numbers = (4).to_bytes(8, "little") + np.arange(4, dtype="<f4").tobytes()
    return b"".join(parts) + body + pickle.dumps(["0"], 2) + numbers


def test_no_tensor_is_larger_than_its_file():
    np.testing.assert_array_equal(loads_pth(tensor_pickle((2, 2), (2, 1))), [[0, 1], [2, 3]])
    for shape, strides in [((2**40,), (0,)), ((5,), (1,)), ((2, 2), (3, 1)), ((2, 2), (1,))]:
        with pytest.raises(CheckpointError):
            loads_pth(tensor_pickle(shape, strides))
    with pytest.raises(CheckpointError):
        loads_pth(tensor_pickle((2, 2), (2, 1), count=2**40))


def test_containers_that_contain_themselves_or_nest_without_end():
    endless: list = []
    endless.append(endless)
    with pytest.raises(CheckpointError):
        loads_pth(saved(endless, True))
    laughs: list = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    read = loads_pth(saved(laughs, True))  # 2^60 leaves if sharing were lost
    assert read[0] is read[1]


def test_a_missing_file_a_folder_and_a_text(tmp_path):
    with pytest.raises(MissingCheckpointError, match=r"none\.pth"):
        load_pth(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="cannot read"):
        load_pth(tmp_path)
    with pytest.raises(CheckpointError, match="Fetch it again"):
        loads_pth(b"<html>404</html>")
