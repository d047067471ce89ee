"""Reading files that somebody else made, without running their code or writing outside the place meant for them.

Pickles go through an unpickler that knows nothing but numpy arrays and the plain containers of the pickle language.
Archives are never unpacked: members are read into memory by name, so a name such as ``../x`` has nowhere to go.
"""

import io
import pickle
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from score_core.data.errors import DataError

__all__ = ["load_plain_pickle", "read_tar_members"]

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
