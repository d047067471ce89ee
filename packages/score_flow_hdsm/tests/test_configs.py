"""Every packaged configuration is the original's, key by key."""

import importlib

import hdsm_cases
import pytest

from score_core.errors import UsageError
from score_flow_hdsm.configs._house import list_packaged, load_config

RESOLVED = hdsm_cases.load("configs.json")
FILES = [name for name in RESOLVED if "default_" not in name]


def plain(value):
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.mark.parametrize("name", FILES)
def test_configuration_is_the_original_one(name):
    program, _, file = name.partition("/configs/")
    module = file.removesuffix(".py").replace("/", ".")
    if program == "score_flow":
        module = f"score_flow.{module}"
    config = importlib.import_module(f"score_flow_hdsm.configs.{module}").get_config()
    assert plain(config) == RESOLVED[name]


def test_all_files_are_packaged_and_load_completely():
    names = list_packaged()
    assert len(names) == len(FILES) + 1  # and digits
    for name in names:
        config = load_config(name)
        assert config.training.program == ("score_flow" if name.startswith("score_flow/") else "mle_score_ode")
        assert config.eval.bound_times == 1000
        assert config.is_locked
    assert load_config("configs/ve/church_ncsnpp_continuous.py").eval.ckpt_id == 26


def test_an_unknown_name_lists_close_ones():
    with pytest.raises(UsageError, match="vp/cifar10_ddpmpp_continuous"):
        load_config("vp/cifar10_ddpmp_continuous")
