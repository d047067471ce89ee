"""Finding a configuration by name or path, completing any file, and overriding it on the command line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_collections
import pytest
from absl import flags

from score_sde.configs._house import HOUSE_KEYS, add_house_keys
from score_sde.configs.load import define_config_flag, load_config
from score_sde.configs.resolve import ConfigError, list_configs, resolve_config

USERS_FILE = """
import ml_collections
from score_sde.configs.digits import get_config as digits

def get_config(nf="8"):
    config = digits()
    config.model.nf = int(nf)
    return config
"""


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", list_configs())
def test_a_packaged_config_is_found_by_name_and_by_the_originals_path(name: str, workdir: Path):
    expected = resolve_config(name)
    assert expected.is_file()
    assert expected.as_posix().endswith(f"configs/{name}.py")
    assert resolve_config(f"configs/{name}.py") == expected
    assert resolve_config(f"./configs/{name}.py") == expected


def test_an_existing_file_wins_over_a_packaged_one(workdir: Path):
    own = workdir / "configs" / "vp" / "cifar10_ddpmpp_continuous.py"
    own.parent.mkdir(parents=True)
    own.write_text(USERS_FILE)
    assert resolve_config("configs/vp/cifar10_ddpmpp_continuous.py").resolve() == own
    assert resolve_config(str(own)) == own


def test_a_bare_name_is_found_when_only_one_folder_has_it(workdir: Path):
    assert resolve_config("church_ncsnpp_continuous") == resolve_config("ve/church_ncsnpp_continuous")


def test_an_ambiguous_bare_name_lists_the_choices(workdir: Path):
    with pytest.raises(
        ConfigError, match=r"ambiguous.*subvp/cifar10_ddpmpp_continuous, vp/cifar10_ddpmpp_continuous\."
    ):
        resolve_config("cifar10_ddpmpp_continuous")


@pytest.mark.parametrize(
    ("wrong", "close"),
    [
        ("digit", "digits"),
        ("vp/cifar10_ddpmpp_continous", "vp/cifar10_ddpmpp_continuous"),
        ("configs/vp/bedroom.py", "vp/ddpm/bedroom"),
    ],
)
def test_a_wrong_name_lists_close_ones(wrong: str, close: str, workdir: Path):
    with pytest.raises(ConfigError, match=f"No configuration '{wrong}'.*Close names: .*{close}"):
        resolve_config(wrong)


def test_a_name_like_no_other_lists_all(workdir: Path):
    with pytest.raises(ConfigError, match=r"Packaged configurations: digits, photos, subvp/"):
        resolve_config("zzz")


def test_the_tools_beside_the_configs_are_not_configs(workdir: Path):
    for name in ("resolve", "load", "_house", "default_lsun_configs", ""):
        with pytest.raises(ConfigError):
            resolve_config(name)


def test_a_users_own_file_is_loaded_with_its_argument_and_completed(workdir: Path):
    (workdir / "mine.py").write_text(USERS_FILE)
    config: Any = load_config("mine.py")
    assert config.model.nf == 8
    config = load_config("mine.py:16")
    assert config.model.nf == 16
    assert config.data.root == ""
    assert config.is_locked


def test_house_keys_never_change_a_key_that_the_file_sets():
    config: Any = load_config("vp/ddpm/bedroom")
    assert config.data.category == "bedroom"
    config = ml_collections.ConfigDict(config.to_dict())
    config.sampling.legacy_rng = True
    assert add_house_keys(config) is config
    assert config.sampling.legacy_rng is True


def test_every_house_key_is_documented():
    assert all(len(key.meaning) > 10 for key in HOUSE_KEYS.values())


def test_a_file_without_get_config_says_so(workdir: Path):
    (workdir / "empty.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"empty\.py defines no function get_config"):
        load_config("empty.py")


def test_a_file_returning_something_else_says_so(workdir: Path):
    (workdir / "plain.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(ConfigError, match=r"returned dict, expected ml_collections\.ConfigDict"):
        load_config("plain.py")


def test_a_config_of_another_program_is_refused_by_its_sections():
    with pytest.raises(ConfigError, match="lacks the sections sampling, eval, data, model, optim"):
        add_house_keys(ml_collections.ConfigDict({"training": {}}))


def parse(*arguments: str) -> Any:
    """The configuration that a command line with these arguments yields."""
    argv = ["score_sde", *arguments]
    values = flags.FlagValues()
    holder = define_config_flag(flag_values=values, sys_argv=argv)
    values(argv)
    return holder.value


def test_overrides_are_typed_and_reach_the_house_keys():
    config = parse(
        "--config=vp/cifar10_ddpmpp_continuous",
        "--config.model.ch_mult=(1,2)",
        "--config.data.root=data",
        "--config.eval.enable_bpd",
        "--config.optim.lr=1",
        "--config.model.sigma_max=60.5",
        "--noconfig.data.centered",
    )
    assert config.model.ch_mult == (1, 2)
    assert config.data.root == "data"
    assert config.eval.enable_bpd is True
    assert config.data.centered is False
    assert config.model.sigma_max == 60.5
    assert config.optim.lr == 1.0
    assert isinstance(config.optim.lr, float)


def test_an_override_of_an_unknown_key_is_an_error():
    with pytest.raises((flags.Error, AttributeError, KeyError), match="no_such"):
        parse("--config=digits", "--config.model.no_such=1")


def test_an_override_of_the_wrong_type_is_an_error():
    with pytest.raises(flags.IllegalFlagValueError, match="nf"):
        parse("--config=digits", "--config.model.nf=1.5")


def test_a_wrong_name_on_the_command_line_ends_it_with_close_names_and_status_2():
    with pytest.raises(ConfigError, match="Close names: digits") as failure:
        parse("--config=digit")
    assert failure.value.exit_code == 2


def test_loading_a_config_imports_neither_framework():
    code = (
        "import sys; from score_sde.configs.load import load_config; load_config('digits'); print(sorted(sys.modules))"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"'jax'", "'torch'", "'tensorflow'"} & set(modules.strip("[]\n").split(", "))
