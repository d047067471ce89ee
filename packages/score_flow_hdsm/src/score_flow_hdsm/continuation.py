"""Going on from another run's checkpoint: first order, then a higher one (Lu et al. 2022, section 6).

The state carries on whole (step, learning rate, moments, averages, key); ``training.n_iters`` counts from its
beginning. A state of another program loads because all of them have one layout; the order of score matching is not part
of it.
"""

import logging
from pathlib import Path

from score_core.checkpoints.store import latest_checkpoint, save_checkpoint
from score_core.errors import UsageError
from score_sde.experiment import Experiment

__all__ = ["start_from"]

_logger = logging.getLogger(__name__)


def start_from(experiment: Experiment, file: Path, workdir: Path) -> None:
    """Puts a checkpoint where training resumes from, unless training in ``workdir`` has begun.

    Raises:
        CheckpointError: it is missing, damaged, or of another network.
        UsageError: training from there would end at once, or its step is not one that a loop of calls comes by.
    """
    folder = workdir / "checkpoints-meta"
    if latest_checkpoint(folder, suffix=experiment.suffix):
        return
    training = experiment.config.training
    state = experiment.load_state(file)
    step = int(state.step)
    if step > training.n_iters:
        raise UsageError(
            f"{file} is at step {step}, beyond training.n_iters {training.n_iters}, which counts from the beginning of "
            f"the first run: give a larger one, e.g. --config.training.n_iters={step + training.n_iters}"
        )
    if step % training.n_jitted_steps:
        raise UsageError(
            f"{file} is at step {step}, which training.n_jitted_steps {training.n_jitted_steps} does not divide; use 1"
        )
    number = (step - 1) // training.snapshot_freq_for_preemption
    path = save_checkpoint(folder, experiment.encode_state(state), number, suffix=experiment.suffix)
    _logger.info("going on from %s, step %d, as %s", file, step, path)
