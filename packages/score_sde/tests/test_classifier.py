"""The noise-conditional classifier: one step and one measurement in both frameworks, resuming, its command."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.checkpoints.tree import flatten
from score_core.errors import UsageError
from score_core.runs.history import read_history
from score_core.runs.results import read_results
from score_sde.classifier import jax_wing, torch_wing
from score_sde.classifier.__main__ import main
from score_sde.classifier.load import load_classifier
from score_sde.classifier.settings import PUBLISHED, SMALL, default_settings
from score_sde.configs.load import load_config
from score_sde.data_source import source_of
from score_sde.sde_lib import VPSDE

NETWORK = {"blocks_per_group": 1, "channel_multiplier": 1, "num_outputs": 10, "num_channels": 1}
ADAM = {"beta1": 0.9, "eps": 1e-8, "warmup": 2, "grad_clip": 1.0, "weight_decay": 0.0}
TINY = [
    "--config.data.image_size=8",
    "--blocks_per_group=1",
    "--channel_multiplier=1",
    "--batch_size=8",
    "--warmup=2",
    "--log_freq=1",
    "--snapshot_freq=4",
]


def config(**data):
    config = load_config("digits")
    config.data.image_size = 8
    for key, value in data.items():
        config.data[key] = value
    return config


def wings():
    sde = VPSDE(0.1, 20.0, 100)
    return [wing.Classifier(sde, NETWORK, 8, True) for wing in (jax_wing, torch_wing)]


def batches(count, size=8):
    source = source_of(config(), "train")
    return [source.fetch(np.arange(k * size, (k + 1) * size)) for k in range(count)]


def test_both_frameworks_learn_and_measure_the_same():
    """From one state, on the same images with the same times and noise: losses, parameters, averages, accuracies."""
    theirs, ours = wings()
    state = theirs.init_state(ADAM, 1e-3, 0.9, seed=3)
    fresh = ours.init_state(ADAM, 1e-3, 0.9, seed=3)
    file = msgpack_format.dumps(theirs.state_to_tree(state))
    copy = ours.state_from_tree(msgpack_format.loads(file), fresh, "file")
    np.testing.assert_array_equal(copy.rng.numpy().view(np.uint32), state.rng)
    for images, labels in batches(3):
        state, loss = theirs.update(state, images, labels)
        copy, ours_loss = ours.update(copy, images, labels)
        np.testing.assert_allclose(float(ours_loss), float(loss), rtol=1e-4)
    one, other = (flatten(wing.state_to_tree(s)) for wing, s in ((theirs, state), (ours, copy)))
    assert one.keys() == other.keys()
    assert int(one["step"]) == int(other["step"]) == 3
    assert one.pop("model_state") == other.pop("model_state") == {}
    for name, value in one.items():
        # Adam moves by up to lr an update, whichever way a gradient near zero points.
        np.testing.assert_allclose(other[name], value, rtol=2e-2, atol=1.5e-3, err_msg=name)
    images, labels = batches(1)[0]
    tree = theirs.params_to_tree(state)
    times, index = np.array([1e-5, 0.3, 1.0]), np.arange(8)
    measured = [
        wing.measure(wing.params_from_tree(tree, "memory"), images, labels, index, times, 5) for wing in (theirs, ours)
    ]
    np.testing.assert_allclose(measured[1][0], measured[0][0], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(measured[1][1], measured[0][1])
    assert measured[0][0].shape == (3, 8)


@pytest.mark.parametrize("which", [0, 1], ids=["jax", "torch"])
def test_a_state_that_went_through_a_file_goes_on_bit_for_bit(which):
    straight = wings()[which]
    resumed = wings()[which] if which else straight  # PyTorch's parameters belong to it
    state = straight.init_state(ADAM, 1e-3, 0.9, seed=3)
    data = batches(4)
    for images, labels in data[:2]:
        state, _ = straight.update(state, images, labels)
    file = msgpack_format.dumps(straight.state_to_tree(state))
    # the other start draws other parameters, all of which are replaced
    copy = resumed.state_from_tree(msgpack_format.loads(file), resumed.init_state(ADAM, 1e-3, 0.9, seed=4), "file")
    for images, labels in data[2:]:
        state, _ = straight.update(state, images, labels)
        copy, _ = resumed.update(copy, images, labels)
    assert msgpack_format.dumps(straight.state_to_tree(state)) == msgpack_format.dumps(resumed.state_to_tree(copy))


def test_the_noise_of_an_image_does_not_depend_on_its_batch():
    wing = wings()[1]
    params = wing.params_from_tree(wing.params_to_tree(wing.init_state(ADAM, 1e-3, 0.9, seed=3)), "memory")
    images, labels = batches(1)[0]
    times = np.array([0.5])
    whole = wing.measure(params, images, labels, np.arange(8), times, 5)[0]
    part = wing.measure(params, images[5:7], labels[5:7], np.arange(5, 7), times, 5)[0]
    np.testing.assert_allclose(part, whole[:, 5:7], rtol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work directory that PyTorch trained: the faster of the two to start."""
    folder = tmp_path_factory.mktemp("classifier")
    assert main([f"--workdir={folder}", "--framework=torch", "--n_iters=6", *TINY]) == 0
    return folder


def test_the_command_writes_log_curve_numbers_and_parameters(trained, capsys):
    assert [row.step for row in read_history(trained / "history.csv")] == list(range(6))
    assert sorted(p.name for p in trained.glob("checkpoints*/[!.]*")) == [
        "checkpoint_4",
        "checkpoint_6",
        "checkpoint_6",
    ]
    assert (trained / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    results = {(r.metric, r.dataset): r for r in read_results(trained / "results.json")}
    assert len(results) == 4
    clean = results["classifier_accuracy_clean", "digits/test"]
    assert (clean.sample_count, clean.checkpoint_step, clean.ema) == (180, 6, True)
    assert 0 <= clean.value == clean.details["accuracy"][0] <= 1
    assert len(clean.details["std"]) == 13
    assert np.all(np.diff(clean.details["std"]) > 0)

    before = (trained / "checkpoints" / "checkpoint_6").read_bytes()
    assert main([f"--workdir={trained}", "--framework=torch", "--n_iters=6", *TINY]) == 0
    assert "nothing to train" in capsys.readouterr().err
    assert (trained / "checkpoints" / "checkpoint_6").read_bytes() == before
    assert main([f"--workdir={trained}", "--framework=torch", "--n_iters=6", "--mode=eval", *TINY]) == 0
    assert len(read_results(trained / "results.json")) == 4  # measured again, not twice


def test_other_settings_in_the_same_folder_are_refused(trained, capsys):
    for change in ("--lr=0.5", "--config.model.beta_max=5.0", "--framework=jax"):
        framework = [] if "framework" in change else ["--framework=torch"]
        assert main([f"--workdir={trained}", *framework, "--n_iters=6", *TINY, change]) == 2
        assert "was started with another configuration" in capsys.readouterr().err


def test_errors_say_what_to_do(tmp_path, capsys):
    np.savez(tmp_path / "images.npz", images=np.zeros((20, 8, 8, 1), np.uint8))
    for flags, status, message in [
        (["--mode=eval"], 2, "train first"),
        (["--config.data.dataset=npz", f"--config.data.path={tmp_path / 'images.npz'}"], 2, "has no labels"),
        (["--config.data.image_size=10"], 2, "10 pixels are not divisible by 4"),
        (["--n_iters=0"], 1, "n_iters"),
        (["--lr=fast"], 1, "lr"),
        (["--frame=torch"], 1, "frame"),
    ]:
        assert main([f"--workdir={tmp_path / 'none'}", "--framework=torch", *TINY, *flags]) == status, flags
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none" / "checkpoints").exists()


def test_defaults_depend_on_the_size():
    assert (default_settings(16), default_settings(32)) == (SMALL, PUBLISHED)
    assert (PUBLISHED.blocks_per_group, PUBLISHED.channel_multiplier) == (4, 10)
    assert replace(SMALL, seed=1) != SMALL


def test_a_classifier_of_one_framework_leads_the_other(trained):
    """The same gradient, from the file that PyTorch wrote."""
    loaded = [load_classifier(trained, config(), framework) for framework in ("jax", "torch")]
    assert [c.num_classes for c in loaded] == [10, 10]
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    std, labels = np.array([0.01, 0.1, 0.5, 1.0], np.float32), np.array([0, 9, 3, 3])
    theirs = jax.jit(loaded[0].gradient)(loaded[0].params, x, std, labels)
    import torch

    ours = loaded[1].gradient(
        loaded[1].params, torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(std), torch.tensor(labels)
    )
    scale = np.abs(theirs).max()
    assert scale > 0
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1), theirs, rtol=0, atol=1e-4 * scale)


def test_a_published_file_is_given_standardised_images(trained):
    """A file instead of a folder: CIFAR-10's means and deviations are taken out of what the classifier is given."""
    import torch

    from score_core.torch.networks.wideresnet import get_classifier_grad_fn, get_logit_fn
    from score_sde.controllable_generation_torch import create_classifier

    wing = torch_wing.Classifier(VPSDE(0.1, 20.0, 100), NETWORK | {"num_channels": 3}, 8, True)
    file = trained.parent / "published"
    file.write_bytes(msgpack_format.dumps(wing.params_to_tree(wing.init_state(ADAM, 1e-3, 0.9, seed=3))))
    loaded = load_classifier(file, config(num_channels=3), "torch")
    x = torch.tensor(np.random.default_rng(0).normal(size=(2, 3, 8, 8)), dtype=torch.float32)
    arguments = (x, torch.tensor([0.1, 1.0]), torch.tensor([1, 2]))
    expected = get_classifier_grad_fn(get_logit_fn(create_classifier(file)))(*arguments)
    np.testing.assert_allclose(loaded.gradient(loaded.params, *arguments), expected, rtol=1e-5, atol=1e-8)


def test_a_classifier_that_does_not_fit_is_refused(trained, tmp_path):
    with pytest.raises(MissingCheckpointError, match=r"python -m score_sde\.classifier"):
        load_classifier(tmp_path / "nothing", config(), "torch")
    with pytest.raises(MissingCheckpointError, match=r"python -m score_sde\.classifier"):
        load_classifier(tmp_path, config(), "torch")
    other = config()
    other.model.beta_max = 7.0
    with pytest.raises(UsageError, match=r"another experiment:\n  model\.beta_max: 20\.0 -> 7\.0"):
        load_classifier(trained, other, "torch")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "config.json").write_bytes((trained / "config.json").read_bytes())
    with pytest.raises(MissingCheckpointError, match="not finished"):
        load_classifier(tmp_path / "unfinished", config(), "torch")
    (tmp_path / "unfinished" / "config.json").write_text("[]")
    with pytest.raises(UsageError, match="not the record of a classifier's training"):
        load_classifier(tmp_path / "unfinished", config(), "torch")
    (tmp_path / "file").write_bytes(msgpack_format.dumps({"a": np.zeros(3, np.float32)}))
    with pytest.raises(CheckpointError, match="does not hold the parameters"):
        load_classifier(tmp_path / "file", config(), "torch")


def start(folder: Path, framework: str, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "score_sde.classifier", f"--workdir={folder}", f"--framework={framework}", *flags]
    return subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "number", "status"), [("torch", signal.SIGTERM, 143), ("jax", signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_run_that_was_stopped_or_killed_ends_with_the_same_numbers(tmp_path, framework, number, status):
    flags = [*TINY, "--n_iters=30"]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert main([f"--workdir={straight}", f"--framework={framework}", *flags]) == 0
    process = start(stopped, framework, *flags)
    assert process.stderr is not None
    for line in process.stderr:
        if "step: 10, training_loss" in line:
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors[-2000:]
    assert not (stopped / "checkpoints").exists()
    assert main([f"--workdir={stopped}", f"--framework={framework}", *flags]) == 0
    assert "resuming from" in (stopped / "stdout.txt").read_text()
    for name in ("checkpoints/checkpoint_30", "checkpoints-meta/checkpoint_30"):
        assert (stopped / name).read_bytes() == (straight / name).read_bytes(), name
    losses = [[row[:2] for row in read_history(folder / "history.csv")] for folder in (straight, stopped)]
    assert losses[0] == losses[1]
    values = [[(r.metric, r.value) for r in read_results(f / "results.json")] for f in (straight, stopped)]
    assert values[0] == values[1]
