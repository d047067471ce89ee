"""What goes wrong with data: said once, with the cause, what was found, what was expected and the cure."""

from pathlib import Path

from score_core.errors import UsageError

__all__ = ["EMBEDDED_HINT", "DataError", "MissingDataError"]

EMBEDDED_HINT = "or take the data that comes with the package: --config.data.dataset=digits (or photos)"


class DataError(UsageError):
    """Data that cannot be used as asked: unknown name, damaged file, impossible size or batch."""


class MissingDataError(DataError):
    """A dataset that is not on this machine.

    Arguments:
        dataset: name of the dataset.
        where: the place that was searched, or None when no place was given.
        put: what to put there, as the object of "put".
    """

    def __init__(self, dataset: str, where: Path | None, put: str) -> None:
        place = "no place was given for it" if where is None else f"it is not in {where}"
        super().__init__(f"dataset {dataset!r} was not found: {place}. Cure: put {put}; {EMBEDDED_HINT}.")
