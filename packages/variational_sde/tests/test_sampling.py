"""Samplers against the original's trajectories, and against Gaussian data whose law is known at every time."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from variational_golden import case, close, golden, net, plugin, tensor

from score_core.random import RecordedNoise
from variational_sde.logit import LogitTransform
from variational_sde.objectives import ElboNoise
from variational_sde.sde import VariancePreserving
from variational_sde.torch.likelihood import ode_log_likelihood
from variational_sde.torch.reverse_sde import Generators
from variational_sde.torch.sampling import StreamNoise, euler_maruyama, ode_sample, sample_grid

CPU = torch.device("cpu")


class GaussianDrift(nn.Module):
    """g times the exact score of N(mean, std^2) data."""

    def __init__(self, mean, std, law=None):
        super().__init__()
        self.mean, self.std, self.law = mean, std, law or VariancePreserving()

    def forward(self, y, t):
        w = torch.exp(self.law.log_mean_coefficient(t))
        variance = (self.std * w) ** 2 + self.law.marginal_prob(y, t)[1] ** 2
        shape = (-1,) + (1,) * (y.ndim - 1)
        g = self.law.diffusion(t)
        return -(y - self.mean * w.reshape(shape)) * (g / variance).reshape(shape)


GRID = golden("sampler_grid.npz")


@pytest.mark.parametrize("name", list(dict.fromkeys(key.split("/")[0] for key in GRID)))
def test_sample_grids(name):
    arrays = case(GRID, name)
    network = net("mnist" if "mnist" in name else name[0])
    options = {"a_noclip": {"clip": False}, "a_mean_std": {"mean": 0.3, "std": 0.5, "clip": False}}.get(name, {})
    n, (channels, size, _) = int(arrays["n"]), arrays["grid"].shape
    torch.manual_seed(int(arrays["seed"]))
    transform = LogitTransform().inverse if arrays["real"] else None
    sde = plugin(network, float(arrays["T0"]))
    grid = sample_grid(sde, channels, size // n, n, int(arrays["num_steps"]), transform, **options)
    assert grid.dtype == np.float32
    close(grid, arrays["grid"], 5e-5)


@pytest.mark.parametrize("name", ["sampler_grid_analytic", "sampler_grid_analytic_logit"])
def test_sample_grids_of_the_exact_drift(name):
    arrays = golden(f"{name}.npz")
    sde = plugin(GaussianDrift(float(arrays["data_mean"]), float(arrays["data_std"])))
    n, (channels, size, _) = int(arrays["n"]), arrays["grid"].shape
    torch.manual_seed(int(arrays["seed"]))
    transform = LogitTransform().inverse if arrays["real"] else None
    grid = sample_grid(sde, channels, size // n, n, int(arrays["num_steps"]), transform)
    close(grid, arrays["grid"], 2e-6)


def steps_noise(seed, steps, shape):
    """The stream after a seed: each step's noise."""
    generators = Generators.seeded(seed, CPU)
    return torch.stack([generators.normal_like(torch.zeros(shape)) for _ in range(steps)])


@pytest.mark.parametrize(("name", "every", "tolerance"), [("unet", 1, 5e-6), ("analytic", 5, 2e-6)])
def test_the_lambda_family(name, every, tolerance):
    arrays = golden(f"sampler_lambda_{name}.npz")
    steps, seed = int(arrays["num_steps"]), int(arrays["seed"])
    drift = net("a") if name == "unet" else GaussianDrift(0.5, 0.2)
    sde = plugin(drift, float(arrays["T0"]))
    x0 = np.random.RandomState(seed).standard_normal(arrays["x0"].shape).astype(np.float32)
    close(x0, arrays["x0"], 0)
    noise = RecordedNoise(tensor(x0), None, steps_noise(seed, steps, x0.shape))
    for lmbd in arrays["lambdas"]:
        expected = case(arrays, f"lambda_{lmbd:g}")
        states = euler_maruyama(sde, noise, steps, lmbd=float(lmbd), keep=range(every, steps + 1, every))
        close(states, expected["x"], tolerance, f"lambda {lmbd}")
        mu = sde.mu(torch.zeros(len(x0)), tensor(x0), float(lmbd))
        if name == "unet":
            close(mu, expected["mu_first"], 2e-6)
        else:  # nearly equal terms of about 13 cancel at lambda 1
            np.testing.assert_allclose(mu.detach(), expected["mu_first"], rtol=2e-6, atol=5e-6)
        times = torch.linspace(0, 1, steps + 1)[:-1]
        close(sde.sigma(times, torch.zeros(steps, 1), float(lmbd))[:, 0], expected["sigma_per_step"], 1e-6)


def test_lambda_above_one_is_refused():
    sde = plugin(GaussianDrift(0.0, 1.0))
    noise = StreamNoise(Generators(), (2, 2), CPU)
    with pytest.raises(ValueError, match="<= 1"):
        euler_maruyama(sde, noise, 2, lmbd=1.5)
    with pytest.raises(ValueError, match="at least 1 step"):
        euler_maruyama(sde, noise, 0)


@pytest.mark.parametrize("lmbd", [-1.0, 0.0, 0.5, 1.0])
def test_every_lambda_samples_the_data(lmbd):
    """Mean and standard deviation of 20,000 points, within five standard errors and the steps' own bias."""
    sde = plugin(GaussianDrift(0.5, 0.2))
    y = euler_maruyama(sde, StreamNoise(Generators.seeded(1, CPU), (20_000, 1), CPU), 2000, lmbd=lmbd)
    assert float(y.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(y.std()) == pytest.approx(0.2, abs=0.01)


def test_ode_sampling_and_likelihood_of_gaussian_data():
    """The ODE maps the prior to the data; its likelihood is the data's density; the bound touches it."""
    sde = plugin(GaussianDrift(0.5, 0.2))
    generators = Generators.seeded(2, CPU)
    y, nfe = ode_sample(sde, generators.normal_like(torch.zeros(20_000, 2)))
    assert nfe > 10
    assert float(y.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(y.std()) == pytest.approx(0.2, abs=0.01)

    x = 0.5 + 0.2 * generators.normal_like(torch.zeros(200, 2))
    # the ODE's map is affine: x -> w m + sqrt(w^2 s^2 + var) (x - m) / s at time T, whose law is not quite N(0, 1)
    at_T = torch.ones(1)
    w = torch.exp(sde.law.log_mean_coefficient(at_T))
    width = torch.sqrt((0.2 * w) ** 2 + sde.law.marginal_prob(at_T, at_T)[1] ** 2)
    z = 0.5 * w + width * (x - 0.5) / 0.2
    truth = sde.law.prior_logp(z) + 2 * torch.log(width / 0.2)
    # the drift is affine with a Jacobian that is a multiple of the identity: any probe of signs gives its trace exactly
    result = ode_log_likelihood(sde, x, torch.ones_like(x))
    np.testing.assert_allclose(result.nats, truth, atol=5e-4)

    x = x[:1].expand(200_000, 2)
    noise = sde.draw_elbo_noise(x, generators)
    elbo = sde.elbo(x, ElboNoise(*noise))
    error = float(elbo.std()) / math.sqrt(len(x))
    # the bound is tight for the exact drift, and never above: the difference is its Monte-Carlo error
    assert float(elbo.mean()) == pytest.approx(float(truth[0]), abs=4 * error)
    assert error < 0.05


def test_a_wrong_drift_lowers_the_bound_but_not_the_order():
    """With a drift that is off, the mean bound stays below the mean ODE likelihood, and both below the entropy."""
    sde = plugin(GaussianDrift(0.45, 0.25))
    generators = Generators.seeded(3, CPU)
    x = 0.5 + 0.2 * generators.normal_like(torch.zeros(100_000, 2))
    elbo = sde.elbo(x, sde.draw_elbo_noise(x, generators))
    error = float(elbo.std()) / math.sqrt(len(x))
    ode = ode_log_likelihood(sde, x[:4000], torch.ones(4000, 2))
    entropy = -2 * math.log(0.2 * math.sqrt(2 * math.pi * math.e))
    assert float(elbo.mean()) - 4 * error < float(ode.nats.mean()) < entropy
