"""Numbered checkpoint files in a folder: ``checkpoint_0``, ``checkpoint_1``, ..., each with a hidden checksum.

The checksum of ``checkpoint_3`` is in ``.checkpoint_3.sha256`` in the format of ``sha256sum`` (hidden, because a
visible name would match the ``checkpoint_*`` patterns of other tools). Two files cannot be replaced at one instant,
so the sidecar may hold several checksums and a file is good if it has one of them. Saving goes

    1. sidecar <- {checksums of the present file, checksum of the new one}
    2. file    <- new contents
    3. sidecar <- {checksum of the new one}

and a process killed between any two of these steps leaves a file that its sidecar accepts. A reader takes the sidecar
first and looks again if the two disagree, since a writer may be between steps. Files without a sidecar (made by other
programs) are read unverified.

parity: numbers, names, natural order and pruning are those of the original's checkpoint helper, except that saving to
an existing number replaces the file, number 0 means 0, and pruning never touches a number above the one just saved.
"""

import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from score_core.checkpoints.atomic import atomic_write, remove_leftovers
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError

__all__ = [
    "Checkpoint",
    "atomic_write",
    "find_checkpoint",
    "latest_checkpoint",
    "list_checkpoints",
    "read_checkpoint",
    "read_latest",
    "remove_checkpoints",
    "save_checkpoint",
]

_logger = logging.getLogger(__name__)
_NUMBER = r"(?P<number>0|[1-9][0-9]*)"
_READ_ATTEMPTS = 3


class Checkpoint(NamedTuple):
    """A checkpoint that was read: its number, its file and its contents (bytes, or what ``decode`` made of them)."""

    step: int
    path: Path
    content: Any


def save_checkpoint(
    folder: str | os.PathLike[str],
    data: bytes,
    step: int,
    *,
    prefix: str = "checkpoint_",
    suffix: str = "",
    keep: int | None = None,
) -> Path:
    """Write checkpoint number ``step`` and its checksum, then prune.

    Arguments:
        folder: where; made if missing.
        data: the file's contents.
        step: its number, >= 0; an existing file of that number is replaced.
        prefix, suffix: what comes before and after the number.
        keep: how many to keep, >= 1: of the numbers below ``step`` all but the newest ``keep - 1`` are removed.
            None keeps all.

    Returns: the file's path.

    Raises: CheckpointError if it cannot be written; every earlier checkpoint is then as it was.
    """
    if step < 0 or (keep is not None and keep < 1):
        raise ValueError(f"a checkpoint's number is at least 0 and keep at least 1: found {step} and {keep}")
    folder = Path(folder)
    path = folder / f"{prefix}{step}{suffix}"
    _clean(folder, prefix, suffix)
    digest = sha256(data).hexdigest()
    present = _digests_of_present(path)
    _write_sidecar(path, [*present, digest])
    try:
        atomic_write(path, data)
    except CheckpointError:
        if not path.is_file():
            _discard(_sidecar(path))
        raise
    if present:
        _write_sidecar(path, [digest])
    if keep is not None:
        older = [old for number, old in list_checkpoints(folder, prefix, suffix) if number < step]
        for old in older[: max(0, len(older) - (keep - 1))]:
            _remove(old)
    return path


def list_checkpoints(
    folder: str | os.PathLike[str], prefix: str = "checkpoint_", suffix: str = ""
) -> list[tuple[int, Path]]:
    """(number, path) of every checkpoint file in ``folder`` in numerical order; empty if there is no such folder."""
    folder = Path(folder)
    pattern = re.compile(re.escape(prefix) + _NUMBER + re.escape(suffix))
    if not folder.is_dir():
        return []
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise CheckpointError(f"cannot list {folder}: {error.strerror}. Check its permissions.") from error
    matches = ((pattern.fullmatch(entry.name), entry) for entry in entries)
    return sorted((int(match["number"]), entry) for match, entry in matches if match and entry.is_file())


def latest_checkpoint(folder: str | os.PathLike[str], prefix: str = "checkpoint_", suffix: str = "") -> Path | None:
    """The checkpoint with the highest number, or None."""
    present = list_checkpoints(folder, prefix, suffix)
    return present[-1][1] if present else None


def find_checkpoint(folder: str | os.PathLike[str], step: int, prefix: str = "checkpoint_", suffix: str = "") -> Path:
    """The file of checkpoint number ``step`` (0 is a number like any other).

    Raises: MissingCheckpointError listing those present.
    """
    path = Path(folder) / f"{prefix}{step}{suffix}"
    if not path.is_file():
        raise MissingCheckpointError(_explain_missing(path, prefix, suffix))
    return path


def read_checkpoint(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a checkpoint file, verified against its checksum if it has one.

    Raises: MissingCheckpointError if it is not there; CheckpointError if it cannot be read or is damaged.
    """
    path = Path(path)
    for _ in range(_READ_ATTEMPTS):
        digests = _read_sidecar(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            suffix = path.suffix
            prefix = path.name.removesuffix(suffix).rstrip("0123456789")
            raise MissingCheckpointError(_explain_missing(path, prefix, suffix)) from error
        except IsADirectoryError as error:
            raise CheckpointError(f"{path} is a folder, not a checkpoint file: name the file itself.") from error
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}. Check its permissions and disk.") from error
        if digests is None or sha256(data).hexdigest() in digests:
            return data
    raise CheckpointError(
        f"{path} is damaged: its contents do not have the checksum they were saved with. "
        f"Use an earlier checkpoint; if you replaced the file yourself, delete {_sidecar(path).name} beside it."
    )


def read_latest(
    folder: str | os.PathLike[str],
    prefix: str = "checkpoint_",
    suffix: str = "",
    *,
    decode: Callable[[bytes], Any] | None = None,
) -> Checkpoint | None:
    """The newest good checkpoint; a damaged one is reported by a logged warning and the one before it is tried.

    Arguments:
        folder: where to look; may be missing.
        prefix, suffix: what comes before and after the number.
        decode: makes the contents of the bytes and raises CheckpointError if they are damaged, like
            ``msgpack_format.loads``; it finds damage in files without a checksum. It should not compare with a model:
            a wrong model is not damage.

    Returns: the checkpoint, or None if there is none at all.

    Raises: CheckpointError if there are some and all are damaged.
    """
    for _ in range(_READ_ATTEMPTS):
        present = list_checkpoints(folder, prefix, suffix)
        damage: list[str] = []
        for step, path in reversed(present):
            try:
                data = read_checkpoint(path)
                return Checkpoint(step, path, data if decode is None else decode(data))
            except MissingCheckpointError:
                break  # pruned by its writer since it was listed, who has a newer one: look again
            except CheckpointError as error:
                damage.append(f"{path.name}: {error}")
                _logger.warning("checkpoint %s cannot be used, trying the one before: %s", path, error)
        else:
            if damage:
                raise CheckpointError(f"no usable checkpoint in {folder}:\n  " + "\n  ".join(damage))
            return None
    raise CheckpointError(f"the checkpoints in {folder} vanish while they are read: does another program remove them?")


def remove_checkpoints(folder: str | os.PathLike[str], prefix: str) -> None:
    """Remove every checkpoint with ``prefix`` in ``folder``, checksums and leftovers included."""
    for _, path in list_checkpoints(folder, prefix):
        _remove(path)
    _clean(Path(folder), prefix, "")


def _remove(path: Path) -> None:
    # The file first: killed in between, a sidecar without a file remains, which the next save removes.
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot remove {path}: {error.strerror}. Check the folder's permissions.") from error
    _discard(_sidecar(path))


def _clean(folder: Path, prefix: str, suffix: str) -> None:
    """Remove what killed writers of such names left: temporary files, and checksums of files that are not there."""
    name = re.escape(prefix) + _NUMBER + re.escape(suffix)
    sidecar = re.compile(rf"\.(?P<file>{name})\.sha256")
    remove_leftovers(folder, re.compile(rf"{name}|\.{name}\.sha256".replace("?P<number>", "?:")))
    for entry in folder.glob(".*.sha256"):
        match = sidecar.fullmatch(entry.name)
        if match and not (folder / match["file"]).exists():
            _discard(entry)


def _discard(file: Path) -> None:
    """Remove a file that does no harm if it stays."""
    with suppress(OSError):
        file.unlink()


def _sidecar(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _write_sidecar(path: Path, digests: list[str]) -> None:
    lines = [f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests)]
    atomic_write(_sidecar(path), "".join(lines).encode())


def _read_sidecar(path: Path) -> set[str] | None:
    """The checksums ``path`` may have; None if it has no sidecar."""
    try:
        text = _sidecar(path).read_text("ascii", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {_sidecar(path)}: {error.strerror}. Check its permissions.") from error
    digests = {line.split(" ", 1)[0] for line in text.splitlines()}
    if not digests or not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
        raise CheckpointError(f"{_sidecar(path)} is damaged. Delete it to read {path.name} without verification.")
    return digests


def _digests_of_present(path: Path) -> list[str]:
    """The checksums under which the file that is about to be replaced is good; empty if there is none."""
    if not path.exists():
        return []
    try:
        digests = _read_sidecar(path)
    except CheckpointError:
        digests = None  # an unreadable sidecar protects nothing; the new one will
    try:
        return sorted(digests) if digests else [sha256(path.read_bytes()).hexdigest()]
    except OSError:
        return []  # what cannot be read is not worth protecting


def _explain_missing(path: Path, prefix: str, suffix: str) -> str:
    if not path.parent.is_dir():
        return f"no checkpoint {path}: the folder {path.parent} does not exist. Check the work directory."
    present = [file.name for _, file in list_checkpoints(path.parent, prefix, suffix)]
    found = ", ".join(present) if present else "none"
    return f"no checkpoint {path}. Present in {path.parent}: {found}. Ask for one of these or train further."
