"""Numbered files: order, pruning, verification, fallback, and what a full disk leaves."""

import errno
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import threading

import pytest

from score_core.checkpoints import store
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError


def names(folder):
    return sorted(os.listdir(folder))


def visible(folder):
    return [name for name in names(folder) if not name.startswith(".")]


def test_saving_makes_the_folder_the_file_and_its_checksum_and_nothing_else(tmp_path):
    path = store.save_checkpoint(tmp_path / "a" / "b", b"state", 3)
    assert path == tmp_path / "a" / "b" / "checkpoint_3"
    assert names(path.parent) == [".checkpoint_3.sha256", "checkpoint_3"]
    assert store.read_checkpoint(path) == b"state"
    assert path.stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_checksums_can_be_verified_with_sha256sum(tmp_path):
    store.save_checkpoint(tmp_path, b"state", 3)
    check = ["sha256sum", "--strict", "-c", ".checkpoint_3.sha256"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=True).stdout == b"checkpoint_3: OK\n"


def test_numbers_are_listed_in_natural_order_and_other_names_ignored(tmp_path):
    for step in (10, 2, 1, 0):
        store.save_checkpoint(tmp_path, b"x", step)
    for other in ("tmp", "", "03", "4.bak", "-1", "5_x"):
        (tmp_path / f"checkpoint_{other}").write_bytes(b"x")
    (tmp_path / "checkpoint_7").mkdir()  # as sharded formats write
    assert [step for step, _ in store.list_checkpoints(tmp_path)] == [0, 1, 2, 10]
    assert store.latest_checkpoint(tmp_path) == tmp_path / "checkpoint_10"


def test_a_missing_or_empty_folder_has_no_checkpoints(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert store.list_checkpoints(folder) == []
        assert store.latest_checkpoint(folder) is None
        assert store.read_latest(folder) is None


def test_prefixes_do_not_mix(tmp_path):
    for host in (1, 10):
        store.save_checkpoint(tmp_path, b"x", 5, prefix=f"meta_{host}_")
    store.save_checkpoint(tmp_path, b"x", 6, prefix="meta_1_", keep=1)
    assert visible(tmp_path) == ["meta_10_5", "meta_1_6"]
    store.remove_checkpoints(tmp_path, "meta_1_")
    assert names(tmp_path) == [".meta_10_5.sha256", "meta_10_5"]


def test_saving_to_a_number_that_exists_replaces_it(tmp_path):
    store.save_checkpoint(tmp_path, b"old", 26)
    path = store.save_checkpoint(tmp_path, b"new", 26)
    assert store.read_checkpoint(path) == b"new"
    sidecar = tmp_path / ".checkpoint_26.sha256"
    assert sidecar.read_text() == f"{hashlib.sha256(b'new').hexdigest()}  checkpoint_26\n"


@pytest.mark.parametrize("keep", [1, 2, 3, 5, 10])
def test_pruning_keeps_the_newest_and_removes_their_checksums(tmp_path, keep):
    for step in (1, 2, 9, 10, 11):
        store.save_checkpoint(tmp_path, b"x", step, keep=keep)
    kept = [1, 2, 9, 10, 11][-keep:]
    assert [step for step, _ in store.list_checkpoints(tmp_path)] == kept
    assert len(names(tmp_path)) == 2 * len(kept)


def test_pruning_never_touches_higher_numbers(tmp_path):
    for step in (1, 2, 8, 9):
        store.save_checkpoint(tmp_path, b"x", step)
    store.save_checkpoint(tmp_path, b"x", 3, keep=1)
    assert [step for step, _ in store.list_checkpoints(tmp_path)] == [3, 8, 9]


@pytest.mark.parametrize(("step", "keep"), [(-1, None), (1, 0)])
def test_negative_numbers_and_keeping_nothing_are_programming_errors(tmp_path, step, keep):
    with pytest.raises(ValueError, match="at least"):
        store.save_checkpoint(tmp_path, b"x", step, keep=keep)


def test_a_missing_number_lists_those_present(tmp_path):
    for step in (1, 2, 10):
        store.save_checkpoint(tmp_path, b"x", step)
    for ask in (store.find_checkpoint, lambda folder, step: store.read_checkpoint(folder / f"checkpoint_{step}")):
        with pytest.raises(MissingCheckpointError, match="checkpoint_1, checkpoint_2, checkpoint_10"):
            ask(tmp_path, 3)
        with pytest.raises(MissingCheckpointError, match="does not exist"):
            ask(tmp_path / "nowhere", 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingCheckpointError, match="none"):
        store.find_checkpoint(tmp_path / "empty", 0)


def test_number_zero_is_a_number(tmp_path):
    store.save_checkpoint(tmp_path, b"first", 0)
    store.save_checkpoint(tmp_path, b"newest", 5)
    assert store.read_checkpoint(store.find_checkpoint(tmp_path, 0)) == b"first"


def test_a_folder_in_place_of_a_file_is_said_to_be_one(tmp_path):
    (tmp_path / "checkpoint_1").mkdir()
    with pytest.raises(CheckpointError, match="is a folder"):
        store.read_checkpoint(tmp_path / "checkpoint_1")
    with pytest.raises(CheckpointError, match="cannot write"):
        store.save_checkpoint(tmp_path, b"x", 1)
    assert names(tmp_path) == ["checkpoint_1"]


def test_files_of_other_programs_have_no_checksum_and_are_read(tmp_path):
    (tmp_path / "checkpoint_8").write_bytes(b"downloaded")
    assert store.read_checkpoint(tmp_path / "checkpoint_8") == b"downloaded"


def test_a_damaged_file_is_reported_with_the_way_out(tmp_path):
    path = store.save_checkpoint(tmp_path, b"state", 3)
    path.write_bytes(b"statf")
    with pytest.raises(CheckpointError, match="checkpoint_3 is damaged") as caught:
        store.read_checkpoint(path)
    assert "delete .checkpoint_3.sha256" in str(caught.value)
    (tmp_path / ".checkpoint_3.sha256").unlink()
    assert store.read_checkpoint(path) == b"statf"


@pytest.mark.parametrize("contents", ["", "garbage\n", "ABC  checkpoint_3\n"])
def test_a_damaged_checksum_is_reported_as_such_and_does_not_prevent_saving(tmp_path, contents):
    path = store.save_checkpoint(tmp_path, b"state", 3)
    (tmp_path / ".checkpoint_3.sha256").write_text(contents)
    with pytest.raises(CheckpointError, match=r"\.checkpoint_3\.sha256 is damaged"):
        store.read_checkpoint(path)
    store.save_checkpoint(tmp_path, b"new", 3)
    assert store.read_checkpoint(path) == b"new"


def test_the_newest_good_one_is_used_and_the_damaged_one_reported(tmp_path, caplog):
    for step in (1, 2, 10):
        store.save_checkpoint(tmp_path, b"state %d" % step, step)
    (tmp_path / "checkpoint_10").write_bytes(b"state")
    with caplog.at_level(logging.WARNING):
        assert store.read_latest(tmp_path) == (2, tmp_path / "checkpoint_2", b"state 2")
    assert "checkpoint_10" in caplog.text
    assert "damaged" in caplog.text


def test_decoding_finds_damage_in_files_without_a_checksum(tmp_path, caplog):
    def decode(data):
        if data != b"good":
            raise CheckpointError("not good")
        return "decoded"

    (tmp_path / "checkpoint_1").write_bytes(b"good")
    (tmp_path / "checkpoint_2").write_bytes(b"goo")
    assert store.read_latest(tmp_path, decode=decode) == (1, tmp_path / "checkpoint_1", "decoded")
    assert "not good" in caplog.text


def test_if_all_are_damaged_the_error_lists_them(tmp_path):
    for step in (1, 2):
        store.save_checkpoint(tmp_path, b"state", step).write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"(?s)no usable checkpoint.*checkpoint_2: .*checkpoint_1: "):
        store.read_latest(tmp_path)


def test_a_checkpoint_pruned_while_reading_leads_to_its_successor(tmp_path, monkeypatch):
    store.save_checkpoint(tmp_path, b"old", 1)
    real = store.read_checkpoint

    def prune_first(path):
        monkeypatch.setattr(store, "read_checkpoint", real)
        store.save_checkpoint(tmp_path, b"new", 2, keep=1)
        return real(path)

    monkeypatch.setattr(store, "read_checkpoint", prune_first)
    assert store.read_latest(tmp_path) == (2, tmp_path / "checkpoint_2", b"new")


def test_a_reader_never_sees_a_bad_file_while_a_writer_replaces_it(tmp_path):
    contents = [bytes([value]) * 50_000 for value in range(8)]
    store.save_checkpoint(tmp_path, contents[0], 1)
    done = threading.Event()

    def write():
        for _ in range(5):
            for data in contents:
                store.save_checkpoint(tmp_path, data, 1)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set():
        assert store.read_checkpoint(tmp_path / "checkpoint_1") in contents
        reads += 1
    writer.join()
    assert reads > 10


# --- killed between two steps of a save


class Killed(BaseException):
    """Stands for a kill: nothing after the write that raises it is executed."""


def killed_after(monkeypatch, writes):
    """From now on only ``writes`` more files are written, then the process is gone."""
    left = iter(range(writes))
    real = store.atomic_write

    def write(path, data):
        if next(left, None) is None:
            raise Killed
        real(path, data)

    monkeypatch.setattr(store, "atomic_write", write)


@pytest.mark.parametrize("with_sidecar", [True, False])
@pytest.mark.parametrize(("writes", "expected"), [(0, b"old"), (1, b"old"), (2, b"new")])
def test_killed_between_any_two_steps_the_file_is_good(tmp_path, monkeypatch, writes, expected, with_sidecar):
    path = store.save_checkpoint(tmp_path, b"old", 3)
    if not with_sidecar:
        (tmp_path / ".checkpoint_3.sha256").unlink()
    with monkeypatch.context() as patch:
        killed_after(patch, writes)
        with pytest.raises(Killed):
            store.save_checkpoint(tmp_path, b"new", 3)
    assert store.read_checkpoint(path) == expected
    # ... and again, several times at one place, before a save gets through.
    for attempt in range(3):
        with monkeypatch.context() as patch:
            killed_after(patch, writes)
            with pytest.raises(Killed):
                store.save_checkpoint(tmp_path, b"newer %d" % attempt, 3)
        store.read_checkpoint(path)
    store.save_checkpoint(tmp_path, b"last", 3)
    assert store.read_checkpoint(path) == b"last"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match="damaged"):
        store.read_checkpoint(path)  # the checksums of replaced contents are forgotten


def test_a_checksum_whose_file_was_never_written_is_removed_by_the_next_save(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(patch, 1)
        with pytest.raises(Killed):
            store.save_checkpoint(tmp_path, b"x", 3)
    assert names(tmp_path) == [".checkpoint_3.sha256"]
    store.save_checkpoint(tmp_path, b"x", 4)
    assert names(tmp_path) == [".checkpoint_4.sha256", "checkpoint_4"]


def test_leftovers_of_dead_writers_are_removed_and_living_ones_left(tmp_path):
    dead = [".tmp-00000000-checkpoint_3.tmp", ".tmp-00000001-.checkpoint_3.sha256.tmp"]
    others = [".tmp-00000002-checkpoint_3_b.tmp", ".tmp-00000003-meta_0_3.tmp", "checkpoint_tmp", ".tmp-x.tmp"]
    for name in (*dead, *others):
        (tmp_path / name).write_bytes(b"partial")
    living = tmp_path / ".tmp-00000004-checkpoint_5.tmp"
    hold = "import fcntl, sys; f = open(sys.argv[1], 'wb'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", hold, living]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdout.readline()
        store.save_checkpoint(tmp_path, b"x", 4)
        assert names(tmp_path) == sorted([*others, living.name, "checkpoint_4", ".checkpoint_4.sha256"])
        writer.stdin.close()
    store.save_checkpoint(tmp_path, b"x", 4)
    assert living.name not in names(tmp_path)


# --- disks that refuse


@pytest.mark.parametrize(("number", "cure"), [(errno.ENOSPC, "Free some space"), (errno.EIO, "Check the path")])
@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failing_write_leaves_the_previous_file_and_no_temporary_one(tmp_path, monkeypatch, number, cure, failing):
    path = store.save_checkpoint(tmp_path, b"old", 3, keep=1)
    real = getattr(os, failing)

    def fail(*arguments):
        # The checksum is small and still fits; the checkpoint does not.
        target = arguments[0] if failing == "replace" else os.readlink(f"/proc/self/fd/{arguments[0]}")
        if "-checkpoint_" not in str(target):
            return real(*arguments)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        for step in (3, 4):
            with pytest.raises(CheckpointError, match=rf"cannot write .*checkpoint_{step} .*MiB free.*{cure}"):
                store.save_checkpoint(tmp_path, b"new", step, keep=1)
    assert names(tmp_path) == [".checkpoint_3.sha256", "checkpoint_3"]
    assert store.read_checkpoint(path) == b"old"


def test_an_unwritable_place_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"cannot write .*file/sub/.*checkpoint_1.*MiB free.*Check the path"):
        store.save_checkpoint(tmp_path / "file" / "sub", b"x", 1)


LIMITED = """
import resource, sys
from score_core.checkpoints import store
from score_core.checkpoints.errors import CheckpointError
folder = sys.argv[1]
store.save_checkpoint(folder, b"small", 1, keep=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for step in (1, 2):
    try:
        store.save_checkpoint(folder, b"x" * 1_000_000, step, keep=1)
    except CheckpointError as error:
        print(error)
    else:
        raise SystemExit("the limit did not work")
"""


def test_a_real_limit_on_the_file_size(tmp_path):
    run = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=True)
    first, second = run.stdout.splitlines()
    assert "cannot write" in first
    assert "checkpoint_1 (1.0 MiB" in first
    assert "ulimit -f" in first
    assert "checkpoint_2 (1.0 MiB" in second
    assert names(tmp_path) == [".checkpoint_1.sha256", "checkpoint_1"]
    assert store.read_checkpoint(tmp_path / "checkpoint_1") == b"small"


FULL = """
import os, subprocess, sys
from score_core.checkpoints import store
from score_core.checkpoints.errors import CheckpointError
folder = sys.argv[1]
mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
if subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode:
    sys.exit(77)
path = store.save_checkpoint(folder, b"a" * 100_000, 1, keep=1)
try:
    store.save_checkpoint(folder, b"b" * 300_000, 2, keep=1)
except CheckpointError as error:
    print(error)
print(*sorted(os.listdir(folder)))
assert store.read_checkpoint(path) == b"a" * 100_000
store.save_checkpoint(folder, b"c" * 100_000, 2, keep=1)
print(*sorted(os.listdir(folder)))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare to mount a small disk of its own")
def test_a_disk_that_is_really_full(tmp_path):
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", FULL, tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == 77 or run.stderr.startswith("unshare:"):
        pytest.skip("this machine does not let a test mount a small disk")
    assert run.returncode == 0, run.stderr
    message, after_failure, after_success = run.stdout.splitlines()
    assert "checkpoint_2 (0.3 MiB, 0.1 MiB free): No space left on device. Free some space" in message
    assert after_failure == ".checkpoint_1.sha256 checkpoint_1"
    assert after_success == ".checkpoint_2.sha256 checkpoint_2"
