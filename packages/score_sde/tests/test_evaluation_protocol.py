"""The two protocols of an evaluation, raw and averaged parameters, and what is written down with a number."""

import hashlib
import shutil

import experiments
import goldens
import jax
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.runs.results import read_results
from score_sde.__main__ import main
from score_sde.configs.load import load_config
from score_sde.evaluation_files import standard_error
from score_sde.jax_experiment import JaxExperiment, Keys
from score_sde.rounds import Batches, Worker, sampling_rounds

ONLY_LOSS = {"eval__enable_bpd": False, "eval__enable_sampling": False}


def experiment_of(protocol, **more):
    config = load_config("digits")
    config.data.image_size = 8
    config.eval.update(protocol=protocol, **more)
    return JaxExperiment(config, local=True)


def results(folder):
    return {result.metric: result for result in read_results(folder / "results.json")}


@pytest.mark.parametrize(
    ("protocol", "batch_size", "num_samples", "expected"),
    [
        ("complete", 50, 100, (4, 2)),
        ("complete", 60, 100, (3, 2)),
        ("original", 50, 100, (3, 3)),
        ("original", 60, 100, (3, 2)),
    ],
)
def test_rounds(protocol, batch_size, num_samples, expected):
    """180 test images: the original drops the last partial batch, and draws a round more when the size divides."""
    experiment = experiment_of(protocol, batch_size=batch_size, num_samples=num_samples)
    assert (Batches(experiment, "test").rounds, sampling_rounds(experiment)) == expected


def test_the_complete_protocol_counts_every_image_once_a_repeat():
    batches = Batches(experiment_of("complete", batch_size=50), "test", repeats=2)
    index = np.concatenate([batches[r].index[batches[r].valid] for r in range(batches.rounds)])
    np.testing.assert_array_equal(index, np.tile(np.arange(180), 2))


def test_the_original_protocol_draws_another_subset_each_repeat():
    batches = Batches(experiment_of("original", batch_size=50), "test", repeats=2)
    repeats = np.stack([batches[r].index for r in range(batches.rounds)]).reshape(2, -1)
    assert all(len(set(repeat)) == 150 for repeat in repeats.tolist())
    assert set(repeats[0]) != set(repeats[1])


def test_the_original_protocol_uses_the_originals_place_in_the_chain_of_keys():
    """One loss batch, five bits/dim batches, two sampling rounds: the run that wrote the golden files."""
    experiment = experiment_of("original", batch_size=180, num_samples=180)
    loss, bpd = Batches(experiment, "test").rounds, Batches(experiment, "test", repeats=5).rounds
    assert (loss, bpd, sampling_rounds(experiment)) == (1, 5, 2)
    with jax.threefry_partitionable(False):
        for after, name in ((loss + 3, "eval_meta_0_9"), (loss + bpd + sampling_rounds(experiment), "eval_meta_0_13")):
            meta = msgpack_format.loads(goldens.path("score_sde", f"checkpoint_real/{name}").read_bytes())
            np.testing.assert_array_equal(Keys(42).carry(after), meta["rng"])


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_round_belongs_to_exactly_one_process(count):
    owners = [sum(Worker(index, count).owns(round_) for index in range(count)) for round_ in range(20)]
    assert owners == [1] * 20


def test_standard_error_takes_values_of_one_image_as_one():
    values = np.random.default_rng(0).normal(size=40)
    assert standard_error(values) == pytest.approx(np.std(values, ddof=1) / np.sqrt(40), rel=1e-12)
    repeated, image = np.tile(values, 5), np.tile(np.arange(40), 5)
    assert standard_error(repeated, image) == pytest.approx(standard_error(values), rel=1e-12)
    assert np.isnan(standard_error(np.ones(3), np.zeros(3)))


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--config.eval.protocol=best"], 2, "'complete' or 'original'"),
        (["--config.eval.protocol=original", "--config.eval.batch_size=200"], 2, "do not fill one of"),
        (["--num_processes=2", "--process_id=2"], 1, "numbered from 0"),
    ],
)
def test_impossible_evaluations_are_refused(capsys, trained, flags, status, message):
    assert main([f"--workdir={trained}", "--mode=eval", *experiments.tiny_flags(**ONLY_LOSS), *flags]) == status
    assert message in capsys.readouterr().err


def test_raw_parameters_on_request_with_a_warning(capsys, trained, tmp_path):
    """They give what a checkpoint gives whose averaged parameters are the raw ones."""
    flags = ["--mode=eval", *experiments.tiny_flags(**ONLY_LOSS)]
    assert main([f"--workdir={trained}", *flags]) == 0
    averaged = results(trained)["loss"]
    assert main([f"--workdir={trained}", *flags, "--config.eval.ema=False", "--eval_folder=raw"]) == 0
    assert "the raw parameters are evaluated" in capsys.readouterr().err
    raw = read_results(trained / "results.json")[-1]
    assert (averaged.ema, raw.ema) == (True, False)

    swapped = shutil.copytree(trained, tmp_path / "swapped", ignore=shutil.ignore_patterns("eval", "raw", "results*"))
    file = swapped / "checkpoints" / "checkpoint_1"
    tree = msgpack_format.loads(file.read_bytes())
    file.write_bytes(msgpack_format.dumps(tree | {"params_ema": tree["optimizer"]["target"]}))
    file.with_name(".checkpoint_1.sha256").unlink()
    assert main([f"--workdir={swapped}", *flags]) == 0
    assert results(swapped)["loss"].value == raw.value != averaged.value


@pytest.mark.slow
def test_a_number_carries_its_circumstances(trained):
    flags = experiments.tiny_flags(
        eval__enable_loss=False,
        eval__batch_size=100,
        eval__num_samples=100,
        eval__bpd_repeats=2,
        eval__trajectory=False,
    )
    assert main([f"--workdir={trained}", "--mode=eval", *flags, "--config.eval.protocol=original"]) == 0
    found = results(trained)
    assert set(found) == {"bpd", "fid", "inception_score", "kid"}
    digest = hashlib.sha256((trained / "checkpoints" / "checkpoint_1").read_bytes()).hexdigest()
    for result in found.values():
        assert result.checkpoint_step == 13
        assert result.checkpoint_sha256 == digest
        assert result.protocol == "original"
        assert result.devices["platform"] == "cpu"
        assert result.devices["processes"] == 1
        assert result.devices["count"] == jax.local_device_count()
        assert result.seconds > 0
        assert result.peak_memory_bytes > 10**7
        assert result.ema
        assert result.seed == 42
        assert len(result.config_hash) == 64
        assert result.versions["jax"] == jax.__version__
        assert result.details["nfe"] > 0
    bpd, fid = found["bpd"], found["fid"]
    assert bpd.dataset == "digits/test"
    assert fid.dataset == "digits/train"
    assert fid.denoise
    assert len(fid.statistics_sha256) == 64
    # two repeats of one batch of 100, drawn from 180
    index = [np.load(trained / "eval" / f"test_ckpt_1_bpd_{r}.npz")["index"] for r in range(2)]
    assert bpd.sample_count == len(set(np.concatenate(index).tolist())) > 100
    bits = -bpd.details["nats_per_image"] / (bpd.details["dimensions"] * np.log(2)) + bpd.details["offset"]
    assert bpd.value == pytest.approx(bits, rel=1e-6)
    assert bpd.details["offset"] == 7 if load_config("digits").data.centered else 8
    # the surplus round is drawn and dropped
    assert (trained / "eval" / "ckpt_1_host_0" / "samples_1.npz").exists()
    assert fid.sample_count == 100
