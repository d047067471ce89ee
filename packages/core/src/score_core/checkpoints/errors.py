"""What goes wrong with a checkpoint, said so that it can be put right."""

from score_core.errors import UserError


class CheckpointError(UserError):
    """A checkpoint cannot be written, read, verified or restored; the message names the file and the cure.

    Names in a message may come from a hostile file: what is not printable (line breaks, a terminal's control codes) is
    shown as an escape.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """``text`` with everything that is not printable as an escape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class MissingCheckpointError(CheckpointError):
    """The checkpoint asked for is not there; the message lists those that are."""
