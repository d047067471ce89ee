"""The training step in PyTorch: its random numbers, accumulation, precision, files, several processes."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.pth_format import load_pth
from score_core.data.scalers import dequantize, to_float
from score_core.jax import training as jax_training
from score_core.sdes import VESDE, VPSDE, SubVPSDE
from score_core.torch.noise import uniform_like
from score_core.torch.threefry import prng_key
from score_core.torch.training import (
    Adam,
    checkpoint_activations,
    create_state,
    get_apply_fn,
    get_eval_call,
    get_loss_fn,
    get_train_call,
    state_from_tree,
    state_to_tree,
)

ADAM = Adam(beta1=0.9, eps=1e-8, warmup=2, grad_clip=1.0, weight_decay=0.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 4, 3, 6, 6)).astype(np.uint8)


class Tiny(nn.Module):
    """A network with a frozen parameter, like a Fourier embedding's."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.W = nn.Parameter(torch.ones(1), requires_grad=False)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x, labels):
        h = torch.tanh(self.first(x) + self.W * labels.reshape(-1, 1, 1, 1))
        return self.last(self.dropout(h))


def prepare(images, key, first):
    x = to_float(images)
    return dequantize(x, uniform_like(x, key, first)) * 2 - 1


def make_state(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    return create_state(Tiny(dropout), prng_key(5), adam=ADAM, lr=1e-2, ema_rate=0.99)


def make_call(model, autocast=None, **options):
    loss_fn = get_loss_fn(VPSDE(), get_apply_fn(model, autocast), continuous=True, reduce_mean=True)
    return get_train_call(loss_fn, ADAM, prepare, **options)


def train(state, **options):
    call, losses = make_call(state.model, **options), []
    for part in np.split(IMAGES, 2):
        state, loss = call(state, torch.tensor(part))
        losses.append(loss)
    return state, torch.cat(losses)


def assert_equal_states(a, b, tolerance=0.0):
    for first, second in ((a.shadow, b.shadow), (a.model.state_dict(), b.model.state_dict())):
        for name in first:
            np.testing.assert_allclose(first[name], second[name], rtol=0, atol=tolerance, err_msg=name)
    assert (a.step, a.num_updates, a.rng.tolist()) == (b.step, b.num_updates, b.rng.tolist())


@pytest.mark.parametrize(
    ("sde", "continuous"), [(VESDE(0.01, 5, 7), False), (VPSDE(0.1, 4, 50), False), (SubVPSDE(), True)]
)
def test_both_wings_have_the_same_losses_from_one_key(sde, continuous):
    """Times, labels and noise are equal; a part of the batch has the losses that it has within the batch."""
    options = {"continuous": continuous, "reduce_mean": True}
    x0 = np.random.default_rng(1).random((4, 3, 6, 6), np.float32)

    def model(params, x, labels, train=False, dropout_key=None):
        return 0.3 * x + 0.01 * (1.0 * labels).reshape(-1, 1, 1, 1)

    losses = get_loss_fn(sde, model, **options)
    ours = losses(None, prng_key(9), torch.tensor(x0), True)
    jax_losses = jax.jit(jax_training.get_loss_fn(sde, model, **options), static_argnums=3)
    theirs = jax_losses({}, jax.random.PRNGKey(9), jnp.asarray(x0.transpose(0, 2, 3, 1)), True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(losses(None, prng_key(9), torch.tensor(x0[1:3]), True, 1), ours[1:3], rtol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulated_parts_are_the_whole_batch(accumulate):
    """To float32 rounding, which Adam's first steps can magnify to a thousandth of the learning rate."""
    whole, losses = train(make_state())
    parts, part_losses = train(make_state(), accumulate=accumulate)
    np.testing.assert_allclose(part_losses, losses, rtol=1e-5)
    assert_equal_states(parts, whole, tolerance=1e-5)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(ValueError, match="4 images cannot be accumulated in 3 equal parts"):
        train(make_state(), accumulate=3)


def test_checkpointed_activations_change_nothing():
    plain, losses = train(make_state(dropout=0.5))
    state = make_state(dropout=0.5)
    checkpoint_activations(state.model, (nn.Conv2d, nn.Dropout))
    state, same_losses = train(state)
    np.testing.assert_array_equal(same_losses, losses)
    assert_equal_states(state, plain)


def test_checkpointed_activations_do_not_mix_up_parameters():
    """Outside training the parameters may be others than the module's, which a backward pass must not fall back to."""
    state, _ = train(make_state())
    x, labels = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 2.0])

    def derivative():
        y = x.clone().requires_grad_()
        (grad,) = torch.autograd.grad(get_apply_fn(state.model)(state.params_ema, y, labels).square().sum(), y)
        return grad

    plain = derivative()
    assert (plain != torch.autograd.grad(state.model(x.requires_grad_(), labels).square().sum(), x)[0]).any()
    x.requires_grad_(False)
    checkpoint_activations(state.model, (nn.Conv2d,))
    np.testing.assert_array_equal(derivative(), plain)


def test_channels_last_changes_nothing_and_survives_a_file(tmp_path):
    """To rounding; and from a file, whose arrays are contiguous, training goes on as if it had never stopped."""
    plain, losses = train(make_state())
    state = make_state()
    state.model.to(memory_format=torch.channels_last)
    state = create_state(state.model, state.rng, adam=ADAM, lr=1e-2, ema_rate=0.99)
    call = make_call(state.model)
    state, first = call(state, torch.tensor(IMAGES[:2]))
    torch.save(state_to_tree(state), tmp_path / "checkpoint.pth")
    state, rest = call(state, torch.tensor(IMAGES[2:]))
    np.testing.assert_allclose(torch.cat([first, rest]), losses, rtol=1e-5)
    assert_equal_states(state, plain, tolerance=1e-5)

    restored = make_state(seed=4)
    restored.model.to(memory_format=torch.channels_last)
    restored = create_state(restored.model, restored.rng, adam=ADAM, lr=1e-2, ema_rate=0.99)
    tree = {
        key: torch.utils._pytree.tree_map(lambda v: v.contiguous() if isinstance(v, torch.Tensor) else v, value)
        for key, value in torch.load(tmp_path / "checkpoint.pth", weights_only=True).items()
    }
    restored = state_from_tree(tree, restored)
    restored, again = make_call(restored.model)(restored, torch.tensor(IMAGES[2:]))
    np.testing.assert_array_equal(again, rest)
    assert_equal_states(restored, state)


def test_a_compiled_network_changes_nothing():
    """Training and evaluation with other parameters; to rounding, which Adam's first steps can magnify."""
    plain, losses = train(make_state())
    state = make_state()
    state.model.compile(dynamic=False)
    state, compiled = train(state)
    np.testing.assert_allclose(compiled, losses, rtol=1e-5)
    assert_equal_states(state, plain, tolerance=1e-5)
    x, labels = torch.ones(2, 3, 6, 6), torch.ones(2)
    with torch.no_grad():
        averaged = [get_apply_fn(s.model)(s.params_ema, x, labels) for s in (state, plain)]
    np.testing.assert_allclose(*averaged, rtol=0, atol=1e-5)


def test_mixed_precision_stays_near_full_precision():
    """bfloat16 has eight bits; the state stays float32."""
    _, losses = train(make_state())
    state, mixed = train(make_state(), autocast=torch.bfloat16)
    assert mixed.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in state.model.parameters())
    assert 0 < (mixed - losses).abs().max() < 0.02 * losses.abs().max()


def test_held_out_losses_come_from_the_averages_without_dropout():
    state, _ = train(make_state(dropout=0.9))
    loss_fn = get_loss_fn(VPSDE(), get_apply_fn(state.model), continuous=True, reduce_mean=True)
    call = get_eval_call(loss_fn, prepare)
    _, losses = call(prng_key(1), state.params_ema, torch.tensor(IMAGES[:2]))
    averaged = copy.deepcopy(state.model)
    averaged.load_state_dict(state.params_ema)
    _, expected = call(prng_key(1), dict(averaged.named_parameters()), torch.tensor(IMAGES[:2]))
    _, of_raw = call(prng_key(1), None, torch.tensor(IMAGES[:2]))
    np.testing.assert_array_equal(losses, expected)
    assert losses.shape == (2, 4)
    assert (losses != of_raw).any()


KEYS_OF_OWN = {name: name for name, _ in Tiny().named_parameters()}
KEYS = {"W": "all_modules.0.W", "last.weight": "a.w", "last.bias": "a.b", "first.weight": "b.w", "first.bias": "b.b"}


@pytest.mark.parametrize("reader", [load_pth, lambda path: torch.load(path, weights_only=True)])
@pytest.mark.parametrize("keys", [None, KEYS])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, keys, reader):
    """Bit for bit, dropout included, through a file in the original's layout, parameters in an order of its own."""
    whole, losses = train(make_state(dropout=0.3))
    halfway = make_state(dropout=0.3)
    halfway, _ = make_call(halfway.model)(halfway, torch.tensor(IMAGES[:2]))
    sigmas = {"sigmas": torch.ones(3, dtype=torch.float64)}
    torch.save(state_to_tree(halfway, keys, sigmas), tmp_path / "checkpoint.pth")
    tree = reader(tmp_path / "checkpoint.pth")
    assert list(tree["model"]) == ["module.sigmas", *(f"module.{key}" for key in (keys or KEYS_OF_OWN).values())]
    assert len(tree["ema"]["shadow_params"]) == 4
    assert sorted(tree["optimizer"]["state"]) == [1, 2, 3, 4]
    state = state_from_tree(tree, make_state(dropout=0.3, seed=8), keys, ("sigmas",))
    state, resumed = make_call(state.model)(state, torch.tensor(IMAGES[2:]))
    np.testing.assert_array_equal(resumed, losses[2:])
    assert_equal_states(state, whole)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tree: tree.pop("ema"), "has no ema"),
        (lambda tree: tree["model"].pop("module.first.bias"), "missing: first.bias"),
        (lambda tree: tree["model"].update({"module.more": torch.ones(1)}), "unknown: more"),
        (lambda tree: tree["model"].update({"module.W": torch.ones(2)}), r"W: shape \(2,\), expected \(1,\)"),
        (lambda tree: tree["ema"]["shadow_params"].pop(), "3 averaged parameters, expected 4"),
        (lambda tree: tree["optimizer"]["state"][1].update(exp_avg=torch.ones(1)), "exp_avg of first.weight: shape"),
    ],
)
def test_files_of_another_network_are_refused_and_change_nothing(spoil, message):
    trained, _ = train(make_state())
    tree = state_to_tree(trained)
    tree = {**tree, "model": dict(tree["model"]), "ema": copy.copy(tree["ema"])}
    spoil(tree)
    state = make_state(seed=3)
    with pytest.raises(CheckpointError, match=message):
        state_from_tree(tree, state)
    assert_equal_states(state, make_state(seed=3))


def test_losses_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="likelihood_weighting needs"):
        get_loss_fn(VPSDE(), Tiny(), continuous=False, reduce_mean=True, likelihood_weighting=True)
    with pytest.raises(ValueError, match="SubVPSDE"):
        get_loss_fn(SubVPSDE(), Tiny(), continuous=False, reduce_mean=True)
