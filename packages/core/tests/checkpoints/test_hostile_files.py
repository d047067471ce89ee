"""A damaged checkpoint never does anything but say so: no other exception, no hang, no memory."""

import subprocess
import sys

import goldens
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.store import read_checkpoint, save_checkpoint

GOOD = goldens.path("score_sde", "checkpoint_real/checkpoint_1").read_bytes()


def truncations(count):
    rng = np.random.default_rng(1)
    return [GOOD[:size] for size in (*range(64), *rng.integers(64, len(GOOD), count))]


def flips(count):
    """One to eight bytes changed; half of the positions in the structure-rich beginning of the file."""
    rng = np.random.default_rng(2)
    for _ in range(count):
        damaged = bytearray(GOOD)
        end = len(GOOD) if rng.random() < 0.5 else 3000
        for position in rng.integers(0, end, rng.integers(1, 9)):
            damaged[position] ^= int(rng.integers(1, 256))
        yield bytes(damaged)


def test_every_truncation_is_refused():
    for data in truncations(300):
        with pytest.raises(CheckpointError):
            msgpack_format.loads(data)


def test_changed_bytes_give_a_tree_or_a_checkpoint_error():
    refused = 0
    for data in flips(600):
        try:
            tree = msgpack_format.loads(data)
        except CheckpointError:
            refused += 1
        else:
            assert isinstance(tree, dict)
    # Changes inside array bytes cannot show in the format: that is what the checksum is for.
    assert 100 < refused < 600


def test_random_bytes_give_a_tree_or_a_checkpoint_error():
    rng = np.random.default_rng(3)
    for _ in range(2000):
        data = b"\x81\xa1a" + rng.bytes(int(rng.integers(1, 40)))
        try:
            msgpack_format.loads(data)
        except CheckpointError:
            continue


def test_with_a_checksum_every_damage_is_found(tmp_path):
    path = save_checkpoint(tmp_path, GOOD, 1)
    assert read_checkpoint(path) == GOOD
    for data in [*truncations(60), *flips(60), GOOD + b"\0", GOOD[:-1] + bytes([GOOD[-1] ^ 1])]:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="checkpoint_1 is damaged"):
            read_checkpoint(path)


BOMB = """
import resource, sys
from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
filler = b"\\xc0" * 3_000_000
for header in (b"\\xdc\\x04\\x00", b"\\xde\\x40\\x00\\xa1a"):
    try:
        msgpack_format.loads(b"\\x81\\xa1a" + header * 1000 + filler)
    except CheckpointError:
        pass
    else:
        raise SystemExit("accepted")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_nested_declarations_of_long_lists_and_maps_take_no_memory():
    run = subprocess.run([sys.executable, "-c", BOMB], capture_output=True, text=True, timeout=60, check=True)
    assert int(run.stdout) < 60 * 1024  # KiB; the declared entries would take gigabytes
