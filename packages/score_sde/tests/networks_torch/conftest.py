"""The official configs as resolved in the golden file, and the names of parameters in the PyTorch program."""

from typing import Any

import goldens
import ml_collections
import pytest
from torch import nn


@pytest.fixture(scope="session")
def official_config():
    """``official_config("ve/cifar10_ncsnpp", {"model.nf": 16})`` -> ConfigDict."""
    resolved = goldens.load("score_sde", "configs.json")

    def make(name: str, overrides: dict | None = None) -> ml_collections.ConfigDict:
        config: Any = ml_collections.ConfigDict(resolved[f"configs/{name.removesuffix('.py')}.py"])
        with config.unlocked():
            for key, value in (overrides or {}).items():
                section, entry = key.split(".")
                config[section][entry] = tuple(value) if isinstance(value, list) else value
        return config

    return make


@pytest.fixture(scope="session")
def original_modules():
    """``original_modules(model)``: the names of our modules to those of the PyTorch program."""

    def names(model: nn.Module) -> dict[str, str]:
        return _refinenet_names(model) if hasattr(model, "refine") else _unet_names(model)

    return names


@pytest.fixture(scope="session")
def original_key(original_modules):
    """``original_key(model)``: the names of our parameters to the keys of the PyTorch program's checkpoint."""

    def keys(model: nn.Module) -> dict[str, str]:
        modules = original_modules(model)
        found = {}
        for name, _ in model.named_parameters():
            prefix, _, leaf = name.rpartition(".")
            rest = ""
            while prefix not in modules:
                prefix, _, last = prefix.rpartition(".")
                rest = f"{last}.{rest}"
            leaf = "embed.weight" if leaf == "embedding" else f"{rest}{leaf}"
            found[name] = f"{modules[prefix]}.{leaf}"
        return found

    return keys


def _unet_names(model: Any) -> dict[str, str]:
    """Children are numbered in order; resamplers of an image pyramid without parameters are not counted."""
    levels = [*model.down, *model.up] if hasattr(model, "progressive") else []
    pyramids = {level.pyramid for level in levels if level.pyramid}
    names, number = {}, 0
    for name, child in model.named_children():
        if name in pyramids and not list(child.parameters()):
            names[name] = "pyramid_downsample" if "Down" in name else "pyramid_upsample"
        else:
            names[name] = f"all_modules.{number}"
            number += 1
    return names


def _refinenet_names(model: Any) -> dict[str, str]:
    numbers = [str(i + 1) for i in range(len(model.down))]
    down, up = numbers, numbers
    if len(model.down) == 6:  # the network for 256 pixels has a stage more, named after its neighbour
        down, up = ["1", "2", "3", "31", "4", "5"], ["1", "2", "31", "3", "4", "5"]
    names = {"Conv_0": "begin_conv", model.norm: "normalizer", "Conv_1": "end_conv"}
    for stage, number in zip(model.down, down, strict=True):
        for i, name in enumerate(stage):
            block = model.get_submodule(name)
            ours = {name: "", **{f"{name}.{norm}": f".normalize{n + 1}" for n, norm in enumerate(block.norms)}}
            ours |= {f"{name}.{conv}": f".conv{n + 1}" for n, conv in enumerate(block.convs)}
            ours |= {f"{name}.{block.skip}": ".shortcut"} if block.skip else {}
            pooled = {f"{key}.Conv_0": f"{value}.conv" for key, value in ours.items() if "ConvMeanPool" in key}
            names |= {key: f"res{number}.{i}{value}" for key, value in (ours | pooled).items()}
    for name, number in zip(model.refine, up, strict=True):
        block = model.get_submodule(name)
        ours = {name: "", f"{name}.{block.pool}": ".crp", f"{name}.{block.last}": ".output_convs"}
        ours |= {f"{name}.{unit}": f".adapt_convs.{i}" for i, unit in enumerate(block.adapt)}
        parts = {f"{name}.{block.pool}": (".crp", block.get_submodule(block.pool).stages)}
        if block.fuse:
            ours[f"{name}.{block.fuse}"] = ".msf"
            parts[f"{name}.{block.fuse}"] = (".msf", block.get_submodule(block.fuse).inputs)
        for key, (theirs, pairs) in parts.items():
            for i, (norm, conv) in enumerate(pairs):
                ours |= {f"{key}.{conv}": f"{theirs}.convs.{i}", f"{key}.{norm}": f"{theirs}.norms.{i}"}
        for unit in (*block.adapt, block.last):
            key = f"{name}.{unit}"
            for b, pairs in enumerate(block.get_submodule(unit).blocks):
                for stage, (norm, conv) in enumerate(pairs):
                    stem = f"{ours[key]}.{b + 1}_{stage + 1}"
                    ours |= {f"{key}.{conv}": f"{stem}_conv", f"{key}.{norm}": f"{stem}_norm"}
        names |= {key: f"refine{number}{value}" for key, value in ours.items()}
    return names
