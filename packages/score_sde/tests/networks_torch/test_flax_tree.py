"""Parameters to and from the Flax tree; names, shapes and counts of the official configurations."""

import goldens
import numpy as np
import pytest
import torch

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.torch_names import torch_leaves
from score_core.torch import networks
from score_core.torch.networks.flax_tree import flax_leaves

JAX_INDEX = goldens.load("score_sde", "params_index.json")
TORCH_INDEX = goldens.load("score_sde", "torch/params_index.json")


@pytest.fixture
def tiny():
    return networks.NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), image_size=8)


def test_there_and_back(tiny):
    tree = networks.to_flax_tree(tiny)
    other = networks.NCSNpp(nf=8, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), image_size=8)
    networks.load_flax_tree(other, tree)
    for (name, ours), theirs in zip(tiny.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert tree["Conv_0"]["kernel"].shape == (3, 3, 3, 8)
    np.testing.assert_array_equal(tree["Conv_0"]["kernel"][0, 1, 2], tiny.Conv_0.weight[:, 2, 0, 1].detach())
    np.testing.assert_array_equal(tree["Dense_0"]["kernel"].T, tiny.Dense_0.weight.detach())
    assert list(tree) == sorted(tree)
    with torch.no_grad():
        tiny.Conv_0.weight.zero_()
    assert tree["Conv_0"]["kernel"].any()  # a copy


def test_newer_flax_stores_normalisation_parameters_without_extra_axes(tiny):
    tree = networks.to_flax_tree(tiny)
    tree["GroupNorm_0"] = {key: 3 * np.ones(value.size, np.float32) for key, value in tree["GroupNorm_0"].items()}
    networks.load_flax_tree(tiny, tree)
    assert (tiny.get_parameter("GroupNorm_0.weight") == 3).all()


def test_what_does_not_fit_is_named_and_nothing_is_loaded(tiny):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    tree = networks.to_flax_tree(tiny)
    tree["Conv_0"] = {"kernel": np.zeros((3, 3, 3, 9), np.float32), "scale": np.zeros(8, np.float32)}
    with pytest.raises(CheckpointError) as caught:
        networks.load_flax_tree(tiny, tree)
    message = str(caught.value)
    assert "missing: Conv_0/bias" in message
    assert "unknown: Conv_0/scale" in message
    assert "Conv_0/kernel: shape (3, 3, 3, 9), expected (3, 3, 3, 8)" in message
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())


def on_meta(config, flavor):
    """The network without memory for its parameters."""
    with torch.device("meta"):
        return networks.create_model(config, flavor=flavor)


@pytest.mark.parametrize("name", [name for name in JAX_INDEX if name.startswith("configs/")])
def test_official_config(name, official_config, original_key):
    """Every path and shape of the JAX program; every count, key and shape of the PyTorch program."""
    short = name.removeprefix("configs/").removesuffix(".py")
    config = official_config(short)
    flax = on_meta(config, "jax")
    expected = goldens.load("score_sde", JAX_INDEX[name]["file"])["params"]
    found = {leaf.path: list(leaf.shape) for leaf in flax_leaves(flax).values()}
    assert found == {key: shape for key, shape, _ in expected}

    facts = TORCH_INDEX[short]
    model = on_meta(config, "pytorch")
    parameters = list(model.parameters())
    assert sum(parameter.numel() for parameter in parameters) == facts["parameters"]
    assert sum(parameter.numel() for parameter in parameters if parameter.requires_grad) == facts["trainable"]
    # One tensor more, the buffer of noise levels, where their network has it.
    assert facts["n_tensors"] - len(parameters) == (config.model.name != "ncsn")
    if config.model.name in ("ncsnpp", "ddpm"):
        keys = original_key(model)
        ours = {keys[key]: (tuple(leaf.parameter.shape), leaf.path) for key, leaf in flax_leaves(model).items()}
        theirs = torch_leaves(config)
        assert list(ours) == [leaf.key for leaf in theirs]  # in the order of their optimiser's and average's lists
        assert all(ours[leaf.key][0] == leaf.shape for leaf in theirs)
        assert all(ours[leaf.key][1] == leaf.name.jax_path for leaf in theirs if leaf.name)
