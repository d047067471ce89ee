"""One request, from the checkpoint to the files.

    out/<task>.png       the picture
    out/<task>.npz       its arrays; images uint8 [..., H, W, C]
    out/config.json      the request; another one is refused in the same folder
    workdir/results.json numbers, if the task has any

Both files are written at the end, whole or not at all; the same request again writes the same files.
"""

import io
import logging
import os
import time
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import ml_collections
import numpy as np

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.errors import MissingCheckpointError
from score_core.checkpoints.store import find_checkpoint, list_checkpoints, read_checkpoint
from score_core.data import save_png
from score_core.errors import UsageError
from score_core.runs.config_record import config_hash
from score_core.runs.log import RunLog
from score_core.runs.results import Result, add_results
from score_core.runs.signals import GracefulStop
from score_core.runs.workdir import Workdir
from score_sde.classifier.load import load_classifier
from score_sde.experiment import Experiment, Framework, get_experiment, record_of
from score_sde.generate.options import Options
from score_sde.generate.tasks import Outcome, Session, perform

__all__ = ["generate"]

_logger = logging.getLogger(__name__)


def generate(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    options: Options,
    *,
    framework: Framework = "jax",
    force: bool = False,
) -> Path:
    """Does what ``options`` asks for with a checkpoint of a work directory.

    Arguments:
        config: complete configuration; ``config.sampling`` says how the images are drawn.
        workdir: the directory training wrote.
        options: the request.
        framework: "jax" or "torch"; checkpoints may be of either.
        force: replace the result of another request in the same folder.

    Returns:
        The folder of the results.

    Raises:
        UserError: see its message.
        StopRequested: after SIGTERM or SIGINT; nothing is written then.
    """
    folder, settings = Path(workdir), cast(Any, config)
    experiment = get_experiment(config, framework, local=True)
    path = _checkpoint(folder, options.checkpoint, experiment)
    out = Path(options.out) if options.out else folder / "generate" / options.task
    with Workdir(out, role="generate") as results, RunLog(None), GracefulStop() as stop:
        digest = sha256(read_checkpoint(path)).hexdigest()
        request = {"request": asdict(options) | {"checkpoint": digest}}
        results.record_config(record_of(config, framework) | request, ignore=("eval.*", "request.out"), force=force)
        begin = time.monotonic()
        state = experiment.load_state(path)
        step = int(state.step)
        params = experiment.parameters(state, ema=settings.eval.ema)
        classifier_folder = options.classifier_workdir or f"{str(folder).rstrip('/')}_classifier"
        session = Session(
            experiment,
            _generator(experiment, params, options),
            options,
            lambda: load_classifier(classifier_folder, config, framework),
            stop,
        )
        outcome = perform(session)
        _write(results.path, options.task, outcome, {"seed": options.seed, "step": step})
        numbers = [
            Result(
                name,
                value,
                error,
                count,
                dataset=settings.data.dataset,
                checkpoint_step=step,
                checkpoint_sha256=digest,
                config_hash=config_hash(request | record_of(config, framework)),
                framework=framework,
                seed=options.seed,
                ema=settings.eval.ema,
                denoise=settings.sampling.noise_removal,
                seconds=time.monotonic() - begin,
                details=outcome.details,
            )
            for name, value, error, count in outcome.numbers
        ]
        for number in numbers:
            _logger.info("%s: %.5g (%d images)", number.metric, number.value, number.sample_count)
        if numbers:
            add_results(results.path / "results.json", numbers)
        _logger.info("wrote %s and %s.npz", results.path / f"{options.task}.png", options.task)
        return results.path


def _generator(experiment: Experiment, params: Any, options: Options) -> Any:
    if experiment.framework == "jax":
        from score_sde.generate.jax_wing import Generator
    else:
        from score_sde.generate.torch_wing import Generator
    return Generator(experiment, params, options.seed, options.noise_consistent)  # type: ignore[arg-type]


def _checkpoint(workdir: Path, wanted: str, experiment: Experiment) -> Path:
    """The checkpoint's file: the newest of either framework, that of a number, or the one that is named."""
    folder = workdir / "checkpoints"
    if wanted and not wanted.isdecimal():
        if not Path(wanted).is_file():
            raise MissingCheckpointError(f"no checkpoint {wanted}: give the number of one in {folder}, or a file.")
        return Path(wanted)
    if not workdir.is_dir():
        raise UsageError(f"no work directory {workdir}: train first (--mode=train), or name another with --workdir")
    present = {
        (number, suffix): path
        for suffix in experiment.suffixes.values()
        for number, path in list_checkpoints(folder, suffix=suffix)
    }
    if not wanted and present:
        return present[max(present)]
    for suffix in experiment.suffixes.values():
        if wanted and (found := present.get((int(wanted), suffix))):
            return found
    if wanted:
        return find_checkpoint(folder, int(wanted), suffix=experiment.suffix)  # its error lists those present
    raise MissingCheckpointError(f"no checkpoint in {folder} yet: train further, or name a file with --checkpoint.")


def _write(folder: Path, task: str, outcome: Outcome, facts: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    arrays: Any = outcome.arrays | {name: np.asarray(value) for name, value in facts.items()}
    np.savez_compressed(buffer, **arrays)
    atomic_write(folder / f"{task}.npz", buffer.getvalue())
    save_png(folder / f"{task}.png", outcome.picture)
