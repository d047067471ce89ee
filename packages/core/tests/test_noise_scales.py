"""Noise-level tables: equal to the reference's where it stored them, and to float64 mathematics everywhere."""

import goldens
import numpy as np
import pytest

from score_core import _float32
from score_core.noise_scales import (
    annealed_step_sizes,
    ddpm_params,
    discrete_sigmas,
    linear_betas,
    model_sigmas,
    time_grid,
)

ULP = float(np.finfo(np.float32).eps)
MODEL_SIGMAS = {
    key.split("/")[1]: value
    for key, value in goldens.load("core", "resample_embed.npz").items()
    if key.startswith("model_sigmas/")
}
LEVELS = {
    "ve_cifar10_ncsnpp.py": (0.01, 50, 1000),
    "ve_ncsn_cifar10.py": (0.01, 1.0, 10),
    "ve_church_ncsnpp_continuous.py": (0.01, 380, 2000),
}


def test_every_stored_model_table_is_checked():
    assert set(LEVELS) == set(MODEL_SIGMAS)


@pytest.mark.parametrize("config", LEVELS)
def test_model_sigmas_equal_the_references_bit_for_bit(config):
    sigmas = model_sigmas(*LEVELS[config])
    assert sigmas.dtype == np.float32
    np.testing.assert_array_equal(sigmas, MODEL_SIGMAS[config])


def test_model_sigmas_descend_and_discrete_sigmas_ascend():
    descending, ascending = model_sigmas(0.01, 90.0, 500), discrete_sigmas(0.01, 90.0, 500)
    assert np.all(np.diff(descending) < 0)
    assert np.all(np.diff(ascending) > 0)
    np.testing.assert_allclose(descending[::-1], ascending, rtol=2e-6)
    np.testing.assert_allclose(ascending, np.geomspace(0.01, 90.0, 500), rtol=1e-6)


def test_linear_betas_are_ddpms_schedule():
    betas = linear_betas(0.1, 20.0, 1000)
    assert (betas[0], betas[-1]) == (np.float32(1e-4), np.float32(0.02))
    np.testing.assert_allclose(betas, np.linspace(1e-4, 0.02, 1000), rtol=2 * ULP)


def test_ddpm_params_equal_the_references():
    expected = goldens.load("core", "ddpm_params.npz")
    actual = ddpm_params(0.1, 20.0, 1000)
    assert set(actual) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(actual[key], value, rtol=1e-12, err_msg=key)
        assert np.asarray(actual[key]).dtype == value.dtype


def test_ddpm_params_have_1000_steps_whatever_the_number_of_scales():
    params = ddpm_params(0.1, 20.0, 500)
    assert params["num_diffusion_timesteps"] == len(params["betas"]) == 1000
    np.testing.assert_allclose([params["betas"][0], params["betas"][-1]], [2e-4, 0.04], rtol=1e-12)


@pytest.mark.parametrize(("N", "eps"), [(1, 1e-3), (2, 1e-3), (8, 1e-3), (2000, 1e-5)])
def test_time_grid_runs_from_T_to_eps(N, eps):
    t = time_grid(N, eps=eps)
    assert t.shape == (N,)
    assert t.dtype == np.float32
    assert t[0] == 1
    if N > 1:
        assert t[-1] == np.float32(eps)
    np.testing.assert_allclose(t, np.linspace(1, eps, N), atol=ULP)


def test_annealed_step_sizes():
    sigmas = np.exp(np.linspace(0, np.log(0.01), 10))
    steps = annealed_step_sizes(sigmas, 2e-5)
    np.testing.assert_allclose(steps, [2e-5 * (s / 0.01) ** 2 for s in sigmas], rtol=1e-12)
    assert steps[-1] == 2e-5


def test_annealed_step_sizes_of_float32_levels_divide_in_float32_and_square_in_float64():
    sigmas = model_sigmas(0.01, 50.0, 232)
    expected = [6.2e-6 * float(np.float32(s / sigmas[-1])) ** 2 for s in sigmas]
    np.testing.assert_array_equal(annealed_step_sizes(sigmas, 6.2e-6), expected)


def test_float32_exponential_is_within_one_unit_in_the_last_place():
    x = np.linspace(-20, 20, 4001).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.all(np.abs(_float32.exp(x) - exact) <= np.spacing(exact.astype(np.float32)))


@pytest.mark.parametrize("n", [*range(1, 10), 1000])
def test_float32_running_product_of_any_length(n):
    x = np.random.default_rng(n).uniform(0.9, 1.1, n).astype(np.float32)
    product = _float32.cumprod(x)
    assert product.dtype == np.float32
    np.testing.assert_allclose(product, np.cumprod(x.astype(np.float64)), rtol=2e-6)


@pytest.mark.parametrize(("start", "stop", "num"), [(3.0, -4.0, 1), (3.0, -4.0, 2), (0.1, 20.0, 999), (5.0, 5.0, 7)])
def test_float32_linspace_is_the_even_spacing(start, stop, num):
    values = _float32.linspace(start, stop, num)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, np.linspace(start, stop, num), atol=2 * ULP * max(abs(start), abs(stop)))
