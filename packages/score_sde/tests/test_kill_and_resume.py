"""Killed at chosen and at random moments and started again, a run ends with the numbers of one that was never stopped.

A kill is a real SIGKILL to a process of its own (``tests/lives.py``); the chosen moments are those between two writes,
where something half done is on the disk.
"""

import random

import experiments
import numpy as np
import pytest
from lives import Lives

from score_core.runs.history import read_history
from score_core.runs.results import read_results

FLAGS = experiments.tiny_flags(
    model__ch_mult=(1,),
    model__attn_resolutions=(),
    training__n_iters=24,
    training__snapshot_freq=12,
    training__snapshot_freq_for_preemption=2,
    training__eval_freq=3,
    eval__begin_ckpt=1,
    eval__end_ckpt=2,
    eval__batch_size=60,
    eval__num_samples=120,
    eval__bpd_repeats=2,
    eval__trajectory=False,
)
STORE, TRAIN = "score_core.checkpoints.store", "score_sde.train"
IN_TRAINING = [
    (f"{TRAIN}:save_checkpoint", 1),  # an update is done, nothing is saved
    (f"{STORE}:atomic_write", 2),  # a checksum is there, its file is not
    ("score_core.checkpoints.atomic:os.replace", 3),  # a temporary file is there, its name is not
    (f"{STORE}:_remove", 1),  # one file more than is kept
    (f"{TRAIN}:_Training._evaluate", 2),  # between a checkpoint and the held-out loss of its step
    (f"{TRAIN}:_write_samples", 1),  # a permanent checkpoint is there, its samples are not
    (f"{TRAIN}:save_png", 1),  # the samples are there, their picture is not
]
IN_EVALUATION = [
    ("score_sde.held_out:save_npz", 2),  # one round of the loss is there
    ("score_sde.held_out:save_npz", 4),  # the loss is there, one round of bits/dim
    ("score_sde.sample_quality:save_npz", 2),  # samples are there, their features are not
    ("score_sde.evaluation_files:add_results", 2),  # one number is recorded
    ("score_core.checkpoints.atomic:os.replace", 5),
]


@pytest.fixture(scope="module", params=["jax", "torch"])
def lives(request):
    with Lives(request.param) as lives:
        yield lives


@pytest.fixture(scope="module")
def straight(lives, tmp_path_factory):
    """A run that was never stopped, trained and evaluated."""
    folder = tmp_path_factory.mktemp(f"straight_{lives.framework}")
    lives.run([f"--workdir={folder}", *FLAGS])
    lives.run([f"--workdir={folder}", *FLAGS, "--mode=eval"])
    return folder


def losses(folder):
    return [row[:3] for row in read_history(folder / "history.csv")]


def assert_same_training(lives, folder, reference):
    end, samples = (".pth", "iter_24") if lives.framework == "torch" else ("", "iter_24_host_0")
    for name in (f"checkpoints/checkpoint_1{end}", f"checkpoints/checkpoint_2{end}", f"samples/{samples}/sample.np"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
    assert losses(folder) == losses(reference)


@pytest.mark.slow
def test_kills_change_nothing(lives, straight, tmp_path):
    rng = random.Random(0)
    command = [f"--workdir={tmp_path}", *FLAGS]
    logs = [lives.run(command, killed_at=point) for point in IN_TRAINING]
    logs += [lives.run(command, killed_after=("training_loss", rng.randint(1, 4)))]
    assert sum("resuming from" in log for log in logs) >= 4, "too few lives began from a checkpoint of the one before"
    lives.run(command)
    assert_same_training(lives, tmp_path, straight)

    for point in IN_EVALUATION:
        lives.run([*command, "--mode=eval"], killed_at=point)
    lives.run([*command, "--mode=eval"])
    archives = sorted(p.relative_to(straight) for p in (straight / "eval").rglob("*.npz"))
    assert archives == sorted(p.relative_to(tmp_path) for p in (tmp_path / "eval").rglob("*.npz"))
    for name in archives:
        with np.load(straight / name) as one, np.load(tmp_path / name) as other:
            assert set(one) == set(other)
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], err_msg=f"{name}: {key}")
    one, other = (read_results(folder / "results.json") for folder in (straight, tmp_path))
    assert [(r.metric, r.value, r.standard_error) for r in one] == [
        (r.metric, r.value, r.standard_error) for r in other
    ]
    assert {r.framework for r in other} == {lives.framework}


@pytest.mark.parametrize("status", [143, 130])
def test_a_stopped_run_saves_says_so_and_resumes_to_the_same_numbers(lives, straight, tmp_path, status):
    command = [f"--workdir={tmp_path}", *FLAGS]
    log = lives.run(command, stopped_after=("training_loss", 7), status=status)
    assert "finishing the step and saving" in log
    assert len(losses(tmp_path)) < len(losses(straight))
    lives.run(command)
    assert_same_training(lives, tmp_path, straight)
