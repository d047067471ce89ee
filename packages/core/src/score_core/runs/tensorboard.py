"""Scalars and images for TensorBoard, written through the ``tensorboard`` package without TensorFlow or PyTorch.

Each start of a run makes one event file ``events.out.tfevents.<time>.<host>.<pid>``. A run that resumes at step N says
so with a session log: TensorBoard then drops from the earlier files what they hold of step N and later, which the
resumed run will write again. Every event is flushed as it is written, so a killed run loses none.
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from score_core.errors import UserError

__all__ = ["SummaryWriter"]

_PREFIX = "events.out.tfevents."


class SummaryWriter:
    """Writes one event file; a context manager that closes it.

    Arguments:
        folder: where; made if missing.
        purge_step: the step a resumed run starts at (None for a fresh one): earlier files' events of this step and
            later are superseded.

    Raises: UserError if the file cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], *, purge_step: int | None = None) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / _file_name(folder)
            self._records = RecordWriter(open(self.path, "xb"))  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise UserError(f"cannot write TensorBoard events in {folder}: {error.strerror}. Check it.") from error
        self._write(file_version="brain.Event:2")
        if purge_step is not None:
            self._write(step=purge_step, session_log={"status": "START"})

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Write one number under ``tag`` at ``step``."""
        self.scalars({tag: value}, step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write several numbers at ``step``."""
        self._write_values([{"tag": tag, "simple_value": float(value)} for tag, value in values.items()], step)

    def image(self, tag: str, image: np.ndarray, step: int) -> None:
        """Write a picture, stored as PNG.

        Arguments:
            image: uint8 [H, W, C] with C 1 or 3, such as a grid of samples.
        """
        from PIL import Image

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
            raise ValueError(f"an image is uint8 [H, W, 1 or 3]: found {image.dtype} {image.shape}")
        height, width, channels = image.shape
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if channels == 1 else image).save(file, "PNG")
        picture = {"height": height, "width": width, "colorspace": channels, "encoded_image_string": file.getvalue()}
        self._write_values([{"tag": tag, "image": picture}], step)

    def close(self) -> None:
        """Close the event file; nothing can be written after."""
        self._records.close()

    def __enter__(self) -> "SummaryWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_values(self, values: list[dict[str, Any]], step: int) -> None:
        self._write(step=step, summary={"value": values})

    def _write(self, **fields: Any) -> None:
        from tensorboard.compat.proto import event_pb2

        protos: Any = event_pb2  # generated at import time: type checkers see no names in it
        event = protos.Event(wall_time=time.time(), **fields)
        try:
            self._records.write(event.SerializeToString())
            self._records.flush()
        except OSError as error:
            raise UserError(f"cannot write TensorBoard events to {self.path}: {error.strerror}.") from error


def _file_name(folder: Path) -> str:
    """A name that sorts after the event files in ``folder``: TensorBoard reads them in the order of their names."""
    starts = (entry.name[len(_PREFIX) :].split(".")[0] for entry in folder.glob(f"{_PREFIX}*"))
    newest = max((int(start) for start in starts if start.isdecimal()), default=0)
    return f"{_PREFIX}{max(int(time.time()), newest + 1):010d}.{socket.gethostname()}.{os.getpid()}"
