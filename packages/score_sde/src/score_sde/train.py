"""Training: the original's loop, made to resume to the same numbers.

    workdir/stdout.txt, tensorboard/, history.csv           log and curves
    workdir/checkpoints/checkpoint_{step // snapshot_freq}           kept
    workdir/checkpoints-meta/checkpoint_{step // ..._for_preemption} the newest
    workdir/samples/iter_{step}_host_0/sample.{np,png}               at every kept checkpoint

(in PyTorch ``checkpoint_{k}.pth`` and ``iter_{step}``, see :mod:`score_sde.experiment`).

A checkpoint written at loop index ``s`` holds the state after the updates of that index, before the index's held-out
loss and snapshot. A resumed run therefore finishes index ``s`` first; both are functions of the state, so nothing
differs from a run that was never stopped. Batch ``u`` of the data is a function of the seed and ``u``: the updates done
are the whole data position.

Several processes (:mod:`score_core.jax.distributed`) run this loop in step, each on its part of every batch. Process 0
writes; all read the checkpoint they resume from. A signal to one of them stops all: they agree on it at the steps that
log, where they wait for the device anyway.
"""

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.store import latest_checkpoint, read_latest, save_checkpoint
from score_core.data import Prefetcher, image_grid, save_png, to_uint8
from score_core.errors import UsageError, UserError
from score_core.runs.config_record import config_hash
from score_core.runs.history import History
from score_core.runs.log import RunLog
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.runs.tensorboard import SummaryWriter
from score_core.runs.workdir import Workdir
from score_sde.experiment import Experiment, Framework, get_experiment, record_of

__all__ = ["train"]

_logger = logging.getLogger(__name__)

# What may differ from start to start of one work directory without changing a number that training produces.
_FREE_KEYS = (
    "eval.*",
    "data.root",
    "data.path",
    "data.download",
    "data.tfrecords_path",
    "training.log_freq",
    "training.snapshot_freq_for_preemption",
)


def train(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    framework: Framework = "jax",
    force: bool = False,
    make_experiment: Callable[[ml_collections.ConfigDict, Framework], Experiment] = get_experiment,
) -> None:
    """Trains until ``config.training.n_iters``, from the newest checkpoint if there is one.

    Arguments:
        config: complete configuration.
        workdir: where everything is written; made if missing.
        framework: "jax" or "torch".
        force: accept a configuration that differs from the one the work directory was started with.
        make_experiment: what a configuration means, for programs built on this one.

    Raises:
        UserError: see its message; nothing that was there is lost.
        StopRequested: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    experiment = make_experiment(config, framework)
    experiment.check_training()
    leader = experiment.parallel.leader
    with (
        Workdir(workdir, role="train", exclusive=leader) as folder,
        # One console for all: what every process does alike is said by the first.
        RunLog(folder.path / "stdout.txt" if leader else None, level=logging.INFO if leader else logging.WARNING),
        GracefulStop() as stop,
    ):
        _require_one_framework(experiment, folder.path)
        training = _Training(experiment, folder, stop)  # a configuration that it refuses leaves no mark on the folder
        folder.record_config(
            record_of(config, framework), ignore=_FREE_KEYS, may_grow=("training.n_iters",), force=force
        )
        experiment.parallel.require_equal(int(config_hash(config)[:7], 16), "their configuration")
        training.run()


def _check_frequencies(training: Any) -> None:
    n = training.n_jitted_steps
    for key in ("log_freq", "snapshot_freq_for_preemption", "eval_freq", "snapshot_freq"):
        if training[key] % n:
            raise UsageError(
                f"training.{key} is {training[key]}, which training.n_jitted_steps ({n}) does not divide; "
                f"use a multiple of {n}, or n_jitted_steps 1"
            )


def _require_one_framework(experiment: Experiment, workdir: Path) -> None:
    """Refuses to go on where the other framework trained."""
    own, *others = experiment.suffixes.items()
    for name, suffix in others:
        if any(latest_checkpoint(workdir / folder, suffix=suffix) for folder in ("checkpoints-meta", "checkpoints")):
            raise UsageError(
                f"{workdir} was trained with --framework={name}; go on with that, or choose another --workdir "
                f"(score-convert makes checkpoints for --framework={own[0]} of it)"
            )


class _Training:
    """One start of the loop."""

    def __init__(self, experiment: Experiment, folder: Workdir, stop: GracefulStop) -> None:
        config = experiment.config
        _check_frequencies(config.training)
        self.experiment = experiment
        self.training = config.training
        self.folder = folder
        self.stop = stop
        self.parallel = experiment.parallel
        self.parallel.require_divisible(self.training.batch_size, "training.batch_size")
        if self.training.snapshot_sampling:
            experiment.check_sampler()  # an unknown rule is said now, not after the first 50,000 updates
        self.n_jit = self.training.n_jitted_steps
        self.leader = self.parallel.leader
        batch, seed = self.training.batch_size, config.seed
        self.train_data = experiment.pipeline("train", batch, seed=seed, flip=config.data.random_flip)
        self.eval_data = experiment.pipeline("test", batch, seed=seed)

    def run(self) -> None:
        state, resumed = self._initial_state()
        first = int(state.step)
        self.parallel.require_equal(first, "the checkpoint they found")
        if first % self.n_jit:
            raise UsageError(
                f"the checkpoint was written after {first} updates, which training.n_jitted_steps ({self.n_jit}) does "
                "not divide, as the original PyTorch program does; go on with --config.training.n_jitted_steps=1"
            )
        # Process 0 decides: on a shared disk the others may see its files late.
        if self.parallel.maximum(int(self.leader and resumed and self._is_complete(first))):
            _logger.info("training is complete: %d updates, training.n_iters is %d", first, self.training.n_iters)
            return
        history = self.folder.path / "history.csv" if self.leader else None
        self.history = History(history, resume_at=first, evaluate_at=first - self.n_jit if resumed else first)
        total = self.training.n_iters + 1
        with (
            self._summaries(first if resumed else None) as self.summaries,
            self._batches(first) as batches,
            # Not a terminal: no bar.
            Progress(
                total, initial=first, description="train", stream=None if self.leader else io.StringIO()
            ) as progress,
        ):
            if resumed:
                # The checkpoint was written in the middle of this iteration (see the module's docstring).
                state = self._finish_iteration(state, first - self.n_jit)
            _logger.info("Starting training loop at step %d.", first)
            devices = self.parallel.describe()
            _logger.info("on %(count)d %(platform)s devices of %(processes)d processes", devices)
            for step in range(first, total, self.n_jit):
                state, losses = self.experiment.train_call(state, next(batches))
                values = self._log_loss(step, losses) if step % self.training.log_freq == 0 else {}
                progress.update(self.n_jit, **values)
                if step != 0 and step % self.training.snapshot_freq_for_preemption == 0:
                    self._save_for_preemption(state, step)
                if self._agree_to_stop(step):
                    self._save_for_preemption(state, step)
                    self.stop.exit()
                state = self._finish_iteration(state, step)

    def _agree_to_stop(self, step: int) -> bool:
        """Whether a signal asked for a stop; the same answer in all processes."""
        if self.parallel.process_count == 1:
            return self.stop.requested
        if step % self.training.log_freq:
            return False
        number = self.parallel.maximum(self.stop.signal or 0)
        if number:
            self.stop.request(number)
        return number > 0

    def _initial_state(self) -> tuple[Any, bool]:
        found = self._newest()
        if found is None:
            return self.experiment.initial_state(), False
        _logger.info("resuming from %s", found)
        return self.experiment.place(self.experiment.load_state(found)), True

    def _newest(self) -> Path | None:
        """The checkpoint to go on from."""
        experiment, folder = self.experiment, self.folder.path / "checkpoints-meta"
        if found := read_latest(folder, suffix=experiment.suffix, decode=experiment.check_file):
            return found.path
        # The original PyTorch program has one file, without a number, which it writes over.
        if experiment.suffix and (file := folder / f"checkpoint{experiment.suffix}").is_file():
            return file
        return None

    def _is_complete(self, first: int) -> bool:
        """Whether the last checkpoint and its samples are there; a run killed between the two is not complete."""
        step = self.training.n_iters
        number = step // self.training.snapshot_freq
        saved = self.folder.path / "checkpoints" / f"checkpoint_{number}{self.experiment.suffix}"
        sample = self.folder.path / "samples" / self.experiment.sample_folder(step) / "sample.png"
        return first > step and saved.exists() and (sample.exists() or not self.training.snapshot_sampling)

    def _batches(self, first: int) -> Prefetcher[Any]:
        def stack(call: int) -> Any:
            """Device arrays of the images of updates ``call * n_jit ..``, uint8 ``[n_jit, B, H, W, C]``."""
            images = [self.train_data.batch(call * self.n_jit + j).image for j in range(self.n_jit)]
            return self.experiment.to_device(np.stack(images))

        return Prefetcher(stack, first // self.n_jit)

    def _summaries(self, purge_step: int | None) -> Any:
        if not self.leader:
            return _NoSummaries()
        return SummaryWriter(self.folder.path / "tensorboard", purge_step=purge_step)

    def _log_loss(self, step: int, losses: Any) -> dict[str, float]:
        values = self._report("training", step, losses)
        self._require_finite(values["loss"], step)
        self.history.add(step, training_loss=values["loss"])
        return values

    def _report(self, kind: str, step: int, losses: Any) -> dict[str, float]:
        """Logs the mean of each column of losses ``[..., columns]``."""
        names = self.experiment.loss_names
        columns = [losses] if len(names) == 1 else [losses[..., column] for column in range(len(names))]
        values = {name: float(column.mean()) for name, column in zip(names, columns, strict=True)}
        _logger.info("step: %d, %s", step, ", ".join(f"{kind}_{name}: {value:.5e}" for name, value in values.items()))
        for name, value in values.items():
            self.summaries.scalar(f"{kind}_{name}", value, step)
        return values

    def _require_finite(self, value: float, step: int) -> None:
        if not np.isfinite(value):
            raise UserError(
                f"the loss or a parameter is {value} at step {step}. No checkpoint follows the last good one; "
                "lower optim.lr, keep optim.grad_clip positive, or look at the data, and start again to go on from it"
            )

    def _finish_iteration(self, state: Any, step: int) -> Any:
        """The held-out loss and the snapshot of loop index ``step``; both advance the state's key."""
        training = self.training
        if step % training.eval_freq == 0:
            state = self._evaluate(state, step)
        if (step != 0 and step % training.snapshot_freq == 0) or step == training.n_iters:
            self._save(state, step, "checkpoints", step // training.snapshot_freq, keep=None)
            if training.snapshot_sampling:
                state = self._sample(state, step)
        return state

    def _evaluate(self, state: Any, step: int) -> Any:
        first = step // self.training.eval_freq * self.n_jit
        images = np.stack([self.eval_data.batch(first + j).image for j in range(self.n_jit)])
        state, losses = self.experiment.eval_call(state, self.experiment.to_device(images))
        self.history.add(step, eval_loss=self._report("eval", step, losses)["loss"])
        return state

    def _save_for_preemption(self, state: Any, step: int) -> None:
        number = step // self.training.snapshot_freq_for_preemption
        # one more than the original keeps, so that a damaged file has a predecessor
        self._save(state, step, "checkpoints-meta", number, keep=2)

    def _save(self, state: Any, step: int, name: str, number: int, *, keep: int | None) -> None:
        self._require_finite(self.experiment.check_sum(state), step)
        if self.leader:
            data = self.experiment.encode_state(state)
            path = save_checkpoint(self.folder.folder(name), data, number, suffix=self.experiment.suffix, keep=keep)
            _logger.info("saved %s", path)

    def _sample(self, state: Any, step: int) -> Any:
        """Draws ``training.batch_size`` images with the averaged parameters and writes them."""
        state, images = self.experiment.draw_snapshot(state)
        if self.leader:
            folder = self.folder.folder("samples", self.experiment.sample_folder(step))
            # parity: the JAX program's array has a leading device axis
            _write_samples(folder, images, device_axis=self.experiment.framework == "jax")
            self.summaries.image("samples", image_grid(images), step)
        return state


def _write_samples(folder: Path, images: np.ndarray, *, device_axis: bool) -> None:
    """``sample.np`` (NumPy format, uint8 ``[B, H, W, C]``, perhaps with an axis before) and the grid ``sample.png``."""
    buffer = io.BytesIO()
    # parity: the name's ending is the originals'
    np.save(buffer, to_uint8(images)[None] if device_axis else to_uint8(images))
    atomic_write(folder / "sample.np", buffer.getvalue())
    save_png(folder / "sample.png", image_grid(images))


class _NoSummaries:
    """What processes other than the first write: nothing."""

    def scalar(self, *_: Any) -> None:
        pass

    def image(self, *_: Any) -> None:
        pass

    def __enter__(self) -> "_NoSummaries":
        return self

    def __exit__(self, *_: object) -> None:
        pass
