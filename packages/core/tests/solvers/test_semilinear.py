"""Likelihoods on the probability-flow ODE freed of its linear part, against closed forms, in both wings."""

import itertools
from typing import Any

import numpy as np
import pytest

from score_core.arrays import namespace, per_sample, sum_dims
from score_core.likelihood import probability_flow_drift
from score_core.sdes import SDE, VESDE, VPSDE, SubVPSDE
from score_core.solvers import rk45
from score_core.solvers.semilinear import SemilinearFlow

SDES = {"ve": VESDE(0.01, 50.0, 1000), "vp": VPSDE(0.1, 20.0, 1000), "subvp": SubVPSDE(0.1, 20.0, 1000)}
MOST_EVALUATIONS = {"ve": 79, "vp": 91, "subvp": 109}
"""What the mixture below takes, and a step of six more; RK45 in time takes 110, 62 and 80 for a tolerance of 1e-5."""
MEANS = np.array([[-0.6, 0.1], [0.4, 0.5], [0.3, -0.7]])
SCALES = np.array([0.3, 0.1, 0.5])


def marginal(sde, t):
    """Factor of the means and variances ``[3]`` of the mixture's components at the float time ``t``."""
    alpha, std = (np.ravel(a)[0] for a in sde.marginal_prob(np.ones((1, 1)), np.array([t])))
    return alpha, alpha**2 * SCALES**2 + std**2


def log_density(x, factor, variances):
    """Of the equally weighted mixture in two dimensions, ``[B]`` in nats, float64."""
    squares = ((np.asarray(x, np.float64).reshape(-1, 1, 2) - factor * MEANS) ** 2).sum(-1)
    return np.logaddexp.reduce(-squares / (2 * variances) - np.log(2 * np.pi * variances), axis=1) - np.log(3)


def mixture_network(sde):
    """The exact network of the mixture, for arrays ``[B, 1, 1, 2]`` or ``[B, 2, 1, 1]`` of either library."""

    def apply_fn(params: Any, x: Any, labels: Any) -> Any:
        xp = namespace(x)
        t = labels / 999 if sde.predicts == "noise" else xp.log(labels / sde.sigma_min) / np.log(5000.0)
        alpha, std = sde.marginal_prob(xp.ones_like(x), t)
        std = per_sample(std, x)
        logits, pulls = [], []
        for mean, scale in zip(MEANS, SCALES, strict=True):
            at = xp.reshape(xp.asarray(mean.astype(np.float32)), x.shape[1:])
            variance = alpha**2 * float(scale) ** 2 + std**2
            pulls.append(-(x - alpha * at) / variance)
            logits.append(sum_dims(-((x - alpha * at) ** 2) / (2 * variance) - xp.log(variance) / 2))
        stacked = xp.stack(logits)
        weights = xp.exp(stacked - xp.max(stacked, axis=0))
        weights = weights / xp.sum(weights, axis=0)
        score: Any = sum(per_sample(weights[k], x) * pull for k, pull in enumerate(pulls))
        return score if sde.predicts == "score" else -score * std

    return apply_fn


def jax_likelihood(sde, data, probe, **options):
    import jax.numpy as jnp

    from score_core.jax.likelihood import get_likelihood_fn

    shape = (-1, 1, 1, 2)
    estimate = get_likelihood_fn(sde, mixture_network(sde), **options)
    return estimate({}, jnp.asarray(data, jnp.float32).reshape(shape), jnp.asarray(probe, jnp.float32).reshape(shape))


def torch_likelihood(sde, data, probe, **options):
    import torch

    from score_core.torch.likelihood import get_likelihood_fn

    shape = (-1, 2, 1, 1)
    estimate = get_likelihood_fn(sde, mixture_network(sde), **options)
    return estimate(None, *(torch.tensor(a, dtype=torch.float32).reshape(shape) for a in (data, probe)))


WINGS: dict[str, Any] = {"jax": jax_likelihood, "torch": torch_likelihood}


def draws(n):
    random = np.random.default_rng(0)
    component = np.arange(n) % 3
    return MEANS[component] + SCALES[component, None] * random.standard_normal((n, 2))


@pytest.mark.parametrize("wing", WINGS)
@pytest.mark.parametrize("name", SDES)
def test_every_images_bits_equal_the_closed_form_of_a_mixture(name, wing):
    """Images to 0.005 bits/dim of the flow's own end points, the mean to 0.001; few evaluations.

    In two dimensions the mean over the probes (1, 1) and (1, -1) is the trace itself. The flow leads from eps to T, so
    an image's value is log p_eps(x) - log p_T(z) + log prior(z).
    """
    sde, data = SDES[name], draws(48)
    results = [
        WINGS[wing](sde, data, np.tile(probe, (48, 1)), solver="exponential_rk45") for probe in ((1, 1), (1, -1))
    ]
    bits = np.mean([np.asarray(result.bpd) for result in results], axis=0)
    z = np.asarray(results[0].z)
    nats = log_density(data, *marginal(sde, 1e-5)) - log_density(z, *marginal(sde, 1.0)) + sde.prior_logp(z)
    exact = -nats / (2 * np.log(2)) + 8
    assert np.abs(bits - exact).max() < 5e-3
    assert abs((bits - exact).mean()) < 1e-3
    # and the data's own density, from which eps and the prior are a little away
    truth = -log_density(data, 1.0, SCALES**2) / (2 * np.log(2)) + 8
    assert abs((bits - truth).mean()) < 3e-3
    np.testing.assert_allclose(results[0].nats, -(results[0].bpd - 8) * 2 * np.log(2), rtol=1e-5, atol=1e-4)
    for result in results:
        assert int(result.nfe) <= MOST_EVALUATIONS[name]
        assert int(result.nfe) % 6 == 1  # the first derivative, and six a step


@pytest.mark.parametrize("name", SDES)
def test_equals_rk45_in_time_image_by_image(name):
    """With one probe, off-diagonal Jacobians included."""
    sde, data = SDES[name], draws(24)
    signs = np.random.default_rng(1).choice([-1.0, 1.0], data.shape)
    reference = torch_likelihood(sde, data, signs)
    found = torch_likelihood(sde, data, signs, solver="exponential_rk45", tolerance=1e-5)
    np.testing.assert_allclose(found.bpd, reference.bpd, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.z, reference.z, rtol=0, atol=1e-3 * float(reference.z.abs().max()))


def test_evaluations_are_counted_honestly():
    import torch

    from score_core.torch.likelihood import get_likelihood_fn

    calls, network = [], mixture_network(SDES["vp"])

    def counted(params: Any, x: Any, labels: Any) -> Any:
        calls.append(1)
        return network(params, x, labels)

    data = torch.tensor(draws(4), dtype=torch.float32).reshape(-1, 2, 1, 1)
    for solver in ("device", "exponential_rk45"):
        calls.clear()
        result = get_likelihood_fn(SDES["vp"], counted, solver=solver)(None, data, torch.ones_like(data))
        assert result.nfe == len(calls)


@pytest.mark.parametrize("name", SDES)
def test_the_drift_is_that_of_the_ode_in_time(framework, name):
    """dv/du = d(x / s)/dt dt/du, with the derivatives of s and of t(u) by differences in float64."""
    sde = SDES[name]
    flow = SemilinearFlow(sde, 1e-5, ndim=2)
    u = np.linspace(flow.start, flow.end, 9)[1:-1]
    v = np.random.default_rng(0).standard_normal((7, 3))

    def score(x, t):
        return namespace(x).sin(x) - x * per_sample(t, x)

    found = framework.run(flow.drift(score), v.astype(np.float32), u.astype(np.float32))

    def scale(t):
        alpha, sigma = (np.ravel(a) for a in sde.marginal_prob(np.ones((len(t), 1)), t))
        return np.hypot(alpha, sigma / flow.data_scale)

    def u_of(t):
        alpha, sigma = (np.ravel(a) for a in sde.marginal_prob(np.ones((len(t), 1)), t))
        return np.arcsinh(sigma / alpha / (0.1 * flow.data_scale))

    t = flow.time(u)
    h = 1e-5 * t
    s, ds, du = scale(t), (scale(t + h) - scale(t - h)) / (2 * h), (u_of(t + h) - u_of(t - h)) / (2 * h)
    x = v * s[:, None]
    dx = probability_flow_drift(sde, score)(x, t)
    expected = (dx - (ds / s)[:, None] * x) / (s * du)[:, None]
    np.testing.assert_allclose(u_of(t), u, rtol=2e-5)
    # sub-VP's and VP's float32 std near the data is off by per cents, but the noise prediction takes it out again
    np.testing.assert_allclose(found, expected, rtol=3e-3, atol=3e-3 * np.abs(expected).max())


@pytest.mark.parametrize("name", SDES)
def test_steps_are_of_order_five(name):
    """N(0, 0.02^2) with n and 4 n equal steps of u: the error falls by 2^10 or nearly."""
    sde = SDES[name]
    flow = SemilinearFlow(sde, 1e-3, ndim=2)

    def score(x, t):
        alpha, std = sde.marginal_prob(np.ones_like(x), t)
        return -x / (0.0004 * alpha**2 + std[:, None] ** 2)

    drift = flow.drift(score)

    def fun(u, y):
        return (drift(y[0], np.full(1, u)),)

    def end(n):
        u = np.linspace(flow.start, flow.end, n + 1)
        y = (flow.state(np.ones((1, 1))),)
        for left, right in itertools.pairwise(u):
            state = rk45.start(fun, np.asarray(left), y, right, 1.0, 1.0, first_step=1e9)
            y = rk45.attempt(fun, state, right, 1.0, 1.0, lambda *_: np.asarray(0.5)).y
        return flow.latent(y[0]).item()

    def std(t):
        alpha, sigma = (np.ravel(a)[0] for a in sde.marginal_prob(np.ones((1, 1)), np.array([t])))
        return np.sqrt(0.0004 * alpha**2 + sigma**2)

    exact = std(1.0) / std(1e-3)
    errors = [abs(end(n) / exact - 1) for n in (6, 24)]
    assert errors[0] / errors[1] > 2**8, errors  # that of order four; the first of the two is not yet asymptotic
    assert errors[1] < 5e-5


@pytest.mark.parametrize("name", SDES)
def test_data_of_the_typical_scale_take_the_fewest_steps(name):
    """N(0, c^2) does not move in v at all, whatever the SDE: the error is zero and steps grow as they may."""
    sde = SDES[name]
    flow = SemilinearFlow(sde, 1e-5, ndim=2)

    def score(x, t):
        alpha, std = sde.marginal_prob(np.ones_like(x), t)
        return -x / (flow.data_scale**2 * alpha**2 + std[:, None] ** 2)

    v = np.random.default_rng(0).standard_normal((4, 3))
    for u in np.linspace(flow.start, flow.end, 5):
        np.testing.assert_allclose(flow.drift(score)(v, np.full(4, u)), 0, atol=1e-4)


class _Shifted(SDE):
    """A kernel whose mean is no multiple of the data."""

    def sde(self, x, t):
        return -x + 1, namespace(t).ones_like(t)

    def marginal_prob(self, x, t):
        xp = namespace(x)
        return per_sample(xp.exp(-t), x) * (x - 1) + 1, xp.sqrt(1 - xp.exp(-2 * t))


def test_what_does_not_fit_is_refused():
    from score_core.torch.likelihood import get_likelihood_fn

    network = mixture_network(SDES["vp"])
    with pytest.raises(ValueError, match=r"'exponential_rk45' needs a kernel .* which _Shifted does not have"):
        get_likelihood_fn(_Shifted(10), network, solver="exponential_rk45")
    with pytest.raises(ValueError, match="tolerance is 0; it must be positive"):
        get_likelihood_fn(SDES["vp"], network, solver="exponential_rk45", tolerance=0)
    with pytest.raises(ValueError, match="must be 'RK45'"):
        get_likelihood_fn(SDES["vp"], network, solver="exponential_rk45", method="RK23")
    with pytest.raises(ValueError, match="or 'exponential_rk45'"):
        get_likelihood_fn(SDES["vp"], network, solver="euler")


@pytest.mark.parametrize("name", SDES)
def test_gaussian_probes_have_the_same_mean_and_another_spread(name):
    """One point, 400 probes. The linear part no longer multiplies |probe|^2: for VE that is most of the variance."""
    point = np.tile([[0.1, 0.2]], (400, 1))
    probes = np.random.default_rng(2).standard_normal(point.shape)
    time, flow = (
        np.asarray(torch_likelihood(SDES[name], point, probes, **options).nats, np.float64)
        for options in ({}, {"solver": "exponential_rk45", "tolerance": 1e-4})
    )
    error = np.hypot(time.std(), flow.std()) / np.sqrt(len(point))
    assert abs(time.mean() - flow.mean()) < 4 * error
    assert flow.std() < (0.6 if name == "ve" else 1.5) * time.std(), (flow.std(), time.std())
