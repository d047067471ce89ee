"""The RefineNets of NCSN against the original's numbers: blocks, outputs, gradients, inner values, initial values."""

import goldens
import numpy as np
import pytest
import torch
from torch_goldens import case_of, check_forward_and_gradients, fill

from score_core.torch.networks import layers, refinenet
from score_core.torch.networks.refinenet import blocks, norms

BLOCKS = goldens.load("ncsn", "blocks.json")
BLOCK_ARRAYS = goldens.load("ncsn", "blocks.npz")
NETS = goldens.load("ncsn", "nets.json")
NET_ARRAYS = goldens.load("ncsn", "nets.npz")
INITIAL = goldens.load("ncsn", "init.json")

ELU = layers.get_activation("elu")
PLUS = norms.conditional_normalization("InstanceNorm++", 10)


def norm(name, bias):
    table = {
        "ConditionalInstanceNorm2dPlus": norms.ConditionalInstanceNorm2dPlus,
        "ConditionalInstanceNorm2d": norms.ConditionalInstanceNorm2d,
        "ConditionalBatchNorm2d": norms.ConditionalBatchNorm2d,
    }
    if name == "InstanceNorm2dPlus":
        return norms.InstanceNorm2dPlus(4, bias=bias)
    return table[name](4, 10, bias=bias)


def residual(case):
    return blocks.ResidualBlock(
        case["input_dim"],
        case["output_dim"],
        act=ELU,
        norm=PLUS,
        down=case.get("resample") == "down",
        dilation=case.get("dilation", 1),
        adjust_padding=case.get("adjust_padding", False),
    )


def refine_block(name, case):
    """The module of a golden case."""
    kind = name.split("/")[0].split("_")[0]
    match kind:
        case "CRPBlock":
            return blocks.CRPBlock(4, act=ELU)
        case "CondCRPBlock":
            return blocks.CRPBlock(4, act=ELU, norm=PLUS)
        case "CondRCUBlock":
            return blocks.RCUBlock(4, case["n_blocks"], act=ELU, norm=PLUS, stages=case["n_stages"])
        case "CondMSFBlock":
            return blocks.MSFBlock(case["in_planes"], 4, norm=PLUS)
        case "CondRefineBlock":
            return blocks.RefineBlock(case["in_planes"], 4, act=ELU, norm=PLUS, end=case["end"])
        case "ConvMeanPool":
            return blocks.ConvMeanPool(4, 6, case["kernel_size"], adjust_padding=case["adjust_padding"])
        case "MeanPoolConv":
            return blocks.MeanPoolConv(4, 6)
        case "UpsampleConv":
            return blocks.UpsampleConv(4, 6)
        case "ConditionalResidualBlock":
            return residual(case)
    return norm(kind, name.endswith("bias1"))


OTHER_FAMILIES = ("ConvResBlock", "DeconvResBlock", "pix2pix")


@pytest.mark.parametrize("name", [name for name in BLOCKS if not name.startswith(OTHER_FAMILIES)])
def test_blocks(name):
    case, golden = BLOCKS[name], case_of(BLOCK_ARRAYS, name)
    module = fill(refine_block(name, case))
    listed = [torch.tensor(golden[key]) for key in sorted(golden) if key.startswith("in0_")]
    x = listed or torch.tensor(golden["in0"])
    labels = [torch.tensor(golden["in1"])] if "in1" in golden and "embed" in str(case["parameters"]) else []
    options = {"size": tuple(case["shape"])} if "shape" in case else {}
    if "eval_after_1" in name:
        with torch.no_grad():
            module(x, *labels)
        module.eval()
    check_forward_and_gradients(module, case, golden, [x, *labels], **options)


@pytest.mark.parametrize("name", [name for name in NETS if "RefineNetDilated" in name])
def test_refinenets(name, config_of):
    case, golden = NETS[name], case_of(NET_ARRAYS, name)
    options = case["config"]
    config = config_of(
        data={"channels": options["channels"], "logit_transform": options.get("logit", False)},
        model={"ngf": options["ngf"], "num_classes": options.get("nc", 10)},
    )
    conditional = name.startswith("Cond")
    network = refinenet.CondRefineNetDilated if conditional else refinenet.RefineNetDilated
    model = fill(network.from_config(config))

    seen = {}
    for stage in case["stages"]:
        model.get_submodule(stage).register_forward_hook(lambda _, __, out, key=stage: seen.__setitem__(key, out))
    inputs = [torch.tensor(golden["in0"])] + ([torch.tensor(golden["in1"])] if conditional else [])
    check_forward_and_gradients(model, case, golden, inputs)
    assert seen.keys() == case["stages"].keys()
    for stage, expected in case["stages"].items():
        out = seen[stage].detach().double()
        assert list(out.shape) == expected["shape"]
        largest = expected["mean_abs"]
        np.testing.assert_allclose(out.mean(), expected["mean"], rtol=1e-4, atol=1e-5 * largest, err_msg=stage)
        np.testing.assert_allclose(out.abs().mean(), largest, rtol=1e-5, err_msg=stage)
        np.testing.assert_allclose(
            out.reshape(-1)[:5], expected["first5"], rtol=1e-4, atol=1e-5 * largest, err_msg=stage
        )


def check_initial_values(module, expected):
    values = dict(module.named_parameters())
    assert set(expected) <= set(values)
    for name, moments in expected.items():
        value = values[name].detach().double()
        np.testing.assert_allclose(value.reshape(-1)[:5], moments["first5"], rtol=2e-5, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(value.mean(), moments["mean"], rtol=1e-5, atol=1e-7, err_msg=name)
        for key, found in (("min", value.min()), ("max", value.max())):
            np.testing.assert_allclose(found, moments[key], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("CondRefineNetDilated[ngf=4,1x28x28,10 classes]", lambda: refinenet.CondRefineNetDilated(1, 4, 10)),
        ("CondRefineNetDilated[ngf=64,1x28x28] (selection)", lambda: refinenet.CondRefineNetDilated(1, 64, 10)),
        ("RefineNetDilated[ngf=4,1x28x28]", lambda: refinenet.RefineNetDilated(1, 4)),
    ],
)
def test_initial_values_of_a_seed(name, make):
    torch.manual_seed(INITIAL["seed"])
    check_initial_values(make(), INITIAL["models"][name])
