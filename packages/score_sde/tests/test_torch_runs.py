"""``--framework torch`` end to end: files under the PyTorch program's names, its messages, its checkpoints, errors."""

import json
import re
import shutil
import subprocess
import sys

import experiments
import goldens
import numpy as np
import pytest
import torch

from score_core.checkpoints.pth_format import load_pth
from score_core.runs.history import read_history
from score_core.runs.results import read_results
from score_sde.__main__ import USAGE, main
from score_sde.configs.load import load_config

GOLDEN = "torch/{}"
FACTS = goldens.load("score_sde", "torch/run_facts.json")
TORCH = "--framework=torch"
ONLY_LOSS = {"eval__enable_bpd": False, "eval__enable_sampling": False}


def train(folder, *flags, **more):
    return main([f"--workdir={folder}", TORCH, *experiments.tiny_flags(**more), *flags])


def evaluate(folder, *flags, **more):
    return main([f"--workdir={folder}", TORCH, "--mode=eval", *experiments.tiny_flags(**more), *flags])


def files_of_the_original():
    """Path patterns of its run, checkpoint and round numbers left open, with the arrays in each."""
    found = {}
    for name, content in FACTS["files_after_all"].items():
        pattern = re.escape(name).replace(r"\*", ".*")
        found[re.sub(r"\d+", r"\\d+", pattern)] = content
    return found


def arrays_in(path):
    if path.suffix == ".np":
        array = np.load(path)
        return ["npy", str(array.dtype), array.ndim]
    if path.suffix != ".npz":
        return {}
    with np.load(path) as arrays:
        return {name: [str(arrays[name].dtype), arrays[name].ndim] for name in arrays}


def test_every_file_of_the_original_is_there_under_its_name_with_its_arrays(trained_in_torch, caplog):
    caplog.set_level("INFO")
    assert evaluate(trained_in_torch, eval__num_samples=100, eval__trajectory=False) == 0
    ours = {str(path.relative_to(trained_in_torch)): path for path in trained_in_torch.rglob("*") if path.is_file()}
    for pattern, content in files_of_the_original().items():
        if "checkpoint\\.pth" in pattern:  # ours are numbered, so that a damaged one has a predecessor
            pattern = pattern.replace("checkpoint\\.pth", r"checkpoint_\d+\.pth")
        matching = [path for name, path in ours.items() if re.fullmatch(pattern, name)]
        assert matching, f"nothing like {pattern}"
        found = arrays_in(matching[0])
        if isinstance(content, dict):
            expected = {name: [kind, len(shape)] for name, (kind, shape) in content.items()}
            assert expected.items() <= found.items(), pattern
        else:
            assert found == [content[0], content[1], len(content[2])]
    assert_says_what_the_original_says((trained_in_torch / "stdout.txt").read_text() + caplog.text)

    results = {result.metric: result for result in read_results(trained_in_torch / "results.json")}
    assert set(results) == {"loss", "bpd", "fid", "inception_score", "kid"}
    for result in results.values():
        assert result.framework == "torch"
        assert (result.checkpoint_step, result.devices["platform"]) == (13, "cpu")
    with np.load(trained_in_torch / "eval" / "ckpt_1_loss.npz") as loss:
        assert results["loss"].value == float(loss["mean_loss"])
    before = {name: path.read_bytes() for name, path in ours.items() if name.startswith("eval/") and "npz" in name}
    assert evaluate(trained_in_torch, eval__num_samples=100, eval__trajectory=False) == 0
    assert {name: (trained_in_torch / name).read_bytes() for name in before} == before


def assert_says_what_the_original_says(log):
    """Every kind of line of its run, numbers in its formats; what it says of a missing first checkpoint is not news."""
    lines = [*FACTS["train_messages_first_run"][1:], *FACTS["stdout_txt_after_resume"], *FACTS["eval_messages"]]
    for line in lines:
        message = line.rpartition(" - ")[2] if line.startswith("INFO") else line.partition(": ")[2]
        pattern = re.sub(r"-?\d+\\\.(\d+)(e)?(\\[+-]\d+|\+\d+)?", experiments.number_like, re.escape(message))
        pattern = re.sub(r"(?<![\w.{\\])\d+(?![\w.}])", r"\\d+", pattern)
        assert re.search(pattern, log), f"{message!r} has no counterpart like {pattern!r}"


def test_flags_are_those_of_the_original():
    flags = goldens.load("score_sde", "torch/cli_help.json")["flags"]
    for flag in flags:
        assert f"--{flag['name']}" in USAGE
        assert all(value in USAGE for value in flag.get("values", ()))


def test_a_configuration_of_the_program_is_ours_but_for_what_only_jax_has():
    """Every packaged configuration resolved by the PyTorch program, value by value."""
    resolved = goldens.load("score_sde", "torch/configs.json")
    defaults = {name for name in resolved if "default_" in name}
    assert len(resolved) == 42 and len(defaults) == 3
    for name in sorted(set(resolved) - defaults):
        ours = goldens.flatten(load_config(name.removeprefix("configs/").removesuffix(".py")).to_dict())
        for key, value in goldens.flatten(resolved[name]).items():
            if key in ("device", "training/loss", "training/continuouse") or key not in ours:
                assert key in ("device", "training/loss", "training/continuouse"), f"{name}: {key} is not there"
                continue
            if key == "training/continuous" and "training/continuouse" in goldens.flatten(resolved[name]):
                continue  # repaired: misspelt there
            found = ours[key]
            if key == "data/tfrecords_path":  # the authors' own paths differ
                continue
            assert found == value or list(found) == value, f"{name}: {key} is {found!r}, there {value!r}"


def test_history_log_and_checkpoint_of_a_training_run(trained_in_torch):
    rows = read_history(trained_in_torch / "history.csv")
    assert [row.step for row in rows if row.training_loss is not None] == list(range(13))
    assert [row.step for row in rows if row.eval_loss is not None] == [0, 4, 8, 12]
    file = trained_in_torch / "checkpoints" / "checkpoint_1.pth"
    tree = load_pth(file)
    assert list(tree) == ["optimizer", "model", "ema", "step", "rng"]
    assert (tree["step"], tree["ema"]["num_updates"], tree["ema"]["decay"]) == (13, 13, 0.995)
    assert next(iter(tree["model"])) == "module.sigmas" and tree["model"]["module.sigmas"].dtype == np.float64
    assert all(key.startswith("module.all_modules.") for key in list(tree["model"])[1:])
    assert torch.load(file, weights_only=True)["step"] == 13
    before = file.read_bytes()
    assert train(trained_in_torch) == 0
    assert "training is complete: 13 updates" in (trained_in_torch / "stdout.txt").read_text()
    assert file.read_bytes() == before


CASES = ["ve_ncsnpp_continuous", "vp_ddpmpp_continuous"]


@pytest.mark.parametrize("case", CASES)
def test_training_goes_on_from_a_file_of_the_original(case, tmp_path):
    """Its one file without a number in checkpoints-meta; what we write then has its entries in its order, and ours."""
    facts = goldens.load("score_sde", f"torch/checkpoint_{case}.json")
    original = goldens.path("score_sde", f"torch/checkpoint_{case}.pth")
    (tmp_path / "checkpoints-meta").mkdir()
    shutil.copy(original, tmp_path / "checkpoints-meta" / "checkpoint.pth")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in facts["overrides"].items()}
    settings |= {"training.n_iters": 3, "training.snapshot_freq": 3, "training.snapshot_freq_for_preemption": 1}
    settings |= {"training.log_freq": 1, "training.n_jitted_steps": 1, "data.dataset": "photos"}
    settings |= {"training.snapshot_sampling": False}
    assert main([f"--config={facts['base']}", f"--workdir={tmp_path}", TORCH, *experiments.flags(settings)]) == 0
    assert "Starting training loop at step 2." in (tmp_path / "stdout.txt").read_text()
    before, after = load_pth(original), load_pth(tmp_path / "checkpoints" / "checkpoint_1.pth")
    assert list(after) == [*before, "rng"]
    assert after["step"] == after["ema"]["num_updates"] == 4
    assert list(after["model"]) == list(before["model"])
    for key, value in before["model"].items():
        assert (after["model"][key].dtype, after["model"][key].shape) == (value.dtype, value.shape), key
    assert after["optimizer"]["state"].keys() == before["optimizer"]["state"].keys()
    assert before["optimizer"]["param_groups"][0].keys() == after["optimizer"]["param_groups"][0].keys()
    assert [a.shape for a in after["ema"]["shadow_params"]] == [a.shape for a in before["ema"]["shadow_params"]]
    with np.errstate(all="raise"):
        assert any((after["model"][key] != value).any() for key, value in before["model"].items())


def test_a_config_of_five_updates_a_call_cannot_go_on_from_between_two_calls(capsys, tmp_path):
    (tmp_path / "checkpoints-meta").mkdir()
    facts = goldens.load("score_sde", "torch/checkpoint_vp_ddpmpp_continuous.json")
    original = goldens.path("score_sde", "torch/checkpoint_vp_ddpmpp_continuous.pth")
    shutil.copy(original, tmp_path / "checkpoints-meta" / "checkpoint.pth")
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in facts["overrides"].items()}
    flags = experiments.flags(settings | {"training.n_jitted_steps": 5, "data.dataset": "photos"})
    assert main([f"--config={facts['base']}", f"--workdir={tmp_path}", TORCH, *flags]) == 2
    assert "--config.training.n_jitted_steps=1" in capsys.readouterr().err


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_one_framework_does_not_go_on_where_the_other_trained(capsys, trained, trained_in_torch):
    assert train(trained) == 2
    assert "was trained with --framework=jax; go on with that" in capsys.readouterr().err
    assert main([f"--workdir={trained_in_torch}", *experiments.tiny_flags()]) == 2
    assert "was trained with --framework=torch; go on with that" in capsys.readouterr().err


def test_one_framework_does_not_go_on_in_the_others_evaluation(capsys, trained_in_torch):
    assert evaluate(trained_in_torch, **ONLY_LOSS) == 0
    flags = experiments.tiny_flags(**ONLY_LOSS)
    assert main([f"--workdir={trained_in_torch}", "--mode=eval", *flags]) == 2
    assert 'framework: "torch" -> (absent)' in capsys.readouterr().err


def test_a_changed_configuration_is_refused_with_the_difference(capsys, trained_in_torch):
    assert train(trained_in_torch, optim__lr=0.01) == 2
    assert "optim.lr: 0.001 -> 0.01" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.training.sde=vexsde"], "known: subvpsde, vesde, vpsde"),
        (["--config.model.name=ncsnq"], "ncsnpp"),
        (["--config.model.flavor=tensorflow"], "unknown flavor 'tensorflow'"),
        (["--config.optim.optimizer=SGD"], "Adam"),
        (["--config.training.dtype=float16"], "bfloat16"),
        (["--config.training.accumulate=3"], "training.accumulate is 3"),
        (["--config.training.accumulate=0"], "training.accumulate is 0"),
        (["--config.training.continuous=False", "--config.training.likelihood_weighting=True"], "continuous = True"),
        (["--config.sampling.predictor=jump"], "reverse_diffusion"),
        (["--config.sampling.method=dream"], "'pc' or 'ode'"),
        (["--config.data.dataset=CIFAR11"], "cifar10"),
    ],
)
def test_impossible_configurations_are_refused_before_training(capsys, tmp_path, flags, message):
    assert train(tmp_path, *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("flag", ["accumulate=2", "checkpoint_activations=True", "compile=True"])
def test_jax_refuses_what_only_torch_has(capsys, tmp_path, flag):
    assert main([f"--workdir={tmp_path}", *experiments.tiny_flags(), f"--config.training.{flag}"]) == 2
    assert "with --framework=torch only" in capsys.readouterr().err


def hostile(data):
    """A pickle that would call ``print``."""
    import io
    import pickle

    class Evil:
        def __reduce__(self):
            return print, ("executed",)

    buffer = io.BytesIO()
    torch.save({"step": Evil()}, buffer, pickle_module=pickle)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda data: data[: len(data) // 2], "checkpoint_1.pth"),
        (hostile, "print"),
        (lambda data: b"", "checkpoint_1.pth"),
    ],
    ids=["truncated", "hostile", "empty"],
)
def test_a_damaged_checkpoint_is_named(capsys, trained_in_torch, spoil, message):
    path = trained_in_torch / "checkpoints" / "checkpoint_1.pth"
    path.write_bytes(spoil(path.read_bytes()))
    assert evaluate(trained_in_torch, **ONLY_LOSS) == 1
    error = capsys.readouterr().err
    assert "damaged" in error and str(path) in error
    path.with_name(".checkpoint_1.pth.sha256").unlink()
    assert evaluate(trained_in_torch, **ONLY_LOSS) == 1
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert "executed" not in captured.out


def test_a_checkpoint_of_another_network_and_no_checkpoint_are_refused(capsys, trained_in_torch):
    assert evaluate(trained_in_torch, "--eval_folder=other", model__nf=12, **ONLY_LOSS) == 1
    error = capsys.readouterr().err
    assert "does not fit NCSNpp" in error and "checkpoint_1.pth" in error
    assert evaluate(trained_in_torch, **(ONLY_LOSS | {"eval__begin_ckpt": 3, "eval__end_ckpt": 3})) == 1
    assert "Present in" in capsys.readouterr().err


def test_training_falls_back_to_the_previous_checkpoint(trained_in_torch):
    newest = trained_in_torch / "checkpoints-meta" / "checkpoint_3.pth"
    whole = (trained_in_torch / "checkpoints" / "checkpoint_1.pth").read_bytes()
    newest.write_bytes(newest.read_bytes()[:-100])
    (trained_in_torch / "samples" / "iter_12" / "sample.png").unlink()
    assert train(trained_in_torch) == 0
    assert "trying the one before" in (trained_in_torch / "stdout.txt").read_text()
    assert (trained_in_torch / "checkpoints" / "checkpoint_1.pth").read_bytes() == whole


def test_a_loss_that_is_not_finite_stops_and_keeps_the_good_checkpoints(capsys, trained_in_torch):
    good = (trained_in_torch / "checkpoints-meta" / "checkpoint_3.pth").read_bytes()
    flags = ["--config.optim.lr=1e38", "--config.optim.warmup=0", "--force"]
    assert train(trained_in_torch, *flags, training__n_iters=24) == 1
    assert "last good one" in capsys.readouterr().err
    assert (trained_in_torch / "checkpoints-meta" / "checkpoint_3.pth").read_bytes() == good


# -- who imports whom --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("framework", "other"), [("jax", "torch"), ("torch", "jax")])
def test_one_framework_never_imports_the_other(tmp_path, framework, other):
    """The other cannot be imported at all, as where it is not installed; asked for, it is named with the cure."""
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from score_sde.__main__ import main
runs = [(sys.argv[2], "train"), (sys.argv[2], "eval"), (sys.argv[1], "train"), (sys.argv[1], "eval")]
print([main(sys.argv[3:] + [f"--framework={name}", f"--mode={mode}"]) for name, mode in runs])
"""
    settings = {"training__n_iters": 1, "training__snapshot_freq": 1, "training__snapshot_freq_for_preemption": 1}
    settings |= {"training__eval_freq": 1, "model__ch_mult": (1,), "model__attn_resolutions": ()}
    settings |= {"eval__enable_bpd": False, "eval__num_samples": 90, "eval__trajectory": False}
    flags = experiments.tiny_flags(**settings)
    result = subprocess.run(
        [sys.executable, "-c", code, other, framework, f"--workdir={tmp_path}", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "[0, 0, 2, 2]", result.stderr[-3000:]
    assert f"--framework={other} needs {other}, which is not installed" in result.stderr
    assert f"score-core[{other}]" in result.stderr


def test_the_record_names_the_framework(trained, trained_in_torch):
    records = [json.loads((folder / "config.json").read_text()) for folder in (trained, trained_in_torch)]
    assert [record.get("framework") for record in records] == [None, "torch"]
