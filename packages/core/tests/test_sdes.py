"""SDEs against the reference's numbers and against the equations they must satisfy."""

from typing import Any

import goldens
import numpy as np
import pytest
from scipy.stats import norm

from score_core import sdes
from score_core.arrays import batch_mul, per_sample
from score_core.noise_scales import time_grid
from score_core.sdes import SDE, VESDE, VPSDE, SubVPSDE, get_sde, register_sde

GOLDEN = goldens.load("core", "sde.npz")
FACTS = goldens.load("core", "sde.json")
X, T = GOLDEN["x"], GOLDEN["t"]
TABLES = ("discrete_betas", "alphas", "alphas_cumprod", "sqrt_alphas_cumprod", "sqrt_1m_alphas_cumprod")
ULP = float(np.finfo(np.float32).eps)
SDES = {
    "vp": VPSDE(),
    "vp_10_steps": VPSDE(0.1, 5.0, 10),
    "subvp": SubVPSDE(),
    "ve": VESDE(),
    "ve_ffhq": VESDE(0.01, 1348.0, 2000),
}
EVERY_SDE = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)


def golden_sde(facts):
    if facts["class"] == "VESDE":
        return VESDE(facts["sigma_min"], facts["sigma_max"], facts["N"])
    sde = {"VPSDE": VPSDE, "subVPSDE": SubVPSDE}[facts["class"]]
    return sde(facts["beta_0"], facts["beta_1"], facts["N"])


def golden(name):
    return {key.split("/")[1]: value for key, value in GOLDEN.items() if key.startswith(f"{name}/")}


def golden_score(x, t):
    return -per_sample(1 + t, x) * x + 0.25


def everything(sde, x, t):
    """What the golden file holds about one SDE, apart from its tables and the prior sample."""
    out = {"prior_logp": sde.prior_logp(x)}
    out["marginal_mean"], out["marginal_std"] = sde.marginal_prob(x, t)
    out["drift"], out["diffusion"] = sde.sde(x, t)
    out["disc_f"], out["disc_G"] = sde.discretize(x, t)
    for pf in (0, 1):
        reverse = sde.reverse(golden_score, probability_flow=bool(pf))
        out[f"rev_pf{pf}_drift"], out[f"rev_pf{pf}_diffusion"] = reverse.sde(x, t)
        out[f"rev_pf{pf}_disc_f"], out[f"rev_pf{pf}_disc_G"] = reverse.discretize(x, t)
    return out


def assert_close(actual, expected, operands, rtol=1e-5):
    """Relative agreement, and up to two roundings of the largest operand of a sample where terms cancel."""
    scale = np.maximum(np.abs(expected), operands).reshape(len(expected), -1).max(axis=1)
    scale = scale.reshape((-1,) + (1,) * (expected.ndim - 1))
    assert np.all(np.abs(actual - expected) <= rtol * np.abs(expected) + 2 * ULP * scale)


@pytest.mark.parametrize("name", FACTS)
def test_agrees_with_the_reference(framework, name):
    sde = golden_sde(FACTS[name])
    actual = framework.run(lambda x, t: everything(sde, x, t), X, T)
    expected = golden(name)
    assert set(actual) == set(expected) - set(TABLES) - {"discrete_sigmas", "prior_sample"}
    for key, value in actual.items():
        assert value.dtype == expected[key].dtype
        assert value.shape == expected[key].shape
        if key == "marginal_std" and not name.startswith("ve"):
            # 1 - exp(2L) of a tiny L: one rounding of the exponential is all that two platforms may differ by.
            power = 2 if name.startswith("vp") else 1
            np.testing.assert_allclose(value**power, expected[key] ** power, rtol=1e-5, atol=ULP)
        elif key == "marginal_std":
            np.testing.assert_allclose(value, expected[key], rtol=1e-4)
        else:
            # Operands larger than the result: x in sqrt(alpha) x - x, the forward drift in a reverse drift.
            operands = X if key.endswith("disc_f") else expected["drift"] if key.endswith("drift") else 0
            assert_close(value, expected[key], np.abs(operands))


@pytest.mark.parametrize("name", FACTS)
def test_tables_equal_the_references_bit_for_bit(name):
    sde = golden_sde(FACTS[name])
    tables = set(golden(name)) & {*TABLES, "discrete_sigmas"}
    assert len(tables) == {"vp": 5, "su": 0, "ve": 1}[name[:2]]
    for table in tables:
        value = getattr(sde, table)
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, golden(name)[table])


@pytest.mark.parametrize("name", FACTS)
def test_prior_samples_of_the_references_key(name):
    import jax

    with jax.threefry_partitionable(False):
        z = jax.random.normal(jax.random.PRNGKey(int(GOLDEN["prior_key_seed"])), X.shape)
    sample = golden_sde(FACTS[name]).prior_sampling(z)
    np.testing.assert_allclose(np.asarray(sample), golden(name)["prior_sample"], rtol=1e-6)


@EVERY_SDE
def test_prior_logp_is_the_normal_log_density(framework, sde):
    z = sde.prior_scale * np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
    expected = norm.logpdf(z.astype(np.float64), scale=sde.prior_scale).sum(axis=(1, 2))
    np.testing.assert_allclose(framework.run(sde.prior_logp, z), expected, rtol=1e-6)


@EVERY_SDE
def test_mean_and_variance_obey_their_differential_equations(sde):
    # dm/dt = a(t) m and d(std^2)/dt = 2 a(t) std^2 + g(t)^2 for the linear drift f = a(t) x.
    t, h = np.linspace(0.05, 0.95, 13), 1e-5
    one = np.ones((13, 1))
    mean, std = sde.marginal_prob(one, t)
    (later_mean, later_std), (earlier_mean, earlier_std) = (sde.marginal_prob(one, t + s * h) for s in (1, -1))
    a, g = sde.sde(one, t)
    np.testing.assert_allclose((later_mean - earlier_mean) / (2 * h), a * mean, rtol=1e-7, atol=1e-9)
    variance_rate = (later_std**2 - earlier_std**2) / (2 * h)
    np.testing.assert_allclose(variance_rate, 2 * a[:, 0] * std**2 + g**2, rtol=1e-6)


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE(0.01, 100.0)], ids=["vp", "subvp", "ve"])
def test_the_process_starts_at_the_data_and_ends_at_the_prior(sde):
    x = np.full((1, 2), 0.7)
    mean, std = sde.marginal_prob(x, np.zeros(1))
    np.testing.assert_array_equal(mean, x)
    assert std == getattr(sde, "sigma_min", 0)
    mean, std = sde.marginal_prob(x, np.ones(1))
    np.testing.assert_allclose(std, sde.prior_scale, rtol=1e-4)
    assert np.all(np.abs(mean) < 0.01 * sde.prior_scale)


@EVERY_SDE
def test_probability_flow_is_halfway_between_forward_and_reverse_drift(eager_framework, sde):
    def drifts(x, t):
        kinds = (sde, sde.reverse(golden_score), sde.reverse(golden_score, probability_flow=True))
        return tuple(kind.sde(x, t)[0] for kind in kinds), tuple(kind.discretize(x, t)[0] for kind in kinds)

    for forward, reverse, ode in eager_framework.run(drifts, X, T):
        np.testing.assert_allclose(ode, (forward + reverse) / 2, rtol=1e-5, atol=1e-6 * np.abs(reverse).max())


def test_sub_vp_has_vps_mean_and_never_more_noise():
    t = np.linspace(0.01, 1, 50)
    x = np.ones((50, 3))
    (mean, std), (sub_mean, sub_std) = (s.marginal_prob(x, t) for s in (VPSDE(), SubVPSDE()))
    np.testing.assert_array_equal(mean, sub_mean)
    np.testing.assert_allclose(sub_std, std**2, rtol=1e-12)


@pytest.mark.parametrize(("sde", "power"), [(VPSDE(), 2), (SubVPSDE(), 1)], ids=["vp", "subvp"])
def test_small_variances_keep_the_published_cancellation(framework, sde, power):
    # 1 - exp(2L) in float32 is a whole multiple of 2^-24; an expm1 would be more accurate and not the published number.
    t = np.array([1e-5, 3e-5, 1e-4], np.float32)
    std = framework.run(lambda t: sde.marginal_prob(t, t)[1], t)
    multiples = std.astype(np.float64) ** power / 2**-24
    np.testing.assert_allclose(multiples, np.round(multiples), rtol=1e-6)
    exact = -np.expm1(-0.5 * 19.9 * t.astype(np.float64) ** 2 - 0.1 * t) / 2**-24
    np.testing.assert_allclose(multiples, exact, atol=2)


def test_discrete_vp_converges_to_the_sde():
    sde = VPSDE(N=1000)
    t = np.array([0.1, 0.5, 0.9])
    x = np.ones((3, 2))
    (f, G), (drift, diffusion) = sde.discretize(x, t), sde.sde(x, t)
    np.testing.assert_allclose(f * sde.N, drift, rtol=0.02)
    np.testing.assert_allclose(G * np.sqrt(sde.N), diffusion, rtol=0.01)


@pytest.mark.parametrize(("N", "eps"), [(8, 1e-3), (1000, 1e-3), (1000, 1e-5), (2000, 1e-5)])
def test_step_indices_truncate_float32_products(framework, N, eps):
    t = time_grid(N, eps=eps)
    index = framework.run(VESDE(N=N).step_index, t)
    assert index.dtype == np.int32
    np.testing.assert_array_equal(index, (t * np.float32(N - 1)).astype(np.int32))
    assert index[0] == N - 1
    assert index[-1] == 0


def test_the_first_ve_step_removes_all_noise(framework):
    sde = VESDE(0.01, 50.0, 1000)
    G = framework.run(
        lambda x, t: sde.discretize(x, t)[1], np.ones((2, 1), np.float32), np.array([1e-5, 5e-4], np.float32)
    )
    np.testing.assert_array_equal(G, sde.discrete_sigmas[[0, 0]])


def test_get_sde_ignores_case_and_gives_the_published_end_times():
    parameters = {"beta_min": 0.2, "beta_max": 10.0, "sigma_min": 0.02, "sigma_max": 30.0, "N": 50}
    vp: Any
    sub_vp: Any
    ve: Any
    vp, sub_vp, ve = (get_sde(name, **parameters) for name in ("VPSDE", "subVPsde", "vesde"))
    assert (type(vp), type(sub_vp), type(ve)) == (VPSDE, SubVPSDE, VESDE)
    assert (vp.sampling_eps, sub_vp.sampling_eps, ve.sampling_eps) == (1e-3, 1e-3, 1e-5)
    assert (vp.N, vp.beta_min, vp.beta_max) == (sub_vp.N, sub_vp.beta_min, sub_vp.beta_max) == (50, 0.2, 10.0)
    assert (ve.N, ve.sigma_min, ve.sigma_max, ve.prior_scale) == (50, 0.02, 30.0, 30.0)


def test_get_sde_names_the_choices():
    with pytest.raises(ValueError, match=r"'wiener'.*subvpsde, vesde, vpsde"):
        get_sde("wiener", beta_min=0.1, beta_max=20.0, sigma_min=0.01, sigma_max=50.0, N=1000)


def test_a_registered_sde_gets_what_its_constructor_names():
    class Bridge(SDE):
        def __init__(self, width, height=2.0, N=10):
            super().__init__(N)
            self.width, self.height = width, height

        sde = marginal_prob = None

    register_sde(name="Bridge")(Bridge)
    try:
        sde: Any = get_sde("bridge", N=7, width=3.0, depth=1.0, name="a network")
        assert (sde.N, sde.width, sde.height) == (7, 3.0, 2.0)
        with pytest.raises(ValueError, match=r"needs width.*model\.width"):
            get_sde("bridge", N=7)
        with pytest.raises(ValueError, match="already registered"):
            register_sde(name="bridge")(OrnsteinUhlenbeck)
    finally:
        sdes.SDES.pop("bridge")


class OrnsteinUhlenbeck(SDE):
    """A user's SDE: dx = -x dt + sqrt(2) dw."""

    def sde(self, x, t):
        return -x, 2**0.5 * (0 * t + 1)

    def marginal_prob(self, x, t):
        xp = t.__array_namespace__()
        return batch_mul(xp.exp(-t), x), xp.sqrt(1 - xp.exp(-2 * t))


def test_a_subclass_inherits_discretisation_reversal_and_prior():
    sde = OrnsteinUhlenbeck(N=4)
    x, t = np.full((2, 3), 2.0), np.full(2, 0.5)
    f, G = sde.discretize(x, t)
    np.testing.assert_allclose(f, -0.5)
    np.testing.assert_allclose(G, np.sqrt(0.5))
    f, G = sde.reverse(lambda x, t: -x).discretize(x, t)
    np.testing.assert_allclose(f, -0.5 + 0.5 * 2.0)
    np.testing.assert_array_equal(sde.langevin_alpha(t), 1)
    np.testing.assert_allclose(sde.prior_logp(x), norm.logpdf(2.0) * 3)
