"""Killed at random moments and started again, a run ends with the numbers of one that was never stopped."""

import os
import random
import signal
import subprocess
import sys
import time

import experiments
import numpy as np
import pytest

from score_core.runs.history import read_history
from score_core.runs.results import read_results

FLAGS = experiments.tiny_flags(
    training__n_iters=60,
    training__snapshot_freq=30,
    training__snapshot_freq_for_preemption=2,
    training__eval_freq=3,
    eval__begin_ckpt=1,
    eval__end_ckpt=2,
    eval__batch_size=30,
    eval__num_samples=120,
    eval__bpd_repeats=5,
)
KILLS = 20


def start(folder, *flags):
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "score_sde", f"--workdir={folder}", *FLAGS, *flags]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def run_to_the_end(folder, *flags):
    process = start(folder, *flags)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]


def read_until(process, marker, count):
    """Reads the log up to the ``count``-th line with ``marker``; how many came."""
    seen = 0
    for line in process.stderr:
        seen += marker in line
        if seen == count:
            break
    return seen


def kill_at_random_moments(folder, *flags, marker, most, kills, rng):
    """Kills ``kills`` lives, each after ``1 .. most`` marked lines."""
    for killed in range(kills):
        process = start(folder, *flags)
        read_until(process, marker, rng.randint(1, most))
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            return killed
    return kills


def losses(folder):
    return [row[:3] for row in read_history(folder / "history.csv")]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_twenty_kills_change_nothing(tmp_path):
    rng = random.Random(0)
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run_to_the_end(straight)
    run_to_the_end(straight, "--mode=eval")

    in_training = kill_at_random_moments(killed, marker="training_loss", most=9, kills=KILLS // 2, rng=rng)
    log = (killed / "stdout.txt").read_text()
    run_to_the_end(killed)
    # an evaluation that goes on is silent about the rounds that it finds done
    in_evaluation = kill_at_random_moments(
        killed, "--mode=eval", marker="INFO - ", most=8, kills=KILLS - in_training, rng=rng
    )
    run_to_the_end(killed, "--mode=eval")
    assert in_training + in_evaluation == KILLS
    assert log.count("resuming from") >= KILLS // 4, "too few lives began from a checkpoint of the one before"

    for name in ("checkpoints/checkpoint_1", "checkpoints/checkpoint_2", "samples/iter_60_host_0/sample.np"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes(), name
    assert losses(killed) == losses(straight)
    archives = sorted(p.relative_to(straight) for p in (straight / "eval").rglob("*.npz"))
    assert archives == sorted(p.relative_to(killed) for p in (killed / "eval").rglob("*.npz"))
    for name in archives:
        with np.load(straight / name) as one, np.load(killed / name) as other:
            assert set(one) == set(other)
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], err_msg=f"{name}: {key}")
    one, other = (read_results(folder / "results.json") for folder in (straight, killed))
    assert [(r.metric, r.value, r.standard_error) for r in one] == [
        (r.metric, r.value, r.standard_error) for r in other
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_says_so_and_resumes_to_the_same_numbers(tmp_path, signal_number, status):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    run_to_the_end(straight)
    process = start(stopped)
    assert read_until(process, "step: 7, training_loss", 1)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    assert "finishing the step and saving" in errors
    assert len(losses(stopped)) < len(losses(straight))
    run_to_the_end(stopped)
    for name in ("checkpoints/checkpoint_1", "checkpoints/checkpoint_2"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes()
    assert losses(stopped) == losses(straight)
