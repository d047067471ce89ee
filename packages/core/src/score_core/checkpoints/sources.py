"""What SRC means: a file, a folder of numbered checkpoints, or a work directory of a run."""

import re
from pathlib import Path

from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.errors import UsageError

__all__ = ["checkpoint_file", "run_config"]

# checkpoint_7, checkpoint_7.pth; the port's only checkpoint of a running training, checkpoint.pth
_NAME = re.compile(r"checkpoint(?:_(?P<number>0|[1-9][0-9]*))?(?P<suffix>\.pth)?")
_FOLDERS = ("checkpoints", "checkpoints-meta")


def checkpoint_file(source: Path, step: int | None = None) -> Path:
    """The checkpoint file that ``source`` means.

    Arguments:
        source: the file itself; a folder with numbered checkpoints; or a work directory, in which ``checkpoints`` is
            looked into first and ``checkpoints-meta`` if it has none.
        step: the number of the checkpoint in a folder; None: the highest.

    Raises:
        MissingCheckpointError: there is none, or none of that number; the message lists those present.
        UsageError: a number was given for a file.
    """
    if not source.is_dir():
        if step is not None:
            raise UsageError(f"--step {step} chooses in a folder, but {source} is none.")
        return source
    for folder in [source, *(source / name for name in _FOLDERS)]:
        present = _numbered(folder)
        if not present:
            continue
        if step is None:
            return present[max(present)]
        if step in present:
            return present[step]
        numbers = ", ".join(str(number) for number in sorted(present) if number >= 0)
        raise MissingCheckpointError(f"no checkpoint number {step} in {folder}. Present: {numbers or 'none'}.")
    raise MissingCheckpointError(
        f"no checkpoint_N in {source}, its checkpoints/ or its checkpoints-meta/. Name a file or another folder."
    )


def _numbered(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by number; one without a number is -1."""
    if not folder.is_dir():
        return {}
    try:
        matches = [(_NAME.fullmatch(entry.name), entry) for entry in sorted(folder.iterdir()) if entry.is_file()]
    except OSError as error:
        raise CheckpointError(f"cannot list {folder}: {error.strerror}. Check its permissions.") from error
    return {int(match["number"] or -1): entry for match, entry in matches if match}


def run_config(source: Path) -> Path | None:
    """The record of the configuration of the work directory that ``source`` is, or is in."""
    around = [source, *source.absolute().parents[:2]]
    return next((folder / "config.json" for folder in around if _is_workdir(folder)), None)


def _is_workdir(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any((folder / name).is_dir() for name in _FOLDERS)
