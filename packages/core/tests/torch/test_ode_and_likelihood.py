"""ODE sampler and likelihood in PyTorch against both originals' numbers, SciPy's solver and closed forms."""

import goldens
import numpy as np
import pytest
import torch

from score_core.data.scalers import get_data_inverse_scaler
from score_core.sdes import VESDE, VPSDE, SubVPSDE
from score_core.torch.likelihood import get_likelihood_fn
from score_core.torch.ode import IntegrationError, integrate, integrate_scipy
from score_core.torch.sampling import get_ode_sampler

JAX, JAX_FACTS = goldens.load("core", "ode_likelihood.npz"), goldens.load("core", "ode_likelihood.json")
ODE, ODE_FACTS = goldens.load("core", "torch/ode.npz"), goldens.load("core", "torch/ode.json")
LIKELIHOOD, LIKELIHOOD_FACTS = (
    goldens.load("core", "torch/likelihood.npz"),
    goldens.load("core", "torch/likelihood.json"),
)
TORCH_SDES = {"ve": VESDE(0.01, 50.0, 100), "vp": VPSDE(0.1, 20.0, 100), "subvp": SubVPSDE(0.1, 20.0, 100)}
OPTIONS = {
    "default": {},
    "rk23": {"method": "RK23"},
    "loose": {"rtol": 1e-3, "atol": 1e-3},
    "rk23_loose": {"method": "RK23", "rtol": 1e-3, "atol": 1e-3},
    "eps1e-3": {"eps": 1e-3},
}
# VP's float32 std at small times decides borderline step sizes (the golden README: "a few"): two attempted steps.
NFE_SLACK = {"ve": 0, "vp": 12, "subvp": 12}


def jax_sde(name):
    return {"ve": VESDE(0.01, 5.0, 8), "vp": VPSDE(0.1, 4.0, 8), "subvp": SubVPSDE(0.1, 4.0, 8)}[name]


def analytic_model(name):
    """The stand-in network of the JAX program's golden files."""

    def apply_fn(params, x, labels):
        label = labels.reshape(-1, 1, 1, 1)
        return -(x - 0.3) / (1 + 0.1 * label) if name == "ve" else (x - 0.3) / (1 + 0.002 * label)

    return apply_fn


def gaussian_model(name):
    """The exact network for data N(0.3, 0.5^2), of the PyTorch program's golden files."""
    sde = TORCH_SDES[name]

    def apply_fn(params, x, labels):
        label = labels.reshape(-1, 1, 1, 1)
        if name == "ve":
            return -(x - 0.3) / (label**2 + 0.25)
        t = labels / 999
        a, std = sde.marginal_prob(torch.ones_like(t), t)
        a, std = a.reshape(-1, 1, 1, 1), std.reshape(-1, 1, 1, 1)
        return (x - a * 0.3) / (a**2 * 0.25 + std**2) * std

    return apply_fn


def scaler(name):
    return get_data_inverse_scaler(centered=name != "ve")


def first(array):
    """Channels first, as PyTorch's arrays."""
    return torch.tensor(np.moveaxis(np.asarray(array), -1, -3).copy())


def close(actual, expected, tolerance):
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("solver", ["device", "scipy"])
@pytest.mark.parametrize("name", TORCH_SDES)
def test_against_the_jax_program(name, solver):
    arguments = (jax_sde(name), analytic_model(name))
    for denoise in (0, 1):
        for given in (0, 1):
            sampler = get_ode_sampler(
                *arguments,
                denoise=bool(denoise),
                eps=1e-5 if name == "ve" else 1e-3,
                inverse_scaler=scaler(name),
                solver=solver,
            )
            z = JAX[f"ode/{name}/zgiven_den{denoise}" if given else f"ode/{name}/z"][0]
            samples = sampler({}, first(z))
            close(samples.images, first(JAX[f"ode/{name}/out_den{denoise}_given{given}"][0]), 1e-4)
            expected = JAX_FACTS[f"ode/{name}/den{denoise}_given{given}"]["nfe"]
            assert abs(int(samples.nfe) - expected) <= NFE_SLACK[name]
    for kind in ("Rademacher", "Gaussian"):
        likelihood = get_likelihood_fn(*arguments, inverse_scaler=scaler(name), solver=solver)
        data, epsilon = first(JAX[f"lik/{name}/data"][0]), first(JAX[f"lik/{name}/{kind}/epsilon"][0])
        result, facts = likelihood({}, data, epsilon), JAX_FACTS[f"lik/{name}/{kind}"]
        close(result.bpd, JAX[f"lik/{name}/{kind}/bpd"][0], 1e-4)
        close(result.z, first(JAX[f"lik/{name}/{kind}/z"][0]), 1e-4)
        assert abs(int(result.nfe) - facts["nfe"]) <= NFE_SLACK[name]
        assert result.offset == facts["offset"]


@pytest.mark.parametrize("solver", ["device", "scipy"])
@pytest.mark.parametrize("name", TORCH_SDES)
def test_ode_sampler_against_the_pytorch_program(name, solver):
    cases = [case for case in ODE_FACTS["cases"] if case.startswith(f"{name}/")]
    assert len(cases) == 5
    for case in cases:
        options = OPTIONS[case.split("/")[2] if case.count("/") == 2 else "default"]
        if solver == "device" and "method" in options:
            continue
        sde = TORCH_SDES[name]
        given = ODE[f"{case}/z"] if "from_z" in case else sde.prior_sampling(ODE[f"{name}/prior_draw"])
        sampler = get_ode_sampler(
            sde,
            gaussian_model(name),
            denoise="denoise1" in case,
            # The stored decodings are in the network's range.
            inverse_scaler=get_data_inverse_scaler("from_z" not in case and name != "ve"),
            solver=solver,
            **{"eps": sde.sampling_eps, **options},
        )
        samples = sampler({}, torch.tensor(given, dtype=torch.float32))
        close(samples.images, ODE[f"{case}/x" if "from_z" in case else case], 1e-5)
        assert int(samples.nfe) == ODE_FACTS["cases"][case]["nfe"], case


@pytest.mark.parametrize("solver", ["device", "scipy"])
@pytest.mark.parametrize("name", TORCH_SDES)
def test_likelihood_against_the_pytorch_program(name, solver):
    cases = [case for case in LIKELIHOOD_FACTS["cases"] if case.startswith(f"gauss/{name}/")]
    assert len(cases) == 4
    for case in cases:
        options = OPTIONS[case.split("/")[3]]
        if solver == "device" and "method" in options:
            continue
        raw = torch.tensor(LIKELIHOOD[f"{case.rpartition('/')[0]}/hutchinson_raw"])
        probe = raw * 2 - 1 if "Rademacher" in case else raw
        likelihood = get_likelihood_fn(
            TORCH_SDES[name], gaussian_model(name), inverse_scaler=scaler(name), solver=solver, **options
        )
        result = likelihood({}, torch.tensor(LIKELIHOOD[f"gauss/{name}/x"]), probe)
        close(result.bpd, LIKELIHOOD[f"{case}/bpd"], 1e-5)
        close(result.z, LIKELIHOOD[f"{case}/z"], 1e-5)
        assert result.nfe == LIKELIHOOD_FACTS["cases"][case]["nfe"], case


@pytest.mark.parametrize("name", TORCH_SDES)
def test_probability_flow_is_invertible_and_its_likelihood_exact(name):
    """Encoding and decoding returns the data; bits/dim are the density of N(0.3, 0.5^2) up to the method's own error.

    With one mean and scale the Rademacher estimate has no variance; what is left is eps > 0 and the prior's distance
    from the true end of the process.
    """
    sde, model, n = TORCH_SDES[name], gaussian_model(name), 256
    data = 0.3 + 0.5 * torch.randn(n, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    result = get_likelihood_fn(sde, model, inverse_scaler=scaler(name))({}, data, torch.ones_like(data))
    decoded = get_ode_sampler(sde, model, eps=1e-5)({}, result.z).images
    np.testing.assert_allclose(decoded, data, rtol=0, atol=2e-3)
    logp = torch.distributions.Normal(0.3, 0.5).log_prob(data).sum((1, 2, 3))
    bits = -logp / np.log(2) / 6 + result.offset
    np.testing.assert_allclose(result.bpd.mean(), bits.mean(), rtol=0, atol=1e-3)
    np.testing.assert_allclose(result.bpd, bits, rtol=0, atol=2e-2)


def test_an_integration_that_fails_is_not_mistaken_for_a_result():
    """y' = y^2 from 1 is infinite at 1."""

    def square(args, t, y):
        return (y[0] ** 2,)

    y0 = (torch.ones(2, dtype=torch.float64),)
    (y,), _ = integrate(square, None, y0, 0.0, 2.0)
    assert y.isnan().all()
    with np.errstate(all="ignore"), pytest.raises(IntegrationError, match="RK45 stopped at t = "):
        integrate_scipy(square, None, y0, 0.0, 2.0)


def test_a_solver_of_another_name_is_refused():
    for build in (get_likelihood_fn, get_ode_sampler):
        with pytest.raises(ValueError, match="'device' or 'scipy'"):
            build(jax_sde("vp"), analytic_model("vp"), solver="euler")
        with pytest.raises(ValueError, match="must be 'RK45'"):
            build(jax_sde("vp"), analytic_model("vp"), method="DOP853")
