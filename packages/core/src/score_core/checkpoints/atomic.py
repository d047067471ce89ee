"""Writing a file so that at every moment, power cuts included, its name holds the old contents or the new ones.

Temporary name in the same folder, write, flush, fsync, rename, fsync of the folder. The temporary file is hidden and
stays locked (``flock``) while its writer lives, so that the leftover of a killed process can be told from a write
that is under way in another process.
"""

import errno
import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from score_core.checkpoints.errors import CheckpointError

__all__ = ["atomic_write", "remove_leftovers"]

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{8}-(?P<target>.+)\.tmp")
_CURES = {
    errno.ENOSPC: "Free some space there or write to another disk; the old file is intact.",
    errno.EDQUOT: "Your quota is used up: remove files or write to another disk; the old file is intact.",
    errno.EFBIG: "The file-size limit of the process is too low (ulimit -f): raise it; the old file is intact.",
    errno.EACCES: "Check the permissions of the folder, or write to another one.",
    errno.EPERM: "Check the permissions of the folder, or write to another one.",
    errno.EROFS: "The disk is mounted read-only: write to another one.",
}
_CURE = "Check the path and the disk."


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Put ``data`` into the file ``path``, whole or not at all; an existing file is replaced.

    Arguments:
        path: the file; missing folders are made.
        data: its new contents.

    Raises: CheckpointError naming the path, the free space and the cure; the temporary file is then removed and the
    previous file untouched.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, data)
    except OSError as error:
        raise CheckpointError(_explain(path, len(data), error)) from error


def remove_leftovers(folder: Path, target: re.Pattern[str]) -> None:
    """Remove the temporary files of writers that died while writing a file whose name matches ``target`` in ``folder``.

    Temporary files that a living process holds are left alone.
    """
    for entry in folder.glob(".tmp-*.tmp"):
        name = _TEMPORARY.fullmatch(entry.name)
        if name and target.fullmatch(name["target"]) and _is_abandoned(entry):
            with suppress(OSError):  # it does no harm if it stays
                entry.unlink()


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".tmp-{os.urandom(4).hex()}-{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            # Without locks (some network disks) leftovers are never taken for abandoned and stay.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the rename durable. Disks that cannot sync a folder say EINVAL; the file itself is on them already."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _is_abandoned(temporary: Path) -> bool:
    try:
        with open(temporary, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _explain(path: Path, size: int, error: OSError) -> str:
    folder = next((parent for parent in path.parents if parent.is_dir()), path.parent)
    try:
        disk = os.statvfs(folder)
        free = f"{disk.f_bavail * disk.f_frsize / 2**20:.1f} MiB free"
    except OSError:
        free = "free space unknown"
    cause = error.strerror or type(error).__name__
    cure = _CURES.get(error.errno or 0, _CURE)
    return f"cannot write {path} ({size / 2**20:.1f} MiB, {free}): {cause}. {cure}"
