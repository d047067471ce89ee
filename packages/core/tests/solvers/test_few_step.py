"""Few-step rules against truth: exact solutions, orders of convergence, closed forms, the same in every framework."""

from collections import ChainMap
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from score_core.likelihood import probability_flow_drift
from score_core.predictors import PREDICTORS, Predictor, get_predictor, register_predictor
from score_core.sdes import SDE, VESDE, VPSDE, SubVPSDE
from score_core.solvers import FEW_STEP_RULES
from score_core.solvers.ddim import DDIM
from score_core.solvers.few_step import SPACINGS, FewStepRule, few_step_times, kernel


class OrnsteinUhlenbeck(SDE):
    """A user's SDE, written for images [B, H, W, C] only."""

    def sde(self, x, t):
        return -2.0 * x, np.sqrt(4.0) * np.ones_like(t)

    def marginal_prob(self, x, t):
        return np.exp(-2.0 * t)[:, None, None, None] * x, np.sqrt(1 - np.exp(-4.0 * t))


SDES = {
    "ve": VESDE(0.01, 50.0, 10),
    "vp": VPSDE(0.1, 20.0, 10),
    "subvp": SubVPSDE(0.1, 20.0, 10),
    "own": OrnsteinUhlenbeck(10),
}
SHAPE = (6, 1, 2, 2)
MEANS, SCALES, WEIGHTS = np.array([-0.8, 0.1, 0.9]), np.array([0.4, 0.3, 0.5]), np.array([0.5, 0.2, 0.3])


def mixture_score(sde):
    """The score of a mixture of three Gaussians in each dimension."""

    def score_fn(x, t):
        alpha, sigma = (a[..., None] for a in kernel(sde, x, t))
        variance = (alpha * SCALES) ** 2 + sigma**2
        centred = x[..., None] - alpha * MEANS
        logits = np.log(WEIGHTS) - 0.5 * np.log(variance) - centred**2 / (2 * variance)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return -(weights / weights.sum(-1, keepdims=True) * centred / variance).sum(-1)

    return score_fn


def gaussian_score(sde, mean, scale):
    def score_fn(x, t):
        alpha, sigma = kernel(sde, x, t)
        return -(x - alpha * mean) / ((alpha * scale) ** 2 + sigma**2)

    return score_fn


def solve(rule, x, times):
    memory = rule.init(x)
    for t, t_next in pairwise(times):
        x, memory = rule.step(x, np.full(len(x), t), np.full(len(x), t_next), memory, None)
    return x


def start(sde, seed=0):
    return sde.prior_scale * np.random.default_rng(seed).standard_normal(SHAPE)


@pytest.mark.parametrize("name", SDES)
def test_alpha_and_sigma_alone_give_the_probability_flow(name):
    """dx/dt = (alpha' / alpha) x + alpha rho' eps is f - g^2 score / 2, also where sigma alone does not give g."""
    sde, x, h = SDES[name], start(SDES[name]), 1e-5
    t = np.linspace(0.1, 0.95, len(x))
    score_fn = mixture_score(sde)
    (alpha, sigma), (alpha_1, sigma_1), (alpha_0, sigma_0) = (kernel(sde, x, t + d) for d in (0, h, -h))
    d_alpha, d_rho = (alpha_1 - alpha_0) / (2 * h), (sigma_1 / alpha_1 - sigma_0 / alpha_0) / (2 * h)
    expected = d_alpha / alpha * x - alpha * d_rho * sigma * score_fn(x, t)
    np.testing.assert_allclose(probability_flow_drift(sde, score_fn)(x, t), expected, rtol=2e-6, atol=1e-6)


ORDERS = {
    "ddim": 1,
    "exponential_integrator": 1,
    "exponential_integrator_2": 2,
    "dpm_solver_pp_2m": 2,
    "heun": 2,
}


@pytest.fixture(scope="module")
def references():
    """The end of the probability flow of the mixture, by DOP853 on the SDE's own drift and diffusion."""
    ends = {}
    for name, sde in SDES.items():
        drift = probability_flow_drift(sde, mixture_score(sde))

        def derivative(t, y, drift=drift):
            return drift(y.reshape(SHAPE), np.full(SHAPE[0], t)).ravel()

        path = solve_ivp(derivative, (1.0, 0.02), start(sde).ravel(), method="DOP853", rtol=1e-11, atol=1e-11)
        ends[name] = path.y[:, -1].reshape(SHAPE)
    return ends


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("rule", FEW_STEP_RULES)
def test_the_error_falls_with_the_order_of_the_rule(rule, name, references):
    """Slope of log error against log step over three doublings, within 0.05 of 1 or 0.15 of 2."""
    sde, cls, counts = SDES[name], FEW_STEP_RULES[rule], np.array([80, 160, 320, 640])
    errors = []
    for n in counts:
        times = few_step_times(sde, n + 1, cls.spacing, 0.02)
        end = solve(cls(sde, mixture_score(sde)), start(sde), times)
        errors.append(np.sqrt(np.mean((end - references[name]) ** 2)))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - ORDERS[rule]) < (0.05 if ORDERS[rule] == 1 else 0.15), (slope, errors)
    assert errors[-1] < (0.02 if ORDERS[rule] == 1 else 2e-4)


@pytest.mark.parametrize("name", SDES)
@pytest.mark.parametrize("rule", FEW_STEP_RULES)
def test_every_rule_is_exact_for_a_single_data_point(rule, name):
    """eps is constant along a path, so four uneven steps end at alpha_s m + sigma_s eps, and D is the point."""
    sde, cls = SDES[name], FEW_STEP_RULES[rule]
    solver = cls(sde, gaussian_score(sde, 0.7, 0.0))
    x, t = start(sde), np.ones(len(start(sde)))
    (alpha, sigma), (alpha_s, sigma_s) = (kernel(sde, x, tau) for tau in (t, 0.01 * t))
    expected = alpha_s * 0.7 + sigma_s * (x - alpha * 0.7) / sigma
    end = solve(solver, x, [1.0, 0.9, 0.3, 0.2, 0.01])
    np.testing.assert_allclose(end, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solver.predict(end, 0.01 * t)[1], np.full(SHAPE, 0.7), rtol=1e-9)


@pytest.mark.parametrize("name", SDES)
def test_the_exponential_integrator_is_ddim_and_so_is_every_first_step_of_a_two_step_rule(name):
    sde, score_fn, x = SDES[name], mixture_score(SDES[name]), start(SDES[name])
    one = [solve(FEW_STEP_RULES[rule](sde, score_fn), x, [0.9, 0.4]) for rule in ORDERS if rule != "heun"]
    for other in one[1:]:
        np.testing.assert_allclose(other, one[0], rtol=1e-9, atol=1e-10)
    many = [solve(FEW_STEP_RULES[rule](sde, score_fn), x, [1, 0.8, 0.3, 0.1]) for rule in ORDERS]
    np.testing.assert_allclose(many[1], many[0], rtol=1e-9, atol=1e-10)
    assert min(np.abs(other - many[0]).max() for other in many[2:]) > 1e-3


@pytest.mark.parametrize("name", SDES)
def test_a_ddim_step_of_gaussian_data_has_its_closed_form(name):
    """Data N(0, s^2): x_s = x (alpha_s alpha s^2 + sigma_s sigma) / (alpha^2 s^2 + sigma^2)."""
    sde, x, s = SDES[name], start(SDES[name]), 0.6
    (alpha, sigma), (alpha_s, sigma_s) = (kernel(sde, x, np.full(len(x), t)) for t in (0.8, 0.3))
    expected = x * (alpha_s * alpha * s**2 + sigma_s * sigma) / (alpha**2 * s**2 + sigma**2)
    end = solve(DDIM(sde, gaussian_score(sde, 0.0, s)), x, [0.8, 0.3])
    np.testing.assert_allclose(end, expected, rtol=1e-12)


@pytest.mark.parametrize("name", SDES)
def test_stochastic_ddim_keeps_the_marginal_and_ends_in_the_posterior(name):
    """For one data point, every eta gives variance sigma_s^2; eta = 1 gives mean and variance of p(x_s | x_t, x_0)."""
    sde, point = SDES[name], 0.7
    t, t_next = np.full(1, 0.8), np.full(1, 0.3)
    x, zero, one = np.full((1, 1, 1, 1), 1.3), np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    (alpha, sigma), (alpha_s, sigma_s) = kernel(sde, x, t), kernel(sde, x, t_next)
    for eta in (0.3, 0.7, 1.0):
        rule = DDIM(sde, gaussian_score(sde, point, 0.0), eta)
        assert rule.stochastic
        mean = rule.step(x, t, t_next, (), zero)[0]
        std = rule.step(x, t, t_next, (), one)[0] - mean
        of_noise = (rule.step(x + 1, t, t_next, (), zero)[0] - mean) * sigma
        np.testing.assert_allclose(of_noise**2 + std**2, sigma_s**2, rtol=1e-9)
    # Bayes: x_t = (alpha / alpha_s) x_s + noise, x_s ~ N(alpha_s x_0, sigma_s^2)
    ratio = alpha / alpha_s
    precision = 1 / sigma_s**2 + ratio**2 / (sigma**2 - ratio**2 * sigma_s**2)
    posterior = alpha_s * point / sigma_s**2 + ratio * x / (sigma**2 - ratio**2 * sigma_s**2)
    np.testing.assert_allclose(std**2, 1 / precision, rtol=1e-9)
    np.testing.assert_allclose(mean, posterior / precision, rtol=1e-9)


def two_steps(rules, sde):
    """A function of host arrays that takes two steps with each of the rules and returns states and memories."""

    def steps(x, noise, *times):
        ends = []
        for rule in rules:
            solver = DDIM(sde, score, 0.5) if rule == "stochastic" else FEW_STEP_RULES[rule](sde, score)
            y, memory = solver.step(x, *times[:2], solver.init(x), noise)
            y, memory = solver.step(y, *times[1:], memory, noise)
            ends += [y, *memory]
        return tuple(ends)

    def score(x, t):
        return 0.3 * x * t.reshape(-1, 1, 1)

    return steps


def check_steps(framework, rules, name):
    x, noise = np.random.default_rng(0).standard_normal((2, 4, 2, 3)).astype(np.float32)
    times = [np.linspace(a, b, 4, dtype=np.float32) for a, b in ((0.6, 1.0), (0.5, 0.8), (0.3, 0.7))]
    steps = two_steps(rules, SDES[name])
    actual = framework.run(steps, x, noise, *times)
    expected = steps(*(np.asarray(a, np.float64) for a in (x, noise, *times)))
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("name", ["ve", "subvp"])
@pytest.mark.parametrize("rule", [*FEW_STEP_RULES, "stochastic"])
def test_steps_are_the_same_in_every_library(eager_framework, rule, name):
    check_steps(eager_framework, [rule], name)


def test_steps_are_the_same_when_traced(framework):
    check_steps(framework, ["dpm_solver_pp_2m", "exponential_integrator_2", "stochastic"], "vp")


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", SDES)
def test_times_run_from_T_to_eps_in_equal_steps_of_what_they_promise(name, spacing):
    sde, eps = SDES[name], SDES[name].sampling_eps
    times = few_step_times(sde, 9, spacing, eps)
    alpha, sigma = (np.ravel(a) for a in kernel(sde, np.zeros((9, 1, 1, 1)), times))
    levels = {"uniform": times, "log_snr": np.log(alpha / sigma), "edm": (sigma / alpha) ** (1 / 7)}[spacing]
    assert (times[0], times[-1]) == (sde.T, eps)
    assert np.all(np.diff(times) < 0)
    np.testing.assert_allclose(np.diff(levels), np.diff(levels).mean(), rtol=1e-8)
    assert few_step_times(sde, 1, spacing, eps).tolist() == [sde.T]


class Shifted(OrnsteinUhlenbeck):
    def marginal_prob(self, x, t):
        mean, std = super().marginal_prob(x, t)
        return mean + 0.1, std


class Constant(OrnsteinUhlenbeck):
    def marginal_prob(self, x, t):
        return x, np.ones_like(t)


@pytest.mark.parametrize(
    ("sde", "n", "spacing", "message"),
    [
        (SDES["vp"], 5, "karras", r"sampling\.spacing is 'karras'.*uniform, log_snr, edm"),
        (SDES["vp"], 0, "edm", "needs at least 1"),
        (Shifted(5), 5, "uniform", r"multiple of x_0; that of Shifted"),
        (Constant(5), 5, "uniform", r"grow with time; Constant.*sampling\.method to ode"),
    ],
)
def test_times_refuse_what_the_rules_cannot_solve(sde, n, spacing, message):
    with pytest.raises(ValueError, match=message):
        few_step_times(sde, n, spacing, 1e-3)


def test_rules_without_a_stochastic_form_refuse_eta():
    for name, cls in FEW_STEP_RULES.items():
        with pytest.raises(ValueError, match=r"must lie between 0 .* and 1"):
            cls(SDES["vp"], lambda x, t: x, 1.5)
        if name != "ddim":
            with pytest.raises(
                ValueError, match=r"adds no noise, but sampling\.eta is 0\.5.*sampling\.predictor to ddim"
            ):
                cls(SDES["vp"], lambda x, t: x, 0.5)


def test_configurations_name_rules_like_predictors(monkeypatch):
    monkeypatch.setattr("score_core.predictors.PREDICTORS", dict(PREDICTORS))
    assert set(FEW_STEP_RULES).isdisjoint(PREDICTORS)
    assert all(get_predictor(name.upper()) is cls for name, cls in FEW_STEP_RULES.items())
    assert all(
        issubclass(cls, Predictor) != issubclass(cls, FewStepRule)
        for cls in ChainMap(PREDICTORS, FEW_STEP_RULES).values()
    )
    with pytest.raises(ValueError, match=r"Unknown predictor 'dpm'.*ddim, dpm_solver_pp_2m, euler_maruyama"):
        get_predictor("dpm")

    @register_predictor(name="my_rule")
    class Mine(DDIM):
        pass

    assert get_predictor("my_rule") is Mine
    assert "my_rule" not in FEW_STEP_RULES
    with pytest.raises(ValueError, match="'heun' is already registered"):
        register_predictor(Mine, name="heun")
