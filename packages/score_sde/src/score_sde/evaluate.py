"""Evaluation of a range of checkpoints: held-out loss, bits/dim, samples with FID, Inception Score and KID.

    workdir/{eval_folder}/ckpt_{k}_loss_{round}.npz             losses [images of the batch]
    workdir/{eval_folder}/ckpt_{k}_loss.npz                     all_losses [batches], mean_loss, standard_error, count
    workdir/{eval_folder}/{split}_ckpt_{k}_bpd_{round}.npz      arr_0, nats, index [images of the batch], nfe
    workdir/{eval_folder}/ckpt_{k}_host_{h}/samples_{r}.npz     samples uint8 [B, H, W, C], nfe
    workdir/{eval_folder}/ckpt_{k}_host_{h}/statistics_{r}.npz  pool_3 [B, D], logits [B, K]
    workdir/{eval_folder}/report_{k}.npz                        IS, fid, kid
    workdir/{eval_folder}/samples_{k}.png, trajectory_{k}.png   for the eye
    workdir/results.json                                        every number with its circumstances

Every file is written whole or not at all, and a round whose file is there is not computed again: that is how an
interrupted evaluation goes on, and how several processes share one (:mod:`score_sde.rounds`). The numbers of a round
depend on the seed and the round alone, so they are those of an uninterrupted evaluation by one process.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

import ml_collections

from score_core.checkpoints.store import find_checkpoint
from score_core.errors import UsageError
from score_core.runs.log import RunLog
from score_core.runs.signals import GracefulStop
from score_core.runs.workdir import Workdir
from score_sde.evaluation_files import Session, bind_checkpoint
from score_sde.experiment import Experiment, Framework, get_experiment, record_of
from score_sde.held_out import BitsPerDim, HeldOutLoss
from score_sde.rounds import Worker
from score_sde.sample_quality import SampleQuality

__all__ = ["Part", "Stage", "enabled_stages", "evaluate"]

Part = Literal["all", "statistics", "rounds"]


_logger = logging.getLogger(__name__)

# What may differ from start to start of one evaluation folder without changing the files in it.
_FREE_KEYS = (
    "eval.begin_ckpt",
    "eval.end_ckpt",
    "eval.enable_*",
    "eval.wait",
    "eval.patience",
    "eval.extractor_weights",
    "eval.extractor_download",
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
    framework: Framework = "jax",
    force: bool = False,
    process_id: int = 0,
    num_processes: int = 1,
    part: Part = "all",
    make_experiment: Callable[..., Experiment] = get_experiment,
    stages: Callable[[Experiment], "list[Stage]"] | None = None,
) -> None:
    """Evaluates ``config.eval.begin_ckpt .. end_ckpt`` of a work directory.

    Arguments:
        config: complete configuration.
        workdir: the directory training wrote.
        eval_folder: where results go, inside it.
        framework: "jax" or "torch"; checkpoints may be of either.
        force: go on in an evaluation folder that was started with another configuration.
        process_id, num_processes: this is process ``process_id`` of so many that evaluate together, in one shared
            folder. They need not start or end at the same time; process 0 waits for the others' rounds.
        part: "statistics" makes the statistics of the training data and ends, for which no checkpoint need be there;
            "rounds" computes this process's rounds and ends, so that no process waits for another. "all" does what
            is left of everything.
        make_experiment: what a configuration means, for programs built on this one; called as ``get_experiment`` is.
        stages: what is measured; by default what ``config.eval.enable_*`` say.

    Raises:
        UserError: see its message; a missing checkpoint lists those present.
        StopRequested: after SIGTERM or SIGINT; what was measured is kept.
    """
    folder = Path(workdir)
    settings: Any = config.eval
    if part == "statistics":
        folder.mkdir(parents=True, exist_ok=True)
        if settings.enable_sampling:
            with RunLog(None):
                SampleQuality(make_experiment(config, framework, local=True)).prepare(folder)
        return
    if not folder.is_dir():
        raise UsageError(f"no work directory {folder}: train first (--mode=train), or name another with --workdir")
    worker = Worker(process_id, num_processes)
    experiment = make_experiment(config, framework, local=True)
    experiment.parallel.require_divisible(settings.batch_size, "eval.batch_size")
    role = "eval" if worker.leader else f"eval-{worker.index}"
    with Workdir(folder / eval_folder, role=role) as results, RunLog(None), GracefulStop() as stop:
        results.record_config(record_of(config, framework), ignore=_FREE_KEYS, force=force)
        if not settings.ema:
            _logger.warning("eval.ema is False: the raw parameters are evaluated, not their moving average")
        measured = (stages or enabled_stages)(experiment)
        _Evaluation(experiment, measured, worker, stop, reports=part == "all" and worker.leader).run(
            folder, results.path
        )


class Stage(Protocol):
    """One kind of number: rounds that any process can compute, and a result that process 0 makes of them."""

    rounds: int

    def compute(self, session: Session, position: int) -> None:
        """Writes this process's rounds; ``position`` is the first round's in the chain of keys."""
        ...

    def report(self, session: Session, since: float) -> None:
        """Waits for all rounds, puts them together and records the result; ``since`` is when its time began."""
        ...


def enabled_stages(experiment: Experiment) -> list[Stage]:
    """The stages that ``config.eval.enable_*`` ask for."""
    settings = experiment.config.eval
    kinds = {
        HeldOutLoss: settings.enable_loss,
        BitsPerDim: settings.enable_bpd,
        SampleQuality: settings.enable_sampling,
    }
    return [kind(experiment) for kind, enabled in kinds.items() if enabled]


class _Evaluation:
    """What all checkpoints share: data, protocol, compiled functions."""

    def __init__(
        self, experiment: Experiment, stages: list[Stage], worker: Worker, stop: GracefulStop, *, reports: bool
    ) -> None:
        self.experiment = experiment
        self.stages = stages
        self.worker = worker
        self.stop = stop
        self.reports = reports
        self.eval = experiment.config.eval

    def run(self, workdir: Path, folder: Path) -> None:
        position = 0
        for number in range(self.eval.begin_ckpt, self.eval.end_ckpt + 1):
            path = self._wait_for(workdir / "checkpoints", number)
            _logger.info("begin checkpoint: %d", number)
            session = self._open(workdir, folder, number, path)
            seconds: list[float] = []
            for stage in self.stages:
                begin = time.monotonic()
                stage.compute(session, position)
                seconds.append(time.monotonic() - begin)
                position += stage.rounds
            # All rounds of ours first: meanwhile the others finish theirs.
            for stage, spent in zip(self.stages, seconds, strict=True):
                if self.reports:
                    stage.report(session, since=time.monotonic() - spent)

    def _open(self, workdir: Path, folder: Path, number: int, path: Path) -> Session:
        """The checkpoint with the parameters to evaluate on the devices."""
        digest = bind_checkpoint(folder, number, path)
        state = self.experiment.load_state(path)
        return Session(
            self.experiment,
            workdir,
            folder,
            self.stop,
            self.worker,
            number,
            int(state.step),
            digest,
            self.experiment.parameters(state, ema=self.eval.ema),
        )

    def _wait_for(self, folder: Path, number: int) -> Path:
        """The checkpoint's file, of either framework; waits up to ``eval.wait`` seconds for it.

        Raises:
            MissingCheckpointError: it is not there (in time); lists those that are.
        """
        deadline = time.monotonic() + self.eval.wait
        warned = False
        paths = [folder / f"checkpoint_{number}{suffix}" for suffix in self.experiment.suffixes.values()]
        while not (found := next(filter(Path.exists, paths), None)) and time.monotonic() < deadline:
            if not warned:
                _logger.warning("Waiting for the arrival of checkpoint_%d", number)
                warned = True
            if self.stop.requested:
                self.stop.exit()
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        return found or find_checkpoint(folder, number, suffix=self.experiment.suffix)
