"""Every mistake gives one clear message, a non-zero exit status, and costs nothing that was there."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import experiments
import pytest

from score_sde.__main__ import main


def run(capsys, *arguments):
    """Exit status and error message of a command run in this process."""
    status = main(list(arguments))
    return status, capsys.readouterr().err


def command(*arguments):
    return [sys.executable, "-m", "score_sde", *arguments]


def evaluation(folder, **more):
    only_loss = {"eval__enable_bpd": False, "eval__enable_sampling": False} | more
    return [f"--workdir={folder}", "--mode=eval", *experiments.tiny_flags(**only_loss)]


def test_help_and_list(capsys):
    assert main(["--help"]) == 0
    assert "usage: python -m score_sde" in capsys.readouterr().out
    assert main(["--list"]) == 0
    assert "vp/cifar10_ddpmpp_continuous" in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=vp/cifar10_ddpmp"], "vp/cifar10_ddpmpp"),
        (["--config=nowhere/mine.py"], "nowhere/mine.py"),
        (["--config.model.wings=2"], "the configuration has no key 'wings'"),
        (["--config.eval.num_sample=2"], 'Did you mean "num_samples"'),
        (["--config.training.batch_size=many"], "batch_size"),
        (["--mode=dream"], "dream"),
        (["--unknown_flag=1"], "unknown_flag"),
        (["stray"], "stray"),
    ],
)
def test_wrong_flags_are_usage_errors(capsys, tmp_path, flags, message):
    status, error = run(capsys, f"--workdir={tmp_path / 'run'}", *flags)
    assert status == 1
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.training.sde=vexsde"], "known: subvpsde, vesde, vpsde"),
        (["--config.model.name=ncsnq"], "ncsnpp"),
        (["--config.optim.optimizer=SGD"], "Adam"),
        (["--config.training.dtype=float16"], "bfloat16"),
        (["--config.training.n_jitted_steps=5"], "training.log_freq is 1"),
        (["--config.training.continuous=False", "--config.training.likelihood_weighting=True"], "continuous = True"),
        (["--config.sampling.predictor=jump"], "reverse_diffusion"),
        (["--config.data.dataset=CIFAR11"], "cifar10"),
    ],
)
def test_impossible_configurations_are_refused_before_training(capsys, tmp_path, flags, message):
    status, error = run(capsys, f"--workdir={tmp_path}", *experiments.tiny_flags(), *flags)
    assert status == 2
    assert message in error
    assert not (tmp_path / "checkpoints").exists()
    assert not (tmp_path / "config.json").exists(), "the mended command would be refused as another configuration"


def test_a_missing_dataset_says_what_to_put_where(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SCORE_DATA", str(tmp_path / "data"))
    status, error = run(capsys, "--config=vp/cifar10_ddpmpp_continuous", f"--workdir={tmp_path / 'run'}")
    assert status == 2
    assert "cifar-10" in error
    assert str(tmp_path / "data") in error
    assert "--config.data.dataset=digits" in error
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_documented_name_of_bpd_dataset_is_accepted(capsys, tmp_path):
    status, error = run(capsys, f"--workdir={tmp_path / 'no'}", "--mode=eval", "--config.eval.dataset=train")
    assert status == 2
    assert "taken as --config.eval.bpd_dataset" in error
    assert "no work directory" in error


def test_an_absent_checkpoint_lists_those_present(capsys, trained):
    status, error = run(capsys, *evaluation(trained, eval__begin_ckpt=3, eval__end_ckpt=3))
    assert status == 1
    assert "checkpoint_3" in error
    assert "Present" in error
    assert "checkpoint_1" in error


def test_wait_waits_for_the_checkpoint(trained):
    shutil.move(trained / "checkpoints" / "checkpoint_1", trained / "later")

    def arrive():
        time.sleep(1.5)
        shutil.move(trained / "later", trained / "checkpoints" / "checkpoint_1")

    thread = threading.Thread(target=arrive)
    thread.start()
    assert main([*evaluation(trained), "--wait"]) == 0
    thread.join()
    assert (trained / "eval" / "ckpt_1_loss.npz").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[: len(data) // 2], "not a readable flax msgpack checkpoint"),
        (lambda data: b"\x80\x02}q\x00.", "was not written by torch.save"),
        (lambda data: b"", "not a readable flax msgpack checkpoint"),
    ],
    ids=["truncated", "foreign", "empty"],
)
def test_a_damaged_checkpoint_is_named(capsys, trained, spoil, message):
    path = trained / "checkpoints" / "checkpoint_1"
    path.write_bytes(spoil(path.read_bytes()))
    status, error = run(capsys, *evaluation(trained))
    assert status == 1
    assert "damaged" in error
    assert str(path) in error
    # and without our checksum beside it, as for a file from elsewhere
    (trained / "checkpoints" / ".checkpoint_1.sha256").unlink()
    status, error = run(capsys, *evaluation(trained))
    assert status == 1
    assert message in error


def test_a_checkpoint_of_another_network_is_refused(capsys, trained):
    flags = [*evaluation(trained, model__nf=12), "--eval_folder=other"]
    status, error = run(capsys, *flags)
    assert status == 1
    assert "of another shape" in error


def test_training_falls_back_to_the_previous_checkpoint(trained):
    newest = trained / "checkpoints-meta" / "checkpoint_3"
    whole = (trained / "checkpoints" / "checkpoint_1").read_bytes()
    newest.write_bytes(newest.read_bytes()[:-100])
    (trained / "samples" / "iter_12_host_0" / "sample.png").unlink()
    assert main([f"--workdir={trained}", *experiments.tiny_flags()]) == 0
    assert "trying the one before" in (trained / "stdout.txt").read_text()
    assert (trained / "checkpoints" / "checkpoint_1").read_bytes() == whole
    assert (trained / "samples" / "iter_12_host_0" / "sample.png").exists()


def test_a_changed_configuration_is_refused_with_the_difference(capsys, trained):
    status, error = run(capsys, f"--workdir={trained}", *experiments.tiny_flags(optim__lr=0.01))
    assert status == 2
    assert "optim.lr: 0.001 -> 0.01" in error
    assert main([f"--workdir={trained}", *experiments.tiny_flags(optim__lr=0.01), "--force"]) == 0


def test_results_of_another_checkpoint_are_not_mixed(capsys, trained):
    assert main(evaluation(trained)) == 0
    shutil.copy(trained / "checkpoints-meta" / "checkpoint_2", trained / "checkpoints" / "checkpoint_1")
    (trained / "checkpoints" / ".checkpoint_1.sha256").unlink()
    status, error = run(capsys, *evaluation(trained))
    assert status == 1
    assert "--eval_folder" in error


def test_a_loss_that_is_not_finite_stops_and_keeps_the_good_checkpoints(capsys, trained):
    good = (trained / "checkpoints-meta" / "checkpoint_3").read_bytes()
    flags = experiments.tiny_flags(training__n_iters=24, optim__grad_clip=-1.0)
    config = ["--config.optim.eps=0.0", "--config.optim.beta1=1e30", "--force"]
    status, error = run(capsys, f"--workdir={trained}", *flags, *config)
    assert status == 1
    assert "nan" in error or "inf" in error
    assert "last good one" in error
    assert (trained / "checkpoints-meta" / "checkpoint_3").read_bytes() == good


def test_a_full_disk_is_one_message_and_keeps_the_old_checkpoint(trained):
    """``RLIMIT_FSIZE`` makes every write beyond 100 kB fail, as a full disk does."""
    good = (trained / "checkpoints-meta" / "checkpoint_3").read_bytes()
    assert len(good) > 100_000
    script = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    script += "sys.argv = ['score_sde', *sys.argv[1:]]; runpy.run_module('score_sde', run_name='__main__')"
    # a compilation cache of its own would fail on the limit before the checkpoint does
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    result = subprocess.run(
        [sys.executable, "-c", script, f"--workdir={trained}", *experiments.tiny_flags(training__n_iters=24)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert "error: cannot write" in result.stderr
    assert "Traceback" not in result.stderr
    assert (trained / "checkpoints-meta" / "checkpoint_3").read_bytes() == good


def test_two_processes_cannot_share_a_work_directory(trained):
    flags = [f"--workdir={trained}", *experiments.tiny_flags(training__n_iters=100_000)]
    first = subprocess.Popen(command(*flags), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (trained / ".train.holder.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        second = subprocess.run(command(*flags), capture_output=True, text=True, check=False)
        assert second.returncode == 1
        assert f"process {first.pid}" in second.stderr
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(120)


def test_a_work_directory_that_cannot_be_made(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    status, error = run(capsys, f"--workdir={tmp_path / 'file' / 'run'}", *experiments.tiny_flags())
    assert status == 1
    assert "cannot use" in error


def test_the_tfrecords_of_the_official_files_are_looked_for_where_they_name_them_and_below_the_root(
    capsys, tmp_path, monkeypatch
):
    """Their own paths are those of their authors' machines."""
    monkeypatch.setenv("SCORE_DATA", str(tmp_path / "data"))
    flags = ["--config=ve/ffhq_256_ncsnpp_continuous", f"--workdir={tmp_path / 'run'}"]
    status, error = run(capsys, *flags)
    assert status == 2
    assert f"it is not in {tmp_path / 'data' / 'ffhq'}" in error and "put ffhq-r08.tfrecords" in error
    records = tmp_path / "mine.tfrecords"
    records.write_bytes(b"no records")
    status, error = run(capsys, *flags, f"--config.data.tfrecords_path={records}")
    assert status == 2
    assert f"{records} is cut off or no TFRecord file" in error
