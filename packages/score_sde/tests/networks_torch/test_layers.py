"""Embeddings, normalisations, blocks and initialisers, against the PyTorch program's numbers and their definitions."""

import functools

import goldens
import numpy as np
import pytest
import torch
from torch import nn

from score_core.torch import networks
from score_core.torch.networks import blocks, layers, normalization, refine
from score_core.torch.networks.flax_tree import flax_leaves
from score_core.torch.networks.refinenet import rules

GOLDEN = goldens.load("score_sde", "torch/ops.npz")


def assert_close(found, expected, tolerance=1e-6):
    np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def filled(module, prefix="", names=()):
    """Parameters by the golden rule, keys relative to ``module``; ``names`` replaces ours by theirs."""
    replaced = dict(names)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            key = replaced.get(name, name)
            parameter.copy_(torch.tensor(goldens.fill(prefix + key, tuple(parameter.shape))))
    return module


def tensor(name):
    return torch.tensor(GOLDEN[name])


@pytest.mark.parametrize("dim", [8, 9, 128])
def test_timestep_embedding(dim):
    assert_close(layers.timestep_embedding(tensor("temb_t"), dim), GOLDEN[f"temb_{dim}"])


def test_timestep_embedding_needs_four_features():
    with pytest.raises(ValueError, match="at least 4"):
        layers.timestep_embedding(torch.ones(2), 3)


def test_fourier_features():
    torch.manual_seed(5)
    layer = layers.GaussianFourierProjection(6, 16.0)
    assert not layer.W.requires_grad
    with torch.no_grad():
        layer.W.copy_(tensor("gfp_W_seeded"))
    assert_close(layer(tensor("gfp_in")), GOLDEN["gfp_out"], 1e-5)


def test_initial_values_are_the_programs_for_a_seed():
    """Theirs draw PyTorch's own initial values first, where a PyTorch layer is behind."""

    def convolution(kernel):
        return lambda: nn.Conv2d(3, 5, kernel)

    cases = {
        "ddpm_conv3x3": (convolution(3), lambda: layers.conv3x3(3, 5)),
        "ddpm_conv3x3_zero": (convolution(3), lambda: layers.conv3x3(3, 5, init_scale=0.0)),
        "ddpm_conv1x1": (convolution(1), lambda: layers.conv1x1(3, 5)),
        "NIN": (None, lambda: layers.NIN(4, 6)),
        "NIN_zero": (None, lambda: layers.NIN(4, 6, init_scale=0.0)),
        "ncsn_conv3x3": (None, lambda: layers.ncsn_conv(3, 5)),
        "InstanceNorm2dPlus": (None, lambda: normalization.InstanceNorm2dPlus(6)),
        "fir_conv_down": (None, lambda: blocks.Downsample(3, features=5, with_conv=True, fir=True)),
    }
    for name, (drawn_before, make) in cases.items():
        torch.manual_seed(5)
        if drawn_before is not None:
            drawn_before()
        for key, parameter in make().named_parameters():
            np.testing.assert_allclose(parameter.detach(), GOLDEN[f"init/{name}/{key}"], rtol=2e-6, err_msg=name)


@pytest.mark.parametrize(
    ("name", "make", "theirs", "labelled"),
    [
        ("InstanceNorm2dPlus", normalization.InstanceNorm2dPlus, {}, False),
        ("VarianceNorm2d", normalization.VarianceNorm2d, {"weight": "alpha"}, False),
        (
            "ConditionalInstanceNorm2dPlus",
            functools.partial(normalization.ConditionalInstanceNorm2dPlus, num_classes=5),
            {"Embed_0.embedding": "embed.weight"},
            True,
        ),
    ],
)
def test_normalizations(name, make, theirs, labelled):
    module = filled(make(6), names=theirs)
    labels = (tensor("norm_y"),) if labelled else ()
    assert_close(module(tensor("norm_x"), *labels), GOLDEN[f"norm/{name}"], 2e-6)


BLOCK = {"act": torch.nn.functional.silu, "dropout": 0.0, "temb_dim": 16}


@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("fir", [0, 1])
@pytest.mark.parametrize("resample", [None, "up", "down"])
def test_biggan_blocks(resample, fir, skip):
    module = filled(
        blocks.ResnetBlockBigGANpp(8, 12, resample=resample, fir=bool(fir), skip_rescale=bool(skip), **BLOCK)
    )
    found = module(tensor("blk_x"), tensor("blk_temb"))
    assert_close(found, GOLDEN[f"blk/biggan_{str(resample).lower()}_fir{fir}_skip{skip}"], 2e-6)


@pytest.mark.parametrize("skip", [0, 1])
def test_ddpmpp_and_attention_blocks(skip):
    block = filled(blocks.ResnetBlockDDPMpp(8, 12, skip_rescale=bool(skip), **BLOCK))
    assert_close(block(tensor("blk_x"), tensor("blk_temb")), GOLDEN[f"blk/ddpmpp_skip{skip}"], 2e-6)
    attention = filled(blocks.AttnBlockpp(8, skip_rescale=bool(skip)))
    assert_close(attention(tensor("blk_x")), GOLDEN[f"blk/attnpp_skip{skip}"], 2e-6)


@pytest.mark.parametrize(
    ("name", "make"),
    {
        "combine_sum": lambda: functools.partial(filled(blocks.Combine(3, 8, "sum")), torch.full((2, 3, 8, 8), 0.5)),
        "combine_cat": lambda: functools.partial(filled(blocks.Combine(3, 8, "cat")), torch.full((2, 3, 8, 8), 0.5)),
        "downsample_fir_conv": lambda: filled(blocks.Downsample(8, features=5, with_conv=True, fir=True)),
        "downsample_conv": lambda: filled(blocks.Downsample(8, features=5, with_conv=True)),
        "downsample_plain": lambda: blocks.Downsample(8, with_conv=False),
        "ddpm_attn": lambda: filled(blocks.AttnBlock(32)),
        "ddpm_up": lambda: filled(blocks.Upsample(32, with_conv=True)),
        "ddpm_down": lambda: filled(blocks.Downsample(32, with_conv=True)),
        "ddpm_res": lambda: lambda x: filled(blocks.ResnetBlockDDPM(32, 64, **BLOCK))(x, tensor("blk_temb")[:1]),
    }.items(),
)
def test_other_blocks(name, make):
    assert_close(make()(tensor("blk_x32" if name.startswith("ddpm") else "blk_x")), GOLDEN[f"blk/{name}"], 2e-6)


def test_initial_values_of_ncsnpp():
    model = networks.NCSNpp(nf=16, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=())
    networks.init_params(model, torch.Generator().manual_seed(0))
    for leaf in flax_leaves(model).values():
        name, last, value = leaf.path, leaf.path.rsplit("/", 1)[-1], leaf.parameter.detach()
        if last in ("bias", "b"):
            assert not value.any(), name
        elif last == "scale":
            assert (value == 1).all(), name
        elif name == "GaussianFourierProjection_0/W":
            assert 8 < value.std() < 24
        else:
            scale = 0.1 if last == "W" else 1.0
            tiny = ("ResnetBlockBigGANpp" in name and "Conv_1/" in name) or name.endswith(("NIN_3/W", "Conv_1/kernel"))
            fans = np.prod(leaf.shape[:-2]) * (leaf.shape[-2] + leaf.shape[-1]) / 2
            limit = np.sqrt(3 * (1e-10 if tiny else scale) / fans)
            # The largest of n uniform draws is below 0.7 of the limit with probability 0.7^n.
            assert 0.7 * limit < value.abs().max() <= limit * (1 + 1e-6), name


def test_pooled_convolutions_start_as_in_their_program():
    torch.manual_seed(0)
    limit = 1 / np.sqrt(9 * 12)
    theirs = refine.ConvMeanPool(12, 200, 3, "pytorch").Conv_0
    for draws in (theirs.weight, theirs.bias):
        assert draws is not None
        assert 0.95 * limit < draws.abs().max() <= limit
    flax = refine.ConvMeanPool(12, 200, 3, "jax").Conv_0
    assert flax.bias is not None
    assert not flax.bias.any()
    np.testing.assert_allclose(flax.weight.std().item(), limit, rtol=0.02)
    assert flax.weight.abs().max() <= 2 * limit / 0.8796


def test_initial_values_of_the_classifier():
    torch.manual_seed(0)
    model = networks.WideResnet(blocks_per_group=1, channel_multiplier=1)
    kernel = model.get_parameter("WideResnetGroup_2.WideResnetBlock_0.conv2.weight")
    np.testing.assert_allclose(kernel.std().item(), np.sqrt(2 / (9 * 64)), rtol=0.02)
    assert 0.98 / np.sqrt(10) < model.Dense_2.weight.abs().max() <= 1 / np.sqrt(10)
    np.testing.assert_allclose(model.Dense_0.weight.std().item(), 1 / 16, rtol=0.02)


def test_conditional_norm_table_starts_around_one_and_zero():
    torch.manual_seed(0)
    table = normalization.ConditionalInstanceNorm2dPlus(100, num_classes=50).Embed_0.embedding.detach()
    assert table.shape == (50, 300)
    np.testing.assert_allclose([table[:, :200].mean(), table[:, :200].std()], [1, 0.02], rtol=0.04)
    assert not table[:, 200:].any()


@pytest.mark.parametrize("flavor", ["jax", "pytorch"])
def test_instance_norm_has_zero_mean_and_unit_variance(flavor):
    layer = normalization.get_normalization("InstanceNorm", flavor)(4)
    assert [name for name, _ in layer.named_parameters()] == (["weight", "bias"] if flavor == "jax" else [])
    y = layer(3 + 2 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_allclose(y.detach().mean((2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.detach().std((2, 3), correction=0), 1, rtol=1e-4)


@pytest.mark.parametrize("groups", [32, None])
def test_group_norm_of_an_unsuitable_width(groups):
    channels = 48 if groups else 3
    with pytest.raises(ValueError, match=f"{channels} channels"):
        normalization.GroupNorm(channels, num_groups=groups)


def test_mean_pool_divides_by_25_everywhere():
    pooled = rules.avg_pool_5x5(torch.ones(1, 1, 6, 6))[0, 0]
    np.testing.assert_allclose([pooled[0, 0], pooled[2, 3]], [9 / 25, 1], rtol=1e-6)


@pytest.mark.parametrize("name", ["ve/cifar10_ncsnpp", "ve/ncsn/cifar10", "ve/church_ncsnpp_continuous"])
def test_noise_levels_of_both_programs(name, official_config):
    model = official_config(name).model
    expected = goldens.load("core", "resample_embed.npz")[f"model_sigmas/{name.replace('/', '_')}.py"]
    for flavor in ("jax", "pytorch"):
        found = layers.noise_levels(model.sigma_min, model.sigma_max, model.num_scales, flavor)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize(
    ("lookup", "known"),
    [
        (layers.get_activation, "swish"),
        (normalization.get_normalization, "InstanceNorm"),
        (refine.interpolation_method, "nearest_neighbor"),
        (layers.check_flavor, "jax"),
    ],
)
def test_unknown_names_list_the_known_ones(lookup, known):
    with pytest.raises(ValueError, match=f"'nonsense'.*{known}"):
        lookup("nonsense")
    lookup(known)
