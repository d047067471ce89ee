"""What the runners of images share: training with exact resume, loading a network, folders."""

import argparse
import logging
import os
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ncsn.data import open_data, pipeline
from ncsn.sampling import Recorder, to_pixels, watched
from ncsn.training import PROGRAMS
from score_core.checkpoints.list_checkpoint import ListCheckpoint, checkpoint_name, find_newest, read_list_checkpoint
from score_core.data import Pipeline
from score_core.errors import UsageError, UserError
from score_core.runs.config_record import config_hash
from score_core.runs.namespace_config import to_dict
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.torch.langevin import Watcher
from score_core.torch.sample_files import save_grid, save_tensor
from score_core.torch.score_runner import TrainingPlan, load_strictly, pick_device, train

__all__ = ["ImageRunner"]

_logger = logging.getLogger(__name__)


class ImageRunner:
    """Trains a network on images; subclasses sample from it.

    Arguments:
        args: of the command line; ``run``, ``doc``, ``log`` (the run's log folder), ``seed``, ``resume_training``,
            ``image_folder``, ``ckpt_id``, ``num_samples``, ``movie`` and ``mask`` are read.
        config: complete and checked.
        stop: asks for the end of the run.
    """

    name: ClassVar[str]
    samples: ClassVar[int] = 25

    def __init__(self, args: argparse.Namespace, config: argparse.Namespace, stop: GracefulStop | None = None) -> None:
        self.args, self.config = args, config
        self.stop = GracefulStop() if stop is None else stop
        self.device = pick_device()
        self._sources: dict[str, Pipeline] = {}

    def open_training_data(self) -> None:
        """Look for the data, so that nothing is begun without them.

        Raises: DataError, MissingDataError.
        """
        run, training = Path(self.args.run), self.config.training
        for split in ("train", "test"):
            source = open_data(self.config, self.name, run, split)
            self._sources[split] = pipeline(self.config, self.name, source, training.batch_size, self.args.seed)

    def train(self, resume: ListCheckpoint | None = None) -> None:
        """Train from the beginning or from a checkpoint.

        Raises: UserError, StopRequested after a signal, once a checkpoint is written.
        """
        if not self._sources:
            self.open_training_data()
        training = self.config.training
        plan = TrainingPlan(
            log_path=Path(self.args.log),
            tensorboard_path=Path(self.args.run) / "tensorboard" / self.args.doc,
            n_iters=training.n_iters,
            n_epochs=training.n_epochs,
            snapshot_freq=training.snapshot_freq,
            seed=self.args.seed,
            config_hash=config_hash(to_dict(self.config)),
        )
        program = PROGRAMS[self.name](self.config, self.device)
        workers = max(1, min(4, os.cpu_count() or 1))
        data, test_data = self._sources["train"], self._sources["test"]
        # parity: the test loader leaves out a last batch that is not full; ScoreNet's does not.
        small = len(test_data.source) < test_data.batch_size and self.name != "ScoreNetRunner"
        train(program, plan, data, None if small else test_data, self.device, self.stop, resume=resume, workers=workers)

    def test(self) -> None:
        """Draw samples.

        Raises: UsageError: this runner has nothing to sample from.
        """
        raise UsageError(f"{self.name} has no --test; AnnealRunner and BaselineRunner have.")

    def checkpoint(self, step: int | None = None) -> ListCheckpoint:
        """A checkpoint of the run: of ``step``, of ``--ckpt_id``, or the latest good one.

        Raises: MissingCheckpointError listing those that are there; CheckpointError.
        """
        step = self.args.ckpt_id if step is None else step
        log = Path(self.args.log)
        return find_newest(log) if step is None else read_list_checkpoint(log / checkpoint_name(step))

    def network(self, checkpoint: ListCheckpoint) -> nn.Module:
        """The network of a checkpoint, for evaluation.

        parity: it is initialised first, whose random numbers come before those of the samples.
        """
        network = PROGRAMS[self.name].make_network(self.config)
        load_strictly(network, checkpoint.network, checkpoint.path)
        _logger.info("loaded %s", checkpoint.path)
        return network.to(self.device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        data = self.config.data
        return data.channels, data.image_size, data.image_size

    @property
    def folder(self) -> Path:
        """Where samples go."""
        return Path(self.args.image_folder)

    def count(self) -> int:
        """How many samples are drawn together."""
        return self.args.num_samples or self.config.sampling.batch_size or self.samples

    def progress(self, total: int, description: str) -> Progress:
        """Of sampling."""
        return Progress(total, description=description, unit="step")

    def watcher(self, progress: Progress, *watchers: Watcher | None) -> Watcher:
        """Counts steps, listens to signals, passes steps on."""
        return watched(progress, self.stop, *watchers)

    def recorder(self, picture: str | None, raw: str, nrow: int) -> Recorder | None:
        """What writes every state, if ``--movie`` is given."""
        if not self.args.movie:
            return None
        return Recorder(self.folder, picture, raw, nrow, self.config.data.logit_transform)

    def write_final(self, state: Tensor, nrow: int, name: str = "samples") -> None:
        """The final states as a grid and as a tensor.

        Raises: UserError if they are not finite.
        """
        if not bool(torch.isfinite(state).all()):
            raise UserError(
                "the samples are not finite: the sampler diverged. Lower sampling.step_lr, or take an earlier "
                "checkpoint (--ckpt_id)."
            )
        images = to_pixels(state, logit=self.config.data.logit_transform)
        save_grid(self.folder / f"{name}.png", images, nrow)
        save_tensor(self.folder / f"{name}.pth", images)
        _logger.info("wrote %s.png and .pth", self.folder / name)
