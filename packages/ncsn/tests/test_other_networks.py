"""ResScore, the toy networks and those no runner trains, against the original's numbers."""

import goldens
import pytest
import torch
from torch_goldens import case_of, check_forward_and_gradients, fill

from ncsn import networks
from ncsn.networks import dense, unet

BLOCKS = goldens.load("ncsn", "blocks.json")
BLOCK_ARRAYS = goldens.load("ncsn", "blocks.npz")
NETS = goldens.load("ncsn", "nets.json")
NET_ARRAYS = goldens.load("ncsn", "nets.npz")
UNREACHABLE = goldens.load("ncsn", "nets_unreachable.json")
UNREACHABLE_ARRAYS = goldens.load("ncsn", "nets_unreachable.npz")

RESIDUAL = [name for name in BLOCKS if name.startswith(("ConvResBlock", "DeconvResBlock"))]


@pytest.mark.parametrize("name", [*RESIDUAL, "pix2pix_ResnetBlock"])
def test_blocks(name):
    case, golden = BLOCKS[name], case_of(BLOCK_ARRAYS, name)
    if name == "pix2pix_ResnetBlock":
        module = unet.ResnetBlock(case["dim"])
    else:
        kind = networks.DeconvResBlock if name.startswith("Deconv") else networks.ConvResBlock
        module = kind(case["in_channel"], case["out_channel"], resize=case["resize"], act=case["act"])
    check_forward_and_gradients(fill(module), case, golden, [torch.tensor(golden["in0"])])


MAKE = {
    "ResScore/nef8": lambda: networks.ResScore(8, 8),
    "ResScore/nef16_32px": lambda: networks.ResScore(16, 16),
    "ToyMLP": networks.ToyMLP,
    "GMM_module": lambda: networks.GMM(3),
    "Gaussian_module": lambda: networks.Gaussian(3),
}


@pytest.mark.parametrize("name", MAKE)
def test_networks(name):
    golden = case_of(NET_ARRAYS, name)
    check_forward_and_gradients(fill(MAKE[name]()), NETS[name], golden, [torch.tensor(golden["in0"])])


HELD = {
    "CondRefineNetDeeperDilated": lambda: networks.CondRefineNetDeeperDilated(1, 4, 10),
    "ResNetScore": lambda: unet.ResNetScore(1, 2),
    "UNetResScore": lambda: unet.UNetResScore(1, 2),
    "UNetScore32": lambda: unet.UNetScore(1, 2, 32),
    "UNetScore16": lambda: unet.UNetScore(1, 2, 16),
    "ResEnergy": lambda: networks.ResEnergy(8),
    "MLPScore": dense.MLPScore,
    "Score": lambda: dense.Score(4),
    "SmallScore": lambda: dense.SmallScore(4),
}


@pytest.mark.parametrize("name", HELD)
def test_networks_no_runner_trains(name):
    golden = case_of(UNREACHABLE_ARRAYS, name)
    inputs = [torch.tensor(golden[key]) for key in ("in0", "in1") if key in golden]
    check_forward_and_gradients(fill(HELD[name]()), UNREACHABLE[name], golden, inputs)


def test_every_held_network_that_can_run_is_here():
    assert set(UNREACHABLE) - set(HELD) == {"LargeScore"}


def test_gaussian_for_stochastic_variational_inference():
    mean, log_std = networks.Gaussian4SVI(5, 3)()
    assert mean.shape == log_std.shape == (5, 3)
    assert not mean.any()
    assert [name for name, _ in networks.Gaussian4SVI(5, 3).named_parameters()] == ["log_std", "mean"]


def test_widths_and_names_that_cannot_be_used():
    with pytest.raises(ValueError, match="multiples of 8"):
        networks.ResScore(12, 12)
    with pytest.raises(ValueError, match="equal"):
        networks.ResScore(8, 16)
    with pytest.raises(ValueError, match=r"unknown activation 'tanh'.*softplus"):
        networks.ConvResBlock(8, 8, act="tanh")
    with pytest.raises(ValueError, match="16 or 32 pixels, not 28"):
        unet.UNetScore(1, 2, 28)
