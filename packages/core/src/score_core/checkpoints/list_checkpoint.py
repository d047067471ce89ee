"""Checkpoints of NCSN and NCSNv2: a list in a ``.pth`` file, and beside it what an exact resume needs.

    [network, optimiser]                             NCSN
    [network, optimiser, epoch, step]                NCSNv2 without averaging
    [network, optimiser, epoch, step, average]       NCSNv2

Keys of the network carry the prefix ``module.`` where the program wrapped it in ``DataParallel``; those of the average
never do. Old optimiser states number their parameters by memory addresses: their order in ``param_groups`` counts.

A run writes ``checkpoint_<step>.pth`` and, with the same contents, ``checkpoint.pth``. Beside each lies a hidden record
(``.checkpoint.pth.json``) with the checksum of the file and the :class:`ResumePoint`. Two files cannot be replaced at
one instant, so a record holds an entry for the present contents and one for the next, and is written first: whenever
the process dies, the file has an entry. Files without a record (made by the original programs) are read all the same.
"""

import json
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_core.checkpoints.atomic import atomic_write, remove_leftovers
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.checkpoints.pth_format import loads_pth

__all__ = [
    "LATEST",
    "ListCheckpoint",
    "ResumePoint",
    "checkpoint_name",
    "find_newest",
    "list_steps",
    "parse_list",
    "read_list_checkpoint",
    "save_list_checkpoint",
]

_logger = logging.getLogger(__name__)

LATEST = "checkpoint.pth"
_NUMBERED = re.compile(r"checkpoint_(0|[1-9][0-9]*)\.pth")
_PREFIX = "module."
_HELD = 2  # entries of a record: the present contents and the next


@dataclass(frozen=True)
class ResumePoint:
    """What a run needs besides the list to go on to the same numbers.

    Random numbers and batches are functions of the seed and the step, so these two are the whole random state and the
    whole data position.
    """

    step: int
    """Updates done."""
    seed: int
    config_hash: str
    """Of the configuration's part that the numbers depend on."""
    data: str
    """Fingerprint of the training images."""


@dataclass(frozen=True)
class ListCheckpoint:
    """A checkpoint that was read; arrays are NumPy's.

    Attributes:
        network: state dict, without the prefix ``module.``.
        optimizer: state dict, parameters numbered 0, 1, ... in their order.
        epoch, step: None for the list of two.
        average: the averaged parameters by name, or None.
        path, sha256: where it came from.
        resume: what lies beside the file, or None.
    """

    network: "OrderedDict[str, np.ndarray]"
    optimizer: dict[str, Any]
    epoch: int | None
    step: int | None
    average: "OrderedDict[str, np.ndarray] | None"
    path: Path
    resume: ResumePoint | None = None
    sha256: str = ""


class _Raw(NamedTuple):
    data: bytes
    digest: str
    resume: ResumePoint | None


def checkpoint_name(step: int | None) -> str:
    """The file of a step; of None, the latest."""
    return LATEST if step is None else f"checkpoint_{step}.pth"


def list_steps(folder: str | os.PathLike[str]) -> list[int]:
    """The steps of the numbered checkpoints in a folder, ascending; empty if there is no such folder."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(int(match[1]) for match in map(_NUMBERED.fullmatch, names) if match)


def read_list_checkpoint(path: str | os.PathLike[str]) -> ListCheckpoint:
    """Read a checkpoint of either program, of theirs or ours.

    Raises:
        MissingCheckpointError: it is not there; says which are.
        CheckpointError: damaged, hostile (nothing is executed), or not such a list.
    """
    path = Path(path)
    raw = _read(path)
    return replace(parse_list(loads_pth(raw.data, where=path), path), resume=raw.resume, sha256=raw.digest)


def parse_list(content: Any, where: Any) -> ListCheckpoint:
    """What a file holds (:func:`score_core.checkpoints.pth_format.loads_pth`) as a checkpoint.

    Raises: CheckpointError: it is not such a list; ``where`` is what errors call it.
    """
    if not isinstance(content, list) or len(content) not in (2, 4, 5):
        found = f"{type(content).__name__} of {len(content)}" if hasattr(content, "__len__") else type(content).__name__
        raise CheckpointError(
            f"{where} holds a {found}; a checkpoint of NCSN is a list of 2 (network, optimiser), one of NCSNv2 one of "
            "4 or 5 (network, optimiser, epoch, step, average)."
        )
    network, optimizer, *rest = content
    epoch, step, average, *_ = [*rest, None, None, None]
    _require_arrays(where, "network", network)
    if average is not None:
        _require_arrays(where, "average", average)
    if not (isinstance(optimizer, Mapping) and {"state", "param_groups"} <= optimizer.keys()):
        raise CheckpointError(f"{where}: entry 1 is not the state of an optimiser (state, param_groups).")
    if rest and not (type(epoch) is int and type(step) is int and epoch >= 0 and step >= 0):
        raise CheckpointError(f"{where}: entries 2 and 3 are {epoch!r} and {step!r}, expected an epoch and a step.")
    return ListCheckpoint(
        network=OrderedDict((key.removeprefix(_PREFIX), value) for key, value in network.items()),
        optimizer=_renumber(where, optimizer),
        epoch=epoch,
        step=step,
        average=None if average is None else OrderedDict((k.removeprefix(_PREFIX), v) for k, v in average.items()),
        path=Path(str(where)),
    )


def find_newest(folder: str | os.PathLike[str]) -> ListCheckpoint:
    """The latest good checkpoint of a run: ``checkpoint.pth``, or the highest numbered one if that is damaged.

    Raises: MissingCheckpointError if there is none; CheckpointError if all are damaged.
    """
    folder = Path(folder)
    names = [LATEST, *(checkpoint_name(step) for step in reversed(list_steps(folder)))]
    damage: list[str] = []
    for name in names:
        try:
            return read_list_checkpoint(folder / name)
        except MissingCheckpointError:
            if name != LATEST:
                raise
        except CheckpointError as error:
            damage.append(str(error))
            _logger.warning("%s Trying the one before.", error)
    if damage:
        raise CheckpointError(f"no usable checkpoint in {folder}:\n  " + "\n  ".join(damage))
    raise MissingCheckpointError(_explain_missing(folder / LATEST))


def save_list_checkpoint(
    folder: str | os.PathLike[str], data: bytes, resume: ResumePoint, *, numbered: bool = True
) -> Path:
    """Write the bytes of a list (``score_core.torch.pth.dumps``) as the latest checkpoint.

    Arguments:
        folder: the run's log folder; made if missing.
        data: the file's contents.
        resume: what goes beside it.
        numbered: also as ``checkpoint_<step>.pth``. False for a run that is stopped between two snapshots.

    Returns: the path of ``checkpoint.pth``.

    Raises: CheckpointError if it cannot be written (the disk is full); the files before are then as they were.
    """
    folder = Path(folder)
    remove_leftovers(folder, re.compile(rf"\.?{_NUMBERED.pattern}(\.json)?|\.?checkpoint\.pth(\.json)?"))
    for name in [checkpoint_name(resume.step)] * numbered + [LATEST]:
        path = folder / name
        entry = {"sha256": sha256(data).hexdigest(), **asdict(resume)}
        held = [each for each in _read_record(path) or [] if each["sha256"] != entry["sha256"]]
        record = {"entries": [*held[-(_HELD - 1) :], entry]}
        atomic_write(_record(path), (json.dumps(record, indent=1) + "\n").encode())
        atomic_write(path, data)
    return folder / LATEST


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _read_record(path: Path) -> list[dict[str, Any]] | None:
    """The entries beside ``path``; None if there are none, or nothing that makes sense."""
    try:
        entries = json.loads(_record(path).read_bytes())["entries"]
        return [{**asdict(ResumePoint(**{k: e[k] for k in _FIELDS})), "sha256": str(e["sha256"])} for e in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return None


_FIELDS = tuple(ResumePoint.__dataclass_fields__)


def _read(path: Path) -> _Raw:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingCheckpointError(_explain_missing(path)) from error
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}. Check that it is a file you may read.") from error
    digest = sha256(data).hexdigest()
    entries = _read_record(path)
    if entries is None:
        return _Raw(data, digest, None)
    for entry in entries:
        if entry["sha256"] == digest:
            return _Raw(data, digest, ResumePoint(**{key: entry[key] for key in _FIELDS}))
    raise CheckpointError(
        f"{path} is damaged: its contents do not have the checksum they were saved with. Use another checkpoint; "
        f"if you replaced the file yourself, delete {_record(path).name} beside it."
    )


def _explain_missing(path: Path) -> str:
    if not path.parent.is_dir():
        return f"no checkpoint {path}: the folder {path.parent} does not exist. Check the name of the run."
    present = [checkpoint_name(step) for step in list_steps(path.parent)]
    if (path.parent / LATEST).exists():
        present.append(LATEST)
    found = ", ".join(present) if present else "none"
    return f"no checkpoint {path}. Present there: {found}. Ask for one of these or train further."


def _require_arrays(path: Any, what: str, value: Any) -> None:
    if not isinstance(value, Mapping) or not value:
        raise CheckpointError(f"{path}: the {what} is not a state dict.")
    for key, array in value.items():
        if not isinstance(key, str) or not isinstance(array, np.ndarray):
            raise CheckpointError(f"{path}: the {what} holds {key!r}, which is no array.")


def _renumber(path: Any, optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """The optimiser's state with parameters 0, 1, ... in their order."""
    try:
        groups = [dict(group) for group in optimizer["param_groups"]]
        places: dict[Any, int] = {}
        for group in groups:
            for name in group["params"]:
                places[name] = len(places)
            group["params"] = [places[name] for name in group["params"]]
        state = {places[name]: dict(value) for name, value in optimizer["state"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: the optimiser's state makes no sense ({error!r}).") from error
    return {"state": state, "param_groups": groups}
