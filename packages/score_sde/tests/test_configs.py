"""Every published configuration equals the original's, value and type, but for the repairs listed here."""

import importlib
from typing import Any

import goldens
import ml_collections
import pytest

from score_sde.configs import _house
from score_sde.configs.load import load_config
from score_sde.configs.resolve import list_configs

GOLDEN: dict[str, dict[str, Any]] = goldens.load("score_sde", "configs.json")
TYPES: dict[str, list[str]] = goldens.load("score_sde", "config_types.json")
NAMES = sorted(GOLDEN)
EMBEDDED = ["digits", "photos"]

# (removed keys, added or changed keys) of each file whose original is defective.
LARGE: tuple[set[str], dict[str, Any]] = (
    {"device"},
    {
        "training.n_jitted_steps": 1,
        "eval.enable_sampling": True,
        "eval.enable_loss": False,
        "eval.enable_bpd": False,
        "eval.bpd_dataset": "test",
        "model.beta_min": 0.1,
        "model.beta_max": 20.0,
    },
)
REPAIRS: dict[str, tuple[set[str], dict[str, Any]]] = {
    "configs/ve/celebahq_ncsnpp_continuous.py": LARGE,
    "configs/ve/ffhq_ncsnpp_continuous.py": LARGE,
    "configs/ve/ncsn/celeba.py": ({"training.loss"}, {"training.sde": "vesde", "model.num_classes": 10}),
    "configs/ve/ncsn/celeba_5.py": (set(), {"model.num_classes": 10}),
    "configs/ve/ncsn/celeba_124.py": (set(), {"model.num_classes": 500}),
    "configs/ve/ncsn/celeba_1245.py": (set(), {"model.num_classes": 500}),
    "configs/ve/ncsn/cifar10.py": (set(), {"model.num_classes": 10}),
    "configs/ve/ncsn/cifar10_5.py": (set(), {"model.num_classes": 10}),
    "configs/ve/ncsn/cifar10_124.py": (set(), {"model.num_classes": 232}),
    "configs/ve/ncsn/cifar10_1245.py": (set(), {"model.num_classes": 232}),
    "configs/ve/ncsnv2/bedroom.py": ({"training.continuouse"}, {"training.continuous": False}),
}


def original(name: str) -> dict[str, Any]:
    """The original configuration as ``{"section.key": value}``, with tuples where the original has them."""
    flat = {key.replace("/", "."): value for key, value in goldens.flatten(GOLDEN[name]).items()}
    return {key: tuple(value) if TYPES[key] == ["tuple"] else value for key, value in flat.items()}


def ours(name: str) -> Any:
    module = importlib.import_module("score_sde." + name.removesuffix(".py").replace("/", "."))
    return module.get_default_configs() if "default_" in name else module.get_config()


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return {key.replace("/", "."): value for key, value in goldens.flatten(config.to_dict()).items()}


def typed(values: dict[str, Any]) -> dict[str, tuple[type, Any]]:
    return {key: (type(value), value) for key, value in values.items()}


def as_config(values: dict[str, Any]) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict(goldens.unflatten({key.replace(".", "/"): value for key, value in values.items()}))


def test_the_golden_file_holds_39_experiments_and_3_defaults_and_all_are_packaged():
    experiments = [name.removeprefix("configs/").removesuffix(".py") for name in NAMES if "default_" not in name]
    assert len(experiments) == 39
    assert list_configs() == sorted(experiments + EMBEDDED)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_types_equal_the_original(name: str):
    expected = original(name)
    removed, changed = REPAIRS.get(name, (set(), {}))
    assert removed <= set(expected)
    expected = {key: value for key, value in expected.items() if key not in removed} | changed
    assert typed(flat(ours(name))) == typed(expected)


@pytest.mark.parametrize("name", [name for name in NAMES if "default_" not in name])
def test_the_original_file_is_repaired_to_ours_when_loaded(name: str):
    config = as_config(original(name))
    _house.repair_defects(config)
    assert typed(flat(config)) == typed(flat(ours(name)))


@pytest.mark.parametrize("name", NAMES)
def test_every_call_returns_a_config_of_its_own(name: str):
    changed = ours(name)
    changed.seed = 1
    changed.model.dropout = 0.5
    assert typed(flat(ours(name))) != typed(flat(changed))


@pytest.mark.parametrize("name", list_configs())
def test_a_loaded_config_differs_from_its_file_by_house_keys_and_real_numbers_only(name: str):
    before, after = flat(ours(f"configs/{name}.py")), flat(load_config(name))
    assert set(after) == set(before) | set(_house.HOUSE_KEYS)
    # == holds between an int and the float of the same value, which is the one change of type.
    assert {key: after[key] for key in before} == before
    assert all(isinstance(after[key], float) for key in _house._REAL_NUMBERS if key in after)


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_experiment_has_every_key_of_the_cifar10_default(name: str):
    default = flat(ours("configs/default_cifar10_configs.py"))
    config = flat(load_config(name))
    assert set(default) <= set(config)
    assert config["data.dataset"] == name


@pytest.mark.parametrize("name", list_configs())
def test_frequencies_are_multiples_of_the_jitted_steps(name: str):
    training: Any = load_config(name).training
    for key in ("log_freq", "eval_freq", "snapshot_freq", "snapshot_freq_for_preemption"):
        assert training[key] % training.n_jitted_steps == 0, key


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_experiment_saves_the_checkpoints_that_it_evaluates(name: str):
    config: Any = load_config(name)
    training = config.training
    saved = {
        step // training.snapshot_freq for step in range(1, training.n_iters + 1) if step % training.snapshot_freq == 0
    }
    assert set(range(config.eval.begin_ckpt, config.eval.end_ckpt + 1)) <= saved
