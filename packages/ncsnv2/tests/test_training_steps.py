"""Five steps of the original with every optimiser: losses, parameters, averages, the averaged network's test loss."""

import goldens
import numpy as np
import pytest
import torch
import torch_goldens
from ncsnv2_cases import golden_network

from ncsnv2.average import Average
from ncsnv2.losses import dsm_losses
from score_core.noise_scales import langevin_sigmas
from score_core.runs.namespace_config import to_namespace
from score_core.torch.optimizers import make_optimizer

ARRAYS = goldens.load("ncsnv2", "train_steps.npz")
CASES = goldens.load("ncsnv2", "train_steps.json")


def check(found, expected, tolerance):
    """[sum, sum of magnitudes, first five values] of a tensor."""
    values = found.detach().double().flatten()
    facts = torch.cat([values.sum()[None], values.abs().sum()[None], values[:5]])
    np.testing.assert_allclose(facts, expected[:7], rtol=0, atol=tolerance * max(1.0, abs(expected[1])))


@pytest.mark.parametrize("precision", ["f32", "f64"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_five_steps(case, precision):
    dtype, tolerance = (torch.float32, 1e-5) if precision == "f32" else (torch.float64, 1e-10)
    arrays, expected = torch_goldens.case_of(ARRAYS, case["id"]), case["results"][precision]
    cfg = dict(case["cfg"])
    network = golden_network(cfg.pop("model"), **cfg).to(dtype)
    sigmas = torch.from_numpy(langevin_sigmas(cfg.get("sigma_begin", 50), 0.01, 10)).float().to(dtype)
    optimizer = make_optimizer(to_namespace(case["optim"]), network.parameters())
    average = Average(network, case["ema_rate"])

    def losses(model, prefix, images):
        labels, z = (torch.from_numpy(arrays[f"{prefix}{name}"]) for name in ("labels", "z"))
        return labels, z.to(dtype), torch.from_numpy(arrays[images]).to(dtype)

    labels, z, images = losses(network, "", "X")
    for step in range(5):
        network.train()
        loss = dsm_losses(network, images[step], labels[step], z[step], sigmas, case["anneal_power"]).mean()
        assert loss.item() == pytest.approx(expected["losses"][step], rel=tolerance)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in network.parameters() if p.grad is not None))
        assert norm.item() == pytest.approx(expected["grad_norms"][step], rel=10 * tolerance)
        optimizer.step()
        average.update(network)
        parameters = dict(network.named_parameters())
        for name, facts in expected["checks"][step]["params"].items():
            check(parameters[name], facts, tolerance)
        for name, facts in expected["checks"][step]["ema"].items():
            check(average.shadow[name], facts, tolerance)
    if "ema_test_loss" in expected:
        labels, z, images = losses(network, "test_", "X_test")
        with torch.no_grad():
            loss = dsm_losses(average.network(network), images, labels, z, sigmas, case["anneal_power"]).mean()
        assert loss.item() == pytest.approx(expected["ema_test_loss"], rel=tolerance)
