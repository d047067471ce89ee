"""Few-step rules in the JAX loop: which evaluations it makes and counts, where it ends, frames, correctors, streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.correctors import get_corrector
from score_core.jax.noise import LegacyNoise, PerSampleNoise
from score_core.jax.sampling import Trajectory, get_ode_sampler, get_pc_sampler
from score_core.parameterization import get_score_fn
from score_core.predictors import get_predictor
from score_core.random import RecordedNoise
from score_core.sdes import VESDE, VPSDE, SubVPSDE
from score_core.solvers import FEW_STEP_RULES
from score_core.solvers.few_step import few_step_times

SHAPE = (3, 2, 2, 1)
SDES = {"ve": VESDE(0.01, 5.0, 40), "vp": VPSDE(0.1, 20.0, 40), "subvp": SubVPSDE(0.1, 20.0, 40)}
EPS = 1e-2


def model(name, calls=None):
    """The network that knows the data, N(0.3, 0.5^2) in every dimension; its calls are recorded."""

    def apply_fn(params, x, labels):
        if calls is not None:
            calls.append(len(calls))
        labels = labels.reshape(-1, 1, 1, 1)
        if name == "ve":
            return -(x - 0.3) / (0.25 + labels**2)
        alpha, std = SDES[name].marginal_prob(1.0 + 0 * labels, labels / 999)
        return std * (x - 0.3 * alpha) / (0.25 * alpha**2 + std**2)

    return apply_fn


def noises(n, n_steps=1, seed=0):
    rng = np.random.default_rng(seed)
    return RecordedNoise(
        *(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in (SHAPE, (n, n_steps, *SHAPE), (n, *SHAPE)))
    )


def sampler_of(name, rule="ddim", corrector="none", apply_fn=None, **options):
    return get_pc_sampler(
        SDES[name],
        apply_fn or model(name),
        get_predictor(rule),
        get_corrector(corrector),
        **{"snr": 0.1, "eps": EPS, "corrector_norm": "sample", **options},
    )


def by_hand(name, rule, corrector, n, n_steps, denoise, eta, noise):
    """The loop written out in NumPy, float64."""
    sde, n_times = SDES[name], n + (not denoise)
    arrays = (noise.x_T, noise.correctors, noise.predictors)
    x_T, correctors, predictors = (np.asarray(a, np.float64) for a in arrays)
    calls = []
    score_fn = get_score_fn(sde, lambda x, labels: model(name, calls)({}, x, labels), True)
    cls = FEW_STEP_RULES[rule]
    solver = cls(sde, score_fn, eta)
    correct = get_corrector(corrector)(sde, score_fn, 0.1, norm="sample")
    times = few_step_times(sde, n_times, cls.spacing, EPS)
    x = sde.prior_scale * x_T
    memory = solver.init(x)
    for i in range(n):
        t = np.full(len(x), times[i])
        for k in range(n_steps):
            x = correct.step(x, t, correctors[i, k])[0]
        if denoise and i == n - 1:
            return solver.predict(x, t)[1], len(calls)
        x, memory = solver.step(x, t, np.full(len(x), times[i + 1]), memory, predictors[i])
    return x, len(calls)


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize(
    ("name", "rule", "corrector", "n_steps", "eta"),
    [
        ("ve", "ddim", "none", 1, 0.0),
        ("vp", "ddim", "none", 1, 0.8),
        ("subvp", "heun", "none", 1, 0.0),
        ("ve", "heun", "langevin", 2, 0.0),
        ("vp", "dpm_solver_pp_2m", "ald", 1, 0.0),
        ("subvp", "dpm_solver_pp_2m", "none", 1, 0.0),
        ("ve", "exponential_integrator", "none", 1, 0.0),
        ("vp", "exponential_integrator_2", "none", 1, 0.0),
        ("subvp", "exponential_integrator_2", "langevin", 1, 0.0),
    ],
)
def test_the_loop_is_the_one_written_by_hand_and_counts_its_evaluations(name, rule, corrector, n_steps, eta, denoise):
    n = 6
    noise = noises(n, n_steps)
    expected, nfe = by_hand(name, rule, corrector, n, n_steps, denoise, eta, noise)
    options = {"n_steps": n_steps, "denoise": denoise, "steps": n, "eta": eta}
    samples = jax.jit(sampler_of(name, rule, corrector, **options))({}, noise)
    np.testing.assert_allclose(samples.images, expected, rtol=0, atol=3e-4 * np.abs(expected).max())
    assert int(samples.nfe) == nfe


def test_steps_default_to_the_models_noise_levels_and_one_step_denoises_the_prior():
    noise = noises(8)
    assert int(sampler_of("vp")({}, noise).nfe) == SDES["vp"].N
    one = sampler_of("vp", steps=1)({}, noise)
    score_fn = get_score_fn(SDES["vp"], lambda x, labels: model("vp")({}, x, labels), True)
    expected = FEW_STEP_RULES["ddim"](SDES["vp"], score_fn).predict(noise.x_T, jnp.ones(len(noise.x_T)))[1]
    np.testing.assert_allclose(one.images, expected, rtol=1e-5)
    assert int(one.nfe) == 1


@pytest.mark.parametrize("rule", ["heun", "dpm_solver_pp_2m", "exponential_integrator_2"])
@pytest.mark.parametrize("name", SDES)
def test_many_second_order_steps_end_where_the_adaptive_ode_sampler_does(name, rule):
    noise = noises(120)
    few = jax.jit(sampler_of(name, rule, steps=120, denoise=False))({}, noise)
    ode = get_ode_sampler(SDES[name], model(name), eps=EPS, rtol=1e-6, atol=1e-6)
    adaptive = ode({}, SDES[name].prior_sampling(noise.x_T)).images
    np.testing.assert_allclose(few.images, adaptive, rtol=0, atol=3e-3)


@pytest.mark.parametrize("denoise", [True, False])
@pytest.mark.parametrize("n_frames", [3, 9])
def test_a_trajectory_ends_with_the_sample_and_does_not_change_it(n_frames, denoise):
    options = {"rule": "dpm_solver_pp_2m", "steps": 5, "denoise": denoise, "inverse_scaler": lambda x: (x + 1) / 2}
    plain = jax.jit(sampler_of("vp", **options))({}, noises(5))
    samples = jax.jit(sampler_of("vp", trajectory=Trajectory(n_frames), **options))({}, noises(5))
    assert samples.trajectory.shape == (n_frames, *SHAPE)
    np.testing.assert_array_equal(samples.trajectory[-1], samples.images)
    np.testing.assert_allclose(samples.images, plain.images, rtol=1e-5, atol=1e-6)
    assert np.abs(samples.trajectory[0] - samples.images).max() > 1e-3


@pytest.mark.parametrize(("rule", "eta"), [("ddim", 1.0), ("dpm_solver_pp_2m", 0.0)])
def test_a_sample_does_not_depend_on_the_batch_it_is_drawn_in(rule, eta):
    draw = jax.jit(sampler_of("subvp", rule, "langevin", steps=4, eta=eta))
    key = jax.random.PRNGKey(3)
    whole = draw({}, PerSampleNoise(key, jnp.arange(6), SHAPE[1:])).images
    part = draw({}, PerSampleNoise(key, jnp.array([4, 1]), SHAPE[1:])).images
    np.testing.assert_allclose(part, whole[jnp.array([4, 1])], rtol=1e-5, atol=1e-5)
    assert np.abs(whole[4] - whole[1]).max() > 1e-2


def test_batch_wise_noise_and_stochastic_ddim_reach_the_datas_distribution():
    """Mean and variance of 40,000 numbers within five standard errors; a step's own error is below half of one."""
    draw = jax.jit(sampler_of("vp", steps=1000, eta=1.0, spacing="log_snr", denoise=False))
    x = np.asarray(draw({}, LegacyNoise(jax.random.PRNGKey(0), (10_000, 2, 2, 1))).images)
    alpha, std = SDES["vp"].marginal_prob(np.ones(1), np.full(1, EPS))
    scale = np.hypot(0.5 * alpha, std).item()
    assert abs(x.mean() - 0.3 * alpha.item()) < 5 * scale / np.sqrt(x.size)
    assert abs(x.var() / scale**2 - 1) < 5 * np.sqrt(2 / x.size)


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("ddim", {"continuous": False}, r"DDIM needs a network trained in continuous time.*ancestral_sampling"),
        ("ddim", {"steps": -1}, r"sampling\.steps is -1"),
        ("ddim", {"spacing": "cosine"}, r"sampling\.spacing is 'cosine'"),
        ("ddim", {"eta": 0.5, "probability_flow": True}, r"asks for the ODE, .*sampling\.eta is 0\.5"),
        ("heun", {"eta": 0.5}, r"Heun .* adds no noise"),
        ("euler_maruyama", {"steps": 5}, r"belong to few-step rules .*EulerMaruyamaPredictor takes model\.num_scales"),
        ("reverse_diffusion", {"spacing": "edm"}, "belong to few-step rules"),
        ("ancestral_sampling", {"eta": 1.0}, "belong to few-step rules"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_is_traced(rule, options, message):
    with pytest.raises(ValueError, match=message):
        sampler_of("vp", rule, **options)
