"""Truth beyond parity: for Gaussian data the exact score is known, and so is what samplers and likelihood return.

x_0 ~ N(m, s^2) per dimension gives x_t ~ N(a m, a^2 s^2 + std^2) with the kernel's a(t), std(t).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from score_core.correctors import get_corrector
from score_core.data.scalers import get_data_inverse_scaler
from score_core.jax.likelihood import get_likelihood_fn
from score_core.jax.noise import PerSampleNoise, probe
from score_core.jax.sampling import get_ode_sampler, get_pc_sampler
from score_core.predictors import get_predictor
from score_core.sdes import VESDE, VPSDE, SubVPSDE

SHAPE = (2, 2, 3)
MEAN = jnp.linspace(-0.4, 0.5, 12).reshape(SHAPE)
SCALE = jnp.linspace(0.2, 0.7, 12).reshape(SHAPE)
SDES = {"ve": VESDE(0.01, 50.0, 1000), "vp": VPSDE(0.1, 20.0, 1000), "subvp": SubVPSDE(0.1, 20.0, 1000)}


def exact_model(name):
    """The network output whose score is the exact one (see ``score_core.parameterization``)."""
    sde = SDES[name]

    def apply_fn(params, x, labels):
        column = labels.reshape(-1, 1, 1, 1)
        if name == "ve":
            return -(x - MEAN) / (SCALE**2 + column**2)
        t = labels / 999
        a_mean, std = sde.marginal_prob(jnp.broadcast_to(MEAN, x.shape), t)
        a = jnp.exp(sde.log_mean_coefficient(t)).reshape(-1, 1, 1, 1)
        std = std.reshape(-1, 1, 1, 1)
        return std * (x - a_mean) / (a**2 * SCALE**2 + std**2)

    return apply_fn


def marginal(name, t):
    """Mean and variance of x_t, float64."""
    sde = SDES[name]
    mean, std = sde.marginal_prob(np.asarray(MEAN, np.float64)[None], np.array([t]))
    factor = 1.0 if name == "ve" else np.exp(sde.log_mean_coefficient(t))
    return mean[0], factor**2 * np.asarray(SCALE, np.float64) ** 2 + std[0] ** 2


@pytest.mark.parametrize("name", SDES)
def test_bits_per_dim_equal_the_closed_form(name):
    """Every image to 1e-3 bits/dim against the flow's own end points, and the mean against the data's density.

    With a diagonal Jacobian the Rademacher estimate has no variance. The flow runs from eps to T, so an image's value
    is log p_eps(x) + log prior(z) - log p_T(z) with the known map x -> z; the two approximations (eps > 0, p_T is
    nearly the prior) are part of the method and shift single images by up to 6e-3 and the mean by 2e-4.
    """
    n, eps = 64, 1e-5
    data = MEAN + SCALE * jax.random.normal(jax.random.PRNGKey(0), (n, *SHAPE))
    probes = probe(jax.random.PRNGKey(1), jnp.arange(n), data.shape, "Rademacher")
    centered = name != "ve"
    sde = SDES[name]
    likelihood = get_likelihood_fn(sde, exact_model(name), inverse_scaler=get_data_inverse_scaler(centered), eps=eps)
    result = likelihood({}, data, probes)
    x = np.asarray(data, np.float64)
    (mean_0, var_0), (mean_1, var_1) = marginal(name, eps), marginal(name, 1.0)
    z = mean_1 + np.sqrt(var_1 / var_0) * (x - mean_0)

    def bits(logp):
        return -logp.sum((1, 2, 3)) / np.log(2) / 12 + (7 if centered else 8)

    flow = stats.norm.logpdf(x, mean_0, np.sqrt(var_0)) - stats.norm.logpdf(z, mean_1, np.sqrt(var_1))
    flow += stats.norm.logpdf(z, 0, sde.prior_scale)
    np.testing.assert_allclose(result.bpd, bits(flow), rtol=0, atol=1e-3)
    np.testing.assert_allclose(result.z, z, rtol=0, atol=2e-4 * np.abs(z).max())
    np.testing.assert_allclose(np.mean(result.bpd), bits(stats.norm.logpdf(x, MEAN, SCALE)).mean(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", SDES)
def test_probability_flow_is_invertible_to_the_solvers_tolerance(name):
    data = MEAN + SCALE * jax.random.normal(jax.random.PRNGKey(2), (4, *SHAPE))
    eps = 1e-3
    likelihood = get_likelihood_fn(SDES[name], exact_model(name), eps=eps)
    z = likelihood({}, data, jnp.ones_like(data)).z
    decoded = get_ode_sampler(SDES[name], exact_model(name), eps=eps)({}, z).images
    np.testing.assert_allclose(decoded, data, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "predictor", "corrector", "snr"),
    [
        ("ve", "reverse_diffusion", "langevin", 0.16),
        ("ve", "ancestral_sampling", "none", 0.0),
        ("vp", "euler_maruyama", "none", 0.0),
        ("vp", "ancestral_sampling", "ald", 0.01),
        ("subvp", "reverse_diffusion", "none", 0.0),
        ("subvp", "euler_maruyama", "langevin", 0.01),
    ],
)
def test_samples_have_the_right_mean_and_covariance(name, predictor, corrector, snr):
    """Chi-square tests of the whitened samples, each two-sided at 1e-5: 18 tests, below 2e-4 of failing by chance."""
    n, dims = 2000, 12
    sampler = get_pc_sampler(
        SDES[name],
        exact_model(name),
        get_predictor(predictor),
        get_corrector(corrector),
        snr=snr,
        eps=1e-5 if name == "ve" else 1e-3,
    )
    images = jax.jit(sampler)({}, PerSampleNoise(jax.random.PRNGKey(4), jnp.arange(n), SHAPE)).images
    white = np.asarray((images - MEAN) / SCALE, np.float64).reshape(n, dims)
    covariance = np.cov(white.T)
    off_diagonal = covariance[np.triu_indices(dims, 1)]
    for statistic, dof in [
        (n * (white.mean(0) ** 2).sum(), dims),
        ((n - 1) * np.diag(covariance).sum(), (n - 1) * dims),
        (n * (off_diagonal**2).sum(), off_diagonal.size),
    ]:
        tail = min(stats.chi2.cdf(statistic, dof), stats.chi2.sf(statistic, dof))
        assert 2 * tail > 1e-5, f"statistic {statistic:.1f} with {dof} degrees of freedom"
