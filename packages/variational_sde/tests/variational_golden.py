"""Networks of the golden files with the parameters of the fill rule, and the arrays beside them."""

import json

import goldens
import numpy as np
import torch

from variational_sde.torch.reverse_sde import PluginReverseSDE, VariancePreservingSDE
from variational_sde.torch.unet import UNet

PACKAGE = "variational_sde"
TINY = {
    "a": {
        "input_channels": 3,
        "input_height": 8,
        "ch": 32,
        "ch_mult": (1, 2),
        "num_res_blocks": 1,
        "attn_resolutions": (4,),
    },
    "b": {
        "input_channels": 1,
        "input_height": 12,
        "ch": 32,
        "ch_mult": (1, 1, 2),
        "num_res_blocks": 2,
        "attn_resolutions": (12, 3),
        "resamp_with_conv": False,
    },
    "d": {
        "input_channels": 2,
        "input_height": 8,
        "ch": 32,
        "ch_mult": (2, 1),
        "num_res_blocks": 1,
        "attn_resolutions": (),
        "output_channels": 6,
    },
    "mnist": {
        "input_channels": 1,
        "input_height": 28,
        "ch": 32,
        "ch_mult": (1, 2, 2),
        "num_res_blocks": 2,
        "attn_resolutions": (16,),
    },
    "cifar": {
        "input_channels": 3,
        "input_height": 32,
        "ch": 128,
        "ch_mult": (1, 2, 2, 2),
        "num_res_blocks": 2,
        "attn_resolutions": (16,),
    },
}


def golden(name):
    return goldens.load(PACKAGE, name)


def filled(module):
    """The module with every parameter replaced by its fill value."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(goldens.fill(name, tuple(parameter.shape))))
    return module


def net(name):
    return filled(UNet(**TINY[name])).eval()


def plugin(network, T=1.0, **options):
    return PluginReverseSDE(VariancePreservingSDE(T=T), network, **options).eval()


def close(actual, expected, tolerance, what=""):
    """``|actual - expected| <= tolerance * max|expected|``, the golden files' measure."""
    actual = np.asarray(actual.detach() if isinstance(actual, torch.Tensor) else actual)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, expected {expected.shape}"
    scale = max(np.abs(expected).max(), 1e-12)
    worst = np.abs(actual - expected).max() / scale
    assert worst <= tolerance, f"{what}: off by {worst:.3g} of the largest value, allowed {tolerance:g}"


def case(arrays, name):
    """The arrays ``name/...`` of a golden file."""
    return {key[len(name) + 1 :]: value for key, value in arrays.items() if key.startswith(f"{name}/")}


def config_of(arrays):
    return json.loads(str(arrays["config"]))


def tensor(array):
    return torch.from_numpy(np.array(array))


def noise_of_rounding(network):
    """Names of parameters that the output does not depend on: their gradients are rounding (spec Q20)."""
    names = set()
    last_block = None
    for name, module in network.named_modules():
        kind = type(module).__name__
        if kind == "SelfAttention":
            names.add(f"{name}.attn_k.bias")
        if kind == "ResidualBlock":
            last_block = (name, module)
            if module.out_ch == module.norm2.num_groups:
                names |= {f"{name}.temb_proj.weight", f"{name}.temb_proj.bias", f"{name}.conv1.bias"}
    name, block = last_block
    if block.out_ch == block.norm2.num_groups:
        names |= {f"{name}.conv2.bias", f"{name}.shortcut.bias"}
    return names
