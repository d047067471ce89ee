"""Configurations as data: hash and difference."""

import json
import subprocess
import sys
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from score_core.errors import UsageError
from score_core.runs.config_record import compare_configs, config_hash, plain_config

CONFIG = {
    "model": {"nf": 128, "ch_mult": (1, 2, 2), "sigma_max": 50, "name": "ncsnpp", "fir": True, "dropout": 0.1},
    "optim": {"weight_decay": 0, "lr": 2e-4},
    "seed": 42,
    "empty": {},
    "nothing": None,
}


def test_equal_configurations_have_one_hash_whatever_their_containers_and_order():
    other = json.loads(json.dumps(CONFIG))
    other = dict(reversed(other.items()))
    other["model"] |= {
        "sigma_max": 50.0,
        "nf": np.int64(128),
        "dropout": np.float64(0.1),
        "ch_mult": np.array([1, 2, 2]),
    }
    other["model"]["name"] = Path("ncsnpp")
    other["optim"]["weight_decay"] = 0.0
    assert config_hash(other) == config_hash(CONFIG) == config_hash(ml_collections.ConfigDict(CONFIG))
    assert config_hash(ml_collections.FrozenConfigDict(CONFIG)) == config_hash(CONFIG)
    assert compare_configs(CONFIG, other) == []


def test_the_hash_does_not_change_between_versions():
    # printf '%s' '{"a": [1, 2], "b": {"c": 0.5}}' | sha256sum
    expected = "67d53d0982d27339114bfef30da9b4eea239bc88dd2eb2160e69ffd7170bd520"
    assert config_hash({"b": {"c": 0.5}, "a": (1, 2.0)}) == expected


def test_the_hash_is_the_same_in_another_process():
    code = f"from score_core.runs.config_record import config_hash; print(config_hash({CONFIG!r}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == config_hash(CONFIG)


@pytest.mark.parametrize(
    ("key", "value"),
    [("seed", 43), ("seed", True), ("seed", "42"), ("empty", {"a": 1}), ("nothing", 0), ("new", None), ("seed", [42])],
)
def test_every_difference_changes_the_hash(key, value):
    changed = CONFIG | {key: value}
    assert config_hash(changed) != config_hash(CONFIG)
    assert len(compare_configs(CONFIG, changed)) >= 1


def test_one_and_true_differ():
    assert [str(change) for change in compare_configs({"a": 1}, {"a": True})] == ["a: 1 -> true"]


def test_not_a_number_equals_itself():
    assert compare_configs({"a": float("nan"), "b": float("inf")}, {"a": float("nan"), "b": float("inf")}) == []


def test_differences_are_readable_lines_in_order():
    new = {
        "model": {"nf": 64, "ch_mult": (1, 2), "sigma_max": 50, "name": "ddpm", "fir": True},
        "optim": {"weight_decay": 0, "lr": 2e-4},
        "seed": 42,
        "empty": {},
        "nothing": None,
        "data": {"centered": False},
    }
    assert [str(change) for change in compare_configs(CONFIG, new)] == [
        "data.centered: (absent) -> false",
        "model.ch_mult: [1, 2, 2] -> [1, 2]",
        "model.dropout: 0.1 -> (absent)",
        'model.name: "ncsnpp" -> "ddpm"',
        "model.nf: 128 -> 64",
    ]


@pytest.mark.parametrize(
    ("value", "kind"), [(print, "builtin"), (object(), "object"), (b"x", "bytes"), ({1, 2}, "set")]
)
def test_values_without_a_plain_form_are_named(value, kind):
    with pytest.raises(UsageError, match=rf"'model\.device\[1\]' holds a {kind}"):
        plain_config({"model": {"device": [0, value]}})
    with pytest.raises(UsageError, match="mapping"):
        plain_config([1])
