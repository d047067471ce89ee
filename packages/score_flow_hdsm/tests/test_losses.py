"""The losses of all orders with their gradients against both originals', drawn from the stored seed."""

import goldens
import hdsm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from residuals import kept_bytes

from score_flow_hdsm import losses
from score_flow_hdsm.configs._house import load_config
from score_flow_hdsm.jax_experiment import JaxScoreFlow
from score_flow_hdsm.losses import get_loss_parts_fn, high_order_terms, recomputed_terms
from score_flow_hdsm.sdes import VESDE, VPSDE

FACTS = {
    program: hdsm_cases.load(f"losses_{name}.json")
    for program, name in {"mle_score_ode": "hdsm", "score_flow": "score_flow"}.items()
}
GOLDEN = hdsm_cases.load("losses_hdsm.npz") | hdsm_cases.load("losses_score_flow.npz")
CASES = [(program, case) for program, cases in FACTS.items() for case in cases]


def setting(program, facts):
    """The network, its parameters, the SDE and the options of ``get_loss_parts_fn``."""
    overrides = facts["tiny_overrides"]
    config = hdsm_cases.published(facts["base_config"], program, hdsm_cases.LOSS_NETWORK)
    with config.unlocked(), config.ignore_type():
        for key, value in overrides.items():
            section, name = key.split(".")
            config[section][name] = tuple(value) if isinstance(value, list) else value
    apply, params = hdsm_cases.network_of(config)
    options = {
        "order": facts.get("order", 1),
        "reduce_mean": facts["reduce_mean"],
        "likelihood_weighting": facts["likelihood_weighting"],
        "importance_weighting": facts["importance_weighting"],
        "eps": facts["eps"],
    }
    return apply, params, hdsm_cases.sde_of(config), options


@pytest.mark.parametrize(("program", "case"), CASES, ids=lambda x: x if "_o" in x and "score" not in x else "")
def test_losses_and_gradients_match_the_original(program, case):
    facts = FACTS[program][case]
    apply, params, sde, options = setting(program, facts)
    losses = get_loss_parts_fn(sde, apply, program=program, **options)
    key, image = jax.random.PRNGKey(facts["key_seed"]), jnp.asarray(GOLDEN[f"{case}/image"])

    def objective(params):
        parts = losses(params, key, image, True)
        return jnp.mean(parts.total), [jnp.mean(part) for part in parts]

    # Not jitted: the cases share their operations, each compiled once.
    with jax.threefry_partitionable(False):
        (loss, parts), grads = jax.value_and_grad(objective, has_aux=True)(params)
    np.testing.assert_allclose(loss, facts["loss"], rtol=1e-4)
    if facts.get("loss123"):
        np.testing.assert_allclose(parts, facts["loss123"], rtol=1e-4)
    flat = goldens.flatten(grads)
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(g, np.float64))) for g in flat.values()))
    np.testing.assert_allclose(norm, facts["grad_norm"], rtol=1e-4 if options["order"] == 1 else 1e-3)
    checked = [key.partition("/grad/")[2] for key in GOLDEN if key.startswith(f"{case}/grad/")]
    assert len(checked) == 3
    for name in checked:
        expected = GOLDEN[f"{case}/grad/{name}"]
        np.testing.assert_allclose(flat[name], expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_third_order_terms_differentiated_backwards_once_have_the_same_gradients():
    draw = np.random.default_rng(0).normal
    params = {name: jnp.asarray(draw(size=(5, 5)), jnp.float32) for name in ("in", "out")}
    x, v = (jnp.asarray(draw(size=(3, 5)), jnp.float32) for _ in range(2))
    weights = [jnp.asarray(draw(size=(3, 5)), jnp.float32) for _ in range(3)]

    def score(params, x):
        return jnp.tanh(x @ params["in"]) @ params["out"]

    def objective(terms):
        return lambda *inputs: sum(
            jnp.sum(weight * term**2) for weight, term in zip(weights, terms(*inputs), strict=True)
        )

    one = objective(lambda params, x, v: high_order_terms(lambda x: score(params, x), x, v, 3))
    other = objective(lambda params, x, v: recomputed_terms(score, params, x, v))
    values, gradients = zip(*(jax.value_and_grad(f, (0, 1, 2))(params, x, v) for f in (one, other)), strict=True)
    np.testing.assert_allclose(*values, rtol=1e-6)
    for leaf, again in zip(*map(jax.tree.leaves, gradients), strict=True):
        # Rounding differs by 1.2e-7 of the largest; a third term without its gradient by 2.
        np.testing.assert_allclose(again, leaf, rtol=0, atol=2e-6 * float(jnp.abs(leaf).max()))


def test_the_recomputing_loss_of_third_order_is_the_same():
    draw = np.random.default_rng(1).normal
    params = jnp.asarray(0.3 * draw(size=(2, 16, 16)), jnp.float32)
    images = jnp.asarray(draw(size=(3, 4, 4, 1)), jnp.float32)

    def apply(params, x, labels, dropout_key):  # a random mask stands for dropout
        kept = jax.random.bernoulli(dropout_key, 0.8, (len(x), 16))
        hidden = kept * jnp.tanh(x.reshape(-1, 16) @ params[0] + 1e-3 * labels[:, None])
        return (hidden @ params[1]).reshape(x.shape)

    def value_and_gradient(recompute):
        losses = get_loss_parts_fn(VPSDE(), apply, order=3, recompute=recompute)
        return jax.value_and_grad(lambda params: jnp.mean(losses(params, jax.random.key(2), images, True).total))(
            params
        )

    (value, gradient), (value_again, gradient_again) = value_and_gradient(False), value_and_gradient(True)
    np.testing.assert_allclose(value_again, value, rtol=1e-6)
    # Rounding differs by 1e-7 of the largest; another mask by 1.
    np.testing.assert_allclose(gradient_again, gradient, rtol=0, atol=2e-6 * float(jnp.abs(gradient).max()))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_recomputing_steps_keep_less(order, monkeypatch):
    # Order 3 keeps nothing but its inputs; within its backward pass, which goes back over terms_along, it does.
    def inside(score_fn, params, x, v):
        score, jvp, slope = losses.terms_along(lambda x: score_fn(params, x), x, v, v)
        return score, jvp, slope * jnp.ones_like(x)

    monkeypatch.setattr(losses, "recomputed_terms", inside)
    config = load_config("vp/cifar10_ddpmpp_continuous")
    with config.unlocked():
        config.model.update({"nf": 8, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": (8,)})
        config.data.update({"image_size": 8, "dataset": "photos"})
        config.training.score_matching_order = order

    def kept(remat):
        with config.unlocked():
            config.training.remat = remat
        experiment = JaxScoreFlow(config)

        def objective(params, images):
            return jnp.mean(experiment.loss_fn(params, jax.random.key(3), images, True)[:, 0])

        params = jax.eval_shape(experiment._init_params, jax.random.key(0))
        images = jax.ShapeDtypeStruct((64, 8, 8, 3), jnp.float32)
        return kept_bytes(objective, params, images)

    assert kept(True) < 0.3 * kept(False)


@pytest.mark.parametrize("order", [0, 4])
def test_other_orders_are_refused(order):
    with pytest.raises(ValueError, match="must be 1, 2 or 3"):
        get_loss_parts_fn(VPSDE(), None, order=order)


def test_high_orders_refuse_the_sum_reduction_and_ve_refuses_importance():
    with pytest.raises(ValueError, match="reduce_mean = True"):
        get_loss_parts_fn(VPSDE(), None, order=2, reduce_mean=False)
    with pytest.raises(ValueError, match="importance_weighting draws times"):
        get_loss_parts_fn(VESDE(), None, likelihood_weighting=True, importance_weighting=True)
