"""Every table of the SDEs against the original's, and the closed forms against quadrature."""

import hdsm_cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import integrate

from score_flow_hdsm.losses import draw_times
from score_flow_hdsm.sdes import (
    VESDE,
    VPSDE,
    LinearVESDE,
    SubVPSDE,
    importance_times,
    prior_entropy,
    require_importance,
)

GOLDEN = hdsm_cases.load("sde_tables.npz")
SDES = {"vp": VPSDE(), "subvp": SubVPSDE(), "ve": VESDE(), "lve": LinearVESDE()}
EPS = ("1e-05", "5e-05", "0.001", "0.01")
LIBRARIES = {"jax": jnp.asarray, "torch": torch.from_numpy, "numpy": np.asarray}


def close(actual, expected, rtol=1e-5, atol=1e-7):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", SDES)
def test_tables_match_the_original(name, library):
    sde, array = SDES[name], LIBRARIES[library]
    x, t = array(GOLDEN["x"]), array(GOLDEN["t"])
    facts = {key.split("/")[1]: value for key, value in GOLDEN.items() if key.startswith(f"{name}/")}
    mean, std = sde.marginal_prob(x, t)
    drift, diffusion = sde.sde(x, t)
    close(mean, facts["mean"])
    close(std, facts["std"])
    close(drift, facts["drift"])
    close(diffusion, facts["diffusion"])
    close(sde.prior_logp(x), facts["prior_logp"])
    close(prior_entropy(sde, x), facts["prior_entropy"])
    step = sde.discretize(x, t)
    close(step[0], facts["disc_f"], atol=1e-6)
    close(step[1], facts["disc_G"])
    for flow in (0, 1):
        reverse = sde.reverse(lambda x, t: -0.3 * x + t[:, None, None, None], probability_flow=bool(flow))
        for method, pair in (("sde", ("drift", "diff")), ("discretize", ("disc_f", "disc_G"))):
            for actual, key in zip(getattr(reverse, method)(x, t), pair, strict=True):
                expected = facts[f"rev{flow}_{key}"]
                close(actual, expected, atol=1e-5 * np.abs(expected).max() + 1e-7)
    if "mean_lowprec" in facts:
        low = type(sde)(high_precision=False)
        mean, std = low.marginal_prob(x, t)
        close(mean, facts["mean_lowprec"])
        # one ulp of 1 in a difference that is 1e-6
        close(std, facts["std_lowprec"], atol=1e-4 if name == "vp" else 2e-7)


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("name", ["vp", "subvp"])
def test_importance_of_times_matches_the_original(name, eps):
    sde, e = SDES[name], float(eps)
    later = GOLDEN["t"] >= e
    expected = GOLDEN[f"{name}/cum_eps{eps}"]
    close(sde.cumulative_weight(jnp.asarray(GOLDEN["t"]), e)[later], expected[later], atol=1e-5)
    close(sde.weight_normalizer(e), GOLDEN[f"{name}/Z_eps{eps}"])
    q = GOLDEN[f"{name}/q_eps{eps}"]
    for array in LIBRARIES.values():
        times = importance_times(lambda t: sde.cumulative_weight(t, e), array(q), e)
        close(times, GOLDEN[f"{name}/t_of_q_eps{eps}"], rtol=1e-4)
    with jax.threefry_partitionable(False):
        drawn = draw_times(sde, jax.random.PRNGKey(5), (64,), e, True)
    close(drawn, GOLDEN[f"{name}/t_seed_eps{eps}"], rtol=1e-4)


@pytest.mark.parametrize("name", ["vp", "subvp"])
def test_the_cumulative_weight_is_the_integral_of_the_likelihood_weight(name):
    sde, eps = SDES[name], 1e-2  # beyond the series, where the closed form is exact

    def weight(t):
        t = np.asarray([t])
        return float((sde.sde(np.zeros((1, 1)), t)[1] ** 2 / sde.marginal_prob(np.zeros((1, 1)), t)[1] ** 2)[0])

    for t in (0.02, 0.1, 0.5, 1.0):
        expected = integrate.quad(weight, eps, t, epsabs=1e-10, epsrel=1e-10)[0]
        close(sde.cumulative_weight(np.asarray([t]), eps)[0], expected, rtol=1e-7)


@pytest.mark.parametrize("name", ["vp", "subvp"])
def test_drawn_times_have_the_density_of_the_weight(name):
    """Kolmogorov-Smirnov distance to W(t) / Z, beyond its 0.1 % quantile 1.95 / sqrt(n) a failure."""
    sde, eps, n = SDES[name], 1e-2, 20000
    times = np.sort(np.asarray(draw_times(sde, jax.random.PRNGKey(0), (n,), eps, True), np.float64))
    cdf = sde.cumulative_weight(times, eps) / sde.weight_normalizer(eps)
    assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() < 1.95 / np.sqrt(n)


def test_the_prior_is_sampled_as_the_original_does():
    for name, sde in SDES.items():
        with jax.threefry_partitionable(False):
            z = jax.random.normal(jax.random.PRNGKey(3), (2, 2, 2, 3))
        close(sde.prior_sampling(z), GOLDEN[f"{name}/prior_sample_seed"], atol=1e-6)


@pytest.mark.parametrize("sde", [VESDE(), LinearVESDE()])
def test_a_ve_sde_has_no_importance_of_times(sde):
    with pytest.raises(ValueError, match=r"eval.bound .* VP and the sub-VP"):
        require_importance(sde, "eval.bound")
