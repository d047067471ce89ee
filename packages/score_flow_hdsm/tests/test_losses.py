"""The losses of all orders with their gradients against both originals', drawn from the stored seed."""

import goldens
import hdsm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_flow_hdsm.losses import get_loss_parts_fn
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


@pytest.mark.parametrize("order", [0, 4])
def test_other_orders_are_refused(order):
    with pytest.raises(ValueError, match="must be 1, 2 or 3"):
        get_loss_parts_fn(VPSDE(), None, order=order)


def test_high_orders_refuse_the_sum_reduction_and_ve_refuses_importance():
    with pytest.raises(ValueError, match="reduce_mean = True"):
        get_loss_parts_fn(VPSDE(), None, order=2, reduce_mean=False)
    with pytest.raises(ValueError, match="importance_weighting draws times"):
        get_loss_parts_fn(VESDE(), None, likelihood_weighting=True, importance_weighting=True)
