"""Reading files that somebody else made, without running their code or writing outside the place meant for them.

Pickles go through an unpickler that knows nothing but numpy arrays and the plain containers of the pickle language.
Archives are never unpacked: members are read into memory by name, so a name such as ``../x`` has nowhere to go.
"""

import io
import mmap
import os
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from score_core.data.errors import DataError

__all__ = ["TarFiles", "ZipFiles", "load_plain_pickle", "named_files", "read_tar_members"]

# What numpy arrays name in a pickle; the module was renamed in numpy 2.
_RECONSTRUCT: Any = np.zeros(0).__reduce__()[0]
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}

# Everything that the pickle machine itself raises on a damaged stream.
_DAMAGED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only numpy arrays are allowed") from None


def load_plain_pickle(data: bytes, where: str) -> Any:
    """The value of a pickle made of plain containers and numpy arrays; Python 2 strings become bytes.

    Arguments:
        data: the pickle.
        where: what the file is called in an error.

    Raises:
        DataError: the pickle is damaged or holds anything else.
    """
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except _DAMAGED as error:
        raise DataError(
            f"{where} is damaged or not what it should be ({error}). Cure: delete it and fetch it again."
        ) from error


def read_tar_members(path: Path, wanted: Collection[Collection[str]]) -> dict[str, bytes]:
    """Contents of regular members of a tar archive (any compression) by base name.

    Arguments:
        path: the archive.
        wanted: alternative sets of base names; reading ends as soon as one set is complete.

    Returns:
        Those members of any of the sets that were met.

    Raises:
        DataError: the archive is damaged.
    """
    names = set().union(*wanted)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                stream = archive.extractfile(member) if name in names and member.isfile() else None
                if stream is not None:
                    found[name] = stream.read()
                if any(found.keys() >= set(group) for group in wanted):
                    break
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        # tarfile's message goes on with a line for every compression that it tried.
        reason = str(error).partition("\n")[0].rstrip(":")
        raise DataError(f"{path} is a damaged archive ({reason}). Cure: delete it and download it again.") from error
    return found


class ZipFiles:
    """The members of a zip archive, read in place, from several threads if need be.

    ``sizes`` has the number of bytes of every regular member by name, ``checksums`` the CRC-32 that the archive states.

    Raises:
        DataError: the archive is damaged; at :meth:`read` a damaged, encrypted or strangely packed member.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{path} is not a usable zip file ({error}). Cure: make or fetch it again.") from error
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        self.sizes = {info.filename: info.file_size for info in infos}
        self.checksums = {info.filename: info.CRC for info in infos}

    def read(self, name: str) -> bytes:
        """The content of member ``name``."""
        try:
            return self._archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            # RuntimeError and NotImplementedError: encrypted, or packed by a method that Python lacks.
            raise DataError(
                f"{name!r} of {self._path} cannot be unpacked ({error}). "
                "Cure: make the zip file again, without a password."
            ) from error


class TarFiles:
    """The members of an uncompressed tar archive, read in place, from several threads if need be.

    ``sizes`` has the number of bytes of every regular member, by name. Only the headers are looked at to find them,
    and nothing is kept of a member but three entries, as there may be millions.

    Raises:
        DataError: the archive is damaged, cut off, or compressed (then no member can be read alone).
    """

    def __init__(self, path: Path) -> None:
        self.sizes: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._index()
        except (tarfile.TarError, OSError, ValueError) as error:  # ValueError: an empty file
            raise DataError(
                f"{path} is damaged or a compressed tar archive ({error}). Cure: unpack or fetch it again."
            ) from error

    def _index(self) -> None:
        block = tarfile.BLOCKSIZE
        offset = 0
        while offset < len(self._map):
            header = self._map[offset : offset + block]
            if not header.strip(b"\0"):
                return  # the end mark
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            begin = offset + block
            offset = begin + -(-member.size // block) * block
            if member.size < 0 or offset > len(self._map):
                raise tarfile.ReadError(f"{member.name} ends at byte {offset} of {len(self._map)}")
            if member.isreg():
                self.sizes[member.name] = member.size
                self._offsets[member.name] = begin

    def read(self, name: str) -> bytes:
        """The content of member ``name``."""
        begin = self._offsets[name]
        return self._map[begin : begin + self.sizes[name]]


def named_files(place: Path) -> tuple[dict[str, int], Callable[[str], bytes]]:
    """Files that are known by their base names, wherever they are packed.

    Arguments:
        place: a folder (its sub-folders are not looked into), a zip archive, or else a tar archive, whose folders do
            not count.

    Returns:
        The number of bytes of every file by base name, and a function that reads one by that name.

    Raises:
        DataError: a damaged archive; when reading, a damaged member.
    """
    if place.is_dir():
        with os.scandir(place) as entries:
            sizes = {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        return sizes, lambda name: (place / name).read_bytes()
    archive = ZipFiles(place) if place.suffix == ".zip" else TarFiles(place)
    members = {PurePosixPath(member).name: member for member in archive.sizes}
    sizes = {name: archive.sizes[member] for name, member in members.items()}
    return sizes, lambda name: archive.read(members[name])
