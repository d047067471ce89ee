"""The map between Flax trees and the PyTorch port's state dicts: golden lists, real checkpoints of both, errors."""

import functools
import gzip
import json
import math

import goldens
import jax
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.torch_conversion import (
    add_module,
    compare_state_dict,
    compare_tree,
    ema_list,
    ema_state_dict,
    from_torch,
    strip_module,
    to_torch,
)
from score_core.checkpoints.torch_names import Transform, torch_leaves, torch_names
from score_core.errors import UsageError
from score_core.jax import networks


def load_gz(name):
    return json.loads(gzip.decompress(goldens.path("score_sde", name).read_bytes()))


MAPS = load_gz("jax_to_torch.json.gz")
STATE_DICTS = load_gz("torch/params_state_dicts.json.gz")
INDEX = goldens.load("score_sde", "params_index.json")
TINY = goldens.load("score_sde", "networks.json")
VERIFIED = goldens.load("score_sde", "jax_to_torch_verification.json")
TRANSFORMS = {
    Transform.SAME: None,
    Transform.CONV: [3, 2, 0, 1],
    Transform.DENSE: [1, 0],
    Transform.FLATTEN: "flatten",
}
# Its list was made with the attention of 32-pixel images, but the images have 64; PyTorch's own list has it right.
MISFILED = "configs/ve/celeba_ncsnpp.py"
TORCH_META = goldens.load("score_sde", "torch/networks_meta.json")
TORCH_META |= goldens.load("score_sde", "torch/networks_repaired_meta.json")


@pytest.fixture
def config_of(official_config):
    def make(name, overrides=None):
        kept = {key: tuple(v) if isinstance(v, list) else v for key, v in (overrides or {}).items() if "." in key}
        return official_config(f"{name.removeprefix('configs/').removesuffix('.py')}.py", kept)

    return make


def tree_shapes(config):
    shape = (config.data.image_size, config.data.image_size, config.data.num_channels)
    init = functools.partial(networks.init_params, networks.create_model(config), image_shape=shape)
    return jax.eval_shape(init, jax.random.key(0))


def jax_shapes(config):
    return {leaf.name.jax_path: leaf.jax_shape for leaf in torch_leaves(config) if leaf.name}


@pytest.mark.parametrize("name", [config for file in MAPS.values() for config in file["configs"]])
def test_the_golden_map_row_by_row(name, config_of):
    rows = next(file["map"] for file in MAPS.values() if name in file["configs"])
    found = [[path, key, TRANSFORMS[transform]] for path, key, transform in torch_names(config_of(name))]
    if name == MISFILED:
        assert found != rows
        assert {path for path, _, _ in found} == {path for path, _, _ in rows}
    else:
        assert found == rows


@pytest.mark.parametrize("name", STATE_DICTS)
def test_keys_shapes_and_order_of_the_state_dicts_of_every_official_model(name, config_of):
    buffers = [row for row in STATE_DICTS[name] if row[3] == "buffer"]
    parameters = STATE_DICTS[name][len(buffers) :]
    found = torch_leaves(config_of(name))
    kinds = [(leaf.key, list(leaf.shape), "float32", "trainable" if leaf.trainable else "frozen") for leaf in found]
    assert kinds == [tuple(row) for row in parameters]
    levels = ["sigmas", [config_of(name).model.num_scales], "float64", "buffer"]
    assert buffers == ([] if name.startswith("ve/ncsn/") else [levels])


@pytest.mark.parametrize("name", [name for name, facts in INDEX.items() if facts["model"] in ("ncsnpp", "ddpm")])
def test_the_flax_side_is_the_official_parameter_tree(name, config_of):
    expected = {path: tuple(shape) for path, shape, _ in goldens.load("score_sde", INDEX[name]["file"])["params"]}
    assert jax_shapes(config_of(name)) == expected


@pytest.mark.parametrize("name", VERIFIED)
def test_every_variant_has_a_complete_map(name, config_of):
    """Those whose outputs were compared with PyTorch's, and those which the port cannot run; both ways lossless."""
    config = config_of(TINY[name]["config"], TINY[name]["overrides"])
    shapes = tree_shapes(config)
    assert jax_shapes(config) == {path: leaf.shape for path, leaf in goldens.flatten(shapes).items()}
    tree = goldens.fill_tree(shapes)
    state_dict = to_torch(tree, config)
    assert list(state_dict) == ["sigmas", *(leaf.key for leaf in torch_leaves(config))]
    assert all(state_dict[leaf.key].shape == leaf.shape for leaf in torch_leaves(config))
    back = goldens.flatten(from_torch(state_dict, config))
    assert list(back) == sorted(back)
    for path, value in goldens.flatten(tree).items():
        np.testing.assert_array_equal(back[path], value)


@pytest.mark.parametrize("name", [name for name in TORCH_META if "ncsnpp" in name or "ddpm" in name])
def test_numbers_of_tensors_and_parameters_of_the_port(name, config_of):
    facts = TORCH_META[name]
    leaves = torch_leaves(config_of(facts["base"], facts["overrides"]))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == facts["parameters"]
    assert len(leaves) + 1 == facts["n_tensors"]


@pytest.fixture(scope="module")
def real_state():
    return msgpack_format.loads(goldens.path("score_sde", "checkpoint_real/checkpoint_1").read_bytes())


@pytest.mark.parametrize("old_norms", [True, False], ids=["[1,1,1,C]", "[C]"])
def test_a_real_flax_checkpoint_there_and_back(old_norms, real_state, config_of):
    facts = goldens.load("score_sde", "checkpoint_real/tree.json")
    config = config_of(facts["config"], facts["overrides"])
    params = real_state["params_ema"]
    given = params if old_norms else jax.tree.map(lambda v: v.reshape(-1) if v.shape[:3] == (1, 1, 1) else v, params)
    comparison = compare_tree(given, config)
    assert comparison.complete
    assert len(comparison.copied) + len(comparison.reshaped) == len(goldens.flatten(params))
    back = from_torch(add_module(to_torch(given, config)), config)
    assert msgpack_format.dumps(back) == msgpack_format.dumps(params)


@pytest.mark.parametrize("name", ["ve_ncsnpp", "vp_ddpmpp"])
def test_names_and_types_of_the_port_s_real_checkpoints(name, config_of):
    facts = goldens.load("score_sde", f"torch/checkpoint_{name}_continuous.json")
    config = config_of(facts["base"], facts["overrides"])
    written = add_module(to_torch(goldens.fill_tree(tree_shapes(config)), config))
    assert {k: f"tensor {v.dtype} {list(v.shape)}" for k, v in written.items()} == facts["tree"]["model"]
    assert len(ema_list(written, config)) == facts["tree"]["ema"]["shadow_params"][1]


@pytest.fixture(scope="module")
def port_checkpoint():
    import torch

    trusted = [np.dtype, np.dtypes.Float64DType, (np._core.multiarray.scalar, "numpy.core.multiarray.scalar")]
    with torch.serialization.safe_globals(trusted):
        path = goldens.path("score_sde", "torch/checkpoint_ve_ncsnpp_continuous.pth")
        return torch.load(path, map_location="cpu", weights_only=True)


@pytest.fixture
def port_config(config_of):
    facts = goldens.load("score_sde", "torch/checkpoint_ve_ncsnpp_continuous.json")
    return config_of(facts["base"], facts["overrides"])


@pytest.mark.parametrize("which", ["raw", "ema"])
def test_flax_with_the_port_s_weights_gives_the_port_s_outputs(which, port_checkpoint, port_config):
    forward = goldens.load("score_sde", "torch/checkpoint_ve_ncsnpp_continuous.npz")
    state_dict = port_checkpoint["model"]
    if which == "ema":
        state_dict = ema_state_dict(port_checkpoint["ema"]["shadow_params"], state_dict, port_config)
    written = to_torch(from_torch(state_dict, port_config), port_config)
    np.testing.assert_allclose(written["sigmas"], strip_module(state_dict)["sigmas"], rtol=1e-12)
    model = networks.create_model(port_config)
    x = forward["x"].transpose(0, 2, 3, 1)
    out = model.apply({"params": from_torch(state_dict, port_config)}, x, forward["labels"], train=False)
    expected = forward[f"out_{which}_weights"]
    np.testing.assert_allclose(np.transpose(out, (0, 3, 1, 2)), expected, rtol=0, atol=3e-6 * np.abs(expected).max())


def test_averages_go_through_the_list_and_back(port_checkpoint, port_config):
    state_dict, shadow = port_checkpoint["model"], port_checkpoint["ema"]["shadow_params"]
    averaged = ema_state_dict(shadow, state_dict, port_config)
    assert list(averaged) == list(strip_module(state_dict))
    for one, other in zip(ema_list(averaged, port_config), shadow, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(CheckpointError, match=r"155 of 156 arrays"):
        ema_state_dict(shadow[:-1], state_dict, port_config)
    with pytest.raises(CheckpointError, match=r"all_modules\.1\.weight .*expected \(32, 16\)"):
        ema_state_dict(shadow[::-1], state_dict, port_config)


def test_layers_that_are_never_called(config_of):
    """An unconditional network: its Dense layers are written as zeros, and neither needed nor refused."""
    facts = TORCH_META["vp_ddpm_unconditional"]
    config = config_of(facts["base"], facts["overrides"])
    tree = goldens.fill_tree(tree_shapes(config))
    state_dict = to_torch(tree, config)
    never_called = [key for key in state_dict if ".Dense_0." in key]
    assert never_called
    assert not any(state_dict[key].any() for key in never_called)
    assert set(compare_state_dict(state_dict, config).torch_only) == {"sigmas", *never_called}
    for key in [*never_called, "sigmas"]:
        del state_dict[key]
    assert compare_state_dict(state_dict, config).complete
    np.testing.assert_array_equal(from_torch(state_dict, config)["Conv_0"]["kernel"], tree["Conv_0"]["kernel"])


def test_the_report_names_every_key(port_checkpoint, port_config):
    state_dict = dict(port_checkpoint["model"])
    del state_dict["module.all_modules.3.bias"]
    state_dict["module.all_modules.0.W"] = np.zeros(7, np.float32)
    state_dict["module.head.weight"] = np.zeros(3, np.float32)
    comparison = compare_state_dict(state_dict, port_config)
    assert comparison.missing == ("all_modules.3.bias",)
    assert comparison.wrong_shape == ("all_modules.0.W (7,), expected (8,)",)
    assert comparison.unused == ("head.weight",)
    assert comparison.torch_only == ("sigmas",)
    assert ("Dense_0/bias", "all_modules.1.bias") in comparison.copied
    assert ("Dense_0/kernel", "all_modules.1.weight") in comparison.reshaped
    assert len(comparison.copied) + len(comparison.reshaped) == len(torch_names(port_config)) - 2
    with pytest.raises(CheckpointError, match=r"1 missing: all_modules\.3\.bias; 1 of another .*; 1 unused: head"):
        from_torch(state_dict, port_config)
    flat = goldens.flatten(from_torch(state_dict, port_config, partial=True))
    assert set(jax_shapes(port_config)) - set(flat) == {"Conv_0/bias", "GaussianFourierProjection_0/W"}


def test_a_tree_of_another_network_is_refused(real_state, port_config):
    params = real_state["params_ema"]
    with pytest.raises(CheckpointError, match=r"parameter tree is not that of .*: take the configuration"):
        to_torch(params, port_config)
    fitting = to_torch({"Conv_0": {"bias": np.ones(8)}, "extra": {"W": np.ones(2)}}, port_config, partial=True)
    assert list(fitting) == ["sigmas", "all_modules.3.bias"]


def test_networks_without_a_counterpart_are_refused(config_of):
    with pytest.raises(UsageError, match=r"'unet'.*'ncsnpp', 'ddpm', 'ncsn'"):
        torch_names(config_of("ve/ncsnv2/celeba", {"model.name": "unet"}))
    with pytest.raises(UsageError, match=r"unknown model.normalization 'BatchNorm'"):
        torch_names(config_of("ve/ncsnv2/celeba", {"model.normalization": "BatchNorm"}))
    with pytest.raises(UsageError, match=r"always has GroupNorm.*'InstanceNorm\+\+'"):
        torch_names(config_of("vp/ddpm/cifar10", {"model.normalization": "InstanceNorm++"}))


def test_the_prefix_of_data_parallel_is_put_on_once():
    assert add_module({"module.a": 1, "b": 2}) == {"module.a": 1, "module.b": 2}
    assert strip_module({"module.a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert strip_module({"a.module.b": 0}) == {"a.module.b": 0}
