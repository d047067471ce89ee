"""PyTorch in two processes, started by ``torchrun`` and by hand: the numbers of one, and what happens when one ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import experiments
import numpy as np
import pytest
from lives import Lives

from score_core.checkpoints.pth_format import load_pth
from score_core.runs.history import read_history
from score_core.runs.results import read_results
from score_sde.__main__ import main

FLAGS = experiments.tiny_flags(
    data__random_flip=True,
    model__ch_mult=(1,),
    model__attn_resolutions=(),
    model__dropout=0.0,  # masks are PyTorch's own, one stream a process
    data__uniform_dequantization=True,
    training__n_iters=8,
    training__log_freq=2,
    training__eval_freq=8,
    training__snapshot_freq=8,
    training__snapshot_freq_for_preemption=8,
    optim__warmup=0,
    eval__num_samples=200,
    eval__enable_bpd=False,
    eval__trajectory=False,
)
# Sums in another order. Parameters are of order 1; Adam's first steps magnify rounding to a thousandth of lr = 1e-3.
TOLERANCE = {"rtol": 1e-5, "atol": 5e-6}


def command(folder, *flags):
    return ["-m", "score_sde", "--framework=torch", f"--workdir={folder}", *FLAGS, *flags]


def torchrun(folder, *flags):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0", "--standalone"]
    return subprocess.Popen(
        [*launcher, *command(folder, *flags)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def by_hand(folder, *flags):
    """Process 0 and process 1 of one training run."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    shared = ("--num_processes=2", f"--coordinator=127.0.0.1:{port}", *flags)
    return [
        subprocess.Popen(
            [sys.executable, *command(folder, *shared, f"--process_id={rank}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        for rank in range(2)
    ]


def finish(*processes, status=0):
    for process in processes:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == status, errors[-3000:]


@contextlib.contextmanager
def killed_at_the_end(*processes):
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def read_until(process, marker):
    assert any(marker in line for line in process.stderr), marker


@pytest.fixture(scope="module")
def lives():
    with Lives("torch") as lives:
        yield lives


@pytest.fixture(scope="module")
def one_process(lives, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel") / "one"
    lives.run([f"--workdir={folder}", *FLAGS])
    return folder


def assert_same_training(folder, reference):
    one, other = (load_pth(run / "checkpoints" / "checkpoint_1.pth") for run in (reference, folder))
    assert one["step"] == other["step"] == 9
    np.testing.assert_array_equal(one["rng"], other["rng"])
    for a, b in zip(one["ema"]["shadow_params"], other["ema"]["shadow_params"], strict=True):
        np.testing.assert_allclose(b, a, **TOLERANCE)
    for key, value in one["model"].items():
        np.testing.assert_allclose(other["model"][key], value, **TOLERANCE, err_msg=key)
    for a, b in zip(read_history(reference / "history.csv"), read_history(folder / "history.csv"), strict=True):
        assert a.step == b.step
        np.testing.assert_allclose([b.training_loss or b.eval_loss], [a.training_loss or a.eval_loss], rtol=1e-5)
    samples = [np.load(run / "samples/iter_8/sample.np").astype(int) for run in (reference, folder)]
    # uint8 by truncation: a value on the border between two may fall on either side
    assert np.abs(samples[0] - samples[1]).max() <= 1


def test_the_comparison_tells_another_stream_of_random_numbers(lives, one_process, tmp_path):
    lives.run([f"--workdir={tmp_path}", *FLAGS, "--config.seed=43"])
    with pytest.raises(AssertionError):
        assert_same_training(tmp_path, one_process)


@pytest.mark.slow
def test_torchrun_trains_two_processes_to_the_parameters_of_one(one_process, tmp_path):
    finish(torchrun(tmp_path))
    assert "on 2 cpu devices of 2 processes" in (tmp_path / "stdout.txt").read_text()
    assert_same_training(tmp_path, one_process)


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on_to_the_same_parameters(lives, one_process, tmp_path):
    pair = by_hand(tmp_path)
    with killed_at_the_end(*pair):
        read_until(pair[0], "step: 2, training_loss")
        pair[1].send_signal(signal.SIGTERM)  # to the one that does not write
        finish(*pair, status=143)
    assert not (tmp_path / "checkpoints").exists()
    lives.run([f"--workdir={tmp_path}", *FLAGS])
    assert "resuming from" in (tmp_path / "stdout.txt").read_text()
    assert_same_training(tmp_path, one_process)


@pytest.mark.slow
def test_a_killed_process_does_not_leave_the_other_hanging(tmp_path):
    pair = by_hand(tmp_path, "--config.training.n_iters=100000", "--config.training.eval_freq=100000")
    with killed_at_the_end(*pair):
        read_until(pair[0], "step: 2, training_loss")
        pair[1].kill()
        begin = time.monotonic()
        _, errors = pair[0].communicate(timeout=90)
        assert pair[0].returncode == 1, errors[-3000:]
        assert "error: another process of this run has ended" in errors
        assert time.monotonic() - begin < 60


def test_a_process_that_does_not_come_is_said(capsys, tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    flags = ["--num_processes=2", "--process_id=0", f"--coordinator=127.0.0.1:{port}", "--start_timeout=1"]
    assert main(["--framework=torch", f"--workdir={tmp_path / 'run'}", *FLAGS, *flags]) == 1
    assert "the 2 processes of this run did not all come" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def archives(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted((folder / "eval").rglob("*.npz"))}


def numbers(folder):
    return [(r.metric, r.value, r.standard_error, r.sample_count) for r in read_results(folder / "results.json")]


def test_evaluation_by_workers_is_that_of_one_process(lives, one_process, tmp_path, monkeypatch):
    """Workers by flags, and as ``torchrun`` numbers them; one after the other, as they need not meet."""
    runs = {name: tmp_path / name for name in ("alone", "flags", "torchrun")}
    for folder in runs.values():
        (folder / "checkpoints").mkdir(parents=True)
        name = "checkpoints/checkpoint_1.pth"
        (folder / name).write_bytes((one_process / name).read_bytes())
    evaluation = [*FLAGS, "--mode=eval"]
    lives.run([f"--workdir={runs['alone']}", *evaluation])
    reference = archives(runs["alone"])
    assert len(reference) == 2 + 1 + 3 + 3 + 1  # loss rounds and result, samples, statistics, report
    for rank in (1, 0):
        lives.run([f"--workdir={runs['flags']}", *evaluation, "--num_processes=2", f"--process_id={rank}"])
    assert archives(runs["flags"]) == reference
    assert numbers(runs["flags"]) == numbers(runs["alone"])
    assert {r.devices["processes"] for r in read_results(runs["flags"] / "results.json")} == {2}
    for rank in (1, 0):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        assert main(["--framework=torch", f"--workdir={runs['torchrun']}", *evaluation]) == 0
        assert (runs["torchrun"] / "eval" / "report_1.npz").exists() == (rank == 0)
    assert archives(runs["torchrun"]) == reference
