"""A zip archive of images, read in place (see :mod:`score_core.data.image_files` for splits, labels and sizes).

The fingerprint is of the names and of the CRC-32 that the archive keeps of every file.
"""

import zipfile
import zlib

from score_core.data.errors import DataError, MissingDataError
from score_core.data.image_files import ImageFilesSource
from score_core.data.source import Request

__all__ = ["load"]


def load(request: Request) -> ImageFilesSource:
    """The images of the archive ``path``."""
    path = request.path
    if path is None or not path.is_file():
        raise MissingDataError(request.dataset, path, "your images into a zip file and name it with --config.data.path")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is not a usable zip file ({error}). Cure: make or fetch it again.") from error

    def read(name: str) -> bytes:
        try:
            return archive.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            # RuntimeError and NotImplementedError: encrypted, or packed by a method that Python lacks.
            raise DataError(
                f"{name!r} of {path} cannot be unpacked ({error}). Cure: make the zip file again, without a password."
            ) from error

    checksums = {info.filename: info.CRC for info in archive.infolist() if not info.is_dir()}
    return ImageFilesSource(request, checksums, read, str(path))
