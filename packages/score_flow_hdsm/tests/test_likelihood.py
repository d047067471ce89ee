"""The variational bound, the offset term and the ODE likelihood against the original's."""

import hdsm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.data import get_data_inverse_scaler
from score_core.jax.likelihood import get_likelihood_fn
from score_core.parameterization import get_score_fn
from score_flow_hdsm.bound import get_likelihood_bound_fn, offset_noise, offset_term
from score_flow_hdsm.draws import BatchDraws, SampleDraws
from score_flow_hdsm.sdes import VESDE

GOLDEN = hdsm_cases.load("likelihood.npz")
FACTS = hdsm_cases.load("likelihood.json")
BOUNDS = [case for case in FACTS if case.startswith("bound_")]
ODES = [case for case in FACTS if case.startswith("ode_")]


def setting(case):
    kind = case.split("_")[1]
    facts = FACTS[next(c for c in BOUNDS if c.startswith(f"bound_{kind}_"))]
    config = hdsm_cases.config_of(facts)
    apply, params = hdsm_cases.network_of(config)
    return hdsm_cases.sde_of(config), apply, params, get_data_inverse_scaler(config.data.centered)


def bound_of(case, **more):
    sde, apply, params, inverse_scaler = setting(case)
    dsm, importance, offset = (f"{name}1" in case for name in ("dsm", "iw", "off"))
    bound = get_likelihood_bound_fn(
        sde,
        apply,
        inverse_scaler=inverse_scaler,
        **{
            "dsm": dsm,
            "eps": FACTS[case]["eps"],
            "N": FACTS[case]["N"],
            "importance_weighting": importance,
            "eps_offset": offset,
            "loop": "host",
        }
        | more,
    )
    return bound, params, jnp.asarray(GOLDEN[f"{case}/x"])


@pytest.mark.parametrize("case", BOUNDS)
def test_bound_matches_the_original(case):
    bound, params, x = bound_of(case)
    with jax.threefry_partitionable(False):
        bpd, n = bound(params, x, jax.random.PRNGKey(FACTS[case]["seed"]), BatchDraws(len(x)))
    assert n == FACTS[case]["N"]
    np.testing.assert_allclose(bpd, GOLDEN[f"{case}/bpd"], rtol=1e-4)


@pytest.mark.parametrize("case", [case for case in BOUNDS if case.endswith("off1")])
def test_offset_term_matches_the_original(case):
    sde, apply, params, _ = setting(case)
    x = jnp.asarray(GOLDEN[f"{case}/x"])
    with jax.threefry_partitionable(False):
        noise = offset_noise(BatchDraws(len(x)), jax.random.PRNGKey(7), x.shape[1:])
    np.testing.assert_allclose(noise, GOLDEN[f"{case}/offset_key7_noise"], rtol=1e-5, atol=1e-6)
    score_fn = get_score_fn(sde, lambda x, labels: apply(params, x, labels), True)
    # of size 1 in a difference of terms of size 1000
    np.testing.assert_allclose(
        offset_term(sde, score_fn, x, noise, FACTS[case]["eps"]), GOLDEN[f"{case}/offset_key7"], rtol=1e-4, atol=2e-3
    )


def test_a_scanned_bound_and_streams_of_samples_agree_with_the_rest():
    case = "bound_subvp_dsm1_iw1_off1"
    driven, params, x = bound_of(case)
    scanned = bound_of(case, loop="scan")[0]
    keys = jax.random.split(jax.random.PRNGKey(0), 2)
    one, other = (f(params, x, keys, SampleDraws())[0] for f in (driven, scanned))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    # an image's numbers are its own
    alone = driven(params, x[1:], keys[1:], SampleDraws())[0]
    np.testing.assert_allclose(alone, one[1:], rtol=1e-5)


@pytest.mark.parametrize("case", [case for case in ODES if "vp_Ra" in case or "ve" in case])
def test_ode_likelihood_matches_the_original(case):
    sde, apply, params, inverse_scaler = setting(case)
    likelihood = get_likelihood_fn(sde, apply, inverse_scaler=inverse_scaler, eps=FACTS[case]["eps"], solver="scipy")
    result = likelihood(params, jnp.asarray(GOLDEN[f"{case}/x"]), jnp.asarray(GOLDEN[f"{case}/epsilon"][0]))
    np.testing.assert_allclose(result.bpd, GOLDEN[f"{case}/bpd"][0], atol=2e-3)
    z = GOLDEN[f"{case}/z"][0]
    np.testing.assert_allclose(result.z, z, atol=2e-3 * np.abs(z).max())
    np.testing.assert_allclose(result.nfe, FACTS[case]["nfe"], rtol=0.05)


def test_a_ve_model_has_no_importance_weighted_bound():
    with pytest.raises(ValueError, match=r"eval.bound .* not for VESDE"):
        get_likelihood_bound_fn(VESDE(), None)
