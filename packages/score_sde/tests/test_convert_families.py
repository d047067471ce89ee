"""Every network of the two programs: conversion there and back, and the converted network's numbers."""

import functools

import checkpoint_cases
import goldens
import numpy as np
import pytest
import torch

from score_core.checkpoints.convert import FORMATS, Options, convert, read_state
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Report
from score_core.checkpoints.pth_format import load_pth, loads_pth
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.tree import flatten
from score_core.checkpoints.verify import compare_outputs
from score_core.torch import networks
from score_core.torch.networks import load_flax_tree
from score_core.torch.train_state import original_keys

JAX_CASES = goldens.load("score_sde", "networks.json")
TORCH_CASES = {
    name: (file, case)
    for file in ("networks", "networks_repaired")
    for name, case in goldens.load("score_sde", f"torch/{file}_meta.json").items()
}
# The port always has GroupNorm there.
WITHOUT_COUNTERPART = ("ddpm_instancenormpp",)
REFINE_NETS = [name for name in JAX_CASES if name.startswith("ncsnv2") or name.startswith("ncsn_")]
# Their numbers are compared; the name maps of all others are, without running them.
FAMILIES = ["ncsnpp_256_output_skip_input_skip", "ddpmpp_vp_continuous", "ddpm_unconditional", "ncsnv2_256", "ncsn_v1"]


def jax_config(name):
    return checkpoint_cases.config_of(JAX_CASES[name]["config"], JAX_CASES[name]["overrides"])


def torch_config(name):
    case = TORCH_CASES[name][1]
    return checkpoint_cases.config_of(case["base"], case["overrides"])


@functools.cache
def arrays(file):
    return goldens.load("score_sde", file)


@pytest.mark.parametrize("name", [name for name in JAX_CASES if name not in WITHOUT_COUNTERPART])
def test_a_jax_checkpoint_through_pytorch_and_back(name, tmp_path):
    config = jax_config(name)
    source = checkpoint_cases.write(tmp_path / "checkpoint_1", "flax", config, checkpoint_cases.state(config))
    (tmp_path / "checkpoint_1.pth").write_bytes(convert(source, "pth", config)[0])
    assert convert(tmp_path / "checkpoint_1.pth", "flax", config)[0] == source.read_bytes()


@pytest.mark.parametrize("name", TORCH_CASES)
def test_a_pytorch_checkpoint_through_jax_and_back(name, tmp_path):
    config = torch_config(name)
    tree = checkpoint_cases.state(config, "pytorch")
    source = checkpoint_cases.write(tmp_path / "checkpoint_1.pth", "pth", config, tree)
    (tmp_path / "checkpoint_1").write_bytes(convert(source, "flax", config)[0])
    (tmp_path / "safe").write_bytes(convert(source, "safetensors", config)[0])
    for middle in ("checkpoint_1", "safe"):
        assert_same(load_pth(source), loads_pth(convert(tmp_path / middle, "pth", config)[0]))


def test_what_the_port_has_no_place_for_is_said():
    """The JAX program averages the Fourier frequencies, too, which never change but for rounding."""
    config = jax_config("ncsnpp_ve_continuous")
    tree, report = checkpoint_cases.state(config), Report()
    FORMATS["pth"].write(tree, config, report)
    assert not any("is not trained" in note for note in report.notes)
    frequencies = tree["optimizer"]["target"]["GaussianFourierProjection_0"]["W"]
    tree["params_ema"]["GaussianFourierProjection_0"] = {"W": np.nextafter(frequencies, np.float32(9))}
    FORMATS["pth"].write(tree, config, report)
    assert any("all_modules.0.W, which is not trained, has no place (off by" in note for note in report.notes)


def assert_same(one, other):
    """Everything in two contents of ``.pth`` files, to the bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for value, another in zip(one, other, strict=True):
            assert_same(value, another)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    else:
        assert one == other


@pytest.mark.parametrize("name", ["ve_ncsnpp", "vp_ddpmpp"])
def test_the_ports_own_files_through_jax_and_back(name, tmp_path):
    facts = goldens.load("score_sde", f"torch/checkpoint_{name}_continuous.json")
    config = checkpoint_cases.config_of(facts["base"], facts["overrides"])
    source = goldens.path("score_sde", f"torch/checkpoint_{name}_continuous.pth")
    (tmp_path / "checkpoint_1").write_bytes(convert(source, "flax", config)[0])
    before, after = load_pth(source), loads_pth(convert(tmp_path / "checkpoint_1", "pth", config)[0])
    # computed in float64 by another release of NumPy
    np.testing.assert_allclose(after["model"].pop("module.sigmas"), before["model"].pop("module.sigmas"), rtol=1e-12)
    # float32 in the Flax file
    for path in (("ema", "decay"), ("optimizer", "param_groups", 0, "lr")):
        *way, last = path
        one, other = (functools.reduce(lambda node, key: node[key], way, tree) for tree in (before, after))
        assert one.pop(last) == pytest.approx(other.pop(last), rel=1e-7)
    # the order of names within a mapping is not always that of a present PyTorch
    one, other = before["optimizer"].pop("param_groups"), after["optimizer"].pop("param_groups")
    assert dict(one[0]) == dict(other[0])
    for tree in (before, after):
        tree["optimizer"]["state"] = {n: sorted(entry.items()) for n, entry in tree["optimizer"]["state"].items()}
    assert_same(before, after)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_converted_network_gives_the_same_numbers(name, tmp_path):
    """Flax file in the Flax network, converted file in the PyTorch network, by the port's own keys."""
    config = jax_config(name)
    source = checkpoint_cases.write(tmp_path / "a", "flax", config, checkpoint_cases.state(config))
    target = tmp_path / "b.pth"
    target.write_bytes(convert(source, "pth", config)[0])
    for weights in ("raw", "ema"):
        difference, largest = compare_outputs(("flax", source), ("pth", target), config, weights)
        assert largest > 0 and difference <= 1e-5 * largest
    # two sets, not one twice
    raw, ema = (FORMATS["pth"].run(target, config, weights) for weights in ("raw", "ema"))
    assert np.abs(raw - ema).max() > 1e-3 * np.abs(raw).max()


@pytest.mark.parametrize("name", [name for name in TORCH_CASES if TORCH_CASES[name][1]["base"].startswith("ve/ncsn")])
def test_weights_of_the_ports_refinenets_give_its_outputs(name):
    """Parameters by the port's keys, through the converter's names, in our network of that flavor."""
    file, case = TORCH_CASES[name]
    config, golden = torch_config(name), arrays(f"torch/{file}.npz")
    state_dict = {leaf.key: goldens.fill(leaf.key, leaf.shape) for leaf in torch_leaves(config)}
    assert sum(value.size for value in state_dict.values()) == case["parameters"]
    report = Report()
    tree = FORMATS["pth"].read(_dumps(state_dict), config, report, "the file")
    assert len(report.copied) + len(report.reshaped) == len(state_dict)
    model = networks.create_model(config, tree["meta"]["flavor"]).eval()
    load_flax_tree(model, tree["params"])
    out = run(model, golden[f"{name}/x"], golden[f"{name}/labels"])
    np.testing.assert_allclose(out, golden[f"{name}/out"], rtol=0, atol=1e-5 * np.abs(golden[f"{name}/out"]).max())


@pytest.mark.parametrize("name", REFINE_NETS)
def test_weights_of_the_jax_programs_refinenets_give_its_outputs(name):
    """Parameters by Flax names, through the port's keys, in our network of the JAX flavor."""
    config, golden = jax_config(name), arrays("networks.npz")
    tree = {"params": checkpoint_cases.params(config, "jax"), "meta": {"flavor": "jax"}}
    state_dict = loads_pth(FORMATS["pth"].write(tree, config, Report()))
    model = networks.create_model(config, "jax").eval()
    keys = original_keys(model, config)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(state_dict[keys[key]]))
    out = run(model, golden[f"{name}/x"].transpose(0, 3, 1, 2), golden[f"{name}/t"]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(out, golden[f"{name}/out"], rtol=0, atol=1e-5 * np.abs(golden[f"{name}/out"]).max())


def run(model, x, labels):
    with torch.inference_mode():
        return model(torch.tensor(x), torch.tensor(labels)).numpy()


def _dumps(state_dict):
    from score_core.torch.pth import dumps

    return dumps(state_dict)


@pytest.mark.parametrize("name", ["ncsnv2_64", "ncsn_v1"])
def test_refinenets_keep_the_flavor_of_the_program_they_come_from(name, tmp_path):
    config = jax_config(name)
    for flavor, source, middle in (("jax", "flax", "pth"), ("pytorch", "pth", "flax")):
        first = checkpoint_cases.write(tmp_path / "one", source, config, checkpoint_cases.state(config, flavor))
        content, report = convert(first, middle, config)
        second = tmp_path / "other"
        second.write_bytes(content)
        assert any("flavor says" in note for note in report.notes)
        read = FORMATS[middle].read(content, config, Report(), second)
        assert read["meta"]["flavor"] == flavor
        if flavor == "pytorch" or name == "ncsnv2_64":  # and the two files give the same numbers
            difference, largest = compare_outputs((source, first), (middle, second), config, "ema")
            assert difference <= 1e-5 * largest
        safe = FORMATS["safetensors"].write(read, config, Report())
        (tmp_path / "safe").write_bytes(safe)
        assert FORMATS["safetensors"].config(safe, tmp_path / "safe").model.flavor == flavor
        again = FORMATS["safetensors"].read(safe, None, Report(), "the file")
        assert again["meta"]["flavor"] == report.flavor == flavor
        # a set of weights alone: safetensors say it, others in a note
        for format_ in ("safetensors", "pth", "flax"):
            alone, notes = convert(first, format_, config, Options(weights="ema"))
            own = {"pth": "pytorch", "flax": "jax"}.get(format_, flavor)
            assert any("cannot say" in note for note in notes.notes) == (own != flavor)
            if format_ == "safetensors":
                assert FORMATS[format_].read(alone, config, Report(), "the file")["meta"]["flavor"] == flavor


def test_a_pytorch_run_of_the_jax_flavor_is_read_with_its_configuration(tmp_path):
    """Files of this project's PyTorch runs have no mark: ``model.flavor`` of the configuration says it."""
    config = jax_config("ncsnv2_64")
    state = checkpoint_cases.state(config)
    content = loads_pth(FORMATS["pth"].write(state, config, Report()))
    assert content.pop("flavor") == "jax"
    file = tmp_path / "checkpoint_1.pth"
    file.write_bytes(_dumps(content))
    with pytest.raises(CheckpointError, match=r"refine3|refine4"):
        read_state(file, config)
    with config.unlocked():
        config.model.flavor = "jax"
    name, tree, report = read_state(file, config)
    assert (name, report.flavor) == ("pth", "jax") and "meta" not in tree
    assert flatten(tree).keys() == {key for key in flatten(state) if key != "meta/flavor"}
