"""What goes wrong with a checkpoint, said so that it can be put right."""

from score_core.errors import UserError


class CheckpointError(UserError):
    """A checkpoint cannot be written, read, verified or restored; the message names the file and the cure."""


class MissingCheckpointError(CheckpointError):
    """The checkpoint asked for is not there; the message lists those that are."""
