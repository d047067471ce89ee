"""The same numbers on one device, on several, in two processes; and what happens when one process stops or dies."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import experiments
import jax
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.runs.history import read_history
from score_core.runs.results import read_results
from score_sde.__main__ import main

FLAGS = experiments.tiny_flags(
    data__random_flip=True,
    model__ch_mult=(1,),
    model__attn_resolutions=(),
    model__dropout=0.2,
    optim__warmup=0,
    training__n_iters=8,
    training__log_freq=2,
    training__eval_freq=8,
    training__snapshot_freq=8,
    training__snapshot_freq_for_preemption=8,
    eval__batch_size=90,
    eval__num_samples=200,
    eval__bpd_repeats=2,
    eval__trajectory=False,
)
# Float32 sums in another order. Parameters are of order 1, and one update changes them by 2e-4 at most.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}


def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def start(folder, *flags, devices=1):
    # Set here, because of the flags in the conftest's variable only those before the first without dashes count.
    environment = os.environ | {
        "PYTHONUNBUFFERED": "1",
        "JAX_NUM_CPU_DEVICES": str(devices),
        # Training here is all compilation, evaluation is not.
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"
        + ("" if "--mode=eval" in flags else " --xla_backend_optimization_level=0"),
    }
    command = [sys.executable, "-m", "score_sde", f"--workdir={folder}", *FLAGS, *flags]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )


def start_pair(folder, *flags):
    """Process 0 and process 1 of one training run."""
    shared = ("--num_processes=2", f"--coordinator=127.0.0.1:{free_port()}", "--start_timeout=60", *flags)
    return [start(folder, *shared, f"--process_id={i}") for i in range(2)]


def finish(*processes, status=0):
    for process in processes:
        _, errors = process.communicate(timeout=240)
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


def checkpoint(folder):
    return msgpack_format.loads((folder / "checkpoints" / "checkpoint_1").read_bytes())


def assert_same_training(folder, reference):
    one, other = checkpoint(reference), checkpoint(folder)
    assert one["step"] == other["step"] == 9
    np.testing.assert_array_equal(one["rng"], other["rng"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, **TOLERANCE), one, other)
    for a, b in zip(read_history(reference / "history.csv"), read_history(folder / "history.csv"), strict=True):
        assert a.step == b.step
        np.testing.assert_allclose([b.training_loss or b.eval_loss], [a.training_loss or a.eval_loss], rtol=1e-5)
    samples = [np.load(run / "samples/iter_8_host_0/sample.np").astype(int) for run in (reference, folder)]
    # uint8 by truncation: a value on the border between two may fall on either side
    assert np.abs(samples[0] - samples[1]).max() <= 1


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel") / "one"
    finish(start(folder))
    return folder


def test_the_comparison_tells_another_stream_of_random_numbers(one_device, tmp_path):
    """Otherwise equality below would prove nothing: another seed is far outside the tolerance."""
    finish(start(tmp_path, "--config.seed=43"))
    with pytest.raises(AssertionError):
        assert_same_training(tmp_path, one_device)


@pytest.mark.parametrize("devices", [2, 4])
def test_several_devices_train_to_the_same_parameters(one_device, tmp_path, devices):
    finish(start(tmp_path, devices=devices))
    assert f"on {devices} cpu devices of 1 processes" in (tmp_path / "stdout.txt").read_text()
    assert_same_training(tmp_path, one_device)


def test_two_processes_stop_together_and_one_goes_on_to_the_same_parameters(one_device, tmp_path):
    pair = start_pair(tmp_path)
    with killed_at_the_end(*pair):
        read_until(pair[0], "step: 2, training_loss")
        pair[1].send_signal(signal.SIGTERM)  # to the one that does not write
        finish(*pair, status=143)
    assert "on 2 cpu devices of 2 processes" in (tmp_path / "stdout.txt").read_text()
    assert not (tmp_path / "checkpoints").exists()
    finish(start(tmp_path))
    assert "resuming from" in (tmp_path / "stdout.txt").read_text()
    assert_same_training(tmp_path, one_device)


def test_two_processes_train_to_the_same_parameters(one_device, tmp_path):
    finish(*start_pair(tmp_path))
    assert "on 2 cpu devices of 2 processes" in (tmp_path / "stdout.txt").read_text()
    assert_same_training(tmp_path, one_device)
    assert not list((tmp_path / "samples").glob("*_host_1"))


def test_a_killed_process_does_not_leave_the_other_hanging(tmp_path):
    pair = start_pair(tmp_path, "--config.training.n_iters=100000", "--config.training.eval_freq=100000")
    with killed_at_the_end(*pair):
        read_until(pair[0], "step: 2, training_loss")
        pair[1].kill()
        begin = time.monotonic()
        _, errors = pair[0].communicate(timeout=90)
        assert pair[0].returncode == 1, errors[-3000:]
        assert "error: another process of this run has ended" in errors
        assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=a:1"], "--num_processes, --process_id"),
        (["--num_processes=2", "--process_id=0"], "without --coordinator"),
        (["--mode=eval", "--num_processes=2"], "without --process_id"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], "numbered from 0"),
        (["--distributed", "--process_id=1"], "leave out --process_id"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=0", "--start_timeout=0"], "must be positive"),
        (["--part=rounds"], "needs --mode=eval"),
    ],
)
def test_flags_that_do_not_say_everything_are_refused(capsys, tmp_path, flags, message):
    assert main([f"--workdir={tmp_path / 'run'}", *flags]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def archives(folder):
    """Contents by name, whichever process wrote them."""
    files = {}
    for path in sorted((folder / "eval").rglob("*.npz")):
        name = path.relative_to(folder).as_posix().replace("_host_1/", "_host_0/")
        assert name not in files, f"{name} was computed twice"
        files[name] = path.read_bytes()
    return files


def numbers(folder):
    return [(r.metric, r.value, r.standard_error, r.sample_count) for r in read_results(folder / "results.json")]


def test_evaluation_by_workers_that_come_and_go_is_that_of_one_process(one_device, tmp_path):
    runs = {name: tmp_path / name for name in ("alone", "shared", "broken")}
    for folder in runs.values():
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "checkpoint_1").write_bytes((one_device / "checkpoints/checkpoint_1").read_bytes())
    finish(start(runs["alone"], "--mode=eval"))
    reference = archives(runs["alone"])
    assert len(reference) == 2 + 1 + 4 + 3 + 3 + 1  # loss rounds and result, bits/dim, samples, statistics, report

    def worker(name, index, *more):
        return start(runs[name], "--mode=eval", "--num_processes=2", f"--process_id={index}", *more)

    pair = [worker("shared", index) for index in (0, 1)]
    finish(*pair)
    assert archives(runs["shared"]) == reference
    assert numbers(runs["shared"]) == numbers(runs["alone"])
    assert {r.devices["processes"] for r in read_results(runs["shared"] / "results.json")} == {2}
    hosts = [sorted(p.name for p in (runs["shared"] / "eval").glob(f"ckpt_1_host_{h}/samples_*")) for h in (0, 1)]
    assert hosts == [["samples_0.npz", "samples_2.npz"], ["samples_1.npz"]]

    second = worker("broken", 1)
    with killed_at_the_end(second):
        read_until(second, "repeat: 0, batch: 1")
    waiting = worker("broken", 0, "--config.eval.patience=0.5")
    _, errors = waiting.communicate(timeout=240)
    assert waiting.returncode == 1
    assert "Waiting for bits/dim on host 1" in errors
    assert "did not come: nothing new for 0.5 seconds" in errors
    assert not (runs["broken"] / "eval" / "report_1.npz").exists()
    finish(start(runs["broken"], "--mode=eval"))
    assert archives(runs["broken"]) == reference
    assert numbers(runs["broken"]) == numbers(runs["alone"])


def test_parts_of_an_evaluation_done_one_by_one_are_the_whole(one_device, tmp_path):
    """Statistics before there is a checkpoint, rounds of two processes that wait for nobody, then the scores."""
    sampling = [*FLAGS, "--mode=eval", "--config.eval.enable_bpd=False", "--config.eval.enable_loss=False"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main([f"--workdir={parts}", *sampling, "--part=statistics"]) == 0
    (statistics,) = (parts / "statistics").iterdir()
    made = statistics.stat().st_mtime_ns
    for folder in (whole, parts):
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "checkpoint_1").write_bytes((one_device / "checkpoints/checkpoint_1").read_bytes())
    assert main([f"--workdir={whole}", *sampling]) == 0
    for index in (0, 1):
        shard = ["--part=rounds", "--num_processes=2", f"--process_id={index}"]
        assert main([f"--workdir={parts}", *sampling, *shard]) == 0
        assert not (parts / "eval" / "report_1.npz").exists()
    assert not (parts / "results.json").exists()
    assert main([f"--workdir={parts}", *sampling]) == 0
    assert archives(parts) == archives(whole)
    assert numbers(parts) == numbers(whole)
    assert statistics.stat().st_mtime_ns == made
