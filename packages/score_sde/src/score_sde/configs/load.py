"""From the name of a configuration to the complete ConfigDict, with typed overrides from the command line.

``define_config_flag()`` is what the program calls; ``--config NAME_OR_PATH`` then takes what `resolve` accepts, and
``--config.section.key=value`` changes any key, those of `_house` included. A file whose ``get_config`` takes an
argument is given it after a colon: ``--config mine.py:small``.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import ml_collections
from absl import flags
from ml_collections import config_flags

from score_sde.configs._house import add_house_keys
from score_sde.configs.resolve import ConfigError, resolve_config

Resolve = Callable[[str], Path]
Complete = Callable[[ml_collections.ConfigDict], ml_collections.ConfigDict]


def load_config(
    name_or_path: str, resolve: Resolve = resolve_config, complete: Complete = add_house_keys
) -> ml_collections.ConfigDict:
    """The configuration ``name_or_path[:argument]``, repaired, completed with the house keys and locked.

    Programs built on this one have their own files (``resolve``) and keys (``complete``).

    Raises
        ConfigError: there is no such file, it defines no ``get_config``, or it is no configuration of this program.
    """
    name, *argument = name_or_path.split(":", 1)
    path = resolve(name)
    module = _import(path)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} defines no function get_config(), which a configuration file must.")
    config = module.get_config(*argument)
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"get_config() of {path} returned {type(config).__name__}, expected ml_collections.ConfigDict."
        )
    return complete(config).lock()


def _import(path: Path) -> ModuleType:
    """Run a python file as a module of its own, without a trace in ``sys.modules``."""
    spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _ConfigParser(flags.ArgumentParser):
    """The value of ``--config`` as a ConfigDict."""

    def __init__(self, load: Callable[[str], ml_collections.ConfigDict]) -> None:
        self._load = load

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        return self._load(argument)

    def flag_type(self) -> str:
        return "config name or path"


def define_config_flag(
    name: str = "config",
    flag_values: flags.FlagValues = flags.FLAGS,
    sys_argv: list[str] | None = None,
    load: Callable[[str], ml_collections.ConfigDict] = load_config,
) -> flags.FlagHolder:
    """Define ``--config`` and its overrides; the holder's value is the overridden, locked ConfigDict."""
    holder = config_flags.DEFINE_config_file(
        name,
        default=None,
        help_string="Packaged configuration (such as digits or vp/cifar10_ddpmpp_continuous) or path of a python file.",
        flag_values=flag_values,
        sys_argv=sys_argv,
    )
    flag_values[name].parser = _ConfigParser(load)
    return holder
