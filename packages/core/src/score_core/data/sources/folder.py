"""A folder of images and sub-folders (see :mod:`score_core.data.image_files` for splits, labels and sizes).

The fingerprint is of the names and file sizes: hashing the pixels of a large folder would take as long as an epoch.
"""

import os

from score_core.data.errors import MissingDataError
from score_core.data.image_files import ImageFilesSource
from score_core.data.layout import Layout
from score_core.data.source import Request

__all__ = ["LAYOUT", "load"]

LAYOUT = Layout("your own images in a folder", "your images into a folder and name it with --config.data.path")


def _list_files(folder: str) -> dict[str, int]:
    """Sizes of all files below ``folder`` by relative name; links to folders are followed, each folder once."""
    sizes: dict[str, int] = {}
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        for file in files:
            full = os.path.join(place, file)
            if os.path.isfile(full):
                sizes[os.path.relpath(full, folder).replace(os.sep, "/")] = os.path.getsize(full)
    return sizes


def load(request: Request) -> ImageFilesSource:
    """The images below ``path``."""
    path = request.path
    if path is None or not path.is_dir():
        raise MissingDataError(request.dataset, path, LAYOUT.put)
    return ImageFilesSource(request, _list_files(str(path)), lambda name: (path / name).read_bytes(), str(path))
