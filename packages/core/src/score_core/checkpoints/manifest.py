"""The official checkpoints that are known: where, from which program, behind which published cells.

The data are in ``manifest.yaml`` beside this file.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from score_core.errors import UsageError

__all__ = ["Entry", "entries", "entries_of", "find"]


class Entry(NamedTuple):
    """One checkpoint.

    Attributes:
        name: program, folder of the download, and file.
        package, config: the configuration, as that package calls it; an empty one: none is needed.
        program: the repository.
        framework: "jax", "pytorch"; several if both were published; none: never released.
        format: of ``score-convert``.
        number: in the file's name, or None if it is not known.
        tables: patterns of ids of published cells.
        source: who says so.
        note: what to know.
    """

    name: str
    package: str
    config: str
    program: str
    framework: tuple[str, ...]
    format: tuple[str, ...]
    number: int | None = None
    tables: tuple[str, ...] = ()
    source: str = ""
    note: str = ""

    def __str__(self) -> str:
        lines = [self.name]
        lines.append(f"  config     {self.package}:{self.config}" if self.config else "  config     none")
        lines.append(f"  program    {self.program} ({', '.join(self.framework) or 'never released'})")
        lines += [f"  format     {', '.join(self.format)}"] if self.format else []
        lines += [f"  tables     {', '.join(self.tables)}"] if self.tables else []
        lines += [f"  source     {self.source}"] if self.source else []
        lines += [f"  note       {self.note}"] if self.note else []
        return "\n".join(lines)


@cache
def entries() -> tuple[Entry, ...]:
    """All of them, in the order of the file."""
    import yaml

    content = yaml.safe_load(files("score_core.checkpoints").joinpath("manifest.yaml").read_text())
    return tuple(Entry(**{key: _tuple(value) for key, value in item.items()}) for item in content)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def find(text: str) -> list[Entry]:
    """The entries whose name or configuration contains a text.

    Raises:
        UsageError: there are none.
    """
    found = [entry for entry in entries() if text in entry.name or text in f"{entry.package}:{entry.config}"]
    if not found:
        raise UsageError(f"no known official checkpoint matches {text!r}. score-convert --manifest lists them all.")
    return found


def entries_of(configs: Iterable[str], format_: str) -> list[Entry]:
    """The entries whose configuration is one of those and that were published in a format.

    Arguments:
        configs: as `providers` names them.
        format_: of core, or of a package, whose entries are then all meant.
    """
    names = {name if ":" in name else f"score_sde:{name}" for name in configs}
    core = {name for entry in entries() for name in entry.format}
    return [
        entry
        for entry in entries()
        if f"{entry.package}:{entry.config}" in names and (format_ in entry.format or format_ not in core)
    ]
