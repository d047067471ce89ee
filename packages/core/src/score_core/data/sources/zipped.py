"""A zip archive of images, read in place (see :mod:`score_core.data.image_files` for splits, labels and sizes).

The fingerprint is of the names and of the CRC-32 that the archive keeps of every file.
"""

from score_core.data.errors import MissingDataError
from score_core.data.image_files import ImageFilesSource
from score_core.data.layout import Layout
from score_core.data.source import Request
from score_core.data.untrusted import ZipFiles

__all__ = ["LAYOUT", "load"]

LAYOUT = Layout("your own images in a zip file", "your images into a zip file and name it with --config.data.path")


def load(request: Request) -> ImageFilesSource:
    """The images of the archive ``path``."""
    path = request.path
    if path is None or not path.is_file():
        raise MissingDataError(request.dataset, path, LAYOUT.put)
    archive = ZipFiles(path)
    return ImageFilesSource(request, archive.checksums, archive.read, str(path))
