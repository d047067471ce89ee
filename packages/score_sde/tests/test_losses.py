"""Every loss with real networks and its gradients against the original's, drawn from the stored seed."""

import experiments
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

GOLDEN = goldens.load("score_sde", "losses.npz")
FACTS = goldens.load("score_sde", "losses.json")


@pytest.mark.parametrize("case", FACTS)
def test_loss_and_gradients_match_the_original(case):
    facts = FACTS[case]
    experiment = experiments.golden_experiment(facts)
    params = experiments.filled_params(experiment)

    # Not jitted: the cases share their operations, each compiled once, while a jitted loss is compiled for every case.
    with jax.threefry_partitionable(False):
        key, x = jax.random.PRNGKey(facts["prng_seed"]), jnp.asarray(GOLDEN[f"{case}/x"])
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(experiment.loss_fn(p, key, x, True)))(params)
    np.testing.assert_allclose(loss, GOLDEN[f"{case}/loss"], rtol=1e-5)
    flat = goldens.flatten(grads)
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(g, np.float64))) for g in flat.values()))
    np.testing.assert_allclose(norm, GOLDEN[f"{case}/grad_norm"], rtol=1e-4)
    for name in facts["grad_keys"]:
        expected = GOLDEN[f"{case}/grad:{name.replace('/', '.')}"]
        np.testing.assert_allclose(flat[name], expected, rtol=0, atol=1e-4 * np.abs(expected).max() + 1e-7 * norm)
    sums = np.array([[np.sum(flat[name]), np.sum(np.abs(flat[name]))] for name in sorted(flat)])
    expected = GOLDEN[f"{case}/grad_sums"]
    # Both sums are measured by the sum of sizes, since a signed sum may cancel; what is analytically zero is rounding
    # noise of a size that the norm sets.
    slack = 1e-4 * expected[:, 1] + 1e-5 * norm
    np.testing.assert_array_less(np.abs(sums - expected).max(axis=1), slack)


def test_discrete_levels_refuse_likelihood_weighting_and_the_sub_vp_sde():
    from score_core.jax.training import get_loss_fn
    from score_core.sdes import VPSDE, SubVPSDE

    with pytest.raises(ValueError, match="likelihood_weighting needs"):
        get_loss_fn(VPSDE(), None, continuous=False, reduce_mean=True, likelihood_weighting=True)
    with pytest.raises(ValueError, match="SubVPSDE"):
        get_loss_fn(SubVPSDE(), None, continuous=False, reduce_mean=True)
