"""The two numbers of held-out images: the training loss, and bits/dim by the probability-flow ODE (section 4.3)."""

import logging
import time
from pathlib import Path

import numpy as np

from score_core.errors import UsageError
from score_core.likelihood import bpd_offset
from score_sde.evaluation_files import Session, load_npz, mean, save_npz, standard_error
from score_sde.experiment import Experiment
from score_sde.rounds import Batches

__all__ = ["BitsPerDim", "HeldOutLoss"]

_logger = logging.getLogger(__name__)


class HeldOutLoss:
    """The training loss of test images, without dropout."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.batches = Batches(experiment, "test")
        self.rounds = self.batches.rounds

    def compute(self, session: Session, position: int) -> None:
        """Writes this process's rounds."""
        if _result_file(session).exists():
            return
        for round_, batch in self.batches.missing(session.worker, lambda r: _loss_file(session, r), "loss"):
            session.stop_if_requested()
            losses = self.experiment.losses(session.params, position + round_, batch.image)
            save_npz(_loss_file(session, round_), losses=losses[batch.valid])
            if (round_ + 1) % 1000 == 0:
                _logger.info("Finished %dth step loss evaluation", round_ + 1)

    def report(self, session: Session, since: float) -> None:
        """Puts all rounds together."""
        file = _result_file(session)
        if not file.exists():
            files = session.await_rounds(lambda r: _if_there(_loss_file(session, r)), self.rounds, "loss")
            batches = [load_npz(part, "losses")["losses"] for part in files]
            values, real = np.concatenate(batches), self.experiment.real
            save_npz(
                file,
                all_losses=np.asarray([batch.mean() for batch in batches], real),
                mean_loss=real(values.mean(dtype=np.float64)),
                standard_error=real(standard_error(values)),
                count=np.int64(len(values)),
            )
        loss = load_npz(file)
        session.record(
            "loss",
            loss["mean_loss"],
            loss["standard_error"],
            sample_count=int(loss["count"]),
            dataset=session.dataset("test"),
            seconds=time.monotonic() - since,
        )


class BitsPerDim:
    """Bits/dim of uniformly dequantised images, each repeat with other noise."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        name = experiment.config.eval.bpd_dataset.lower()
        if name not in ("train", "test"):
            raise UsageError(f"eval.bpd_dataset is {name!r}; it must be 'train' or 'test'")
        self.batches = Batches(experiment, name, experiment.bpd_repeats(name))
        self.rounds = self.batches.rounds

    def _file(self, session: Session, round_: int) -> Path:
        return session.folder / f"{self.batches.split}_ckpt_{session.number}_bpd_{round_}.npz"

    def compute(self, session: Session, position: int) -> None:
        """Writes this process's rounds."""
        total, count = 0.0, 0
        for round_, batch in self.batches.missing(session.worker, lambda r: self._file(session, r), "bits/dim"):
            session.stop_if_requested()
            repeat, index = divmod(round_, self.batches.per_repeat)
            result = self.experiment.bits_per_dim(session.params, position + round_, batch.image, batch.index, repeat)
            bpd = result.bpd[batch.valid]
            save_npz(
                self._file(session, round_),
                arr_0=bpd,
                nats=result.nats[batch.valid],
                index=batch.index[batch.valid],
                nfe=np.int32(result.nfe),
            )
            total, count = total + float(bpd.sum(dtype=np.float64)), count + len(bpd)
            _logger.info("ckpt: %d, repeat: %d, batch: %d, mean bpd: %6f", session.number, repeat, index, total / count)

    def report(self, session: Session, since: float) -> None:
        """Puts all rounds together."""
        files = session.await_rounds(lambda r: _if_there(self._file(session, r)), self.rounds, "bits/dim")
        parts = [load_npz(file, "arr_0", "nats", "index", "nfe") for file in files]
        bpd, nats, index = (np.concatenate([part[name] for part in parts]) for name in ("arr_0", "nats", "index"))
        session.record(
            self.experiment.bpd_metric,
            bpd.mean(dtype=np.float64),
            # Repeats share the image, so only images are independent.
            standard_error(bpd, index),
            sample_count=len(np.unique(index)),
            dataset=session.dataset(self.batches.split),
            details={
                "repeats": self.batches.repeats,
                "nfe": mean([int(part["nfe"]) for part in parts]),
                # bpd = -nats_per_image / (dimensions ln 2) + offset
                "nats_per_image": nats.mean(dtype=np.float64),
                "dimensions": int(np.prod(self.experiment.image_shape)),
                "offset": bpd_offset(self.experiment.inverse_scaler),
            },
            seconds=time.monotonic() - since,
        )


def _result_file(session: Session) -> Path:
    return session.folder / f"ckpt_{session.number}_loss.npz"


def _loss_file(session: Session, round_: int) -> Path:
    return session.folder / f"ckpt_{session.number}_loss_{round_}.npz"


def _if_there(file: Path) -> Path | None:
    return file if file.exists() else None
