"""What the parts of an evaluation share: its folder, the files of rounds, recording a number.

There are no pre-emption files ``meta_{host}_{k}`` as the original keeps: the files of the rounds say what is done, in
whatever order and by however many processes. The original could not go on from ours, whose order of images has a seed,
nor we from its.
"""

import io
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.store import read_checkpoint
from score_core.errors import UserError
from score_core.runs.config_record import config_hash, plain_config
from score_core.runs.results import Result, add_results
from score_core.runs.signals import GracefulStop
from score_sde.experiment import Experiment
from score_sde.rounds import Worker, await_rounds

__all__ = ["Session", "bind_checkpoint", "load_npz", "mean", "save_npz", "standard_error"]


@dataclass
class Session:
    """One checkpoint under evaluation.

    Attributes:
        experiment: what is evaluated.
        workdir: the run's directory; ``results.json`` is there.
        folder: the evaluation's folder inside it.
        stop: whether a signal asked for an end.
        worker: which of the evaluation's processes this is.
        number: the checkpoint's number.
        step: the updates behind it.
        sha256: the hash of its file.
        params: the parameters that are evaluated, averaged or raw (``eval.ema``).
    """

    experiment: Experiment
    workdir: Path
    folder: Path
    stop: GracefulStop
    worker: Worker
    number: int
    step: int
    sha256: str
    params: Any = field(repr=False)

    def stop_if_requested(self) -> None:
        if self.stop.requested:
            self.stop.exit()

    def dataset(self, split: str) -> str:
        return f"{self.experiment.config.data.dataset.lower()}/{split}"

    def host_folder(self) -> Path:
        """Where this process puts its rounds of samples."""
        return self.folder / self.experiment.round_folder(self.number, self.worker.index)

    def find(self, name: str) -> Path | None:
        """The file of a round, in the folder of whichever process wrote it."""
        folders = self.experiment.round_folder(self.number, "*")
        return min(self.folder.glob(f"{folders}/{name}"), default=None)

    def await_rounds(self, find: Callable[[int], Path | None], rounds: int, what: str) -> list[Path]:
        """The files of all rounds (see :func:`score_sde.rounds.await_rounds`)."""
        patience = self.experiment.config.eval.patience
        return await_rounds(find, rounds, self.worker, what=what, patience=patience, stop=self.stop)

    def record(self, metric: str, value: Any, error: Any, **circumstances: Any) -> None:
        """Puts a number into ``results.json``."""
        config, parallel = self.experiment.config, self.experiment.parallel
        result = Result(
            metric=metric,
            value=float(value),
            standard_error=None if error is None else float(error),
            checkpoint_step=self.step,
            checkpoint_sha256=self.sha256,
            config_hash=_hash_of(config),
            framework=self.experiment.framework,
            seed=config.seed,
            ema=bool(config.eval.ema),
            protocol=config.eval.protocol,
            devices=parallel.describe() | {"processes": self.worker.count},
            device_memory_bytes=parallel.device_memory_bytes(),
            **circumstances,
        )
        add_results(self.workdir / "results.json", [result])


def _hash_of(config: Any) -> str:
    """Of what can change a number, so that one number is recorded once; places and patience cannot."""
    plain = plain_config(config)
    harmless = ("wait", "patience", "extractor_weights", "extractor_download")
    plain["eval"] = {key: value for key, value in plain["eval"].items() if key not in harmless}
    return config_hash(plain)


def bind_checkpoint(folder: Path, number: int, path: Path) -> str:
    """Ties the folder's files of this number to the checkpoint's contents, whose SHA-256 it returns.

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
    return digest


def save_npz(file: Path, **arrays: Any) -> None:
    """Writes a compressed archive whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(file, buffer.getvalue())


def load_npz(file: Path, *names: str) -> dict[str, np.ndarray]:
    """Arrays of an archive of ours, all of them if no names are given; nothing is unpickled, no other is read.

    Raises:
        UserError: it cannot be read, or lacks one of them.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names or arrays.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {file}: {error}. Delete it to have it computed again") from error


def standard_error(values: np.ndarray, image: np.ndarray | None = None) -> float:
    r"""Of the mean of ``values`` ``[n]``; NaN for fewer than two images.

    Values of one image are not independent: with :math:`R_i` the sum of the deviations of image ``i`` of ``m``,

    .. math:: \mathrm{se}^2 = \frac{m}{m - 1} \sum_i R_i^2 / n^2.

    Arguments:
        image: ``[n]``, which image each value belongs to; by default each is another's.
    """
    deviations = np.asarray(values, np.float64) - np.mean(values, dtype=np.float64)
    if image is not None:
        deviations = np.bincount(np.unique(image, return_inverse=True)[1], weights=deviations)
    m = len(deviations)
    return math.sqrt(m / (m - 1) * float(np.sum(deviations**2))) / len(values) if m > 1 else math.nan


def mean(values: list[int]) -> float | None:
    """The mean, or None of nothing."""
    return float(np.mean(values)) if values else None
