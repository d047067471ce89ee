"""Evaluation of a range of checkpoints: held-out loss, bits/dim, samples with FID, Inception Score and KID.

    workdir/{eval_folder}/ckpt_{k}_loss.npz                     all_losses [batches], mean_loss, standard_error
    workdir/{eval_folder}/{split}_ckpt_{k}_bpd_{round}.npz      arr_0 [images of the batch], nfe
    workdir/{eval_folder}/ckpt_{k}_host_0/samples_{r}.npz       samples uint8 [B, H, W, C], nfe
    workdir/{eval_folder}/ckpt_{k}_host_0/statistics_{r}.npz    pool_3 [B, D], logits [B, K]
    workdir/{eval_folder}/report_{k}.npz                        IS, fid, kid
    workdir/{eval_folder}/samples_{k}.png, trajectory_{k}.png   for the eye
    workdir/results.json                                        every number with its circumstances

Every file is written whole or not at all, and a round whose file is there is not computed again: that is how an
interrupted evaluation goes on. The numbers of a round depend on the seed and the round alone, so they are those of an
uninterrupted evaluation. Every image counts once per repeat; the last batch is padded and its padding dropped.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from score_core.checkpoints.store import find_checkpoint
from score_core.data import Batch, Pipeline
from score_core.errors import UsageError
from score_core.jax.noise import probe, uniform_per_sample
from score_core.metrics import get_extractor
from score_core.random import Role
from score_core.runs.log import RunLog
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.runs.workdir import Workdir
from score_sde.evaluation_files import Keys, Session, bind_checkpoint, load_npz, mean, save_npz, standard_error
from score_sde.experiment import Experiment
from score_sde.sample_quality import measure_samples, sampling_rounds

__all__ = ["evaluate"]

_logger = logging.getLogger(__name__)

# What may differ from start to start of one evaluation folder without changing the files in it.
_FREE_KEYS = (
    "eval.begin_ckpt",
    "eval.end_ckpt",
    "eval.enable_*",
    "eval.wait",
    "data.root",
    "data.path",
    "data.download",
    "training.*_freq*",
    "training.n_iters",
)


def evaluate(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    eval_folder: str = "eval",
    *,
    force: bool = False,
) -> None:
    """Evaluates ``config.eval.begin_ckpt .. end_ckpt`` of a work directory.

    Arguments:
        config: complete configuration.
        workdir: the directory training wrote.
        eval_folder: where results go, inside it.
        force: go on in an evaluation folder that was started with another configuration.

    Raises:
        UserError: see its message; a missing checkpoint lists those present.
        StopRequested: after SIGTERM or SIGINT; what was measured is kept.
    """
    folder = Path(workdir)
    if not folder.is_dir():
        raise UsageError(f"no work directory {folder}: train first (--mode=train), or name another with --workdir")
    experiment = Experiment(config)
    experiment.parallel.require_divisible(config.eval.batch_size, "eval.batch_size")
    experiment.parallel.require_one_process("evaluation")
    with Workdir(folder / eval_folder, role="eval") as results, RunLog(None), GracefulStop() as stop:
        results.record_config(config, ignore=_FREE_KEYS, force=force)
        _Evaluation(experiment).run(folder, results.path, stop)


class _Evaluation:
    """What all checkpoints share: data, protocol, compiled functions."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.eval = experiment.config.eval
        batch_size, seed = self.eval.batch_size, experiment.config.seed
        self.split, self.repeats = self._bpd_protocol()
        self.loss_data = experiment.pipeline("test", batch_size, seed=seed)
        self.bpd_data = experiment.pipeline(self.split, batch_size, seed=seed)
        self.losses = jax.jit(self._losses)
        if self.eval.enable_sampling:
            # An unknown rule or extractor is said now, not after hours of bits/dim.
            _ = experiment.sampler, get_extractor(self.eval.extractor)

    def _bpd_protocol(self) -> tuple[str, int]:
        """The split and how often it is evaluated, each time with new dequantisation noise."""
        name = self.eval.bpd_dataset.lower()
        if name not in ("train", "test"):
            raise UsageError(f"eval.bpd_dataset is {name!r}; it must be 'train' or 'test'")
        protocol = 5 if name == "test" else 1
        return name, self.eval.bpd_repeats or protocol

    def run(self, workdir: Path, folder: Path, stop: GracefulStop) -> None:
        stages: list[tuple[bool, int, Callable[[Session], None]]] = [
            (self.eval.enable_loss, self.loss_data.steps_per_epoch, self._measure_loss),
            (self.eval.enable_bpd, self.bpd_data.steps_per_epoch * self.repeats, self._measure_bpd),
            (self.eval.enable_sampling, sampling_rounds(self.experiment), measure_samples),
        ]
        keys = Keys(self.experiment.config.seed)
        position = 0
        for number in range(self.eval.begin_ckpt, self.eval.end_ckpt + 1):
            path = self._wait_for(workdir / "checkpoints", number, stop)
            _logger.info("begin checkpoint: %d", number)
            bind_checkpoint(folder, number, path)
            state = self.experiment.parallel.replicate(self.experiment.load_state(path))
            session = Session(
                self.experiment, workdir, folder, stop, keys, number, int(state.step), state.params_ema, position
            )
            for enabled, rounds, measure in stages:
                if enabled:
                    measure(session)
                    session.position += rounds
            position = session.position

    def _wait_for(self, folder: Path, number: int, stop: GracefulStop) -> Path:
        """The checkpoint's file; waits up to ``eval.wait`` seconds for it.

        Raises:
            MissingCheckpointError: it is not there (in time); lists those that are.
        """
        deadline = time.monotonic() + self.eval.wait
        warned = False
        while not (folder / f"checkpoint_{number}").exists() and time.monotonic() < deadline:
            if not warned:
                _logger.warning("Waiting for the arrival of checkpoint_%d", number)
                warned = True
            if stop.requested:
                stop.exit()
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        return find_checkpoint(folder, number)

    def _losses(self, params: Any, key: jax.Array, images: jax.Array) -> jax.Array:
        """The loss of every image of a batch, ``[B]``."""
        # parity: the step splits the key it is given once more
        step_key = jax.random.split(key)[1]
        return self.experiment.loss_fn(params, step_key, self.experiment.prepare(images, key), False)

    def _measure_loss(self, session: Session) -> None:
        """The held-out loss with the averaged parameters, every image once."""
        file = session.folder / f"ckpt_{session.number}_loss.npz"
        begin = time.monotonic()
        if not file.exists():
            batches: list[np.ndarray] = []
            for index, batch in _epoch(self.loss_data):
                session.stop_if_requested()
                key = session.keys.at(session.position + index)
                losses = self.losses(session.params, key, self.experiment.parallel.shard(batch.image))
                batches.append(np.asarray(losses)[batch.valid])
                if (index + 1) % 1000 == 0:
                    _logger.info("Finished %dth step loss evaluation", index + 1)
            values = np.concatenate(batches)
            save_npz(
                file,
                all_losses=np.asarray([batch.mean() for batch in batches], np.float32),
                mean_loss=np.float32(values.mean(dtype=np.float64)),
                standard_error=np.float32(standard_error(values)),
            )
        loss = load_npz(file)
        session.record(
            "loss",
            loss["mean_loss"],
            loss["standard_error"],
            seconds=time.monotonic() - begin,
            sample_count=len(self.loss_data.source),
            dataset=session.dataset("test"),
        )

    def _measure_bpd(self, session: Session) -> None:
        """Bits/dim of dequantised images by the probability-flow ODE (section 4.3), every image once per repeat."""
        begin = time.monotonic()
        rounds = self.bpd_data.steps_per_epoch
        done: list[np.ndarray] = []
        nfe: list[int] = []
        with Progress(rounds * self.repeats, description="bits/dim", unit="batch") as progress:
            for repeat in range(self.repeats):
                for index, batch in _epoch(self.bpd_data):
                    round_ = repeat * rounds + index
                    file = session.folder / f"{self.split}_ckpt_{session.number}_bpd_{round_}.npz"
                    if not file.exists():
                        session.stop_if_requested()
                        bpd, evaluations = self._bpd(session, batch, repeat, round_)
                        save_npz(file, arr_0=bpd, nfe=np.int32(evaluations))
                    stored = load_npz(file)
                    done.append(stored["arr_0"])
                    nfe.append(int(stored["nfe"]))
                    average = float(np.mean(np.concatenate(done)))
                    _logger.info(
                        "ckpt: %d, repeat: %d, batch: %d, mean bpd: %6f", session.number, repeat, index, average
                    )
                    progress.update(bpd=average)
        # One value an image: repeats share the image, so only images are independent.
        per_image = np.concatenate(done).reshape(self.repeats, -1).mean(axis=0, dtype=np.float64)
        session.record(
            "bpd",
            per_image.mean(),
            standard_error(per_image),
            seconds=time.monotonic() - begin,
            sample_count=len(per_image),
            dataset=session.dataset(self.split),
            details={"repeats": self.repeats, "nfe": mean(nfe)},
        )

    def _bpd(self, session: Session, batch: Batch, repeat: int, round_: int) -> tuple[np.ndarray, int]:
        """Bits/dim of the images of one batch, and the number of function evaluations."""
        experiment = self.experiment
        key = jax.random.fold_in(session.keys.base, repeat)
        indices = experiment.parallel.shard(batch.index.astype(np.int32))
        u = uniform_per_sample(key, indices, Role.DEQUANTIZATION, experiment.image_shape)
        data = experiment.dequantize(experiment.parallel.shard(batch.image), u)
        if experiment.config.sampling.legacy_rng:
            chain = session.keys.at(session.position + round_)
            eps = probe(jax.random.split(chain)[1], None, data.shape, "Rademacher")
        else:
            eps = probe(key, indices, data.shape, "Rademacher")
        result = experiment.likelihood(session.params, data, eps)
        return np.asarray(result.bpd)[batch.valid], int(result.nfe)


def _epoch(pipeline: Pipeline) -> Any:
    """``(index, batch)`` over every item once."""
    with pipeline.epoch() as batches:
        yield from enumerate(batches)
