"""``kill -9`` at random moments of a saving loop: what is left is always a verified checkpoint."""

import hashlib
import random
import subprocess
import sys
import time

from score_core.checkpoints import store

# Contents say their own number and checksum, so that a mixture of two would show even without the sidecar.
WRITER = """
import hashlib, itertools, sys
from score_core.checkpoints import store
folder, start = sys.argv[1], int(sys.argv[2])
for step in itertools.count(start):
    body = bytes([step % 251]) * 2_000_000
    data = b"%d %s " % (step, hashlib.sha256(body).hexdigest().encode()) + body
    store.save_checkpoint(folder, data, step, keep=2)
    store.save_checkpoint(folder, data, 0, prefix="same_")
    print(step, flush=True)
"""
ROUNDS = 20


def verified_number(data):
    number, digest, body = data.split(b" ", 2)
    assert hashlib.sha256(body).hexdigest().encode() == digest
    return int(number)


def test_the_newest_checkpoint_survives_kill_9(tmp_path, caplog):
    rng = random.Random(0)
    start = 1
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", WRITER, tmp_path, str(start)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"%d\n" % start
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
            lines = writer.stdout.read().splitlines(keepends=True)
        announced = max([start, *(int(line) for line in lines if line.endswith(b"\n"))])
        checkpoint = store.read_latest(tmp_path)
        assert checkpoint is not None
        assert verified_number(checkpoint.content) == checkpoint.step
        # Whatever save_checkpoint returned from is durable; at most the one after it was finished.
        assert checkpoint.step - announced in (0, 1)
        same = store.read_checkpoint(tmp_path / "same_0")
        assert verified_number(same) - announced in (0, 1)
        assert len(store.list_checkpoints(tmp_path)) in (2, 3) or checkpoint.step == 1
        start = checkpoint.step + 1
    assert caplog.text == ""  # nothing was ever damaged
    store.save_checkpoint(tmp_path, b"x", start, keep=2)
    store.save_checkpoint(tmp_path, b"x", 0, prefix="same_")
    assert len(list(tmp_path.iterdir())) == 6  # two kept, one overwritten, a checksum each, no leftovers
