"""The table of checkpoint formats, which every installed package can add to.

A format reads files into a tree (nested dict, string keys) and writes such trees. What the tree means is its
``family``: formats of one family have the same tree, so any of them converts to any other. The formats of core have
the family ``score_sde``, whose tree is the training state of :mod:`score_core.checkpoints.convert`. A package whose
network is another one names a family of its own, with whatever tree serves it; where two families can express the same
network, :func:`register_bridge` says how one's tree becomes the other's.

A package adds its formats through the entry-point group ``score_core.checkpoint_formats``; each entry is a callable
without arguments that calls :func:`register_format` (and :func:`register_bridge`), and is loaded when ``score-convert``
starts on a file:

    [project.entry-points."score_core.checkpoint_formats"]
    mine = "mine.checkpoint_formats:register"
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from score_core.errors import UsageError

__all__ = [
    "FORMATS",
    "GROUP",
    "SCORE_SDE",
    "Format",
    "Report",
    "bridge",
    "load_formats",
    "register_bridge",
    "register_format",
]

GROUP = "score_core.checkpoint_formats"
SCORE_SDE = "score_sde"
"""The family of core's own formats."""


@dataclass
class Report:
    """What became of every name.

    Attributes:
        copied, reshaped: pairs of names of parameters, before and after.
        missing: names of the network that are not in the file, and descriptions of those of another shape.
        unused: names in the file that the network does not have. Any of either ends the conversion.
        notes: what could not be carried over, and what was put in its place; sentences.
        flavor: whose network it is where programs differ, "jax" or "pytorch"; empty: not known.
    """

    copied: list[tuple[str, str]] = field(default_factory=list)
    reshaped: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    flavor: str = ""


class Format(NamedTuple):
    """A file format. The first five fields are all that a package must give.

    Attributes:
        about: a few words.
        recognises: whether the bytes of a file look like it. Formats registered later are asked first, so one that is
            laid over a general container (msgpack, a PyTorch archive) looks for what only its own files hold; see
            :func:`score_core.checkpoints.pth_format.outline_pth`. False for what it cannot read at all.
        read: ``read(data, config, report, where) -> tree``; ``config`` may be None where names need no translation;
            ``where`` is what errors call the file. Raises CheckpointError.
        write: ``write(tree, config, report) -> bytes``. Raises UsageError for what the format cannot hold.
        needs_config: whether names are translated, for which the configuration is needed.
        family: which tree it reads and writes.
        run: ``run(path, config, weights) -> array``, for ``--verify``: what the network gives for inputs that are the
            same for all formats of the family, with the file's weights ("raw" or "ema") in the framework the file is
            for. Raises CheckpointError. None: cannot be verified.
        fits: ``fits(data, where) -> (config -> bool)``, for ``--identify``: looks at a file once and returns what says
            whether it holds exactly the parameters of the network of a configuration (of any package: it may raise
            UsageError, AttributeError or KeyError for one it does not understand). None: cannot be identified.
        config: ``config(data, path) -> configuration or None``: the one that the file itself carries.
        folder: a checkpoint is a folder: ``recognises``, ``read``, ``fits`` and ``config`` take its path in the place
            of ``data``, and ``write`` returns the contents of its files by relative name.
    """

    about: str
    recognises: Callable[[Any], bool]
    read: Callable[[Any, Any, Report, Any], dict[str, Any]]
    write: Callable[[dict[str, Any], Any, Report], Any]
    needs_config: bool
    family: str = SCORE_SDE
    run: Callable[[Any, Any, str], Any] | None = None
    fits: Callable[[Any, Any], Callable[[Any], bool]] | None = None
    config: Callable[[Any, Any], Any] | None = None
    folder: bool = False


Bridge = Callable[[dict[str, Any], Any, Report], dict[str, Any]]
"""``bridge(tree, config, report) -> tree`` of the other family."""

FORMATS: dict[str, Format] = {}
"""Every format that :func:`score_core.checkpoints.convert.convert` knows."""
_BRIDGES: dict[tuple[str, str], Bridge] = {}


def register_format(name: str, format_: Format) -> None:
    """Makes a format known.

    Raises:
        ValueError: the name is taken.
    """
    if name in FORMATS:
        raise ValueError(f"a checkpoint format named {name!r} is already registered")
    FORMATS[name] = format_


def register_bridge(source: str, target: str, bridge: Bridge) -> None:
    """Makes the trees of the family ``source`` convertible to those of ``target`` (this direction only).

    Raises:
        ValueError: there is such a bridge.
    """
    if (source, target) in _BRIDGES:
        raise ValueError(f"a bridge from {source!r} to {target!r} is already registered")
    _BRIDGES[source, target] = bridge


def bridge(tree: dict[str, Any], source: str, target: str, config: Any, report: Report) -> dict[str, Any]:
    """The tree that format ``source`` read as format ``target`` writes it.

    Raises:
        UsageError: the two are of different families and no package knows how to turn one into the other.
    """
    pair = FORMATS[source].family, FORMATS[target].family
    if pair[0] == pair[1]:
        return tree
    if pair not in _BRIDGES:
        same = [name for name, format_ in FORMATS.items() if format_.family == pair[0]]
        raise UsageError(
            f"a checkpoint of {pair[0]} ({source}) cannot become one of {pair[1]} ({target}): they hold different "
            f"networks. Formats it can become: {', '.join(same)}."
        )
    return _BRIDGES[pair](tree, config, report)


_loaded: set[str] = set()


def load_formats() -> None:
    """Lets every installed package register its formats; a package is asked once.

    One that cannot be imported (a framework that is not installed) is named on stderr and left out.
    """
    for entry in entry_points(group=GROUP):
        if entry.value in _loaded:
            continue
        try:
            register = entry.load()
        except ImportError as error:
            print(f"note: the formats of {entry.name} are left out ({error})", file=sys.stderr)
        else:
            register()
        _loaded.add(entry.value)
