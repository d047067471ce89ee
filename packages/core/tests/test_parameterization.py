"""Which label the network sees, and how its output becomes a score."""

import numpy as np
import pytest

from score_core.arrays import per_sample
from score_core.parameterization import get_score_fn
from score_core.sdes import SDE, VESDE, VPSDE, SubVPSDE

T = np.array([1e-3, 0.1, 0.35, 0.5, 0.75, 1.0], np.float32)
X = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)


def label_model(x, labels):
    """Returns its labels, in the shape of ``x``."""
    return per_sample(labels, x) + 0 * x


def scores(framework, sde, continuous, t=T, model=label_model):
    return framework.run(get_score_fn(sde, model, continuous), X[: len(t)], t)


def column(a):
    return np.asarray(a, np.float64)[:, None, None] * np.ones_like(X[: len(a)])


def vp_std(t, sub=False, beta_min=0.1, beta_max=4.0):
    t = t.astype(np.float64)
    variance = 1 - np.exp(-0.5 * t**2 * (beta_max - beta_min) - t * beta_min)
    return variance if sub else np.sqrt(variance)


@pytest.mark.parametrize("N", [8, 1000])
def test_continuous_vp_labels_are_999_t_whatever_N_is(framework, N):
    actual = scores(framework, VPSDE(0.1, 4.0, N), True)
    np.testing.assert_allclose(actual, column(-999 * T / vp_std(T)), rtol=2e-4)
    np.testing.assert_allclose(actual[1:], column(-999 * T / vp_std(T))[1:], rtol=1e-5)


@pytest.mark.parametrize("continuous", [True, False])
def test_sub_vp_is_always_continuous(framework, continuous):
    actual = scores(framework, SubVPSDE(0.1, 4.0, 8), continuous)
    np.testing.assert_allclose(actual, column(-999 * T / vp_std(T, sub=True)), rtol=4e-4)
    np.testing.assert_allclose(actual[1:], column(-999 * T / vp_std(T, sub=True))[1:], rtol=1e-5)


def test_discrete_vp_shows_the_exact_label_and_truncates_it_for_the_table(framework):
    sde = VPSDE(0.1, 4.0, 8)
    alpha_bar = np.cumprod(1 - np.linspace(0.1 / 8, 4.0 / 8, 8))
    step = [0, 0, 2, 3, 5, 7]  # 7 t = 0.007, 0.7, 2.45, 3.5, 5.25, 7
    expected = -7 * T / np.sqrt(1 - alpha_bar[step])
    np.testing.assert_allclose(scores(framework, sde, False), column(expected), rtol=1e-5)


def test_continuous_ve_labels_are_sigma_and_the_output_is_the_score(framework):
    expected = 0.01 * 5000 ** T.astype(np.float64)
    np.testing.assert_allclose(scores(framework, VESDE(0.01, 50.0, 8), True), column(expected), rtol=1e-5)


def test_discrete_ve_labels_count_from_the_largest_noise_and_round_half_to_even(framework):
    t = np.array([1.0, 0.875, 0.625, 0.375, 0.3, 0.0], np.float32)  # 4 (1 - t) = 0, 0.5, 1.5, 2.5, 2.8, 4
    np.testing.assert_array_equal(scores(framework, VESDE(0.01, 5.0, 5), False, t), column([0, 0, 2, 2, 3, 4]))


def test_discrete_ve_labels_are_int32(eager_framework):
    seen = []

    def model(x, labels):
        seen.append(eager_framework.to_numpy(labels))
        return x

    scores(eager_framework, VESDE(N=5), False, model=model)
    assert seen[0].dtype == np.int32


@pytest.mark.parametrize(("sde", "scale"), [(VPSDE(), -1), (SubVPSDE(), -1), (VESDE(), 1)])
@pytest.mark.parametrize("continuous", [True, False])
def test_only_vp_outputs_are_divided_by_minus_the_standard_deviation(framework, sde, scale, continuous):
    actual = scores(framework, sde, continuous, model=lambda x, labels: x)
    ratio = actual / X
    if scale == 1:
        np.testing.assert_array_equal(actual, X)
    else:
        assert np.all(ratio <= -1)  # std is at most 1
        np.testing.assert_allclose(ratio, ratio[:, :1, :1] * np.ones_like(ratio), rtol=1e-5)


@pytest.mark.parametrize("predicts", ["noise", "score"])
def test_a_users_sde_says_what_its_network_predicts(framework, predicts):
    like = VPSDE(N=10) if predicts == "noise" else VESDE(N=10)

    class Mine(SDE):
        sde = None

        def marginal_prob(self, x, t):
            return like.marginal_prob(x, t)

    mine = Mine(N=10)
    mine.predicts = predicts
    np.testing.assert_array_equal(
        scores(framework, mine, True, model=label_model), scores(framework, like, True, model=label_model)
    )
