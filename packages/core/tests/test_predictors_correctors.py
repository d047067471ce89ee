"""Predictors and correctors: every run of the reference replayed from its noises, and what a rule must obey."""

import re

import goldens
import numpy as np
import pytest

from score_core.arrays import per_sample
from score_core.correctors import (
    CORRECTORS,
    AnnealedLangevinDynamics,
    Corrector,
    LangevinCorrector,
    NoneCorrector,
    get_corrector,
    register_corrector,
)
from score_core.noise_scales import time_grid
from score_core.parameterization import get_score_fn
from score_core.predictors import (
    PREDICTORS,
    AncestralSamplingPredictor,
    EulerMaruyamaPredictor,
    NonePredictor,
    Predictor,
    ReverseDiffusionPredictor,
    get_predictor,
    register_predictor,
)
from score_core.sdes import VESDE, VPSDE, SubVPSDE

GOLDEN = goldens.load("core", "pc_sampler.npz")
FACTS = goldens.load("core", "pc_sampler.json")
CASES = FACTS["cases"]
N, SNR, SHAPE = FACTS["N"], FACTS["snr"], tuple(FACTS["shape"])
SDES = {"ve": VESDE(0.01, 5.0, N), "vp": VPSDE(0.1, 4.0, N), "subvp": SubVPSDE(0.1, 4.0, N)}
EPS = {"ve": 1e-5, "vp": 1e-3, "subvp": 1e-3}
FAILED = [case for case, facts in CASES.items() if "error" in facts]


class Case:
    """The settings in a golden case's name, such as ``ve-ancestral_sampling-langevin-cont1-pf0-denoise1-n1``."""

    def __init__(self, name):
        match = re.fullmatch(r"(\w+)-(\w+)-(\w+)-cont(\d)-pf(\d)-denoise(\d)-n(\d)", name)
        assert match is not None
        self.kind, self.predictor, self.corrector = match.groups()[:3]
        self.continuous, self.probability_flow, self.denoise = (flag == "1" for flag in match.groups()[3:6])
        self.n_steps = int(match[7])
        self.noise = {key: GOLDEN[f"noise_n{self.n_steps}/{key}"] for key in ("prior", "corrector", "predictor")}


def analytic_model(kind):
    if kind == "ve":
        # The product in x's precision: discrete labels are integers.
        return lambda x, labels: -(x - 0.3) / (1 + 0.1 * (per_sample(labels, x) + 0 * x))
    return lambda x, labels: (x - 0.3) / per_sample(1 + 0.002 * labels, x)


def rules(case):
    sde = SDES[case.kind]
    score_fn = get_score_fn(sde, analytic_model(case.kind), case.continuous)
    predictor = get_predictor(case.predictor)(sde, score_fn, case.probability_flow)
    return predictor, get_corrector(case.corrector)(sde, score_fn, SNR)


def inverse_scaler(kind, x):
    return x if kind == "ve" else (x + 1) / 2


def replay(case, asarray, to_numpy):
    """The predictor-corrector loop in its plainest form, fed with the stored noises."""
    predictor, corrector = rules(case)
    x = predictor.sde.prior_sampling(asarray(case.noise["prior"]))
    x_mean = x
    for i, t in enumerate(time_grid(N, eps=EPS[case.kind])):
        vec_t = asarray(np.full(SHAPE[0], t, np.float32))
        for k in range(case.n_steps):
            x, x_mean = corrector.step(x, vec_t, asarray(case.noise["corrector"][i, k]))
        x, x_mean = predictor.update(x, vec_t, asarray(case.noise["predictor"][i]))
    return inverse_scaler(case.kind, to_numpy(x_mean if case.denoise else x))


def test_the_golden_file_holds_the_expected_cases():
    assert len(CASES) - len(FAILED) == len([key for key in GOLDEN if key.startswith("out/")])
    assert {Case(name).kind for name in CASES} == set(SDES)
    assert {Case(name).predictor for name in CASES} == set(PREDICTORS)
    assert {Case(name).corrector for name in CASES} == set(CORRECTORS)
    for name, facts in CASES.items():
        if "error" not in facts:
            assert facts["eps"] == EPS[Case(name).kind]
            assert facts["inverse_scaler"] == ("identity" if Case(name).kind == "ve" else "(x+1)/2")


@pytest.mark.parametrize("name", [name for name in CASES if name not in FAILED])
def test_replays_the_reference_sampler(eager_framework, name):
    # NumPy's float32 exponential is a rounding off at VP's t = 1e-3, which the standard deviation magnifies to 6e-4.
    asarray = np.float64 if eager_framework.name == "numpy" else eager_framework.asarray
    actual = replay(Case(name), asarray, eager_framework.to_numpy)
    expected = GOLDEN[f"out/{name}"]
    assert actual.dtype == (np.float64 if eager_framework.name == "numpy" else np.float32)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", [name for name in FAILED if "ancestral_sampling" in name])
def test_ancestral_sampling_refuses_what_the_reference_refused(name):
    case = Case(name)
    error = NotImplementedError if case.kind == "subvp" else ValueError
    with pytest.raises(error, match=r"Ancestral sampling .*sampling\.predictor to reverse_diffusion"):
        rules(case)


def sub_vp_in_float64(case):
    """Sub-VP sampling with Langevin correctors written out in float64; alpha is VP's 1 - beta_i."""
    x, noise = case.noise["prior"].astype(np.float64), case.noise
    x_mean = x
    for i, t in enumerate(np.linspace(1, 1e-3, N)):
        beta, exponent = 0.1 + 3.9 * t, -0.1 * t - 0.5 * 3.9 * t**2
        std, g = 1 - np.exp(exponent), np.sqrt(beta * (1 - np.exp(2 * exponent)))
        alpha = 1 - np.linspace(0.1 / N, 4.0 / N, N)[int(t * (N - 1))]

        def score(x, t=t, std=std):
            return -(x - 0.3) / (1 + 0.002 * 999 * t) / std

        for k in range(case.n_steps):
            z, s = noise["corrector"][i, k], score(x)
            norms = [np.linalg.norm(v.reshape(len(v), -1), axis=1).mean() for v in (z, s)]
            ratio = std if case.corrector == "ald" else norms[0] / norms[1]
            step = 2 * alpha * (SNR * ratio) ** 2
            x = x + step * s + np.sqrt(2 * step) * z
        x_mean = x
        if case.predictor != "none":
            x_mean = x - (-0.5 * beta * x - g**2 * score(x)) / N
            x = x_mean + g * noise["predictor"][i] / np.sqrt(N)
    return inverse_scaler("subvp", x_mean if case.denoise else x)


@pytest.mark.parametrize("name", [name for name in FAILED if "ancestral_sampling" not in name])
def test_langevin_on_sub_vp_uses_vps_alphas_where_the_reference_crashed(eager_framework, name):
    case = Case(name)
    assert case.kind == "subvp"
    assert "alphas" in CASES[name]["error"]
    actual = replay(case, eager_framework.asarray, eager_framework.to_numpy)
    expected = sub_vp_in_float64(case)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=3e-4 * np.abs(expected).max())


RULES = [
    (kind, rule)
    for kind in SDES
    for rule in (*PREDICTORS.values(), *CORRECTORS.values())
    if not (kind == "subvp" and rule is AncestralSamplingPredictor)
]


def rule_function(kind, rule, **options):
    score_fn = get_score_fn(SDES[kind], analytic_model(kind), True)
    if issubclass(rule, Predictor):
        return rule(SDES[kind], score_fn, **options).update
    return rule(SDES[kind], score_fn, SNR, **options).step


def inputs(batch=4, shape=(2, 3), seed=0):
    rng = np.random.default_rng(seed)
    x, noise = rng.standard_normal((2, batch, *shape)).astype(np.float32)
    return x, np.linspace(0.2, 1.0, batch, dtype=np.float32), noise


@pytest.mark.parametrize(("kind", "rule"), RULES)
def test_a_rule_gives_the_same_step_in_every_framework_and_when_traced(framework, kind, rule):
    step = rule_function(kind, rule)
    for actual, expected in zip(framework.run(step, *inputs()), step(*inputs()), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "rule"), RULES)
def test_the_mean_is_the_step_without_its_noise(kind, rule):
    x, t, noise = inputs()
    step = rule_function(kind, rule)
    x_new, x_mean = step(x, t, noise)
    if not rule.stochastic:
        assert step(x, t, None) == (x, x)
    elif issubclass(rule, Predictor):
        silent, silent_mean = step(x, t, np.zeros_like(noise))
        np.testing.assert_array_equal(silent, silent_mean)
        np.testing.assert_array_equal(silent_mean, x_mean)
        residual = (x_new - x_mean) / noise
        np.testing.assert_allclose(residual, residual[:, :1, :1] * np.ones_like(x), rtol=1e-3)
        assert np.all(residual > 0)
    else:
        opposite, opposite_mean = step(x, t, -noise)
        np.testing.assert_array_equal(opposite_mean, x_mean)
        np.testing.assert_allclose(x_new + opposite, 2 * x_mean, atol=1e-5)


@pytest.mark.parametrize("predictor", [EulerMaruyamaPredictor, ReverseDiffusionPredictor])
@pytest.mark.parametrize("kind", SDES)
def test_probability_flow_ignores_the_noise(kind, predictor):
    x, t, noise = inputs()
    x_new, x_mean = rule_function(kind, predictor, probability_flow=True)(x, t, noise)
    np.testing.assert_array_equal(x_new, x_mean)


def test_ancestral_vp_is_the_ddpm_step():
    x, t, noise = (a.astype(np.float64) for a in inputs(batch=3))
    score = 0.5 - x
    beta = 1 - VPSDE(0.1, 4.0, 8).alphas[(t * 7).astype(int)][:, None, None]
    predictor = AncestralSamplingPredictor(SDES["vp"], lambda x, t: 0.5 - x)
    expected = (x + beta * score) / np.sqrt(1 - beta)
    np.testing.assert_allclose(predictor.update(x, t, noise)[1], expected, rtol=1e-6)
    np.testing.assert_allclose(predictor.update(x, t, noise)[0], expected + np.sqrt(beta) * noise, rtol=1e-6)


def test_the_last_ancestral_ve_step_adds_no_noise(framework):
    update = rule_function("ve", AncestralSamplingPredictor)
    x, _, noise = inputs()
    x_new, x_mean = framework.run(update, x, np.full(4, 1e-5, np.float32), noise)
    np.testing.assert_array_equal(x_new, x_mean)


@pytest.mark.parametrize("kind", SDES)
def test_langevin_with_norms_of_each_sample_does_not_depend_on_the_batch(eager_framework, kind):
    x, t, noise = inputs()
    step = rule_function(kind, LangevinCorrector, norm="sample")
    whole = eager_framework.run(step, x, t, noise)
    part = eager_framework.run(step, x[1:3], t[1:3], noise[1:3])
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[1:3], b, rtol=1e-6, atol=1e-7)
    batch_part = rule_function(kind, LangevinCorrector)(x[1:3], t[1:3], noise[1:3])
    assert np.abs(batch_part[0] - part[0]).max() > 1e-3


def test_langevin_reaches_the_signal_to_noise_ratio_it_is_given():
    # |step * score| / |sqrt(2 step) noise| = snr * sqrt(alpha), by the definition of the step size.
    x, t, noise = inputs(batch=1)
    x_new, x_mean = rule_function("ve", LangevinCorrector)(x, t, noise)
    ratio = np.linalg.norm(x_mean - x) / np.linalg.norm(x_new - x_mean)
    np.testing.assert_allclose(ratio, SNR, rtol=1e-5)


def test_a_mean_over_devices_gives_the_step_of_the_whole_batch():
    import jax

    x, t, noise = inputs()
    expected = rule_function("vp", LangevinCorrector)(x, t, noise)

    def mean_over_devices(norms):
        return jax.lax.pmean(norms.mean(), "devices")

    step = rule_function("vp", LangevinCorrector, batch_mean=mean_over_devices)
    shards = [a.reshape(2, 2, *a.shape[1:]) for a in (x, t, noise)]
    for actual, whole in zip(jax.vmap(step, axis_name="devices")(*shards), expected, strict=True):
        np.testing.assert_allclose(np.asarray(actual).reshape(whole.shape), whole, rtol=1e-5, atol=1e-6)


def test_langevin_leaves_a_gaussian_invariant():
    # Many small annealed steps on N(0, std^2) forget the start.
    rng = np.random.default_rng(0)
    sde = VESDE(0.1, 1.0, 10)
    corrector = AnnealedLangevinDynamics(sde, lambda x, t: -x / 0.25, 0.2)
    x, t = np.full((4000, 1), 3.0), np.full(4000, 0.69897)  # sigma(t) = 0.5
    for _ in range(200):
        x, _ = corrector.step(x, t, rng.standard_normal(x.shape))
    np.testing.assert_allclose([x.mean(), x.std()], [0.0, 0.5], atol=0.03)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"'batch' or 'sample', got 'device'"):
        LangevinCorrector(SDES["ve"], lambda x, t: x, SNR, norm="device")  # pyright: ignore[reportArgumentType]


def test_names_ignore_case_and_unknown_ones_list_the_choices():
    assert get_predictor("Euler_Maruyama") is EulerMaruyamaPredictor
    assert get_predictor("NONE") is NonePredictor
    assert get_corrector("ALD") is AnnealedLangevinDynamics
    assert get_corrector("None") is NoneCorrector
    with pytest.raises(ValueError, match=r"predictor 'leapfrog'.*ancestral_sampling, ddim, .*none, reverse_diff"):
        get_predictor("leapfrog")
    with pytest.raises(ValueError, match=r"corrector 'hmc'.*ald, langevin, none"):
        get_corrector("hmc")


def test_users_register_rules_by_decorator(monkeypatch):
    monkeypatch.setattr("score_core.predictors.PREDICTORS", dict(PREDICTORS))
    monkeypatch.setattr("score_core.correctors.CORRECTORS", dict(CORRECTORS))

    @register_predictor(name="My_Predictor")
    class First(NonePredictor):
        pass

    @register_predictor
    class SecondPredictor(NonePredictor):
        pass

    @register_corrector
    class MyCorrector(Corrector):
        pass

    assert get_predictor("my_predictor") is First
    assert get_predictor("SecondPredictor") is SecondPredictor
    assert get_corrector("mycorrector") is MyCorrector
    with pytest.raises(ValueError, match=r"predictor named 'none' is already registered.*register_predictor\(name="):
        register_predictor(name="None")(First)
    with pytest.raises(ValueError, match=r"corrector named 'ald' is already registered"):
        register_corrector(MyCorrector, name="ald")


@pytest.mark.parametrize("name", ["langevin", "ald"])
@pytest.mark.parametrize("sde", [VPSDE(N=10), SubVPSDE(N=10)], ids=["vp", "subvp"])
def test_langevin_step_sizes_that_do_not_exist_are_refused(sde, name):
    """alpha_i = 1 - beta_i would be negative, and every sample NaN."""
    with pytest.raises(ValueError, match=r"more steps than beta_max.*model\.num_scales"):
        get_corrector(name)(sde, lambda x, t: -x, 0.1)
    get_corrector(name)(VESDE(N=10), lambda x, t: -x, 0.1)
