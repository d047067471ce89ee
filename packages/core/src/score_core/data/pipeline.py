"""From a source to a stream of batches that is a pure function of (seed, step).

    epoch e:      order_e = permutation(seed, SHUFFLE, e),  flip_e[i] = coin(seed, FLIP, e)[i]     i: item of the source
    position q:   item order_e[q mod L] of epoch e = q // L                                        L: items of an epoch
    batch k:      positions k B .. (k + 1) B - 1

Nothing is drawn in sequence, so the state of a run is the integer ``k``: a resumed run, another number of processes or
of prefetching threads see the same global batches. Process ``p`` of ``P`` takes the ``p``-th of ``P`` equal contiguous
pieces of every global batch; pieces put together in the order of ``p`` are the batch of one process.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from score_core.data.counter_rng import Stream, permutation, random_flags
from score_core.data.errors import DataError
from score_core.data.prefetch import Prefetcher
from score_core.data.source import Source

__all__ = ["Batch", "Pipeline"]


@dataclass(frozen=True, eq=False)
class Batch:
    """``b`` items of one process."""

    image: np.ndarray
    """uint8 [b, H, W, C]."""
    label: np.ndarray | None
    """int64 [b], or None for a source without labels."""
    index: np.ndarray
    """int64 [b]: the items' places in the source."""
    valid: np.ndarray
    """bool [b]: False where the last item is repeated to fill the last batch of :meth:`Pipeline.epoch`."""


class Pipeline:
    """Batches of a source for training (endless, random access by step) and for evaluation (each item once).

    Arguments:
        source: where images come from.
        batch_size: images in a batch of all processes together.
        seed: any integer; shuffling and flips are functions of it.
        shuffle: a new random order every epoch (training only).
        random_flip: mirror each image left-right with probability 1/2 (training only).
        process_index, process_count: this process is number ``process_index`` of ``process_count``.
        drop_remainder: what training does when ``batch_size`` does not divide the number of items.
            True: every epoch leaves out the last items of its order (others each time), and a ``batch_size`` above the
            number of items is an error. False: a batch runs on into the next epoch, as in the originals, whatever its
            size. :meth:`epoch` never drops anything.

    Raises:
        DataError: ``batch_size`` is not a positive multiple of ``process_count``.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool = True,
        random_flip: bool = False,
        process_index: int = 0,
        process_count: int = 1,
        drop_remainder: bool = True,
    ) -> None:
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index must be in 0..{process_count - 1}, found {process_index}")
        if batch_size < 1 or batch_size % process_count:
            raise DataError(
                f"batch_size={batch_size} cannot be divided over {process_count} process(es); "
                f"expected a positive multiple of {process_count}."
            )
        self.source = source
        self.batch_size = batch_size
        self.local_batch_size = batch_size // process_count
        self._seed = seed
        self._shuffle = shuffle
        self._flip = random_flip
        self._offset = process_index * self.local_batch_size
        self._epoch_length = len(source) // batch_size * batch_size if drop_remainder else len(source)
        # Two epochs: a batch may lie on the border. Cached, as drawing one costs more than a batch.
        self._draw = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Training steps of one epoch; rounded up when batches run on into the next, 0 when there can be none."""
        return -(-self._epoch_length // self.batch_size)

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.source)
        order = permutation(self._seed, Stream.SHUFFLE, epoch, n) if self._shuffle else np.arange(n)
        flips = random_flags(self._seed, Stream.FLIP, epoch, n) if self._flip else np.zeros(n, bool)
        return order, flips

    def _items(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Items and their flips at positions ``start .. start + count - 1`` of the endless stream."""
        indices, flips = [], []
        while count:
            epoch, offset = divmod(start, self._epoch_length)
            taken = min(count, self._epoch_length - offset)
            order, epoch_flips = self._draw(epoch)
            index = order[offset : offset + taken]
            indices.append(index)
            flips.append(epoch_flips[index])
            start, count = start + taken, count - taken
        return np.concatenate(indices), np.concatenate(flips)

    def batch(self, step: int) -> Batch:
        """This process's part of training batch ``step`` (0, 1, ..).

        Raises:
            DataError: ``batch_size`` exceeds the number of items while ``drop_remainder`` is true.
        """
        if step < 0:
            raise ValueError(f"step must not be negative, found {step}")
        if self._epoch_length == 0:
            n, name, split = len(self.source), self.source.name, self.source.split
            raise DataError(
                f"batch_size={self.batch_size} exceeds the {n} images of {name!r} ({split} split). Cure: "
                f"a batch size of at most {n}, or drop_remainder=False, which lets a batch run on into the next epoch."
            )
        index, flips = self._items(step * self.batch_size + self._offset, self.local_batch_size)
        image, label = self.source.fetch(index)
        if flips.any():
            # Copied column by column, which takes half the time of copying a reversed view.
            image[flips] = np.take(image[flips], np.arange(image.shape[2])[::-1], axis=2)
        return Batch(image, label, index, np.ones(len(index), bool))

    def batches(self, start: int = 0, *, depth: int = 4, workers: int = 1) -> Prefetcher[Batch]:
        """``batch(start), batch(start + 1), ..`` without end, up to ``depth`` prepared ahead by ``workers`` threads.

        Use it in a ``with`` statement, or close it. More than one worker pays where images are decoded at every fetch.
        """
        return Prefetcher(self.batch, start, depth=depth, workers=workers)

    def epoch(self, start: int = 0, *, depth: int = 4, workers: int = 1) -> Prefetcher[Batch]:
        """Every item exactly once, in the source's order, without flips: the stream for evaluation.

        All batches are full: the last one repeats its last item with ``valid`` False, so that shapes never change and
        every process makes the same number of steps. ``start`` resumes at that batch.
        """
        return Prefetcher(
            self.epoch_batch, start, -(-len(self.source) // self.batch_size), depth=depth, workers=workers
        )

    def epoch_batch(self, step: int) -> Batch:
        """Batch ``step`` of :meth:`epoch`."""
        first = step * self.batch_size + self._offset
        position = np.arange(first, first + self.local_batch_size)
        index = np.minimum(position, len(self.source) - 1)
        image, label = self.source.fetch(index)
        return Batch(image, label, index, position < len(self.source))
