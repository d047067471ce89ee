"""NCSN, NCSNv2 and their blocks against the numbers of the original NCSNv2 program: names, draws, values, buffers."""

import functools
from types import SimpleNamespace

import goldens
import numpy as np
import pytest
import torch
from torch import nn

from score_core.errors import UsageError
from score_core.noise_scales import langevin_sigmas
from score_core.torch.networks import layers, refinenet
from score_core.torch.networks.refinenet import blocks, norms

CASES = {case["id"]: case for case in goldens.load("core", "refinenet_networks.json")}
LAYERS = {case["id"]: case for case in goldens.load("core", "refinenet_layers.json") if "id" in case}
INITIAL = goldens.load("core", "refinenet_init.json")
PARAMETERS = goldens.load("core", "refinenet_params.json")
DEFAULTS = {"ngf": 4, "size": 16, "channels": 3, "num_classes": 10, "sigma_begin": 50, "sigma_end": 0.01, "batch": 2}
DEFAULTS |= {"sigma_dist": "geometric", "normalization": "InstanceNorm++", "nonlinearity": "elu", "spec_norm": False}
DEFAULTS |= {"rescaled": False, "logit_transform": False}


@functools.cache
def arrays(name):
    return goldens.load("core", f"refinenet_{name}.npz")


def make(name, **changes):
    options = SimpleNamespace(**(DEFAULTS | changes))
    data = SimpleNamespace(
        channels=options.channels, rescaled=options.rescaled, logit_transform=options.logit_transform
    )
    return getattr(refinenet, name).from_config(SimpleNamespace(model=options, data=data))


def fill(module):
    """Every parameter by its name; the vectors of spectral normalisation also, scaled to length one."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(goldens.fill(name, tuple(parameter.shape))))
        for name, buffer in module.named_buffers():
            if name.endswith(("weight_u", "weight_v")):
                vector = goldens.fill(name, tuple(buffer.shape)).astype(np.float64)
                buffer.copy_(torch.tensor((vector / np.linalg.norm(vector)).astype(np.float32)))
    return module


def close(found, expected, tolerance):
    np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_running_statistics(name, double):
    case = dict(CASES[name])
    options = {key: case[key] for key in DEFAULTS if key in case}
    model = fill(make(case["model"], **options))
    assert sum(parameter.numel() for parameter in model.parameters()) == case["n_params"]
    model = (model.double() if double else model).train(case.get("train", False))
    x, y = (torch.tensor(arrays("networks")[f"{name}/{key}"]) for key in ("x", "y"))
    out = model(x.double() if double else x, y)
    close(out, arrays("networks")[f"{name}/out{'64' if double else ''}"], 1e-10 if double else 1e-5)
    if not double:
        prefix = f"{name}/after/"
        after = {key.removeprefix(prefix): value for key, value in arrays("networks").items() if key.startswith(prefix)}
        buffers = {key: value for key, value in model.named_buffers() if key != "sigmas"}
        if case.get("train"):
            assert buffers.keys() >= after.keys()
            assert after
        for key, value in after.items():
            close(buffers[key].double(), np.asarray(value, np.float64), 1e-5)


@pytest.mark.parametrize(("name", "model"), [("deepest_base", "NCSNv2Deepest"), ("ncsndeeper_base", "NCSNdeeper")])
def test_every_block_on_the_way(name, model):
    trace, case = arrays(f"network_trace_{name}"), CASES[name]
    network = fill(make(model, sigma_begin=case.get("sigma_begin", 50))).eval()
    found = {}
    for key in set(trace) - {"x", "y", "out"}:
        network.get_submodule(key).register_forward_hook(lambda _, __, out, key=key: found.__setitem__(key, out))
    network(torch.tensor(trace["x"]), torch.tensor(trace["y"]))
    assert len(found) == len(trace) - 3
    for key, out in found.items():
        close(out, trace[key], 1e-5)


@pytest.mark.parametrize("name", PARAMETERS)
def test_names_order_and_shapes_at_full_size(name, monkeypatch):
    for draw in ("uniform_", "normal_"):
        monkeypatch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)
    case = PARAMETERS[name]
    classes = case["entries"][0][1][0] if name.startswith("NCSNv2") else 10
    levels = torch.ones(classes) if name.startswith("NCSNv2") else classes
    model = getattr(refinenet, name)(3, 128, levels)
    assert [[key, list(value.shape)] for key, value in model.state_dict().items()] == case["entries"]
    assert sum(parameter.numel() for parameter in model.parameters()) == case["n_trainable"]


@pytest.mark.parametrize("index", range(len(INITIAL)))
def test_initial_values_of_a_seed(index):
    case = INITIAL[index]
    torch.manual_seed(case["seed"])
    options = dict(case["cfg"])
    model = make(options.pop("model"), **options)
    following = torch.rand(1).item()
    entries = model.state_dict()
    assert entries.keys() == case["entries"].keys()
    for key, expected in case["entries"].items():
        value = entries[key].double()
        assert list(value.shape) == expected["shape"]
        np.testing.assert_allclose(value.reshape(-1)[:3], expected["first"], rtol=1e-4, atol=1e-7, err_msg=key)
        np.testing.assert_allclose(value.mean(), expected["mean"], rtol=1e-4, atol=1e-6, err_msg=key)
        np.testing.assert_allclose(value.std(correction=0), expected["std"], rtol=0.1, atol=1e-6, err_msg=key)
    assert following == case["next_uniform_after_construction"]


ELU = layers.get_activation("elu")
PLUS = norms.conditional_normalization("InstanceNorm++", 4)
BLOCKS = {
    "crp_max": lambda: blocks.CRPBlock(6, act=ELU),
    "crp_avg": lambda: blocks.CRPBlock(6, act=ELU, average=True),
    "ccrp": lambda: blocks.CRPBlock(6, act=ELU, norm=PLUS),
    "rcu_3x2": lambda: blocks.RCUBlock(6, 3, act=ELU),
    "crcu_2x2": lambda: blocks.RCUBlock(6, 2, act=ELU, norm=PLUS),
    "msf": lambda: blocks.MSFBlock([6, 6], 8),
    "cmsf": lambda: blocks.MSFBlock([6, 6], 8, norm=PLUS),
    "refine_start": lambda: blocks.RefineBlock([6], 6, act=ELU),
    "refine_mid": lambda: blocks.RefineBlock([6, 6], 8, act=ELU),
    "refine_end": lambda: blocks.RefineBlock([6, 6], 6, act=ELU, end=True),
    "crefine_mid": lambda: blocks.RefineBlock([6, 6], 8, act=ELU, norm=PLUS),
    "convmeanpool3": lambda: blocks.ConvMeanPool(6, 8),
    "convmeanpool1": lambda: blocks.ConvMeanPool(6, 8, 1),
    "convmeanpool3_adjust": lambda: blocks.ConvMeanPool(6, 8, adjust_padding=True),
    "meanpoolconv3": lambda: blocks.MeanPoolConv(6, 8),
    "upsampleconv3": lambda: blocks.UpsampleConv(6, 8),
}
RESIDUAL = {
    "same": (6, {}),
    "widen": (8, {}),
    "down": (8, {"down": True}),
    "down_dil2": (8, {"down": True, "dilation": 2}),
    "down_same_dil4": (6, {"down": True, "dilation": 4}),
    "dil4": (6, {"dilation": 4}),
    "widen_dil2": (8, {"dilation": 2}),
}


def block(name):
    """The module of a case of the golden file."""
    if name in BLOCKS:
        return BLOCKS[name]()
    kind, _, rest = name.partition("_")
    if kind in ("res", "cres"):
        width, options = RESIDUAL[rest]
        norm = PLUS if kind == "cres" else norms.unconditional_normalization("InstanceNorm++")
        return blocks.ResidualBlock(6, width, act=ELU, norm=norm, **options)
    norm, _, how = rest.rpartition("_")
    if kind == "cnorm":
        return norms.CONDITIONAL[norm](6, 4, bias=how == "bias")
    if how == "nobias":
        return norms.InstanceNorm2dPlus(6, bias=False)
    norm, second = (norm.removesuffix("_second_arg"), True) if how == "4" else (norm, False)
    return (norms.final_normalization(norm, 4) if second else norms.unconditional_normalization(norm))(6)


@pytest.mark.parametrize("name", [name for name in LAYERS if "error" not in LAYERS[name]])
def test_blocks_and_normalizations(name):
    case, golden = LAYERS[name], arrays("layers")
    module = fill(block(name))
    assert {key: list(value.shape) for key, value in module.named_parameters()} == case["params"]
    x, half, y = (torch.tensor(golden[key]) for key in ("x", "x_half", "y"))
    labels = (y,) if any("embed" in key for key in case["params"]) else ()
    if isinstance(module, blocks.MSFBlock):
        out = module([x, half], *labels)
    elif isinstance(module, blocks.RefineBlock):
        out = module([x, half][: len(module.adapt)], *labels)
    else:
        out = module(x[:, :, :-1, :-1] if "adjust" in name else x, *labels)
    close(out, golden[f"{name}/out"], 1e-5)


def test_a_conditional_block_may_change_its_width():
    """The original stopped with a TypeError."""
    module = blocks.ResidualBlock(6, 8, act=ELU, norm=PLUS)
    assert module(torch.rand(2, 6, 8, 8), torch.tensor([0, 3])).shape == (2, 8, 8, 8)


def test_batch_norm_in_training_mode():
    module = fill(norms.final_normalization("BatchNorm", 4)(6))
    assert isinstance(module, nn.BatchNorm2d)
    assert module.eps == 4.0


@pytest.mark.parametrize("name", ["elu", "relu", "lrelu", "swish"])
def test_activations(name):
    golden = arrays("layers")
    close(layers.get_activation(name)(torch.tensor(golden["act/x"])), golden[f"act/{name}"], 1e-6)


def test_levels():
    np.testing.assert_allclose(langevin_sigmas(1, 0.01, 3), [1, 0.1, 0.01], rtol=1e-14)
    np.testing.assert_allclose(langevin_sigmas(20, 10, 3, "uniform"), [20, 15, 10], rtol=1e-14)
    np.testing.assert_array_equal(langevin_sigmas(50, 0.01, 1), [np.exp(np.log(50))])
    for wrong in [(1, 0.01, 10, "linear"), (0, 0.01, 10), (1, 0.01, 0)]:
        with pytest.raises(UsageError, match=r"sigma_dist|num_classes"):
            langevin_sigmas(*wrong)


@pytest.mark.parametrize("name", [None, "LayerNorm"])
@pytest.mark.parametrize("model", ["NCSN", "NCSNv2"])
def test_unknown_normalization(model, name):
    with pytest.raises(UsageError, match=r"unknown model.normalization .*InstanceNorm\+\+"):
        make(model, normalization=name)
