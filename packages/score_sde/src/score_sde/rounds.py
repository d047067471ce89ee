"""How an evaluation is cut into rounds, who computes which, and waiting for the rounds of others.

A round is a batch of the loss, of bits/dim or of samples; its result is one file. Its numbers depend on the seed and
the round, not on who computes it, so processes need not talk to each other: round ``r`` belongs to process
``r mod P``, whatever is there already is left alone, and process 0 puts the files together when all are there.

Two protocols, with ``n`` images in batches of ``B``:

    complete    ceil(n / B) batches in the source's order, the last one padded     ceil(num_samples / B) sampling rounds
    original    floor(n / B) batches of a shuffled epoch, another each repeat      num_samples // B + 1 sampling rounds
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from score_core.data import Batch, Pipeline, Prefetcher
from score_core.errors import UsageError, UserError
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_sde.experiment import Experiment

__all__ = ["Batches", "Worker", "await_rounds", "is_complete_protocol", "sampling_rounds"]

_logger = logging.getLogger(__name__)
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Worker:
    """One of the processes of an evaluation.

    Attributes:
        index, count: it is number ``index`` of ``count``.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(f"process number {self.index} of {self.count} processes cannot be: numbers start at 0")

    @property
    def leader(self) -> bool:
        """Whether it is the one that puts the rounds together."""
        return self.index == 0

    def owns(self, round_: int) -> bool:
        return round_ % self.count == self.index


def is_complete_protocol(experiment: Experiment) -> bool:
    """Whether ``eval.protocol`` is ``complete`` and not ``original``.

    Raises:
        UsageError: it is neither.
    """
    protocol = experiment.config.eval.protocol
    if protocol not in ("complete", "original"):
        raise UsageError(f"eval.protocol is {protocol!r}; it must be 'complete' or 'original'")
    return protocol == "complete"


def sampling_rounds(experiment: Experiment) -> int:
    """Rounds of ``eval.batch_size`` samples that give ``eval.num_samples``."""
    count, batch_size = experiment.config.eval.num_samples, experiment.config.eval.batch_size
    # parity: one round more when the batch size divides the number; its samples are dropped
    return -(-count // batch_size) if is_complete_protocol(experiment) else count // batch_size + 1


class Batches:
    """The batches of a split under ``eval.protocol``, ``repeats`` times over.

    Arguments:
        experiment: what is evaluated.
        split: ``train`` or ``test``.
        repeats: how often.

    Raises:
        UsageError: the protocol leaves nothing to evaluate.
    """

    def __init__(self, experiment: Experiment, split: str, repeats: int = 1) -> None:
        config = experiment.config
        self._complete = is_complete_protocol(experiment)
        self.pipeline: Pipeline = experiment.pipeline(
            split, config.eval.batch_size, seed=config.seed, drop_remainder=not self._complete
        )
        self.split = split
        self.repeats = repeats
        count, batch_size = len(self.pipeline.source), config.eval.batch_size
        # parity: the original protocol leaves the last partial batch out
        self.per_repeat = -(-count // batch_size) if self._complete else count // batch_size
        if self.per_repeat == 0:
            raise UsageError(
                f"eval.protocol=original leaves out partial batches, and the {count} images of the {split} split do "
                f"not fill one of eval.batch_size={batch_size}; use a smaller one, or eval.protocol=complete"
            )

    @property
    def rounds(self) -> int:
        return self.per_repeat * self.repeats

    def __getitem__(self, round_: int) -> Batch:
        if self._complete:
            return self.pipeline.epoch_batch(round_ % self.per_repeat)
        # The original's order has no seed; ours is the shuffle of training.
        return self.pipeline.batch(round_)

    def missing(self, worker: Worker, file_of: Callable[[int], Path], what: str) -> Iterator[tuple[int, Batch]]:
        """The rounds of ``worker`` whose file is not there, with their batches prepared ahead."""
        rounds = [r for r in range(self.rounds) if worker.owns(r) and not file_of(r).exists()]
        with (
            Prefetcher(lambda k: (rounds[k], self[rounds[k]]), 0, len(rounds)) as batches,
            Progress(len(rounds), description=what, unit="batch") as progress,
        ):
            for item in batches:
                yield item
                progress.update()


def await_rounds(
    find: Callable[[int], Path | None],
    rounds: int,
    worker: Worker,
    *,
    what: str,
    patience: float,
    stop: GracefulStop,
) -> list[Path]:
    """The files of all rounds, once the other processes have written theirs.

    Arguments:
        find: the file of a round, or None while it is not there.
        rounds: how many.
        worker: this process.
        what: what the files hold, for messages.
        patience: seconds without a new file after which to give up.

    Raises:
        UserError: nothing came for ``patience`` seconds; says which rounds are missing.
    """
    found: dict[int, Path] = {}
    warned: set[int] = set()
    last_news = time.monotonic()
    while True:
        before = len(found)
        for round_ in range(rounds):
            if round_ not in found and (file := find(round_)) is not None:
                found[round_] = file
        missing = [round_ for round_ in range(rounds) if round_ not in found]
        if not missing:
            return [found[round_] for round_ in range(rounds)]
        if len(found) > before:
            last_news = time.monotonic()
        for host in sorted({round_ % worker.count for round_ in missing} - warned):
            _logger.warning("Waiting for %s on host %d", what, host)
            warned.add(host)
        if stop.requested:
            stop.exit()
        if time.monotonic() - last_news > patience:
            listed = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
            raise UserError(
                f"the {what} of rounds {listed} did not come: nothing new for {patience:g} seconds (eval.patience). "
                "Start the missing processes again, or this one alone without --num_processes: what is there is kept"
            )
        time.sleep(_POLL_SECONDS)
