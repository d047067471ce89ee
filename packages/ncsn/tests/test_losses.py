"""Every loss against the original's numbers, gradients included, and against closed forms on Gaussian data."""

import goldens
import numpy as np
import pytest
import torch
from torch import nn
from torch_goldens import case_of, close, fill

from ncsn import losses, networks

CASES = goldens.load("ncsn", "losses.json")
ARRAYS = goldens.load("ncsn", "losses.npz")


def mlp(last):
    return nn.Sequential(
        nn.Linear(5, 16), nn.Softplus(), nn.Linear(16, 16), nn.Softplus(), nn.Linear(16, last, bias=last > 1)
    )


class Zero(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x, _labels):
        return x * self.w


def network(name, case):
    """The filled network of a golden case: its parameters are those of the stored gradients."""
    described = case.get("net", "")
    if "zero_net" in name:
        return Zero()
    if "RefineNetDilated" in described or name.startswith("anneal"):
        if name.startswith("anneal"):
            return fill(networks.CondRefineNetDilated(3, 4, 10))
        return fill(networks.RefineNetDilated(3, 4))
    if "img" in name:
        return fill(networks.ResScore(8, 8))
    return fill(mlp(5 if "estimation" in case["function"] else 1))


def outputs(name, case, golden, model):
    """What the loss of a case gives, with the stored draws."""
    x = torch.tensor(golden["x"])
    draws = [torch.tensor(golden[f"draw{i}"]) for i in range(len(case["draws"]))]
    first = draws[0] if draws else None
    match case["function"]:
        case "dsm":
            return losses.dsm(model, x, case["sigma"], noise=first)
        case "dsm_score_estimation":
            return losses.dsm_score_estimation(model, x, case["sigma"], noise=first)
        case "single_sliced_score_matching" | "partial_sliced_score_matching" as function:
            loss = getattr(losses, function)
            if not draws:
                return loss(model, x, torch.tensor(ARRAYS["given_noise"]))
            torch_randn, torch.randn_like = torch.randn_like, lambda _: first
            try:
                return loss(model, x, detach=case["detach"], noise_type=case["noise_type"])
            finally:
                torch.randn_like = torch_randn
        case "anneal_dsm_score_estimation":
            labels = torch.tensor(ARRAYS["anneal/labels"])[: len(x)]
            sigmas = torch.tensor(ARRAYS["anneal/sigmas"])
            power = case.get("anneal_power", 2.0)
            return losses.anneal_dsm_score_estimation(model, x, labels, sigmas, power, noise=first)
        case "anneal_sliced_score_estimation_vr":
            labels, sigmas = torch.tensor(ARRAYS["anneal/labels"]), torch.tensor(ARRAYS["anneal/sigmas"])
            return losses.anneal_sliced_score_estimation_vr(
                model, x, labels, sigmas, case["n_particles"], noise=first, vectors=draws[1]
            )
        case function:
            return getattr(losses, function)(model, x, case["n_particles"], vectors=first)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    case, golden = CASES[name], case_of(ARRAYS, name)
    model = network(name, case)
    out = outputs(name, case, golden, model)
    out = out if isinstance(out, tuple) else (out,)
    for i, value in enumerate(out):
        close(value, golden[f"out{i}"])
    if case["grad_norm"] is None:
        assert not out[0].requires_grad
        return
    out[0].backward()
    gradients = {key: value.grad for key, value in model.named_parameters() if value.grad is not None}
    assert gradients.keys() >= case["grad_norm_per_parameter"].keys()
    for key, norm in case["grad_norm_per_parameter"].items():
        found = gradients[key].double().norm().item()
        np.testing.assert_allclose(found, norm, rtol=1e-4, atol=1e-6 * case["grad_norm"], err_msg=key)
    for key, expected in golden.items():
        if key.startswith("grad/"):
            tolerance = 1e-6 * case["grad_norm"] + 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(gradients[key.removeprefix("grad/")], expected, rtol=0, atol=tolerance)


# Data N(0, variance) in d dimensions, the score a linear s(x) = -a x: every loss is known.
DIMENSION, SLOPE = 4, 0.7


def check(found, expected, **tolerances):
    values = [float(v.detach()) for v in found] if isinstance(found, list | tuple) else float(found.detach())
    np.testing.assert_allclose(
        values, torch.as_tensor(expected, dtype=torch.float64).detach(), **({"rtol": 1e-12} | tolerances)
    )


def linear(x, *_labels):
    return -SLOPE * x


def energy(x):
    return 0.5 * SLOPE * x.square().sum(-1)


@pytest.fixture
def points():
    """Points whose second moment is exactly the identity, so that means over them are expectations."""
    points = torch.tensor(np.vstack([np.eye(DIMENSION), -np.eye(DIMENSION)]) * DIMENSION**0.5)
    np.testing.assert_allclose(points.T @ points / len(points), np.eye(DIMENSION), atol=1e-14)
    return points


EXACT = 0.5 * SLOPE**2 * DIMENSION - SLOPE * DIMENSION


def test_exact_score_matching_on_a_gaussian(points):
    total, square, trace = losses.exact_score_matching(linear, points)
    check([total, square, trace], [EXACT, 0.5 * SLOPE**2 * DIMENSION, -SLOPE * DIMENSION])


def test_score_matching_is_the_fisher_divergence_up_to_a_constant(points):
    """Hyvarinen's theorem on N(0, I), whose own score is -x: the constant is -d/2."""
    divergence = losses.fisher_divergence(linear, points, lambda x: -x)
    check(divergence, 0.5 * (1 - SLOPE) ** 2 * DIMENSION, rtol=1e-12)
    check(losses.exact_score_matching(linear, points)[0], divergence - DIMENSION / 2, rtol=1e-12)


@pytest.mark.parametrize("function", ["single_sliced_score_matching", "partial_sliced_score_matching"])
def test_sliced_with_signs_has_the_exact_trace_of_a_gaussian(function, points):
    """With signs the derivative's term has no variance here; the square's has, unless it is reduced."""
    torch.manual_seed(0)
    many = points.repeat(4000, 1)
    loss, scores, derivatives = getattr(losses, function)(energy, many)
    torch.testing.assert_close(scores, linear(many))
    assert (derivatives.abs() - SLOPE).abs().max() < 1e-12
    exact = function.startswith("partial")
    check(loss, EXACT, rtol=1e-12 if exact else 0.01)


@pytest.mark.parametrize("noise_type", ["gaussian", "sphere"])
def test_sliced_with_other_projections(noise_type, points):
    torch.manual_seed(0)
    loss, _, _ = losses.single_sliced_score_matching(energy, points.repeat(4000, 1), noise_type=noise_type)
    check(loss, EXACT, rtol=0.02)


def test_variance_reduced_estimators_agree_with_the_exact_loss(points):
    torch.manual_seed(0)
    many = points.repeat(5000, 1)
    for total, square, trace in (
        losses.sliced_score_estimation_vr(linear, many, 4),
        losses.sliced_score_matching_vr(energy, many, 4),
        losses.sliced_score_estimation_vr(linear, many.reshape(-1, 1, 2, 2), 4),
    ):
        check(square, 0.5 * SLOPE**2 * DIMENSION, rtol=1e-12)
        check([trace, total], [-SLOPE * DIMENSION, EXACT], rtol=0.02)


def test_unit_projections_divide_the_loss_by_the_dimension(points):
    torch.manual_seed(0)
    many = points.repeat(4000, 1)
    for total, square, trace in (
        losses.sliced_score_estimation(linear, many),
        losses.sliced_score_matching(energy, many),
    ):
        check(trace, -SLOPE, rtol=1e-12)  # v^T (-a I) v with |v| = 1
        check([square, total], [0.5 * SLOPE**2, EXACT / DIMENSION], rtol=0.02)


def test_denoising_score_matching_on_a_gaussian(points):
    """E 1/2 |-a (x + sigma z) + z / sigma|^2 = d/2 (a^2 + (1 / sigma - a sigma)^2)."""
    torch.manual_seed(0)
    sigma, many = 0.5, points.repeat(20_000, 1)
    expected = 0.5 * DIMENSION * (SLOPE**2 + (1 / sigma - SLOPE * sigma) ** 2)
    check(losses.dsm_score_estimation(linear, many, sigma), expected, rtol=0.01)
    check(losses.dsm(energy, many, sigma), expected * sigma**4, rtol=0.01)
    levels, labels = torch.tensor([2.0, sigma], dtype=torch.float64), torch.ones(len(many), dtype=torch.int64)
    annealed = losses.anneal_dsm_score_estimation(linear, many, labels, levels, 1.5)
    check(annealed, expected * sigma**1.5, rtol=0.01)


def test_denoising_is_least_at_the_score_of_the_noisy_data(points):
    """N(0, I) with noise has the score -x / (1 + sigma^2)."""
    torch.manual_seed(0)
    sigma, many = 0.8, points.repeat(4000, 1)
    noise = torch.randn_like(many)
    slopes = torch.linspace(0.3, 1.2, 31, dtype=torch.float64)
    values = [losses.dsm_score_estimation(lambda x, a=a: -a * x, many, sigma, noise=noise) for a in slopes]
    np.testing.assert_allclose(slopes[int(torch.stack(values).argmin())], 1 / (1 + sigma**2), atol=0.03)


def test_annealed_sliced_on_a_gaussian(points):
    """E 1/2 a^2 |x + sigma z|^2 - a d, times sigma^2."""
    torch.manual_seed(0)
    many = points.repeat(40_000, 1)
    levels = torch.tensor([2.0, 0.5], dtype=torch.float64)
    labels = torch.arange(len(many)) % 2
    loss = losses.anneal_sliced_score_estimation_vr(linear, many, labels, levels, 2)
    expected = [(0.5 * SLOPE**2 * (1 + s**2) - SLOPE) * DIMENSION * s**2 for s in (2.0, 0.5)]
    check(loss, np.mean(expected), rtol=0.02)


def test_unknown_projections():
    for function, name in (("single_sliced_score_matching", "cube"), ("partial_sliced_score_matching", "sphere")):
        with pytest.raises(ValueError, match=f"unknown noise_type '{name}'; known: radermacher"):
            getattr(losses, function)(energy, torch.ones(2, 3), noise_type=name)


def test_the_callers_samples_are_left_alone():
    """The original switched gradients on in the caller's tensor."""
    samples = torch.ones(3, 5)
    losses.dsm(mlp(1), samples)
    losses.sliced_score_matching(mlp(1), samples)
    assert not samples.requires_grad
