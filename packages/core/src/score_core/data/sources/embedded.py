"""Where the data files inside the scikit-learn package are.

The package is located, not imported: its import takes seconds, reading the files takes milliseconds.
"""

from importlib.util import find_spec
from pathlib import Path

from score_core.data.errors import DataError
from score_core.data.source import Request

__all__ = ["check_size", "embedded_file"]


def embedded_file(name: str) -> Path:
    """The path of ``sklearn/datasets/<name>``.

    Raises:
        DataError: scikit-learn is not installed or keeps the file elsewhere.
    """
    spec = find_spec("sklearn")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        file = Path(folder, "datasets", name)
        if file.is_file():
            return file
    raise DataError(
        f"datasets/{name} of scikit-learn was not found in {folders}. Cure: install scikit-learn 1.x again."
    )


def check_size(request: Request, smallest: int, largest: int | None) -> None:
    """Raise DataError unless the image size lies in ``smallest..largest`` and the images are grey or RGB."""
    size, channels = request.image_size, request.num_channels
    if size < smallest or (largest is not None and size > largest):
        limit = f"of at least {smallest}" if largest is None else f"from {smallest} to {largest}"
        raise DataError(f"dataset {request.dataset!r} has images of any size {limit}, found image_size={size}.")
    if channels not in (None, 1, 3):
        raise DataError(f"dataset {request.dataset!r} has 1 or 3 channels, found num_channels={channels}.")
