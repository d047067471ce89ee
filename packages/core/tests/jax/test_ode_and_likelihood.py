"""ODE sampler and likelihood in JAX against the original's numbers, SciPy's solver and closed forms."""

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.data.scalers import get_data_inverse_scaler
from score_core.jax.likelihood import get_likelihood_fn
from score_core.jax.noise import probe
from score_core.jax.sampling import get_ode_sampler
from score_core.sdes import VESDE, VPSDE, SubVPSDE

GOLDEN = goldens.load("core", "ode_likelihood.npz")
FACTS = goldens.load("core", "ode_likelihood.json")
# The golden README allows "a few" evaluations: VP's float32 std at small times decides borderline step sizes, in
# SciPy's solver as in ours. Two attempted steps (six evaluations each); none for VE, which is well conditioned.
NFE_SLACK = {"ve": 0, "vp": 12, "subvp": 12}
EPS = {"ve": 1e-5, "vp": 1e-3, "subvp": 1e-3}


def make_sde(name):
    return {"ve": VESDE(0.01, 5.0, 8), "vp": VPSDE(0.1, 4.0, 8), "subvp": SubVPSDE(0.1, 4.0, 8)}[name]


def analytic_model(name):
    """The stand-in networks of the golden files."""

    def apply_fn(params, x, labels):
        label = labels.astype(jnp.float32).reshape(-1, 1, 1, 1)
        if name == "ve":
            return -(x - 0.3) / (1 + 0.1 * label)
        return (x - 0.3) / (1 + 0.002 * label)

    return apply_fn


def inverse_scaler(name):
    return get_data_inverse_scaler(centered=name != "ve")


def close(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("solver", ["device", "scipy"])
@pytest.mark.parametrize("given", [0, 1])
@pytest.mark.parametrize("denoise", [0, 1])
@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_ode_sampler_matches_the_original(name, denoise, given, solver):
    sampler = get_ode_sampler(
        make_sde(name),
        analytic_model(name),
        denoise=bool(denoise),
        eps=EPS[name],
        inverse_scaler=inverse_scaler(name),
        solver=solver,
    )
    z = GOLDEN[f"ode/{name}/zgiven_den{denoise}" if given else f"ode/{name}/z"][0]
    samples = sampler({}, jnp.asarray(z))
    close(samples.images, GOLDEN[f"ode/{name}/out_den{denoise}_given{given}"][0], 1e-4)
    expected = FACTS[f"ode/{name}/den{denoise}_given{given}"]["nfe"]
    assert abs(int(samples.nfe) - expected) <= NFE_SLACK[name]


@pytest.mark.parametrize(("solver", "loop"), [("device", "scan"), ("device", "host"), ("scipy", None)])
@pytest.mark.parametrize("kind", ["Rademacher", "Gaussian"])
@pytest.mark.parametrize("name", ["ve", "vp", "subvp"])
def test_likelihood_matches_the_original(name, kind, solver, loop):
    likelihood = get_likelihood_fn(
        make_sde(name), analytic_model(name), inverse_scaler=inverse_scaler(name), solver=solver, loop=loop
    )
    data = GOLDEN[f"lik/{name}/data"][0]
    result = likelihood({}, jnp.asarray(data), jnp.asarray(GOLDEN[f"lik/{name}/{kind}/epsilon"][0]))
    facts = FACTS[f"lik/{name}/{kind}"]
    close(result.bpd, GOLDEN[f"lik/{name}/{kind}/bpd"][0], 1e-4)
    close(result.z, GOLDEN[f"lik/{name}/{kind}/z"][0], 1e-4)
    assert abs(int(result.nfe) - facts["nfe"]) <= NFE_SLACK[name]
    assert result.offset == facts["offset"]


def test_a_solver_of_another_name_is_refused():
    with pytest.raises(ValueError, match="'device' or 'scipy'"):
        get_likelihood_fn(make_sde("vp"), analytic_model("vp"), solver="euler")
    with pytest.raises(ValueError, match="must be 'RK45'"):
        get_likelihood_fn(make_sde("vp"), analytic_model("vp"), method="DOP853")
    with pytest.raises(ValueError, match="'device' or 'scipy'"):
        get_ode_sampler(make_sde("vp"), analytic_model("vp"), solver="euler")


def test_probes_have_identity_covariance_and_do_not_depend_on_the_batch():
    key = jax.random.PRNGKey(0)
    indices = jnp.arange(4000)
    for kind in ("Rademacher", "gaussian"):
        draws = np.asarray(probe(key, indices, (4000, 3), kind))
        # 6 standard errors of a mean of 4,000 products with variance at most 2: about 1e-8 of failing by chance
        np.testing.assert_allclose(draws.T @ draws / 4000, np.eye(3), atol=6 * np.sqrt(2 / 4000))
        np.testing.assert_array_equal(probe(key, indices[100:103], (3, 3), kind), draws[100:103])
    assert set(np.unique(probe(key, None, (50, 3), "Rademacher"))) == {-1.0, 1.0}
    with pytest.raises(ValueError, match="Rademacher"):
        probe(key, None, (2, 2), "uniform")
