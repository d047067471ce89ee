"""Image databases in LMDB's format, read in place; needs the ``lsun`` extra (the lmdb package)."""

import os
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from score_core.data.errors import DataError

__all__ = ["ImageDatabase", "open_database"]


class ImageDatabase:
    """A read-only database of encoded images. Use :func:`open_database`, as LMDB allows one handle a process.

    Raises:
        DataError: lmdb is not installed, or the database is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError as error:
            raise DataError(
                f"{path} is an LMDB database and the lmdb package is not installed. "
                "Cure: install score-core with its extra `lsun`, or lmdb by itself."
            ) from error
        self.path = path
        self._error: type[Exception] = lmdb.Error
        try:
            # No lock file: the folder may be read-only or shared. No read-ahead: access is random.
            self._environment = lmdb.open(os.fspath(path), readonly=True, lock=False, readahead=False, create=False)
            pages, size = self._environment.info()["last_pgno"] + 1, self._environment.stat()["psize"]
        except lmdb.Error as error:
            raise DataError(f"{path} is not a usable LMDB database ({error}). Cure: fetch it again.") from error
        found = (path / "data.mdb").stat().st_size
        if found < pages * size:  # reading past the end of a mapped file would end the process
            raise DataError(f"{path} is cut off: {found} bytes, expected {pages * size}. Cure: fetch it again.")

    def __len__(self) -> int:
        return self._environment.stat()["entries"]

    @cached_property
    def keys(self) -> np.ndarray:
        """All keys in LMDB's order, bytes of one fixed length [n]; the first use passes over the whole index."""
        keys = list(self._iterate_keys())
        lengths = {len(key) for key in keys}
        if len(lengths) > 1:
            raise DataError(f"{self.path} has keys of {min(lengths)} to {max(lengths)} bytes; expected one length.")
        return np.frombuffer(b"".join(keys), f"V{lengths.pop()}") if keys else np.zeros(0, "V1")

    def _iterate_keys(self) -> Iterator[bytes]:
        try:
            with self._environment.begin() as transaction:
                yield from transaction.cursor().iternext(keys=True, values=False)
        except self._error as error:
            raise DataError(f"{self.path} is damaged ({error}). Cure: fetch it again.") from error

    def read(self, key: bytes) -> bytes:
        """The value of ``key``."""
        try:
            with self._environment.begin() as transaction:
                value = transaction.get(key)
        except self._error as error:
            raise DataError(f"{self.path} is damaged ({error}). Cure: fetch it again.") from error
        if value is None:
            raise DataError(f"{self.path} has no entry {key!r}. Cure: fetch it again.")
        return value


def open_database(path: Path) -> ImageDatabase:
    """The database in the folder ``path``, opened once a process (again if its file was replaced)."""
    real = path.resolve()
    try:
        state = (real / "data.mdb").stat()
    except OSError as error:
        raise DataError(f"{path} has no file data.mdb ({error}). Cure: fetch it again.") from error
    return _open(real, state.st_ino, state.st_mtime_ns)


@cache
def _open(path: Path, inode: int, modified: int) -> ImageDatabase:
    return ImageDatabase(path)
