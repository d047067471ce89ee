"""JAX and PyTorch from the same parameters and seed: updates, samples, bits/dim; each evaluates the other's files."""

import shutil

import experiments
import jax
import numpy as np
import pytest
import torch

from score_core.checkpoints import msgpack_format
from score_core.runs.results import read_results
from score_core.torch.networks import load_flax_tree
from score_sde.__main__ import main
from score_sde.configs.load import load_config
from score_sde.jax_experiment import JaxExperiment
from score_sde.torch_experiment import TorchExperiment

# "nf": DDPM normalises in 32 groups.
NETWORKS = {
    "ncsnpp": ("ve/cifar10_ncsnpp_continuous", {"model.nf": 8, "training.sde": "vesde"}),
    "ddpm": ("vp/ddpm/cifar10_continuous", {"model.nf": 32}),
}
SMALL = {
    "data.dataset": "digits",
    "data.num_channels": 1,
    "data.image_size": 8,
    "model.ch_mult": (1, 2),
    "model.num_res_blocks": 1,
    "model.attn_resolutions": (4,),
    "model.dropout": 0.0,  # masks are each framework's own
    "model.flavor": "jax",  # a constant rate of the moving average in both
    "model.ema_rate": 0.9,
    "training.batch_size": 8,
    "training.n_jitted_steps": 1,
    "eval.batch_size": 4,
    "optim.warmup": 2,
    "optim.lr": 1e-4,
}


def pair_of(name, **more):
    """Both experiments, and a state of each with the same parameters, the fixed rule's."""
    base, settings = NETWORKS[name]
    config = load_config(base)
    with config.unlocked(), config.ignore_type():
        for key, value in (SMALL | settings | {k.replace("__", "."): v for k, v in more.items()}).items():
            section, entry = key.split(".")
            config[section][entry] = value
    ours, theirs = TorchExperiment(config), JaxExperiment(config)
    params = experiments.filled_params(theirs)
    state = theirs._state_of(params, jax.random.fold_in(jax.random.split(jax.random.PRNGKey(config.seed))[0], 0))
    load_flax_tree(ours.model, jax.tree.map(np.asarray, params))
    return theirs, theirs.place(state), ours, ours.initial_state()


def assert_close(found, expected, tolerance):
    found, expected = np.asarray(found), np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_training_has_the_same_data_noise_and_parameters(name):
    """Five updates with dequantisation: losses to 1e-5, parameters and averages to a twentieth of lr on average.

    Adam turns gradients that are rounding noise (a bias before a softmax) into steps of up to lr, in either direction.
    """
    theirs, state, ours, torch_state = pair_of(name, data__uniform_dequantization=True)
    pipelines = [e.pipeline("train", 8, seed=42, flip=True) for e in (theirs, ours)]
    lr, updates = theirs.config.optim.lr, 5
    for step in range(updates):
        images = [np.stack([pipeline.batch(step).image]) for pipeline in pipelines]
        np.testing.assert_array_equal(*images)
        state, loss = theirs.train_call(state, theirs.to_device(images[0]))
        torch_state, torch_loss = ours.train_call(torch_state, ours.to_device(images[1]))
        np.testing.assert_allclose(torch_loss, loss, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(torch_state.rng).view(np.uint32), state.rng)
    held_out = np.stack([ours.pipeline("test", 8, seed=42).batch(0).image])
    _, losses = theirs.eval_call(state, theirs.to_device(held_out))
    _, torch_losses = ours.eval_call(torch_state, ours.to_device(held_out))
    np.testing.assert_allclose(float(torch_losses.mean()), float(losses.mean()), rtol=1e-5)

    same = TorchExperiment(ours.config)
    restored = same.decode_state(ours.encode_state(torch_state), where="torch")
    assert restored.step == updates
    # The JAX state as a PyTorch one, to compare name by name.
    converted = TorchExperiment(ours.config)
    reference = converted.state_from_flax(msgpack_format.loads(theirs.encode_state(state)), where="jax")
    for mine, other in ((restored.params_ema, reference.params_ema), (_raw(restored), _raw(reference))):
        distance = torch.cat([(mine[key] - other[key]).abs().flatten() for key in mine])
        assert distance.mean() < 0.05 * lr and distance.max() <= 2 * updates * lr
    moved = torch.cat([p.detach().flatten() for p in restored.model.parameters()])
    start = TorchExperiment(ours.config)
    load_flax_tree(start.model, jax.tree.map(np.asarray, experiments.filled_params(theirs)))
    begin = torch.cat([p.detach().flatten() for p in start.model.parameters()])
    assert (moved - begin).abs().mean() > lr, "nothing was trained, so nothing was compared"


def _raw(state):
    return {name: p.detach() for name, p in state.model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_sampling_and_likelihood_are_the_same(name):
    """All steps of predictor and corrector with the same noise; bits/dim with the same dequantisation and probe."""
    more = {"model__num_scales": 24, "sampling__corrector": "langevin", "sampling__predictor": "reverse_diffusion"}
    theirs, state, ours, torch_state = pair_of(name, **more)
    params, torch_params = theirs.parameters(state, ema=True), ours.parameters(torch_state, ema=True)
    images, nfe = theirs.draw(params, 0, 3)
    torch_images, torch_nfe = ours.draw(torch_params, 0, 3)
    assert nfe == torch_nfe == 48
    assert_close(torch_images, images, 1e-3)
    assert np.isfinite(images).all() and np.asarray(images).std() > 0.01

    batch = ours.pipeline("test", 4, seed=42).epoch_batch(0)
    losses = [np.asarray(e.losses(p, 7, batch.image)) for e, p in ((theirs, params), (ours, torch_params))]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    if name == "ncsnpp":  # the other takes minutes: its ODE is stiff with parameters that were never trained
        return
    bpd = [e.bits_per_dim(p, 9, batch.image, batch.index, 1) for e, p in ((theirs, params), (ours, torch_params))]
    np.testing.assert_allclose(bpd[1].bpd, bpd[0].bpd, rtol=1e-3)
    assert abs(bpd[1].nfe / bpd[0].nfe - 1) < 0.05


def test_keys_of_an_evaluation_are_the_same():
    from score_sde.jax_experiment import Keys as JaxKeys
    from score_sde.torch_experiment import Keys

    ours, theirs = Keys(42), JaxKeys(42)
    for position in (3, 0, 5):
        np.testing.assert_array_equal(np.asarray(ours.at(position)).view(np.uint32), theirs.at(position))


def results(folder):
    return {r.framework: r.value for r in read_results(folder / "results.json") if r.metric == "loss"}


def test_each_evaluates_the_others_checkpoints(trained, trained_in_torch):
    """The same loss from the same file, whichever framework reads it."""
    flags = experiments.tiny_flags(eval__enable_bpd=False, eval__enable_sampling=False)
    for folder in (trained, trained_in_torch):
        for framework in ("jax", "torch"):
            command = [f"--workdir={folder}", f"--framework={framework}", "--mode=eval", f"--eval_folder={framework}"]
            assert main([*command, *flags]) == 0
        found = results(folder)
        assert set(found) == {"jax", "torch"}
        assert found["torch"] == pytest.approx(found["jax"], rel=1e-5)


SMALL_REFINENET = {
    "data.dataset": "digits",
    "data.num_channels": 1,
    "data.image_size": 8,
    "model.nf": 8,
    "model.num_scales": 5,
    "eval.batch_size": 90,
    "eval.begin_ckpt": 1,
    "eval.end_ckpt": 1,
    "eval.enable_sampling": False,
}


def small_refinenet(name):
    config = load_config(name)
    with config.unlocked():
        for key, value in SMALL_REFINENET.items():
            section, entry = key.split(".")
            config[section][entry] = value
    return config


@pytest.mark.parametrize("name", ["ve/ncsnv2/celeba", "ve/ncsn/celeba"])
def test_networks_that_differ_need_to_be_told_whose_numbers(capsys, tmp_path, name):
    """A checkpoint of the JAX program in PyTorch: refused without a flavor, read with it."""
    config = small_refinenet(name)
    experiment = JaxExperiment(config)
    (tmp_path / "checkpoints").mkdir()
    data = experiment.encode_state(experiment.initial_state())
    (tmp_path / "checkpoints" / "checkpoint_1").write_bytes(data)
    command = [f"--config={name}", f"--workdir={tmp_path}", "--mode=eval", *experiments.flags(SMALL_REFINENET)]
    assert main([*command, "--framework=torch"]) == 2
    assert "--config.model.flavor=jax" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "eval")
    assert main([*command, "--framework=torch", "--config.model.flavor=jax"]) == 0
    assert main([*command, "--eval_folder=jax", "--config.model.flavor=jax"]) == 0
    found = results(tmp_path)
    assert found["torch"] == pytest.approx(found["jax"], rel=1e-5)
    assert main([*command, "--eval_folder=other", "--config.model.flavor=pytorch"]) == 2
    assert "say which are meant by --config.model.flavor=jax" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ve/ncsnv2/celeba", "ve/ncsn/celeba"])
def test_jax_computes_the_pytorch_programs_numbers_of_networks_that_differ(capsys, tmp_path, name):
    """A checkpoint of the PyTorch program, as its own file and converted to JAX's, in both frameworks."""
    config = small_refinenet(name)
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "checkpoint_1.pth"
    experiment = TorchExperiment(config)
    file.write_bytes(experiment.encode_state(experiment.initial_state()))
    command = [f"--config={name}", f"--workdir={tmp_path}", "--mode=eval", *experiments.flags(SMALL_REFINENET)]
    assert main([*command, "--framework=torch"]) == 0
    command += ["--eval_folder=jax"]
    assert main([*command, "--framework=jax"]) == 2
    assert "--config.model.flavor=pytorch" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "jax")
    assert main([*command, "--framework=jax", "--config.model.flavor=pytorch"]) == 0
    found = results(tmp_path)
    assert found["jax"] == pytest.approx(found["torch"], rel=1e-5)
