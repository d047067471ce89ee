"""Which configurations and official checkpoints a file can belong to, by the names and shapes of its parameters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from score_core.checkpoints.convert import FORMATS, Source, open_source
from score_core.checkpoints.identify_shapes import CLASSIFIER
from score_core.checkpoints.manifest import Entry, entries_of, find
from score_core.checkpoints.providers import DEFAULT
from score_core.errors import UsageError

__all__ = ["Identity", "fitting_configs", "identify"]


class Identity(NamedTuple):
    """What a checkpoint can be.

    Attributes:
        format: its format.
        configs: names of the configurations whose network has exactly its parameters. Several may: noise levels and
            training do not show in the parameters.
        skipped: names of those that could not be compared.
        entries: the official checkpoints that it can be.
    """

    format: str
    configs: list[str]
    skipped: list[str]
    entries: list[Entry]


def identify(path: Path, configs: Mapping[str, Any], step: int | None = None) -> Identity:
    """What a checkpoint can be.

    Arguments:
        path: a checkpoint in any format.
        configs: name, with a package's prefix unless it is score_sde's, to configuration.
        step: the number of the checkpoint if ``path`` is a folder of several.

    Raises:
        CheckpointError, UsageError: the file cannot be read, or its format cannot be identified.
    """
    source = open_source(path, step)
    name = source.name
    fitting, skipped = _compare(source, configs)
    known = find("score_sde/classifier") if CLASSIFIER in fitting else entries_of(fitting, name)
    return Identity(name, fitting, skipped, known)


def _compare(source: Source, configs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    format_ = FORMATS[source.name]
    if format_.fits is None:
        raise UsageError(f"checkpoints in the format {source.name} cannot be identified.")
    fits = format_.fits(source.data, source.path)
    source.data = None
    fitting, skipped = [], []
    for name, config in {**configs, CLASSIFIER: CLASSIFIER}.items():
        owner = name.partition(":")[0] if ":" in name else DEFAULT
        try:
            if fits(config):
                fitting.append(name)
        except (UsageError, AttributeError, KeyError, TypeError):
            # A configuration of another package may mean nothing to the format.
            if owner == format_.family and name != CLASSIFIER:
                skipped.append(name)
    return fitting, skipped


def fitting_configs(path: Path, configs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The names of :func:`identify` that fit, and those that could not be compared."""
    found = identify(path, configs)
    return found.configs, found.skipped
