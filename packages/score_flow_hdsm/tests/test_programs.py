"""The programs end to end in small: first order, continued with a higher one, evaluated, dequantiser, diagnostics."""

import shutil

import goldens
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.runs.results import read_results
from score_flow_hdsm.__main__ import main

TINY = {
    "data.image_size": 8,
    "model.nf": 8,
    "model.ch_mult": (1,),
    "model.attn_resolutions": (),
    "training.batch_size": 4,
    "training.n_iters": 6,
    "training.log_freq": 1,
    "training.eval_freq": 3,
    "training.snapshot_freq": 6,
    "training.snapshot_freq_for_preemption": 3,
    "training.snapshot_sampling": False,
    "training.smallest_time": 0.05,
    "sampling.smallest_time": 0.05,
    "optim.warmup": 2,
    "eval.batch_size": 100,
    "eval.bound_times": 3,
    "eval.diagnostic_times": 3,
    "deq.n_iters": 4,
    "deq.filters": 4,
    "deq.components": 2,
}


def flags(**more):
    values = TINY | {key.replace("__", "."): value for key, value in more.items()}
    return [f"--config.{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def first_order(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    assert main([f"--workdir={folder}", *flags()]) == 0
    return folder


@pytest.fixture
def trained(first_order, tmp_path):
    return shutil.copytree(first_order, tmp_path / "run")


def results(folder):
    return {result.metric: result for result in read_results(folder / "results.json")}


@pytest.mark.slow
def test_a_first_order_run_goes_on_with_the_second_order(first_order, tmp_path):
    log = (first_order / "stdout.txt").read_text()
    assert "training_loss2: 0.00000e+00" in log and "eval_loss1" in log
    start, folder = first_order / "checkpoints" / "checkpoint_1", tmp_path / "second"
    more = flags(training__score_matching_order=2, training__n_iters=9)
    assert main([f"--workdir={folder}", f"--init_checkpoint={start}", *more]) == 0
    log = (folder / "stdout.txt").read_text()
    assert "Starting training loop at step 7." in log
    lines = [line for line in log.splitlines() if "training_loss2" in line]
    assert len(lines) == 3 and not any("training_loss2: 0.00000e+00" in line for line in lines)
    # killed and started again it does not begin from the first order's file once more
    before = (folder / "checkpoints" / "checkpoint_1").read_bytes()
    assert main([f"--workdir={folder}", f"--init_checkpoint={start}", *more]) == 0
    assert (folder / "checkpoints" / "checkpoint_1").read_bytes() == before
    assert main([f"--workdir={tmp_path / 'x'}", f"--init_checkpoint={start}", *flags(training__n_iters=3)]) == 2


@pytest.mark.slow
def test_evaluation_by_ode_bound_dequantiser_and_diagnostics(trained, tmp_path):
    assert main([f"--workdir={trained}", "--mode=eval", *flags()]) == 0
    assert main([f"--workdir={trained}", "--mode=eval", "--eval_folder=bound", *flags(eval__bound=True)]) == 0
    deq = flags(eval__bound=True, eval__dequantizer=True)
    assert main([f"--workdir={trained}", "--mode=eval", "--eval_folder=deq", *deq]) == 2  # not trained yet
    untrained = shutil.copytree(trained, tmp_path / "untrained")
    assert main([f"--workdir={trained}", "--mode=train_deq", *flags()]) == 0
    assert "training_ema_bpd" in (trained / "flowpp_dequantizer" / "stdout.txt").read_text()
    assert main([f"--workdir={trained}", "--mode=eval", "--eval_folder=deq", *deq]) == 0
    assert main([f"--workdir={trained}", "--mode=eval_scorenet", *flags(eval__batch_size=180)]) == 0
    found = results(trained)
    for metric in ("bpd", "bpd_bound", "bpd_bound_dequantizer", "s_with_odes"):
        assert found[metric].sample_count == 180  # every test image
        assert np.isfinite(found[metric].value) and found[metric].standard_error > 0
    with np.load(trained / "eval.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == dict.fromkeys(
            ("s_with_odes", "s_with_normals", "ode_with_normals", "s_div_with_normals", "s_grad_div_with_normals"), (3,)
        )
    # the bound in two parts, the second first, as jobs of a cluster may come
    parts = [f"--workdir={trained}", "--mode=eval", "--eval_folder=parts", *flags(eval__bound=True)]
    for index in (1, 0):
        assert main([*parts, "--part=rounds", "--num_processes=2", f"--process_id={index}"]) == 0
    rounds = sorted(file.name for file in (trained / "parts").glob("*_bpd_*.npz"))
    assert len(rounds) == 2
    (trained / "results.json").unlink()
    assert main(parts) == 0
    again = results(trained)["bpd_bound"]
    assert (again.value, again.standard_error) == (found["bpd_bound"].value, found["bpd_bound"].standard_error)
    # the dequantiser, too, goes on from where it stopped to the same numbers
    for n_iters in (3, 4):
        assert main([f"--workdir={untrained}", "--mode=train_deq", *flags(deq__n_iters=n_iters)]) == 0
    assert "Starting training loop at step 4." in (untrained / "flowpp_dequantizer" / "stdout.txt").read_text()
    name = "flowpp_dequantizer/checkpoints/checkpoint_0"
    tree, other = (msgpack_format.loads((run / name).read_bytes()) for run in (trained, untrained))
    assert_equal(tree, other)
    assert set(tree) >= {"step", "optimizer", "params_ema", "ema_train_bpd", "ema_eval_bpd", "rng"}
    assert "params" in tree["params_ema"] and int(tree["step"]) == 5
    assert all(np.isfinite(leaf).all() for leaf in goldens.flatten(tree["params_ema"]).values())


@pytest.mark.slow
def test_a_stopped_run_of_each_kind_ends_with_the_same_numbers(first_order, tmp_path):
    """Training resumes from its checkpoint as if it had never been stopped."""
    stopped = tmp_path / "stopped"
    assert main([f"--workdir={stopped}", *flags(training__n_iters=3)]) == 0
    assert main([f"--workdir={stopped}", *flags()]) == 0
    for folder, number in (("checkpoints", 1), ("checkpoints-meta", 2)):
        name = f"{folder}/checkpoint_{number}"
        one, other = (msgpack_format.loads((run / name).read_bytes()) for run in (stopped, first_order))
        assert_equal(one, other)


def assert_equal(one, other):
    assert set(one) == set(other)
    for key in one:
        if isinstance(one[key], dict):
            assert_equal(one[key], other[key])
        else:
            np.testing.assert_array_equal(one[key], other[key])


def test_help_and_wrong_settings(capsys, tmp_path):
    assert main(["--help"]) == 0
    assert main(["--list"]) == 0
    assert "score_flow/subvp/imagenet32_ddpmpp_deep_continuous" in capsys.readouterr().out
    cases = (
        (["--mode=train", *flags(training__score_matching_order=4)], 2, "must be 1, 2 or 3"),
        (["--mode=train", *flags(training__score_matching_order=2, training__reduce_mean=False)], 2, "reduce_mean"),
        (["--mode=train", *flags(training__continuous=False)], 2, "continuous"),
        (
            [
                "--framework=torch",
                *flags(training__score_matching_order=3, training__checkpoint_activations=True),
            ],
            2,
            "training.remat",
        ),
        (["--mode=train_deq", *flags()], 2, "no work directory"),
        (["--mode=train_deq", "--framework=torch", *flags()], 2, "jax only"),
        (["--mode=guess"], 1, "mode"),
        (["--mode=train", "--part=rounds", *flags()], 1, "needs --mode=eval"),
    )
    for number, (more, status, message) in enumerate(cases):
        assert main([f"--workdir={tmp_path / str(number)}", *more]) == status
        assert message in capsys.readouterr().err
