"""What the parts of an evaluation share: its folder, the files of rounds, the chain of keys, recording a number."""

import io
import math
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import jax
import numpy as np

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.store import read_checkpoint
from score_core.errors import UserError
from score_core.runs.config_record import config_hash
from score_core.runs.results import Result, add_results
from score_core.runs.signals import GracefulStop
from score_sde.experiment import Experiment

__all__ = ["Keys", "Session", "bind_checkpoint", "load_npz", "mean", "save_npz", "standard_error"]


class Keys:
    """The keys of one evaluation: the original's chain of splits, by position, so that any round can be the first.

    parity: ``PRNGKey(seed + 1)``, first half of a split, folded with the process number, then one split per loss batch,
    bits/dim batch and sampling round, in that order, checkpoint after checkpoint.

    Attributes:
        base: the key of the per-sample streams.
    """

    def __init__(self, seed: int) -> None:
        self.base, _ = jax.random.split(jax.random.PRNGKey(seed + 1))
        self._head = jax.random.fold_in(self.base, 0)

    def carry(self, position: int) -> jax.Array:
        """The chain's carry after ``position`` splits."""
        return _carry(self._head, position)

    def at(self, position: int) -> jax.Array:
        """The key that split number ``position`` hands out."""
        return jax.random.split(self.carry(position))[1]


@jax.jit
def _carry(head: jax.Array, position: Any) -> jax.Array:
    return jax.lax.fori_loop(0, position, lambda _, rng: jax.random.split(rng)[0], head)


@dataclass
class Session:
    """One checkpoint under evaluation.

    Attributes:
        experiment: what is evaluated.
        workdir: the run's directory; ``results.json`` is there.
        folder: the evaluation's folder inside it.
        stop: whether a signal asked for an end.
        number: the checkpoint's number.
        step: the updates behind it.
        params: its averaged parameters.
        position: splits of the key chain before this checkpoint's next stage.
    """

    experiment: Experiment
    workdir: Path
    folder: Path
    stop: GracefulStop
    keys: Keys
    number: int
    step: int
    params: Any = field(repr=False)
    position: int = 0

    def stop_if_requested(self) -> None:
        if self.stop.requested:
            self.stop.exit()

    def dataset(self, split: str) -> str:
        return f"{self.experiment.config.data.dataset.lower()}/{split}"

    def record(self, metric: str, value: Any, error: Any, **circumstances: Any) -> None:
        """Puts a number into ``results.json``."""
        config = self.experiment.config
        result = Result(
            metric=metric,
            value=float(value),
            standard_error=None if error is None else float(error),
            checkpoint_step=self.step,
            config_hash=config_hash(config),
            seed=config.seed,
            ema=True,
            **circumstances,
        )
        add_results(self.workdir / "results.json", [result])


def bind_checkpoint(folder: Path, number: int, path: Path) -> None:
    """Ties the folder's files of this number to the checkpoint's contents.

    Raises:
        UserError: the files there were made from another checkpoint of the same number.
    """
    digest = sha256(read_checkpoint(path)).hexdigest()
    record = folder / f"ckpt_{number}.sha256"
    if record.exists() and record.read_text().split()[:1] != [digest]:
        raise UserError(
            f"{folder} holds results of another checkpoint_{number} than the one in {path.parent}. "
            "Choose another --eval_folder, or remove the folder"
        )
    atomic_write(record, f"{digest}  {path.name}\n".encode())


def save_npz(file: Path, **arrays: Any) -> None:
    """Writes a compressed archive whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(file, buffer.getvalue())


def load_npz(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an archive of ours; nothing is unpickled."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {file}: {error}. Delete it to have it computed again") from error


def standard_error(values: np.ndarray) -> float:
    """Of the mean of independent ``values``; NaN for fewer than two."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def mean(values: list[int]) -> float | None:
    """The mean, or None of nothing."""
    return float(np.mean(values)) if values else None
