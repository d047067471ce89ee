"""What a run at full scale needs, whether it is there, and where to put it if it is not.

Checkpoints of the authors (`score_core.checkpoints.manifest`) are looked for below $SCORE_CHECKPOINTS, else below the
folder checkpoints, under the names of the manifest:

    checkpoints/score_sde/vp/cifar10_ddpm/checkpoint_14[.pth]      a known number
    checkpoints/score_sde/vp/cifar10_ddpmpp/<one file>             a number that is not known
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path

from score_core.checkpoints.manifest import Entry, entries
from score_core.errors import UserError
from score_core.repro.recipes import TRAIN, Needs
from score_core.repro.schema import Experiment

_BESIDE = (".yml", ".yaml", ".json", ".txt", ".png", ".md", ".npz")  # what may lie beside a checkpoint

VARIABLE = "SCORE_CHECKPOINTS"


@dataclass(frozen=True)
class Need:
    """One thing a run needs."""

    what: str
    present: bool
    where: str  # where it was found, or what to do


@dataclass(frozen=True)
class Published:
    """The official checkpoints behind a cell, and the first that is on this machine."""

    entries: tuple[Entry, ...]
    found: Path | None

    @property
    def cure(self) -> str:
        """Where to put one of them."""
        released = [entry for entry in self.entries if entry.framework]
        if not released:
            return "none was published: name one of your own with --checkpoint FILE, or train with --train"
        places = " or ".join(str(checkpoint_root() / entry.name) for entry in released)
        return (
            f"put the authors' file ({released[0].program}) at {places} (with its own suffix; of an unknown number: "
            "into a folder of that name), or name it with --checkpoint FILE, or train with --train"
        )


def checkpoint_root() -> Path:
    """The folder in which official checkpoints are looked for."""
    return Path(os.environ.get(VARIABLE) or "checkpoints")


def published_checkpoint(row_id: str) -> Published:
    """The official checkpoints behind a cell."""
    known = tuple(entry for entry in entries() if any(fnmatchcase(row_id, pattern) for pattern in entry.tables))
    places = (place for entry in known for place in _places(checkpoint_root() / entry.name))
    return Published(known, next(places, None))


def _places(path: Path) -> Iterable[Path]:
    for file in (path, path.with_name(f"{path.name}.pth")):
        if file.is_file():
            yield file
    if path.is_dir():
        files = (file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith("."))
        yield from (file for file in files if file.suffix not in _BESIDE)


def trains(experiment: Experiment) -> bool:
    """Whether a checkpoint could stand in for a stage of the experiment."""
    return experiment.published is not None and any(stage.startswith(TRAIN) for stage in experiment.stages)


def check_needs(experiment: Experiment, framework: str | None = None) -> list[Need]:
    """Everything but the checkpoint that a run at full scale needs."""
    return [
        *_frameworks(experiment, framework),
        *map(_dataset, experiment.needs.datasets or ()),
        *_extractor(experiment.needs),
        *(_module(name, "install it") for name in experiment.needs.modules or ()),
    ]


def _frameworks(experiment: Experiment, framework: str | None) -> list[Need]:
    chosen = framework or (experiment.frameworks or (None,))[0]
    return (
        [] if chosen is None else [_module(chosen, f"uv sync --all-packages --extra {chosen}, or another --framework")]
    )


def _module(name: str, cure: str) -> Need:
    return Need(f"python package {name}", find_spec(name) is not None, cure if find_spec(name) is None else "installed")


def _dataset(name: str) -> Need:
    from score_core.data.source import Request
    from score_core.data.sources import SOURCES, data_root

    layout, root = SOURCES[name].layout, data_root()
    found = layout.present(root)
    if layout.embedded or found:
        return Need(f"dataset {name}", True, ", ".join(map(str, found[:3])) or "comes with the package")
    request = Request(dataset=name, split="train", image_size=layout.image_size or 32, num_channels=None, root=root)
    return Need(f"dataset {name}", False, str(layout.missing(request)))


def _extractor(needs: Needs) -> list[Need]:
    if needs.extractor is None:
        return []
    from score_core.metrics.inception_weights import read_weights

    what = f"weights of the feature extractor {needs.extractor}"
    try:
        return [Need(what, True, read_weights()[1]), _module("torch", "the extractor is a PyTorch network; install it")]
    except UserError as error:
        return [Need(what, False, str(error))]
