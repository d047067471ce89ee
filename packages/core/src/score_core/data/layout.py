"""Where a dataset's files are looked for, said once: for the search, for the error when they are missing, for the list.

place = config.data.path                   the dataset's own folder (or file), if it is given
      = root / one of Layout.folders       otherwise; root: config.data.root, else $SCORE_DATA, else ./data
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from score_core.data.errors import MissingDataError
from score_core.data.source import Request, Source

__all__ = ["Dataset", "Layout", "find"]

_ELSEWHERE = (
    "there, or name the place they are in with --config.data.path (the folder of all datasets is --config.data.root, "
    "else the environment variable SCORE_DATA, else data)"
)


@dataclass(frozen=True)
class Layout:
    """A dataset's files.

    ``about``: the dataset in a few words. ``put``: the files to put somewhere, as the object of "put". ``folders``:
    folders below the root in which they may lie, the best first; none when only a path can name them. ``files``: glob
    patterns, any of which shows that (a part of) the dataset is there. ``image_size``: the usual one. ``counts``:
    images of the published splits. ``embedded``: it comes with the package.
    """

    about: str
    put: str
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    image_size: int | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    embedded: bool = False

    def present(self, root: Path) -> list[Path]:
        """The dataset's files below ``root``, sorted."""
        places = [root / folder for folder in self.folders]
        return sorted({file for place in places for pattern in self.files for file in place.glob(pattern)})

    def missing(self, request: Request, put: str | None = None) -> MissingDataError:
        """The error that says what to put where; ``put`` instead of the layout's own, if it can be said better."""
        where = request.path
        if where is None:
            where = request.root / self.folders[0] if self.folders else request.root
        return MissingDataError(request.dataset, where, f"{put or self.put} {_ELSEWHERE}")


class Dataset(NamedTuple):
    """A line of the table of datasets."""

    load: Callable[[Request], Source]
    layout: Layout


def find(request: Request, layout: Layout, names: Sequence[str], put: str | None = None) -> Path:
    """The first existing file or folder called one of ``names``.

    Arguments:
        request: gives the root, or the path: the folder to look in, or one of the dataset's own files, whose
            neighbours count as well (so that a path which names the training file finds the test file, too).
        layout: gives the folders below the root.
        names: relative names, the best first; the first folder that holds any of them counts.
        put: see :meth:`Layout.missing`.

    Raises:
        MissingDataError: there is none.
    """
    path = request.path
    if path is None:
        places = [request.root / folder for folder in layout.folders]
    elif path.exists() and any(fnmatch(path.name, pattern) for pattern in layout.files):
        places = [path.parent]
    else:
        places = [path]
    for place in places:
        for name in names:
            if (place / name).exists():
                return place / name
    raise layout.missing(request, put)
