"""The U-net and its pieces against the original's outputs, gradients and initialisation."""

import json
import lzma

import goldens
import numpy as np
import pytest
import torch
from variational_golden import PACKAGE, TINY, close, config_of, filled, golden, net, noise_of_rounding, tensor

from variational_sde.torch.unet import ResidualBlock, SelfAttention, TimestepEmbedding, UNet, _downsample, _upsample


def packed(name):
    return json.loads(lzma.decompress(goldens.path(PACKAGE, f"{name}.json.xz").read_bytes()))


@pytest.mark.parametrize("name", ["mnist", "cifar", "demo256"])
def test_parameters_of_the_official_networks(name):
    record = packed(f"params_unet_{name}")
    with torch.device("meta"):
        network = UNet(**record["constructor"])
    found = [[key, list(value.shape), "float32"] for key, value in network.state_dict().items()]
    assert found == record["unet_state_dict"]


@pytest.mark.parametrize("name", ["tiny_a", "tiny_b", "tiny_d", "mnist_full", "cifar_full"])
def test_outputs_and_gradients(name):
    arrays = golden(f"net_{name}.npz")
    short = name.removeprefix("tiny_").removesuffix("_full")
    network, settings = net(short), {"resamp_with_conv": True} | TINY[short]
    assert config_of(arrays) == {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
    found = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, out, key=key: found.__setitem__(key, out))
        for key, module in network.named_modules()
        if f"h/{key}" in arrays
    ]
    x = tensor(arrays["x"]).requires_grad_()
    y = network(x, tensor(arrays["t"]))
    close(y, arrays["y"], 1e-5, "y")
    for key, value in found.items():
        close(value[: len(arrays[f"h/{key}"])], arrays[f"h/{key}"], 1e-5, key)
    assert len(found) == len(hooks)
    (y * tensor(arrays["w"])).sum().backward()
    close(x.grad, arrays["grad_x"], 2e-5, "grad_x")
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert list(gradients) == list(arrays["grad_names"])
    rounding = noise_of_rounding(network)
    norms = np.array([float(g.double().norm()) for g in gradients.values()])
    exact = np.array([key not in rounding for key in gradients])
    np.testing.assert_allclose(norms[exact], arrays["grad_norms"][exact], rtol=1e-4, atol=1e-5 * norms.max())
    # these do not influence the output: whatever is left of their gradients is rounding
    assert norms[~exact].max(initial=0) < 1e-4 * norms.max()
    for key, value in arrays.items():
        if key.startswith("grad/") and key[5:] not in rounding:
            gradient = gradients[key[5:]]
            close(gradient.reshape(-1)[: value.size], value.reshape(-1), 2e-5, key)


def test_pieces():
    arrays = golden("net_pieces.npz")
    t, x, tb = (tensor(arrays[key]) for key in ("t", "x", "tb"))
    from score_core.torch.networks.layers import timestep_embedding

    for dim in (32, 128):
        close(timestep_embedding(t, dim), arrays[f"embed_{dim}"], 2e-6)
    close(timestep_embedding(t, 7), arrays["embed_7"], 2e-6)
    close(filled(TimestepEmbedding(32, 128, 128))(t), arrays["temb_32_128_128"], 2e-6)
    blocks = {
        "res_same": ResidualBlock(32, 16, 32),
        "res_nin": ResidualBlock(32, 16, 64),
        "res_convshortcut": ResidualBlock(32, 16, 64, conv_shortcut=True),
        "attn": SelfAttention(32),
        "up_conv": _upsample(32, True),
        "down_conv": _downsample(32, True),
    }
    for name, block in blocks.items():
        assert list(block.state_dict()) == list(arrays[f"{name}_keys"])
        filled(block).eval()
        close(block(x, tb) if name.startswith("res") else block(x), arrays[name], 2e-6, name)
    close(_upsample(32, False)(x), arrays["up_noconv"], 0)
    close(_downsample(32, False)(x), arrays["down_noconv"], 1e-6)
    block = filled(ResidualBlock(32, 16, dropout=0.5))
    assert block.out_ch == 32
    torch.manual_seed(31)
    close(block.train()(x, tb), arrays["res_dropout_train"], 2e-6)
    close(block.eval()(x, tb), arrays["res_dropout_eval"], 2e-6)


def test_initialisation_is_the_originals():
    records = packed("init_seed0")
    for name, record in records.items():
        torch.manual_seed(0)
        network = UNet(**TINY[name.removeprefix("unet_").removeprefix("tiny_")])
        for key, value in network.state_dict().items():
            expected = record[key]
            np.testing.assert_allclose(
                value.reshape(-1)[:5].numpy(), expected["first5"], rtol=1e-6, atol=0, err_msg=key
            )
            np.testing.assert_allclose(float(value.std(correction=0)), expected["std"], rtol=1e-4)
            if "bound_expected" in expected:
                assert float(value.abs().max()) <= expected["bound_expected"]


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="halved"):
        UNet(1, 6, 32, ch_mult=(1, 2, 2))
    with pytest.raises(ValueError, match="multiples of 32"):
        UNet(1, 8, 48)
    network = UNet(1, 8, 32, ch_mult=(1,), num_res_blocks=0)
    with pytest.raises(ValueError, match=r"found \[2, 1, 4, 4\]"):
        network(torch.zeros(2, 1, 4, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="times"):
        network(torch.zeros(2, 1, 8, 8), torch.zeros(()))
