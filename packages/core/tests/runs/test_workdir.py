"""The work directory: one process at a time, one configuration."""

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys

import ml_collections
import pytest

from score_core.runs.workdir import ConfigChangedError, Workdir, WorkdirError

HOLD = """
import sys
from score_core.runs.workdir import Workdir
with Workdir(sys.argv[1], role="train"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds ``tmp_path / "run"`` for training until its stdin is closed or it is killed."""
    command = [sys.executable, "-c", HOLD, tmp_path / "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_holds_the_directory(tmp_path, holder):
    expected = rf"in use for train: process {holder.pid} on {re.escape(socket.gethostname())} since .*Z \(-c .*run\)"
    with pytest.raises(WorkdirError, match=expected), Workdir(tmp_path / "run", role="train"):
        pass
    holder.communicate()
    with Workdir(tmp_path / "run", role="train"):
        pass


def test_the_lock_goes_with_a_killed_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with Workdir(tmp_path / "run", role="train"):
        record = json.loads((tmp_path / "run" / ".train.holder.json").read_text())
        assert record["pid"] == os.getpid()


def test_another_role_and_the_further_processes_of_one_run_are_not_kept_out(tmp_path, holder):
    with Workdir(tmp_path / "run", role="eval"), Workdir(tmp_path / "run", role="train", exclusive=False):
        pass
    with pytest.raises(WorkdirError), Workdir(tmp_path / "run", role="train"):
        pass


def test_two_runs_in_one_process_exclude_each_other_too(tmp_path):
    with Workdir(tmp_path):
        with pytest.raises(WorkdirError, match=f"process {os.getpid()}"), Workdir(tmp_path):
            pass
        with pytest.raises(WorkdirError), Workdir(tmp_path):  # the first refusal released nothing
            pass
    with Workdir(tmp_path):
        pass


def test_a_forked_child_does_not_release_the_lock(tmp_path):
    code = (
        "import os, subprocess, sys\n"
        "from score_core.runs.workdir import Workdir\n"
        "with Workdir(sys.argv[1]):\n"
        "    if os.fork() == 0:\n"
        "        sys.exit()\n"
        "    os.wait()\n"
        "    second = 'import sys; from score_core.runs.workdir import *; Workdir(sys.argv[1]).__enter__()'\n"
        "    run = subprocess.run([sys.executable, '-c', second, sys.argv[1]], stderr=subprocess.PIPE, text=True)\n"
        "    print(os.getpid(), run.stderr.splitlines()[-1])\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    pid, message = run.stdout.split(" ", 1)
    assert f"in use for run: process {pid} on" in message


def test_leaving_removes_the_note_of_the_holder(tmp_path):
    with Workdir(tmp_path):
        pass
    assert os.listdir(tmp_path) == [".run.lock"]


def test_a_place_that_cannot_be_a_directory_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match=r"cannot use .*file.* as a work directory"), Workdir(tmp_path / "file"):
        pass
    with Workdir(tmp_path) as workdir, pytest.raises(WorkdirError, match="cannot make the folder"):
        workdir.folder("file", "samples")


def test_folders_are_made_below_the_work_directory(tmp_path):
    with Workdir(tmp_path / "a" / "b") as workdir:
        folder = workdir.folder("samples", "iter_1_host_0")
        assert folder == tmp_path / "a" / "b" / "samples" / "iter_1_host_0"
        assert folder.is_dir()
        assert workdir.folder("samples", "iter_1_host_0") == folder


# --- configuration


def config(**changes):
    tree = {
        "training": {"n_iters": 100, "log_freq": 5, "batch_size": 8},
        "eval": {"batch_size": 16, "nested": {"a": 1}},
        "model": {"ch_mult": (1, 2), "nf": 128},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        tree[section][name] = value
    return tree


RULES = {"ignore": ("eval.*", "training.log_freq"), "may_grow": ("training.n_iters",)}


@pytest.fixture
def started(tmp_path):
    """A work directory in which a run was started with ``config()``."""
    with Workdir(tmp_path) as workdir:
        assert workdir.record_config(config(), **RULES) == []
        yield workdir


def recorded(workdir):
    return json.loads((workdir.path / "config.json").read_text())


def test_the_first_start_records_and_the_same_again_is_accepted(started):
    assert recorded(started) == json.loads(json.dumps(config()))
    before = (started.path / "config.json").stat().st_mtime_ns
    assert started.record_config(ml_collections.ConfigDict(config()), **RULES) == []
    assert (started.path / "config.json").stat().st_mtime_ns == before


def test_a_changed_configuration_is_refused_with_the_differences(started):
    with pytest.raises(ConfigChangedError) as caught:
        started.record_config(config(model__nf=64, training__batch_size=4, eval__batch_size=1), **RULES)
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("was started with another configuration:")
    assert lines[1:-1] == ["  model.nf: 128 -> 64", "  training.batch_size: 8 -> 4"]
    assert "force" in lines[-1]
    assert caught.value.exit_code == 2
    assert recorded(started)["model"]["nf"] == 128


def test_what_may_change_is_recorded_and_logged(started, caplog):
    new = config(eval__batch_size=1, eval__nested={"a": 2}, training__log_freq=1, training__n_iters=200)
    with caplog.at_level(logging.INFO):
        changes = started.record_config(new, **RULES)
    assert [change.key for change in changes] == [
        "eval.batch_size",
        "eval.nested.a",
        "training.log_freq",
        "training.n_iters",
    ]
    assert "training.n_iters: 100 -> 200" in caplog.text
    assert recorded(started) == json.loads(json.dumps(new))


def test_what_may_grow_may_not_shrink(started):
    with pytest.raises(ConfigChangedError, match=r"training\.n_iters: 100 -> 99"):
        started.record_config(config(training__n_iters=99), **RULES)


def test_force_accepts_everything(started):
    changes = started.record_config(config(model__nf=64), **RULES, force=True)
    assert [str(change) for change in changes] == ["model.nf: 128 -> 64"]
    assert recorded(started)["model"]["nf"] == 64


def test_a_long_list_of_differences_is_cut(started):
    started.record_config({f"key_{index:03d}": 0 for index in range(100)}, force=True)
    with pytest.raises(ConfigChangedError, match=r"key_029: 0 -> 1\n  \.\.\. and 70 more"):
        started.record_config({f"key_{index:03d}": 1 for index in range(100)})


@pytest.mark.parametrize("damage", ["{", "[1]", "\xff"])
def test_a_damaged_record_is_reported_and_not_replaced(started, damage):
    file = started.path / "config.json"
    file.write_bytes(damage.encode("latin1"))
    with pytest.raises(WorkdirError, match=r"config\.json"):
        started.record_config(config(), **RULES, force=True)
    assert file.read_bytes() == damage.encode("latin1")


def test_further_processes_compare_but_do_not_write(tmp_path):
    with Workdir(tmp_path, exclusive=False) as further:
        further.record_config(config())
        assert os.listdir(tmp_path) == []
        with Workdir(tmp_path) as first:
            first.record_config(config())
        with pytest.raises(ConfigChangedError):
            further.record_config(config(model__nf=1))
