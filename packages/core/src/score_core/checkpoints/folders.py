"""Writing a folder of files so that its name holds all of them or nothing."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.errors import CheckpointError

__all__ = ["write_folder"]


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Makes ``folder`` with files by relative name: in a hidden folder beside it, which is renamed at the end.

    Raises:
        CheckpointError: it cannot be written, or is there already; the hidden folder is then removed.
    """
    temporary = folder.with_name(f".tmp-{os.urandom(4).hex()}-{folder.name}")
    try:
        for name, data in contents.items():
            atomic_write(temporary / name, data)
        if folder.exists():
            raise CheckpointError(f"{folder} exists. Choose another name.")
        temporary.rename(folder)
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror}. Check the path and the disk.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
