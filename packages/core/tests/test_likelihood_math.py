"""The pieces of a likelihood, joined here by SciPy's solver to reproduce the reference's bits/dim."""

import goldens
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import norm

from score_core.arrays import per_sample
from score_core.likelihood import LikelihoodResult, bits_per_dim, bpd_offset, hutchinson, probability_flow_drift
from score_core.parameterization import get_score_fn
from score_core.sdes import VESDE, VPSDE, SubVPSDE

GOLDEN = goldens.load("core", "ode_likelihood.npz")
FACTS = goldens.load("core", "ode_likelihood.json")
SDES = {"ve": VESDE(0.01, 5.0, 8), "vp": VPSDE(0.1, 4.0, 8), "subvp": SubVPSDE(0.1, 4.0, 8)}
SCALERS = {"ve": lambda x: x, "vp": lambda x: (x + 1) / 2, "subvp": lambda x: (x + 1) / 2}


def analytic_drift(kind):
    def model(x, labels):
        if kind == "ve":
            return -(x - 0.3) / per_sample(1 + 0.1 * labels, x)
        return (x - 0.3) / per_sample(1 + 0.002 * labels, x)

    return probability_flow_drift(SDES[kind], get_score_fn(SDES[kind], model, continuous=True))


def log_likelihood(drift, data, epsilon, eps=1e-5):
    """Latent code and integrated divergence; the drifts here are affine in x, so the product is a difference."""
    batch = len(data)

    def rate(t, state):
        x, vec_t = state[: data.size].reshape(data.shape), np.full(batch, t)
        dx = drift(x, vec_t)
        divergence = hutchinson(epsilon, drift(x + epsilon, vec_t) - dx)
        return np.concatenate([dx.ravel(), divergence])

    start = np.concatenate([data.ravel(), np.zeros(batch)])
    state = solve_ivp(rate, (eps, 1.0), start, method="RK45", rtol=1e-5, atol=1e-5).y[:, -1]
    return state[: data.size].reshape(data.shape), state[data.size :]


@pytest.mark.parametrize("hutchinson_type", ["Rademacher", "Gaussian"])
@pytest.mark.parametrize("kind", SDES)
def test_bits_per_dim_of_the_reference(kind, hutchinson_type):
    key = f"lik/{kind}/{hutchinson_type}"
    data, epsilon = GOLDEN[f"lik/{kind}/data"][0].astype(np.float64), GOLDEN[f"{key}/epsilon"][0].astype(np.float64)
    z, delta = log_likelihood(analytic_drift(kind), data, epsilon)
    offset = bpd_offset(SCALERS[kind])
    assert offset == FACTS[key]["offset"]
    bpd = bits_per_dim(SDES[kind].prior_logp(z), delta, data[0].size, offset)
    np.testing.assert_allclose(z, GOLDEN[f"{key}/z"][0], rtol=0, atol=1e-4 * np.abs(z).max())
    np.testing.assert_allclose(bpd, GOLDEN[f"{key}/bpd"][0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["vp", "subvp"])
def test_gaussian_data_keep_their_log_density(kind):
    # With N(0, s(t)^2) marginals known, the likelihood of the data is known.
    sde = SDES[kind]

    def score(x, t):
        mean_factor, std = sde.marginal_prob(np.ones((len(t), 1)), t)
        return -x / per_sample(0.25 * mean_factor[:, 0] ** 2 + std**2, x)

    rng = np.random.default_rng(0)
    data, epsilon = 0.5 * rng.standard_normal((3, 4)), rng.choice([-1.0, 1.0], (3, 4))
    z, delta = log_likelihood(probability_flow_drift(sde, score), data, epsilon)
    variance = (lambda m, s: 0.25 * m**2 + s**2)(*sde.marginal_prob(np.ones((1, 1)), np.ones(1)))
    end = norm.logpdf(z, scale=np.sqrt(variance)).sum(axis=1)
    np.testing.assert_allclose(end + delta, norm.logpdf(data, scale=0.5).sum(axis=1), rtol=1e-3)


def test_a_standard_normal_is_a_fixed_point_of_vp(framework):
    drift = probability_flow_drift(VPSDE(), lambda x, t: -x)
    x = np.random.default_rng(0).standard_normal((3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(framework.run(drift, x, np.array([0.1, 0.5, 1.0], np.float32)), 0, atol=1e-5)


def test_drift_is_the_forward_drift_minus_half_the_weighted_score(framework):
    sde, x, t = SDES["subvp"], np.ones((2, 3), np.float32), np.array([0.3, 0.7], np.float32)
    actual = framework.run(probability_flow_drift(sde, lambda x, t: 2.0 - x), x, t)
    f, g = sde.sde(x, t)
    np.testing.assert_allclose(actual, f - 0.5 * (g**2)[:, None] * (2.0 - x), rtol=1e-5)


def test_hutchinson_with_signs_is_exact_for_a_diagonal_jacobian(framework):
    diagonal = np.array([[[1.0, -2.0], [3.0, 0.5]], [[0.0, 1.0], [1.0, 1.0]]], np.float32)
    epsilon = np.array([[[1, -1], [-1, 1]], [[-1, -1], [1, 1]]], np.float32)
    np.testing.assert_allclose(framework.run(hutchinson, epsilon, epsilon * diagonal), [2.5, 3.0], rtol=1e-6)


def test_hutchinson_is_unbiased_for_a_full_jacobian():
    jacobian = np.random.default_rng(0).standard_normal((4, 4))
    epsilon = np.random.default_rng(1).standard_normal((200_000, 4))
    estimates = hutchinson(epsilon, epsilon @ jacobian)
    assert abs(estimates.mean() - np.trace(jacobian)) < 4 * estimates.std() / np.sqrt(len(estimates))


@pytest.mark.parametrize("library", ["jax", "torch"])
@pytest.mark.parametrize("kind", SDES)
def test_divergence_through_automatic_differentiation(kind, library):
    drift = analytic_drift(kind)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, 3, 2)).astype(np.float32), np.array([0.2, 0.9], np.float32)
    epsilon = rng.choice(np.array([-1, 1], np.float32), x.shape)
    if library == "jax":
        import jax

        (vjp,) = jax.vjp(lambda x: drift(x, jax.numpy.asarray(t)), jax.numpy.asarray(x))[1](jax.numpy.asarray(epsilon))
        estimate = hutchinson(jax.numpy.asarray(epsilon), vjp)
    else:
        import torch

        leaf = torch.tensor(x, requires_grad=True)
        value = drift(leaf, torch.tensor(t))
        (vjp,) = torch.autograd.grad(value, leaf, torch.tensor(epsilon))
        estimate = hutchinson(torch.tensor(epsilon), vjp)
    x, t = x.astype(np.float64), t.astype(np.float64)
    exact = (drift(x + 1, t) - drift(x, t)).sum(axis=(1, 2))  # affine and diagonal
    np.testing.assert_allclose(np.asarray(estimate), exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("scaler", "offset"), [(lambda x: x, 8.0), (lambda x: (x + 1) / 2, 7.0), (lambda x: -4 * x, 10)]
)
def test_offset_of_affine_scalers(scaler, offset):
    assert bpd_offset(scaler) == offset


@pytest.mark.parametrize("scaler", [lambda x: x**3, lambda x: 0 * x])
def test_offset_of_other_maps_is_refused(scaler):
    with pytest.raises(ValueError, match="must be affine and not constant; it maps 0, 1, 2 to"):
        bpd_offset(scaler)


def test_eight_bits_of_uniform_noise_cost_eight_bits(framework):
    # Data uniform on [0, 1) have log-density 0: every dimension of the 8-bit data costs 8 bits.
    zero = np.zeros(2, np.float32)
    np.testing.assert_array_equal(framework.run(lambda a, b: bits_per_dim(a, b, 12, 8.0), zero, zero), 8.0)
    nats = np.array([-12 * np.log(2), 24 * np.log(2)], np.float32)
    np.testing.assert_allclose(
        framework.run(lambda a, b: bits_per_dim(a, b, 12, 7.0), nats, zero), [8.0, 5.0], rtol=1e-6
    )


def test_a_result_is_read_only():
    result = LikelihoodResult(bpd=np.ones(1), nats=np.ones(1), z=np.ones((1, 2)), nfe=8, offset=7.0)
    with pytest.raises(AttributeError):
        result.nfe = 9  # pyright: ignore[reportAttributeAccessIssue]
