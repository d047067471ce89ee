"""Configurations by name, of whichever installed package has them: ``package:name``, or ``name`` of score_sde.

A package offers its configurations through two entry-point groups, under its own name:

    [project.entry-points."score_core.configs"]
    mine = "mine.configs:load"              # load(name) -> configuration; UsageError if there is none

    [project.entry-points."score_core.config_names"]
    mine = "mine.configs:names"             # names() -> list[str]
"""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from score_core.errors import UsageError

__all__ = ["DEFAULT", "config_loaders", "list_configs", "load_config"]

DEFAULT = "score_sde"
"""The package that names without a prefix belong to."""
_CONFIGS, _NAMES = "score_core.configs", "score_core.config_names"


def _providers(group: str) -> dict[str, EntryPoint]:
    found = {entry.name: entry for entry in entry_points(group=group)}
    if not found:
        raise UsageError("no installed package knows configurations. Install score-sde.")
    return dict(sorted(found.items(), key=lambda item: (item[0] != DEFAULT, item[0])))


def load_config(name: str) -> Any:
    """The configuration ``package:name``, or ``name`` of score_sde (or of the only package there is).

    Raises:
        UsageError: there is none of that name; the message says so if another package has it.
    """
    providers = _providers(_CONFIGS)
    package, colon, rest = name.partition(":")
    if colon and package in providers:
        return providers[package].load()(rest)
    try:
        return next(iter(providers.values())).load()(name)
    except UsageError as error:
        elsewhere = [known for known in list_configs() if known.partition(":")[2] == name]
        if elsewhere:
            raise UsageError(f"{error} Other packages: {', '.join(elsewhere)}.") from error
        raise


def list_configs() -> list[str]:
    """Every packaged configuration, by the names that :func:`load_config` takes; those of score_sde first."""
    return [name for name, _ in config_loaders()]


def config_loaders(package: str | None = None) -> list[tuple[str, Callable[[], Any]]]:
    """Every packaged configuration's name, as :func:`load_config` takes it, and what loads it.

    Arguments:
        package: of this one only.
    """
    first = next(iter(_providers(_NAMES)))
    found: list[tuple[str, Callable[[], Any]]] = []
    for owner, entry in _providers(_NAMES).items():
        if package in (None, owner):
            names = (name if owner == first else f"{owner}:{name}" for name in entry.load()())
            found += [(name, lambda name=name: load_config(name)) for name in names]
    return found
