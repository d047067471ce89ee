"""A tiny experiment end to end: what is written where, under the original's names, and that it is right."""

import json
import re

import experiments
import goldens
import numpy as np
import pytest
from PIL import Image

from score_core.checkpoints import msgpack_format
from score_core.runs.history import read_history
from score_core.runs.results import read_results
from score_sde.__main__ import main


def test_training_writes_the_originals_files(trained):
    assert (trained / "checkpoints" / "checkpoint_1").is_file()
    assert sorted(p.name for p in (trained / "checkpoints-meta").glob("checkpoint_*")) == [
        "checkpoint_2",
        "checkpoint_3",
    ]
    assert list((trained / "tensorboard").glob("events.out.tfevents.*"))
    samples = np.load(trained / "samples" / "iter_12_host_0" / "sample.np")
    assert samples.dtype == np.uint8
    assert samples.shape == (1, 8, 8, 8, 1)
    with Image.open(trained / "samples" / "iter_12_host_0" / "sample.png") as grid:
        assert grid.size == (2 * 10 + 2, 4 * 10 + 2)
    log = (trained / "stdout.txt").read_text()
    assert "Starting training loop at step 0." in log
    assert "INFO - train.py - " in log
    assert "step: 0, training_loss: " in log
    assert "step: 12, eval_loss: " in log


def test_the_checkpoint_has_the_originals_tree(trained):
    tree = msgpack_format.loads((trained / "checkpoints" / "checkpoint_1").read_bytes())
    assert list(tree) == ["step", "optimizer", "lr", "model_state", "ema_rate", "params_ema", "rng"]
    assert tree["step"] == tree["optimizer"]["state"]["step"] == 13
    names = list(tree["params_ema"])
    assert names == sorted(names)
    assert list(tree["optimizer"]["target"]) == names
    assert tree["rng"].dtype == np.uint32
    moment = tree["optimizer"]["state"]["param_states"]["Conv_0"]["kernel"]
    assert list(moment) == ["grad_ema", "grad_sq_ema"]


def test_history_holds_every_logged_step(trained):
    rows = read_history(trained / "history.csv")
    assert [row.step for row in rows if row.training_loss is not None] == list(range(13))
    assert [row.step for row in rows if row.eval_loss is not None] == [0, 4, 8, 12]


def test_training_again_finds_nothing_to_do(trained, caplog):
    before = (trained / "checkpoints" / "checkpoint_1").read_bytes()
    assert main([f"--workdir={trained}", *experiments.tiny_flags()]) == 0
    assert "training is complete: 13 updates" in (trained / "stdout.txt").read_text()
    assert (trained / "checkpoints" / "checkpoint_1").read_bytes() == before


def assert_says_what_the_original_says(log):
    """Every kind of line in the log of the original's run, its numbers in the original's formats."""
    lines = goldens.path("score_sde", "checkpoint_real/run_log.txt").read_text().splitlines()
    for line in lines:
        message = line.split(" - ", 2)[2]
        # 9.06837e+01 and 14.969460: as many digits after the point; whole numbers: any
        pattern = re.escape(message)
        pattern = re.sub(r"-?\d+\\\.(\d+)(e)?(\\[+-]\d+|\+\d+)?", experiments.number_like, pattern)
        pattern = re.sub(r"(?<![\w.{\\])\d+(?![\w.}])", r"\\d+", pattern)
        assert re.search(pattern, log), f"{message!r} has no counterpart like {pattern!r}"


@pytest.mark.slow
def test_evaluation_counts_every_image_and_records_every_number(trained, caplog):
    caplog.set_level("INFO")
    flags = experiments.tiny_flags(eval__bpd_dataset="test", eval__bpd_repeats=0)
    assert main([f"--workdir={trained}", "--mode=eval", *flags]) == 0
    assert_says_what_the_original_says((trained / "stdout.txt").read_text() + caplog.text)
    folder = trained / "eval"
    test_images = 180
    rounds = [np.load(folder / f"test_ckpt_1_bpd_{r}.npz")["arr_0"] for r in range(10)]
    assert [len(r) for r in rounds] == [90, 90] * 5
    assert not (folder / "test_ckpt_1_bpd_10.npz").exists()
    samples = [np.load(folder / "ckpt_1_host_0" / f"samples_{r}.npz")["samples"] for r in range(3)]
    assert [s.shape for s in samples] == [(90, 8, 8, 1)] * 3
    assert not (folder / "ckpt_1_host_0" / "samples_3.npz").exists()
    loss = np.load(folder / "ckpt_1_loss.npz")
    assert loss["all_losses"].shape == (2,)
    report = np.load(folder / "report_1.npz")
    results = {result.metric: result for result in read_results(trained / "results.json")}
    assert set(results) == {"loss", "bpd", "fid", "inception_score", "kid"}
    assert results["bpd"].sample_count == results["loss"].sample_count == test_images
    assert results["bpd"].details["repeats"] == 5
    assert results["bpd"].value == pytest.approx(np.concatenate(rounds).mean(), rel=1e-6)
    assert results["fid"].sample_count == 200
    assert results["fid"].value == pytest.approx(float(report["fid"]), rel=1e-5)
    assert results["fid"].extractor.startswith("digits:")
    assert "not comparable" in results["fid"].details["warning"]
    assert results["loss"].value == pytest.approx(float(loss["mean_loss"]))
    for name in ("samples_1.png", "trajectory_1.png"):
        with Image.open(folder / name) as picture:
            assert picture.size[0] > 50

    # again, and with sampling by the ODE into another folder
    before = json.loads((trained / "results.json").read_text())
    assert main([f"--workdir={trained}", "--mode=eval", *flags]) == 0
    again = json.loads((trained / "results.json").read_text())
    assert [(r["metric"], r["value"]) for r in again["results"]] == [
        (r["metric"], r["value"]) for r in before["results"]
    ]
    ode = [
        *flags,
        "--config.sampling.method=ode",
        "--config.eval.enable_loss=False",
        "--config.eval.enable_bpd=False",
        "--eval_folder=ode",
    ]
    assert main([f"--workdir={trained}", "--mode=eval", *ode]) == 0
    assert np.load(trained / "ode" / "ckpt_1_host_0" / "samples_0.npz")["nfe"] > 10
    assert not (trained / "ode" / "trajectory_1.png").exists()


def test_legacy_streams_can_be_asked_for(trained):
    flags = [
        *experiments.tiny_flags(eval__num_samples=80, eval__enable_loss=False, eval__enable_bpd=False),
        "--config.sampling.legacy_rng=True",
        "--eval_folder=legacy",
        "--force",
    ]
    assert main([f"--workdir={trained}", "--mode=eval", *flags]) == 0
    assert np.load(trained / "legacy" / "ckpt_1_host_0" / "samples_0.npz")["samples"].shape == (90, 8, 8, 1)
