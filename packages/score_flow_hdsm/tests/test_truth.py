"""Where the answer is known: Gaussian data, whose ODE and SDE models coincide, and a mixture, where they need not."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from score_flow_hdsm.toy import mixture
from score_flow_hdsm.toy.losses import METHODS, toy_loss
from score_flow_hdsm.toy.ode import log_density, model_score
from score_flow_hdsm.toy.sdes import draw_times, toy_sde

MEAN, VARIANCE = 0.6, 0.25


class GaussianScore(nn.Module):
    """The score model of all isotropic Gaussians, in the toy network's place: its output is std times the score."""

    def __init__(self, sde, mean=0.0, variance=1.0):
        super().__init__()
        self.sde = sde
        self.mean = nn.Parameter(torch.tensor(mean))
        self.log_variance = nn.Parameter(torch.tensor(math.log(variance)))

    def forward(self, x, t):
        factor, std = self.sde.marginal_prob(torch.ones_like(x), t)
        std = std[:, None]
        return -std * (x - factor * self.mean) / (factor**2 * self.log_variance.exp() + std**2)


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("dim", [1, 2])
def test_every_order_reaches_the_closed_form_likelihood_of_a_gaussian(method, dim):
    sde = toy_sde("VP")
    network = GaussianScore(sde)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    rng, generator = np.random.RandomState(0), torch.Generator().manual_seed(0)
    for _ in range(300):
        x0 = MEAN + math.sqrt(VARIANCE) * torch.randn((500, dim), generator=generator)
        eps = torch.randn((500, dim), generator=generator)
        loss = toy_loss(network, sde, method, x0, eps, draw_times(sde, 500, rng, reweighted=True))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        schedule.step()
    assert abs(float(network.mean) - MEAN) < 0.03
    assert abs(float(network.log_variance) - math.log(VARIANCE)) < 0.1
    x = MEAN + math.sqrt(VARIANCE) * torch.randn((400, dim), generator=generator)
    nll = -log_density(sde, model_score(network, sde), x).mean()
    squares = ((x - MEAN) ** 2).sum(1).mean() / VARIANCE
    truth = 0.5 * float(squares) + 0.5 * dim * math.log(2 * math.pi * VARIANCE)
    np.testing.assert_allclose(nll, truth, atol=0.01)


def reverse_sde_samples(sde, score, n, steps=400):
    """Euler-Maruyama in the logarithm of time, whose steps are small where the score is steep."""
    generator = torch.Generator().manual_seed(1)
    times = torch.logspace(0, -5, steps + 1)
    x = torch.randn((n, 1), generator=generator) * sde.prior_scale
    for t, s in pairwise(times):
        time = torch.full((n,), float(t))
        drift, g = sde.reverse(score).sde(x, time)
        dt = float(t - s)
        x = x - dt * drift + g[:, None] * math.sqrt(dt) * torch.randn((n, 1), generator=generator)
    return x


def test_for_a_mixture_the_two_models_differ_once_the_score_is_not_exact():
    """The mass between -0.6 and 0: equal for the exact score, different for a wrong one."""
    sde, n, (low, high) = toy_sde("VP"), 20000, (-0.6, 0.0)
    grid = torch.linspace(low, high, 301)[:, None]

    def of(wrong):
        def score(x, t):
            with torch.enable_grad():
                at = x if x.requires_grad else x.detach().requires_grad_()
                exact = torch.autograd.grad(mixture.log_density(sde, at, t).sum(), at, create_graph=True)[0]
            value = exact + wrong * torch.sin(6 * at) * torch.exp(-8 * t)[:, None]
            return value if x.requires_grad else value.detach()

        return score

    def masses(wrong):
        ode = float(np.trapezoid(np.exp(log_density(sde, of(wrong), grid)), grid[:, 0].numpy()))
        samples = reverse_sde_samples(sde, of(wrong), n)
        return ode, float(((samples > low) & (samples < high)).float().mean())

    error = 0.5 / math.sqrt(n)
    ode, by_sde = masses(0.0)
    assert abs(ode - by_sde) < 5 * error
    ode, by_sde = masses(5.0)
    assert abs(ode - by_sde) > 8 * error
