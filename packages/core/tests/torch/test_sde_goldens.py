"""SDEs, score functions and noise levels on PyTorch tensors, against the PyTorch program of score_sde."""

import goldens
import numpy as np
import pytest
import torch

from score_core.noise_scales import ddpm_params, langevin_sigmas
from score_core.parameterization import get_score_fn
from score_core.sdes import VESDE, VPSDE, SubVPSDE

GOLDEN = goldens.load("core", "torch/sde.npz")
DTYPES = goldens.load("core", "torch/sde_dtypes.json")
SCHEDULES = goldens.load("core", "torch/schedules.npz")
SDES = {"vp": VPSDE(), "subvp": SubVPSDE(), "ve": VESDE()}


def network(seen):
    """0.3 x + 0.01 label; it keeps the labels that it was given."""

    def model(x, labels):
        seen.append(labels)
        return 0.3 * x + 0.01 * labels.reshape(-1, 1, 1, 1)

    return model


def everything(sde):
    """What the file holds of an SDE, by its names there."""
    x, t, coefficient = (torch.tensor(GOLDEN[name]) for name in ("x", "t", "score_coeff"))
    found = dict(zip(("sde_drift", "sde_diffusion"), sde.sde(x, t), strict=True))
    found["marginal_mean"], found["marginal_std"] = sde.marginal_prob(x, t)
    found["discretize_f"], found["discretize_G"] = sde.discretize(x, t)
    found["prior_logp"] = sde.prior_logp(x)
    for flow in (0, 1):
        reverse = sde.reverse(lambda x, t: -coefficient * x * (1 + t.reshape(-1, 1, 1, 1)), bool(flow))
        found[f"reverse_pf{flow}_drift"], found[f"reverse_pf{flow}_diffusion"] = reverse.sde(x, t)
        found[f"reverse_pf{flow}_discretize_f"], found[f"reverse_pf{flow}_discretize_G"] = reverse.discretize(x, t)
    for continuous in (0, 1):
        labels = []
        found[f"score_cont{continuous}"] = get_score_fn(sde, network(labels), bool(continuous))(x, t)
        found[f"labels_cont{continuous}"] = labels[0]
    tables = ("discrete_betas", "alphas", "alphas_cumprod", "sqrt_alphas_cumprod", "sqrt_1m_alphas_cumprod")
    names = tables if type(sde) is VPSDE else ("discrete_sigmas",) if type(sde) is VESDE else ()
    return found | {f"table_{name}": torch.from_numpy(getattr(sde, name)) for name in names}


@pytest.mark.parametrize("name", SDES)
def test_every_quantity(name):
    found = everything(SDES[name])
    expected = {key.partition("/")[2]: value for key, value in GOLDEN.items() if key.startswith(f"{name}/")}
    assert set(found) == set(expected) - {"prior_sample_seeded"}
    for key, value in found.items():
        wanted = expected[key]
        # Integer labels are int32 here, which index the same; a diffusion of 0 is an array here, so that it works.
        kind = "int" if DTYPES[f"{name}/{key}"].startswith("int") else "float"
        assert str(value.dtype).removeprefix("torch.").startswith(kind), key
        # Ours are spaced in float64, so levels differ in the last place; the difference of two neighbours' squares,
        # whose root is G, is 60 times less exact: 2 levels x 2 (square) x 6e-8 x 60.
        tolerance = 3e-5 if name == "ve" and "discretize" in key else 2e-6
        atol = tolerance * np.abs(wanted).max()
        np.testing.assert_allclose(value, np.broadcast_to(wanted, value.shape), rtol=0, atol=atol, err_msg=key)


@pytest.mark.parametrize("name", SDES)
def test_the_prior_is_a_scaled_standard_normal_of_one_seed(name):
    wanted = GOLDEN[f"{name}/prior_sample_seeded"]
    unit = GOLDEN["vp/prior_sample_seeded"]
    found = SDES[name].prior_sampling(torch.tensor(unit))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert wanted.std() == pytest.approx(SDES[name].prior_scale * unit.std(), rel=1e-5)


LEVELS = {
    "ve/cifar10_ncsnpp": (0.01, 50, 1000),
    "ve/ncsnv2/cifar10": (0.01, 50, 232),
    "ve/ncsn/cifar10": (0.01, 1, 10),
    "ve/bedroom_ncsnpp_continuous": (0.01, 378, 2000),
    "ve/ffhq_ncsnpp_continuous": (0.01, 1348, 2000),
}


def test_noise_levels_in_double_precision():
    stored = {key.partition("/")[2] for key in SCHEDULES if key.startswith("get_sigmas/")}
    assert stored == set(LEVELS)
    for name, (sigma_min, sigma_max, num_scales) in LEVELS.items():
        found = langevin_sigmas(sigma_max, sigma_min, num_scales)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, SCHEDULES[f"get_sigmas/{name}"], rtol=1e-12)


def test_ddpm_tables():
    found = ddpm_params(0.1, 20.0, 1000)
    stored = {key.partition("/")[2]: value for key, value in SCHEDULES.items() if key.startswith("get_ddpm_params/")}
    assert set(found) == set(stored)
    for name, value in found.items():
        np.testing.assert_allclose(value, stored[name], rtol=1e-12, err_msg=name)
