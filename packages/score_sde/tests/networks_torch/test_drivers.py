"""Losses, training steps, samplers and right-hand sides of the ODE with real networks, against the PyTorch program.

The numbers that it drew come from the seeds in the files, in its order.
"""

import functools
import math

import goldens
import numpy as np
import pytest
import torch

from score_core.checkpoints.pth_format import load_pth
from score_core.correctors import get_corrector
from score_core.data.scalers import get_data_inverse_scaler
from score_core.predictors import get_predictor
from score_core.sdes import get_sde
from score_core.torch import networks
from score_core.torch.likelihood import drift_and_divergence, get_likelihood_fn
from score_core.torch.noise import LegacyNoise
from score_core.torch.sampling import get_ode_sampler, get_pc_sampler
from score_core.torch.threefry import prng_key
from score_core.torch.train_state import original_keys
from score_core.torch.training import (
    Adam,
    create_state,
    get_apply_fn,
    get_eval_call,
    get_loss_fn,
    get_update_fn,
    state_from_tree,
    state_to_tree,
)


def facts_of(name):
    """``{case: (file, facts)}`` of a golden file and its counterpart of what the program cannot do unrepaired."""
    files = (name, f"{name}_repaired")
    return {case: (f, facts) for f in files for case, facts in goldens.load("score_sde", f"torch/{f}.json").items()}


LOSSES, TRAIN, SAMPLERS = facts_of("losses"), facts_of("train"), facts_of("samplers_networks")


@functools.cache
def arrays(file):
    return goldens.load("score_sde", f"torch/{file}.npz")


@pytest.fixture
def experiment(official_config, original_key):
    """``experiment(facts, N=None)``: configuration, SDE, filled network and its names in the program's files."""

    def make(facts, N=None):
        overrides = dict(facts["overrides"])
        decay = overrides.pop("optim.weight_decay", 0.0)
        config = official_config(facts["base"], overrides)
        with config.ignore_type():  # the original's is the integer 0
            config.optim.weight_decay = decay
        sde = get_sde(config.training.get("sde", "vesde"), N=N or config.model.num_scales, **config.model)
        model = networks.create_model(config)
        keys = original_key(model)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(torch.tensor(goldens.fill(keys[name], tuple(parameter.shape))))
        return config, sde, model, keys

    return make


def loss_of(config, sde, model, **options):
    training = config.training
    defaults = {
        "continuous": training.continuous,
        "reduce_mean": training.reduce_mean,
        "likelihood_weighting": training.likelihood_weighting,
    }
    return get_loss_fn(sde, get_apply_fn(model), **{**defaults, **options})


def generator(seed):
    """The default generator, which dropout draws from as well."""
    torch.manual_seed(seed)
    return torch.random.default_generator


def assert_sums(tensor, expected, slack, what):
    """[sum, sum of sizes, first values]; ``slack`` for each element's step in a direction that rounding decides."""
    found = tensor.detach().double()
    np.testing.assert_allclose(
        [found.sum(), found.abs().sum()], expected[:2], rtol=0, atol=1e-5 * expected[1] + slack, err_msg=what
    )
    first = found.flatten()[: len(expected) - 2]
    np.testing.assert_allclose(first, expected[2:], rtol=0, atol=1e-5 * found.abs().max() + slack, err_msg=what)


@pytest.mark.parametrize("case", [name for name in LOSSES if "/" not in name])
def test_losses_and_gradients(case, experiment):
    """Training and held-out, mean and half the sum, both weightings."""
    file, facts = LOSSES[case]
    config, sde, model, keys = experiment(facts)
    x0 = torch.tensor(arrays(file)[f"{case}/batch"])
    variants = [name for name in LOSSES if name.startswith(f"{case}/")]
    assert len(variants) in (4, 8)
    for variant in variants:
        train, mean, weighted = (part[-1] == "1" for part in variant.partition("/")[2].split("_"))
        loss_fn = loss_of(config, sde, model, reduce_mean=mean, likelihood_weighting=weighted)
        model.zero_grad()
        loss = loss_fn(None, generator(facts["seed"]), x0, train).mean()
        loss.backward()
        expected = LOSSES[variant][1]
        np.testing.assert_allclose(loss.item(), expected["loss"], rtol=1e-5, err_msg=variant)
        grads = {keys[name]: p.grad for name, p in model.named_parameters()}
        assert {key for key, grad in grads.items() if grad is None} == set(expected["none_grads"])
        norm = math.sqrt(sum(grad.double().square().sum() for grad in grads.values() if grad is not None))
        np.testing.assert_allclose(norm, expected["grad_norm"], rtol=2e-5, err_msg=variant)
        assert ("grad_checks" in expected) == variant.endswith("train1_mean1_lw0")
        # What vanishes analytically is stored as its rounding, whose size the norm sets.
        for key, sums in expected.get("grad_checks", {}).items():
            assert_sums(grads[key], sums, 1e-5 * norm, f"{variant}: {key}")
        if variant.endswith("train1_mean1_lw0"):
            stored = {name for name in arrays(file) if name.startswith(f"{case}/grad/")}
            assert stored
            for name in stored:
                grad, values = grads[name.removeprefix(f"{case}/grad/")], arrays(file)[name]
                np.testing.assert_allclose(grad, values, rtol=0, atol=2e-5 * np.abs(values).max() + 1e-6 * norm)


@pytest.mark.parametrize("case", TRAIN)
def test_training_steps(case, experiment):
    """Learning rate (0 in the first update), clipping, Adam, weight decay, dropout, averages; five updates."""
    file, facts = TRAIN[case]
    config, sde, model, keys = experiment(facts)
    optim = config.optim
    adam = Adam(optim.beta1, optim.eps, optim.warmup, optim.grad_clip, optim.weight_decay)
    stream = generator(facts["seed"])
    state = create_state(model, stream, adam=adam, lr=optim.lr, ema_rate=config.model.ema_rate)
    state.step = facts["first_step"]
    loss_fn = loss_of(config, sde, model)
    update = get_update_fn(loss_fn, adam, lambda images, key, first: images)
    batches = torch.tensor(arrays(file)[f"{case}/batches"])
    moved = 0.0
    for images, expected in zip(batches, facts["steps"], strict=True):
        assert state.step == expected["step_before"]
        _, loss = update((stream, state), images)
        np.testing.assert_allclose(loss.item(), expected["loss"], rtol=1e-5)
        np.testing.assert_allclose(state.optimizer.param_groups[0]["lr"], expected["lr"], rtol=1e-12)
        assert state.num_updates == expected["num_updates"]
        norm = math.sqrt(sum(p.grad.double().square().sum() for p in model.parameters() if p.grad is not None))
        np.testing.assert_allclose(norm, expected["grad_norm_after_clip"], rtol=2e-5)
        moved += 2 * expected["lr"]
        for tensors, kind in ((model.parameters(), "params_total"), (state.shadow.values(), "ema_total")):
            values = [tensor.detach().double() for tensor in tensors]
            found = [sum(value.sum() for value in values), sum(value.abs().sum() for value in values)]
            np.testing.assert_allclose(found, expected[kind], rtol=0, atol=1e-5 * expected[kind][1])
    for tensors, kind in ((dict(model.named_parameters()), "params"), (state.shadow, "ema")):
        found = {keys[name]: tensor for name, tensor in tensors.items()}
        for key, sums in facts["steps"][-1][kind].items():
            # A single element whose gradient is rounding may have gone the other way.
            assert_sums(found[key], sums, moved, f"{kind} {key}")
    call = get_eval_call(loss_fn, lambda images, key, first: images)
    _, losses = call(generator(facts["eval_seed"]), state.params_ema, batches[:1])
    np.testing.assert_allclose(losses.mean().item(), facts["eval_loss_on_batch0_with_ema"], rtol=1e-5)


@pytest.mark.parametrize(
    "case", ["vp/cifar10_ddpmpp", "ve/cifar10_ncsnpp_continuous", "vp/ddpm/cifar10", "vp/ddpm/cifar10_unconditional"]
)
def test_keys_and_order_of_the_programs_files(case, official_config, original_key):
    config = official_config(case, {"model.nf": 32, "model.num_res_blocks": 1})
    model = networks.create_model(config)
    keys = original_keys(model, config)
    assert keys == original_key(model)


@pytest.mark.parametrize("case", ["ve_ncsnpp_continuous", "vp_ddpmpp_continuous"])
def test_a_file_of_the_program_is_continued_and_written_back(case, experiment, tmp_path):
    """Two updates after the restored two have its losses; what is written is what was read, and our key beside it."""
    facts = goldens.load("score_sde", f"torch/checkpoint_{case}.json")
    tree = load_pth(goldens.path("score_sde", f"torch/checkpoint_{case}.pth"))
    batches = torch.tensor(arrays(f"checkpoint_{case}")["batches"])
    config, sde, model, _ = experiment(facts)
    keys = original_keys(model, config)
    assert list(tree["model"]) == ["module.sigmas", *(f"module.{key}" for key in keys.values())]
    optim = config.optim
    adam = Adam(optim.beta1, optim.eps, optim.warmup, optim.grad_clip, optim.weight_decay)
    fresh = create_state(model, prng_key(0), adam=adam, lr=optim.lr, ema_rate=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    state = state_from_tree(tree, fresh, keys, ("sigmas",))
    assert (state.step, state.num_updates, state.ema_rate) == (2, 2, config.model.ema_rate)

    torch.save(state_to_tree(state, keys, {"sigmas": torch.tensor(tree["model"]["module.sigmas"])}), tmp_path / "f.pth")
    written = load_pth(tmp_path / "f.pth")
    assert written.pop("rng").tolist() == [0, 0]
    assert_equal_trees(written, tree)

    update = get_update_fn(loss_of(config, sde, model), adam, lambda images, key, first: images)
    stream = generator(facts["resumed_seed"])
    found = [update((stream, state), images)[1].item() for images in batches[2:4]]
    np.testing.assert_allclose(found, facts["losses_two_resumed_steps"], rtol=1e-5)


def assert_equal_trees(a, b):
    """Equal in structure, names, types of tensors and numbers."""
    if isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in b:
            assert_equal_trees(a[key], b[key])
    elif isinstance(b, list | tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_equal_trees(one, other)
    else:
        np.testing.assert_array_equal(a, b)
        assert getattr(a, "dtype", np.float64) == getattr(b, "dtype", np.float64)


@pytest.mark.parametrize("case", SAMPLERS)
def test_samplers(case, experiment):
    file, facts = SAMPLERS[case]
    config, sde, model, _ = experiment(facts, facts["N"])
    options = facts["sampler"]
    sampler = get_pc_sampler(
        sde,
        get_apply_fn(model),
        get_predictor(options["predictor"]),
        get_corrector(options["corrector"]),
        snr=options["snr"],
        n_steps=options["n_steps_each"],
        probability_flow=options["probability_flow"],
        continuous=config.training.continuous,
        denoise=options["noise_removal"],
        eps=facts["eps"],
        inverse_scaler=get_data_inverse_scaler(config.data.centered),
    )
    expected = arrays(file)[f"{case}/sample"]
    samples = sampler(None, LegacyNoise(generator(facts["seed"]), expected.shape))
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    assert samples.nfe == facts["nfe"]


ODE, LIKELIHOOD = goldens.load("core", "torch/ode.json"), goldens.load("core", "torch/likelihood.json")
ODE_CASES = ["net/subvp_ddpmpp_continuous"]
LIKELIHOOD_CASES = [case for case in LIKELIHOOD["cases"] if case.startswith("net/")]


@pytest.mark.parametrize("case", ODE_CASES)
def test_ode_sampler(case, experiment):
    """Adaptive steps through a network: the golden README's 1e-3, evaluations within a few per cent."""
    facts, golden = ODE["cases"][case], goldens.load("core", "torch/ode.npz")
    _, sde, model, _ = experiment(facts)
    sampler = get_ode_sampler(
        sde,
        get_apply_fn(model),
        denoise=facts["denoise"],
        eps=sde.sampling_eps,
        inverse_scaler=get_data_inverse_scaler(True),
    )
    samples = sampler(None, torch.tensor(golden[f"{case}/prior_draw"]))
    expected = golden[f"{case}/sample"]
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    assert abs(int(samples.nfe) / facts["nfe"] - 1) < 0.05


@pytest.mark.parametrize("case", LIKELIHOOD_CASES)
def test_right_hand_sides_and_likelihood(case, experiment):
    facts, golden = LIKELIHOOD["cases"][case], goldens.load("core", "torch/likelihood.npz")
    _, sde, model, _ = experiment(facts)
    x = torch.tensor(golden[f"{case}/x"])
    probe = torch.tensor(golden[f"{case}/hutchinson_raw"]) * 2 - 1
    for t in ("1e-05", "0.3", "1.0"):
        found = drift_and_divergence(sde, get_apply_fn(model), None, x, torch.full((2,), float(t)), probe)
        for value, kind in zip(found, ("drift", "div"), strict=True):
            expected = golden[f"{case}/{kind}_t{t}"]
            np.testing.assert_allclose(value, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=kind)
    if facts["nfe"] > 1000:  # half a minute
        return
    likelihood = get_likelihood_fn(sde, get_apply_fn(model), inverse_scaler=get_data_inverse_scaler(True))
    result = likelihood(None, x, probe)
    np.testing.assert_allclose(result.bpd, golden[f"{case}/bpd"], rtol=1e-3)
    assert abs(result.nfe / facts["nfe"] - 1) < 0.05
