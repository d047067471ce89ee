"""Official checkpoints: their exact parameters, by which a file is recognised, and the manifest of those known."""

from fnmatch import fnmatchcase

import checkpoint_cases
import goldens
import numpy as np
import pytest
import torch
import yaml

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.__main__ import main
from score_core.checkpoints.classifier_names import classifier_shapes
from score_core.checkpoints.identify import identify
from score_core.checkpoints.manifest import entries, entries_of, find
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.tree import sort_names, unflatten
from score_core.errors import UsageError
from score_core.torch import networks
from score_core.torch.networks.flax_tree import flax_leaves
from score_core.torch.pth import dumps
from score_sde.configs.load import load_config
from score_sde.configs.resolve import list_configs

JAX_INDEX = {
    name.removeprefix("configs/").removesuffix(".py"): facts
    for name, facts in goldens.load("score_sde", "params_index.json").items()
    if name.startswith("configs/")
}
TORCH_INDEX = goldens.load("score_sde", "torch/params_index.json")
LISTS = checkpoint_cases.official_lists()
OWN = {"digits", "photos"}  # experiments of this project, whose networks are others


@pytest.fixture(scope="module")
def configs():
    return {name: load_config(name) for name in list_configs()}


def jax_list(name):
    return {path: tuple(shape) for path, shape, _ in goldens.load("score_sde", JAX_INDEX[name]["file"])["params"]}


def torch_list(name):
    return LISTS[TORCH_INDEX[name].get("same_parameters_as", name)]


def tiny_zeros(shape):
    """Only shapes count, so a byte a number."""
    return np.zeros(shape, np.int8)


@pytest.mark.parametrize("name", JAX_INDEX)
def test_official_flax_parameters(name):
    """Names and shapes of every official JAX checkpoint."""
    found = {leaf.name.jax_path: leaf.jax_shape for leaf in torch_leaves(load_config(name), "jax") if leaf.name}
    assert found == jax_list(name)


@pytest.mark.parametrize("name", TORCH_INDEX)
def test_official_pytorch_parameters(name):
    """Keys, shapes, order and kinds of every official PyTorch checkpoint."""
    config = load_config(name)
    rows = torch_list(name)
    kinds = [[leaf.key, list(leaf.shape), "trainable" if leaf.trainable else "frozen"] for leaf in torch_leaves(config)]
    assert kinds == [[key, shape, kind] for key, shape, _, kind in rows if kind != "buffer"]
    buffers = [row[0] for row in rows if row[3] == "buffer"]
    assert buffers == ([] if config.model.name == "ncsn" else ["sigmas"])
    assert sum(np.prod(shape) for _, shape, _ in kinds) == TORCH_INDEX[name]["parameters"]


def test_the_lists_cover_every_packaged_experiment(configs):
    assert set(JAX_INDEX) == set(TORCH_INDEX) == set(configs) - OWN


@pytest.mark.parametrize("file", sorted({facts["file"] for facts in JAX_INDEX.values()}))
def test_every_official_flax_checkpoint_is_identified(file, configs, tmp_path):
    names = {name for name, facts in JAX_INDEX.items() if facts["file"] == file}
    expected = {name for name in JAX_INDEX if jax_list(name) == jax_list(min(names))}
    params = unflatten({path: tiny_zeros(shape) for path, shape in jax_list(min(names)).items()})
    path = tmp_path / "checkpoint_1"
    path.write_bytes(msgpack_format.dumps({"optimizer": {"target": params}}))
    found = identify(path, configs)
    assert found.format == "flax" and found.skipped == []
    assert names <= expected == set(found.configs)
    wanted = {entry.name for entry in entries() if entry.config in expected and entry.package == "score_sde"}
    assert {entry.name for entry in found.entries} == {name for name in wanted if "flax" in find(name)[0].format}


@pytest.mark.parametrize("name", LISTS)
def test_every_official_pytorch_checkpoint_is_identified(name, configs, tmp_path):
    rows = LISTS[name]
    expected = {
        other for other in TORCH_INDEX if [r[:2] for r in torch_list(other) if r[3] != "buffer"] == rows_of(name)
    }
    path = tmp_path / "weights.pth"
    path.write_bytes(dumps({f"module.{key}": tiny_zeros(shape) for key, shape, *_ in rows}))
    found = identify(path, configs)
    assert found.format == "pth" and set(found.configs) == expected and name in expected


def rows_of(name):
    return [row[:2] for row in LISTS[name] if row[3] != "buffer"]


def test_the_classifier_is_identified_and_converted(tmp_path, capsys):
    listed = goldens.load("score_sde", "params_wideresnet_noise_conditional.json")["params"]
    assert classifier_shapes() == {path: tuple(shape) for path, shape, _ in listed}
    tree = unflatten({path: tiny_zeros(shape) for path, shape in classifier_shapes().items()})
    source, safe, back = tmp_path / "checkpoint", tmp_path / "c.safetensors", tmp_path / "back"
    source.write_bytes(msgpack_format.dumps(tree))
    assert main([str(source), "--identify"]) == 0
    assert "score_sde/classifier" in capsys.readouterr().out
    assert main([str(source), str(safe), "--to=safetensors", "--weights=raw"]) == 0
    assert main([str(safe), "--identify"]) == 0
    assert main([str(safe), str(back), "--to=flax", "--weights=raw"]) == 0
    assert msgpack_format.loads(back.read_bytes()).keys() == tree.keys()
    assert main([str(source), str(tmp_path / "no"), "--to=safetensors"]) == 2  # a training state needs rates
    assert "give --weights raw" in capsys.readouterr().err


def test_a_converted_classifier_gives_the_golden_logits(tmp_path):
    """A small one of the published kind: Flax file to safetensors and back, and the golden logits in PyTorch."""
    golden = {k.removeprefix("b1/"): v for k, v in goldens.load("score_sde", "wideresnet.npz").items() if "b1/" in k}
    twin = networks.WideResnet(blocks_per_group=1, channel_multiplier=1).eval()
    tree = {leaf.path: goldens.fill(leaf.path, leaf.shape) for leaf in flax_leaves(twin).values()}
    (tmp_path / "a").write_bytes(msgpack_format.dumps(sort_names(unflatten(tree))))
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--to=safetensors", "--weights=raw"]) == 0
    assert main([str(tmp_path / "b"), str(tmp_path / "c"), "--to=flax", "--weights=raw"]) == 0
    assert (tmp_path / "c").read_bytes() == (tmp_path / "a").read_bytes()
    networks.load_flax_tree(twin, msgpack_format.loads((tmp_path / "c").read_bytes()))
    with torch.inference_mode():
        logits = twin(torch.tensor(golden["x"]).permute(0, 3, 1, 2), torch.tensor(golden["sigma"]))
    expected = golden["logits_raw"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_manifest_names_packaged_configurations_and_published_cells(configs):
    names = [entry.name for entry in entries()]
    assert len(names) == len(set(names)) > 60
    tables = {}
    for package in ("ncsn", "ncsnv2", "score_sde", "score_flow_hdsm"):
        file = goldens.ROOT / "packages" / package / "src" / package / "tables.yaml"
        rows = [row["id"] for row in yaml.safe_load(file.read_text())] if file.is_file() else []
        # a package's table may hold rows of its own only (package/name); published ones have longer names
        tables[package] = [row for row in rows if row.count("/") > 1]
    for entry in entries():
        assert entry.tables or "mnist" in entry.name
        if entry.package == "score_sde":
            assert not entry.config or entry.config in configs, entry.name
        for pattern in entry.tables:
            known = tables[pattern.partition("/")[0]]
            assert not known or any(fnmatchcase(row, pattern) for row in known), pattern


def test_the_manifest_is_printed(capsys):
    assert main(["--manifest"]) == 0
    assert capsys.readouterr().out.count("\n  config ") == len(entries())
    assert main(["--manifest", "vp/cifar10_ddpmpp_deep_continuous/checkpoint_8"]) == 0
    out = capsys.readouterr().out
    assert "stored step 400005" in out and "score_sde/table3/ddpmpp_cont_deep_vp/*" in out
    assert main(["--manifest", "imagenet512"]) == 2
    assert "no known official checkpoint" in capsys.readouterr().err
    assert main(["--manifest", "--inspect"]) == 2


def test_entries_of_other_packages_are_found_by_their_prefix():
    assert {entry.program for entry in entries_of(["ncsnv2:cifar10"], "ncsnv2")} == {"ermongroup/ncsnv2"}
    assert entries_of(["ncsnv2:cifar10"], "flax") == []
    with pytest.raises(UsageError):
        find("nothing of the kind")
