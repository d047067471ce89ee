"""Optimiser and EMA steps against the original's, and the two loop forms against each other."""

import experiments
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.jax.training import Adam, create_state, get_train_call, get_update_fn

GOLDEN = goldens.load("score_sde", "train_steps.npz")
FACTS = goldens.load("score_sde", "train_steps.json")


def make_state(experiment):
    optim = experiment.config.optim
    return create_state(
        experiments.filled_params(experiment),
        jax.random.PRNGKey(0),
        adam=experiment.adam,
        lr=optim.lr,
        ema_rate=experiment.config.model.ema_rate,
    )


def rounding_noise(names, case):
    """Tensors whose gradient is analytically zero: Adam turns their rounding noise into steps of either sign."""
    zero = [name.endswith("NIN_1/b") for name in names]
    if case == "vp_ddpm_wd":
        # nf 32 has one channel per group: what adds a per-channel constant ahead of a GroupNorm has no effect
        zero = [
            z or name.endswith(("Conv_0/bias", "Conv_1/bias", "NIN_0/b", "NIN_3/b")) or "/Dense_0/" in name
            for z, name in zip(zero, names, strict=True)
        ]
    return np.array(zero)


@pytest.mark.parametrize("case", FACTS)
def test_steps_match_the_original(case):
    facts = FACTS[case]
    experiment = experiments.golden_experiment(facts)
    update = jax.jit(get_update_fn(experiment.loss_fn, experiment.adam, lambda x, key: x))
    with jax.threefry_partitionable(False):
        carry = (jax.random.PRNGKey(facts["prng_seed"]), make_state(experiment))
        for step in range(facts["steps"]):
            carry, loss = update(carry, jnp.asarray(GOLDEN[f"{case}/step{step}/x"]))
            compare(case, step, carry[1], loss, experiment.config.optim.lr)


def compare(case, step, state, loss, lr):
    prefix = f"{case}/step{step}"
    np.testing.assert_allclose(loss, GOLDEN[f"{prefix}/loss"], rtol=2e-5)
    flat = goldens.flatten(state.params)
    names = sorted(flat)
    assert len(names) == FACTS[case]["n_tensors"]
    noise = rounding_noise(names, case)
    sizes = np.array([flat[name].size for name in names])
    for field, tree in (
        ("params", state.params),
        ("ema", state.params_ema),
        ("m", state.adam.mu),
        ("v", state.adam.nu),
    ):
        leaves = goldens.flatten(tree)
        arrays = [np.asarray(leaves[name], np.float64) for name in names]
        actual = np.array([[array.sum(), np.abs(array).sum()] for array in arrays])
        expected = GOLDEN[f"{prefix}/{field}"]
        if field in ("m", "v"):
            scale = np.abs(expected[~noise, 1]) + 1e-3 * np.abs(expected[~noise, 1]).max()
            np.testing.assert_array_less(np.abs(actual - expected)[~noise].max(axis=1), 1e-3 * scale)
        else:
            # an element whose gradient is tiny may move by up to 2 lr a step the other way; on average far less
            slack = np.where(noise, 2.0, 0.02) * lr * (step + 1) * sizes + 1e-5 * expected[:, 1]
            np.testing.assert_array_less(np.abs(actual - expected).max(axis=1), slack + 1e-6)
    for name in FACTS[case]["first5_keys"]:
        if rounding_noise([name], case)[0]:
            continue
        dotted = name.replace("/", ".")
        for field, tree in (("first5", state.params), ("ema_first5", state.params_ema)):
            actual = np.asarray(goldens.flatten(tree)[name]).ravel()[:5]
            np.testing.assert_allclose(actual, GOLDEN[f"{prefix}/{field}:{dotted}"], rtol=1e-4, atol=0.02 * lr)


def test_the_first_update_with_warm_up_changes_nothing():
    adam = Adam(beta1=0.9, eps=1e-8, warmup=3, grad_clip=1.0, weight_decay=0.1)
    params = {"kernel": jnp.linspace(-1.0, 1.0, 6).reshape(2, 3), "bias": jnp.ones(3)}
    before = create_state(params, jax.random.PRNGKey(0), adam=adam, lr=0.1, ema_rate=0.9)

    def losses(params, key, x, train):
        return jnp.sum((x @ params["kernel"] + params["bias"]) ** 2, axis=1)

    update = get_update_fn(losses, adam, lambda x, key: x)
    (_, after), _ = update((jax.random.PRNGKey(0), before), jnp.ones((4, 2)))
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    assert int(after.step) == 1


def test_bfloat16_arithmetic_keeps_float32_parameters_and_nearly_the_loss():
    facts = FACTS["ve_cont_warmup3"]
    x = jnp.asarray(GOLDEN["ve_cont_warmup3/step0/x"])
    losses = {}
    for dtype in ("float32", "bfloat16"):
        experiment = experiments.golden_experiment(
            facts | {"overrides": facts["overrides"] | {"training.dtype": dtype}}
        )
        params = experiments.filled_params(experiment)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
        losses[dtype] = experiment.loss_fn(params, jax.random.PRNGKey(0), x, True)
        assert losses[dtype].dtype == jnp.float32
    assert not np.array_equal(losses["bfloat16"], losses["float32"])
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)


@pytest.mark.parametrize("n_jitted_steps", [1, 3])
def test_scanned_and_host_driven_loops_are_equal(n_jitted_steps):
    experiment = experiments.golden_experiment(FACTS["ve_cont_warmup3"])
    images = np.random.default_rng(0).integers(0, 256, (n_jitted_steps, 4, 8, 8, 3), np.uint8)
    results = []
    for loop in ("scan", "host"):  # two compilations of a small network
        call = get_train_call(experiment.loss_fn, experiment.adam, experiment.prepare, loop)
        state, losses = call(make_state(experiment), jnp.asarray(images))
        state, more = call(state, jnp.asarray(images))
        results.append((state, np.concatenate([losses, more])))
    (scanned, scan_losses), (driven, host_losses) = results
    assert scan_losses.shape == (2 * n_jitted_steps,)
    np.testing.assert_allclose(scan_losses, host_losses, rtol=1e-5)
    np.testing.assert_array_equal(scanned.rng, driven.rng)
    assert int(scanned.step) == int(driven.step) == 2 * n_jitted_steps
    lr = experiment.config.optim.lr
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=lr), scanned.params, driven.params)
