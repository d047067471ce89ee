"""Many images into a folder, one PNG each, in batches that a stopped run does not draw again.

``<folder>/<name>_<k>.png``, k = 0 .. count - 1, and a hidden record of what the images depend on. A folder with another
record (or none) is filled anew: its files are replaced one by one.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from score_core.checkpoints.atomic import atomic_write
from score_core.data import image_grid, save_png
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.torch.sample_files import to_pictures

__all__ = ["Dump"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dump:
    """``count`` images ``<name>_<k>.png`` in ``folder``, drawn ``batch_size`` at a time; ``identity`` is the record."""

    folder: Path
    name: str
    count: int
    batch_size: int
    identity: Mapping[str, Any]

    def fill(self, draw: Callable[[int, int], Tensor], stop: GracefulStop) -> None:
        """Draw what is not there yet.

        Arguments:
            draw: ``draw(first, count)``: images in [0, 1] ``[count, C, H, W]``, a function of the samples' numbers.
            stop: looked at between two batches.

        Raises: StopRequested after a signal; what was drawn stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        done = self._resume()
        self._record(done)
        with Progress(self.count, initial=done, description=self.folder.name, unit="image") as progress:
            for first in range(done, self.count, self.batch_size):
                if stop.requested:
                    stop.exit()
                count = min(self.batch_size, self.count - first)
                for k, image in enumerate(to_pictures(draw(first, count)), start=first):
                    # the grid of one image without padding rounds as the original does
                    save_png(self.path(k), image_grid(image[None], 1, 0))
                self._record(first + count)
                progress.update(count)

    def path(self, k: int) -> Path:
        return self.folder / f"{self.name}_{k}.png"

    def batches(self, size: int = 100) -> Iterator[np.ndarray]:
        """The images as they lie on disk, uint8 ``[n, H, W, 3]``."""
        from PIL import Image

        for first in range(0, self.count, size):
            pictures = []
            for k in range(first, min(first + size, self.count)):
                with Image.open(self.path(k)) as picture:
                    pictures.append(np.asarray(picture.convert("RGB")))
            yield np.stack(pictures)

    @property
    def _file(self) -> Path:
        return self.folder / f".{self.name}.json"

    def _resume(self) -> int:
        """How many images are there already."""
        try:
            record = json.loads(self._file.read_bytes())
            done = int(record["done"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        if record.get("identity") != json.loads(json.dumps(dict(self.identity))) or done > self.count:
            return 0
        if not all(self.path(k).is_file() for k in range(done)):
            return 0
        _logger.info("%s has %d of %d images already", self.folder, done, self.count)
        return done

    def _record(self, done: int) -> None:
        atomic_write(self._file, json.dumps({"identity": dict(self.identity), "done": done}).encode())
