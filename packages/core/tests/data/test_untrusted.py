"""Pickles of strangers can hold data and nothing that runs."""

import os
import pickle
import subprocess

import numpy as np
import pytest

from score_core.data.errors import DataError
from score_core.data.untrusted import load_plain_pickle


@pytest.mark.parametrize("protocol", range(3, 5))
def test_plain_containers_and_arrays_are_read(protocol):
    value = {"a": [1, 2.5, None, True], "b": (3, "text"), "c": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    loaded = load_plain_pickle(pickle.dumps(value, protocol), "file")
    np.testing.assert_array_equal(loaded.pop("c"), value.pop("c"))
    assert loaded == value


def test_python_2_strings_become_bytes():
    assert load_plain_pickle(b"\x80\x02}U\x04dataU\x02\xff\x00s.", "file") == {b"data": b"\xff\x00"}


class Calls:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize(
    "evil",
    [
        Calls(os.system, "touch harm"),
        Calls(subprocess.check_call, ["touch", "harm"]),
        Calls(eval, "open('harm', 'w')"),
        Calls(open, "harm", "w"),
        Calls(getattr, "text", "format"),
        Calls(np.memmap, "harm", "uint8", "w+", 0, (3,)),
    ],
    ids=["system", "subprocess", "eval", "open", "getattr", "memmap"],
)
def test_everything_else_is_refused_before_it_runs(tmp_path, monkeypatch, evil, protocol):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"batch_1 is damaged .*only numpy arrays are allowed"):
        load_plain_pickle(pickle.dumps({"data": evil}, protocol), "batch_1")
    assert not list(tmp_path.iterdir())


def test_dotted_names_do_not_reach_through_an_allowed_module():
    with pytest.raises(DataError, match="only numpy arrays are allowed"):
        load_plain_pickle(b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.tofil\x93.", "file")


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"garbage", b"\x80\x02]q\x00(K\x01", b"\x80\x02h\x07.", b"\x80\x63."]
)
def test_damaged_pickles_are_named_with_the_cure(content):
    with pytest.raises(DataError, match=r"batch_2 is damaged .*Cure: delete it"):
        load_plain_pickle(content, "batch_2")
