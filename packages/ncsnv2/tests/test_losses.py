"""Annealed denoising score matching: the original's losses, draws and gradients."""

import goldens
import pytest
import torch
import torch_goldens
from ncsnv2_cases import golden_network

from ncsnv2.losses import draw_levels, dsm_losses
from score_core.noise_scales import langevin_sigmas

ARRAYS = goldens.load("ncsnv2", "losses.npz")
CASES = goldens.load("ncsnv2", "losses.json")


def setup(cfg, dtype=torch.float32):
    cfg = dict(cfg)
    network = golden_network(cfg.pop("model"), **cfg).to(dtype).train()
    levels = langevin_sigmas(cfg.get("sigma_begin", 50), cfg.get("sigma_end", 0.01), cfg.get("num_classes", 10))
    return network, torch.from_numpy(levels).float().to(dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_losses_and_gradients(case):
    arrays = torch_goldens.case_of(ARRAYS, case["id"])
    images = torch.from_numpy(ARRAYS[f"{case['id'].partition('/')[0]}/X"])
    labels, z = torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["z"])
    for suffix, dtype, tolerance in (("", torch.float32, 1e-5), ("64", torch.float64, 1e-10)):
        network, sigmas = setup(case["cfg"], dtype)
        x, noise = images.to(dtype), z.to(dtype)
        losses = dsm_losses(network, x, labels, noise, sigmas, case["anneal_power"])
        if not suffix:
            torch_goldens.close(losses, arrays["per_sample"], tolerance)
        loss = losses.mean()
        torch_goldens.close(loss, arrays[f"loss{suffix}"], tolerance)
        loss.backward()
        total = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in network.parameters() if p.grad is not None))
        assert total.item() == pytest.approx(float(arrays[f"grad_norm{suffix}"]), rel=10 * tolerance)
        for name, parameter in network.named_parameters():
            if f"grad{suffix}/{name}" in arrays:
                torch_goldens.close(parameter.grad, arrays[f"grad{suffix}/{name}"], 10 * tolerance)


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in ARRAYS} & {"given_labels", "batch_one"}))
def test_given_labels_and_batch_of_one(name):
    arrays = torch_goldens.case_of(ARRAYS, name)
    network, sigmas = setup(CASES[0]["cfg"])
    images = torch.from_numpy(ARRAYS["v2/X"])
    images = images[:1] if name == "batch_one" else images
    labels, z = torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["z"])
    torch_goldens.close(dsm_losses(network, images, labels, z, sigmas).mean(), arrays["loss"], 1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_draws_are_the_originals_for_a_seed(case):
    arrays = torch_goldens.case_of(ARRAYS, case["id"])
    images = torch.from_numpy(ARRAYS[f"{case['id'].partition('/')[0]}/X"])
    labels, z = draw_levels(images, 10, torch.Generator().manual_seed(case["seed"]))
    assert labels.tolist() == arrays["labels"].tolist()
    assert torch.equal(z, torch.from_numpy(arrays["z"]))


def test_the_generator_gives_the_originals_numbers():
    golden = goldens.load("ncsnv2", "torch_cpu_generator.npz")
    torch.manual_seed(1234)
    draws = (
        lambda: torch.rand(5),
        lambda: torch.randn(20),
        lambda: torch.randint(0, 232, (8,)),
        lambda: torch.randn(7),
        lambda: torch.randperm(10),
    )
    for name, draw in zip(golden, draws, strict=True):
        assert torch.equal(draw(), torch.from_numpy(golden[name])), name
