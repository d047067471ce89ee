"""Objectives against float64 formulas and the cases whose value is known."""

import numpy as np
import pytest

from score_core.arrays import batch_mul, per_sample
from score_core.objectives import ddpm_loss, sample_times, sde_loss, smld_loss
from score_core.sdes import VESDE, VPSDE, SubVPSDE

B, SHAPE = 5, (3, 2, 4)
RNG = np.random.default_rng(0)
X0, NOISE = RNG.standard_normal((2, B, *SHAPE)).astype(np.float32)
T = np.array([0.05, 0.2, 0.5, 0.8, 1.0], np.float32)
LABELS = np.array([0, 3, 17, 40, 49], np.int32)
SDES = {"ve": VESDE(0.01, 5.0, 50), "vp": VPSDE(0.1, 20.0, 50), "subvp": SubVPSDE(0.1, 20.0, 50)}


def model(x, t):
    """A smooth stand-in for a network, the same in every library."""
    return 0.3 * x - 0.1 * x**2 + per_sample(t, x) * 0.02


def column(a):
    return np.asarray(a, np.float64).reshape(-1, 1, 1, 1)


def reduce(squares, reduce_mean):
    squares = squares.reshape(B, -1)
    return squares.mean(axis=1) if reduce_mean else 0.5 * squares.sum(axis=1)


def kernel(kind):
    """Mean factor, standard deviation and squared diffusion of the SDEs above at T, in float64."""
    t = T.astype(np.float64)
    if kind == "ve":
        sigma = 0.01 * 500**t
        return np.ones(B), sigma, sigma**2 * 2 * np.log(500)
    log_mean = -0.25 * t**2 * 19.9 - 0.05 * t
    beta, variance = 0.1 + 19.9 * t, 1 - np.exp(2 * log_mean)
    if kind == "vp":
        return np.exp(log_mean), np.sqrt(variance), beta
    return np.exp(log_mean), variance, beta * (1 - np.exp(4 * log_mean))


@pytest.mark.parametrize("reduce_mean", [False, True])
@pytest.mark.parametrize("likelihood_weighting", [False, True])
@pytest.mark.parametrize("kind", SDES)
def test_sde_loss_in_float64(framework, kind, likelihood_weighting, reduce_mean):
    def loss(x0, t, noise):
        options = {"likelihood_weighting": likelihood_weighting, "reduce_mean": reduce_mean}
        return sde_loss(SDES[kind], model, x0, t, noise, **options)

    factor, std, g_squared = (column(a) for a in kernel(kind))
    score = model(factor * X0 + std * NOISE, T.astype(np.float64))
    residual = (score + NOISE / std) * np.sqrt(g_squared) if likelihood_weighting else score * std + NOISE
    np.testing.assert_allclose(framework.run(loss, X0, T, NOISE), reduce(residual**2, reduce_mean), rtol=1e-5)


@pytest.mark.parametrize("reduce_mean", [False, True])
def test_smld_loss_in_float64(framework, reduce_mean):
    def loss(x0, labels, noise):
        return smld_loss(SDES["ve"], model, x0, labels, noise, reduce_mean=reduce_mean)

    sigma = column(np.geomspace(5.0, 0.01, 50)[LABELS])
    residual = sigma * (model(X0 + sigma * NOISE, LABELS) + NOISE / sigma)
    np.testing.assert_allclose(framework.run(loss, X0, LABELS, NOISE), reduce(residual**2, reduce_mean), rtol=1e-5)


@pytest.mark.parametrize("reduce_mean", [False, True])
def test_ddpm_loss_in_float64(framework, reduce_mean):
    def loss(x0, labels, noise):
        return ddpm_loss(SDES["vp"], model, x0, labels, noise, reduce_mean=reduce_mean)

    alpha_bar = column(np.cumprod(1 - np.linspace(0.1 / 50, 20.0 / 50, 50))[LABELS])
    residual = model(np.sqrt(alpha_bar) * X0 + np.sqrt(1 - alpha_bar) * NOISE, LABELS) - NOISE
    np.testing.assert_allclose(framework.run(loss, X0, LABELS, NOISE), reduce(residual**2, reduce_mean), rtol=1e-5)


@pytest.mark.parametrize("likelihood_weighting", [False, True])
@pytest.mark.parametrize("kind", SDES)
def test_the_score_of_the_transition_kernel_has_no_loss(framework, kind, likelihood_weighting):
    sde = SDES[kind]

    def loss(x0, t, noise):
        def kernel_score(x, t):
            mean, std = sde.marginal_prob(x0, t)
            return -(x - mean) / per_sample(std**2, x)

        return sde_loss(sde, kernel_score, x0, t, noise, likelihood_weighting=likelihood_weighting)

    zero_score = sde_loss(sde, lambda x, t: 0 * x, X0, T, NOISE, likelihood_weighting=likelihood_weighting)
    assert np.all(framework.run(loss, X0, T, NOISE) <= 1e-6 * zero_score)


def test_a_perfect_noise_network_has_no_ddpm_loss():
    sde = SDES["vp"]

    def perfect(x, labels):
        scale, std = sde.sqrt_alphas_cumprod[labels], sde.sqrt_1m_alphas_cumprod[labels]
        return (x - batch_mul(scale, X0)) / per_sample(std, x)

    assert np.all(ddpm_loss(sde, perfect, X0, LABELS, NOISE) < 1e-6)


def test_a_perfect_score_network_has_no_smld_loss_and_label_0_is_the_largest_level():
    sde = SDES["ve"]

    def perfect(x, labels):
        return -(x - X0) / per_sample(sde.discrete_sigmas[::-1][labels] ** 2, x)

    # (x_0 + sigma z) - x_0 loses digits of z at the smallest level.
    assert np.all(smld_loss(sde, perfect, X0, LABELS, NOISE) < 1e-6)


@pytest.mark.parametrize("kind", SDES)
def test_likelihood_weighting_multiplies_by_g_squared_over_the_variance(kind):
    sde = SDES[kind]
    plain = sde_loss(sde, model, X0, T, NOISE)
    weighted = sde_loss(sde, model, X0, T, NOISE, likelihood_weighting=True)
    std, g = sde.marginal_prob(X0, T)[1], sde.sde(X0, T)[1]
    np.testing.assert_allclose(weighted, plain * g**2 / std**2, rtol=1e-5)


def test_the_mean_has_no_factor_one_half():
    dims = np.prod(SHAPE)
    for loss in (
        lambda **options: sde_loss(SDES["vp"], model, X0, T, NOISE, **options),
        lambda **options: smld_loss(SDES["ve"], model, X0, LABELS, NOISE, **options),
        lambda **options: ddpm_loss(SDES["vp"], model, X0, LABELS, NOISE, **options),
    ):
        np.testing.assert_allclose(loss(reduce_mean=True), loss(reduce_mean=False) * 2 / dims, rtol=1e-6)


def test_the_network_sees_the_labels_it_was_given():
    seen = []

    def record(x, labels):
        seen.append(labels)
        return x

    smld_loss(SDES["ve"], record, X0, LABELS, NOISE)
    ddpm_loss(SDES["vp"], record, X0, LABELS, NOISE)
    for labels in seen:
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, LABELS)


def test_training_times_cover_the_interval(framework):
    u = np.array([0.0, 0.25, 0.5, 1 - 2**-24], np.float32)
    times = framework.run(sample_times, u)
    np.testing.assert_allclose(times, 1e-5 + u * (1 - 1e-5), rtol=1e-6)
    assert times[0] == np.float32(1e-5)
    np.testing.assert_allclose(framework.run(lambda u: sample_times(u, 0.1, 2.0), u), 0.1 + 1.9 * u, rtol=1e-6)


def test_training_times_are_those_of_jax_random_uniform():
    import jax

    key = jax.random.PRNGKey(3)
    expected = jax.random.uniform(key, (1000,), minval=1e-5, maxval=1.0)
    actual = jax.jit(sample_times)(jax.random.uniform(key, (1000,)))
    np.testing.assert_array_equal(np.asarray(actual), np.asarray(expected))
