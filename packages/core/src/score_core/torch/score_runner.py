r"""The training loop of NCSN and NCSNv2, made to resume to the same numbers.

One iteration, in the order of both programs:

1. ``step += 1``; the next batch, in [0, 1];
2. the loss, its gradient, the optimiser's step, whatever follows an update (averaging);
3. at the last step, stop: neither test nor snapshot happens there, hence ``n_iters`` = a multiple + 1 in the configs;
4. every 100 steps the loss of a test batch;
5. every ``snapshot_freq`` steps a checkpoint, then samples.

Random numbers are a function of ``(seed, use, step)`` (:func:`step_generator`) and batches of ``(seed, step)``
(:class:`score_core.data.Pipeline`). A checkpoint therefore needs no random state, and a run that was killed anywhere
repeats the steps since its last checkpoint with the same numbers. Samples that a killed run did not finish are drawn
again when it resumes.

parity: a batch runs on into the next epoch, while the originals end every epoch with a short one.
"""

import enum
import logging
import math
import random
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.list_checkpoint import ListCheckpoint, ResumePoint, save_list_checkpoint
from score_core.data import Pipeline
from score_core.errors import UserError
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.runs.tensorboard import SummaryWriter
from score_core.torch.pth import dumps

__all__ = [
    "ScoreProgram",
    "TrainingPlan",
    "Use",
    "data_parallel",
    "load_strictly",
    "pick_device",
    "seed_everything",
    "step_generator",
    "to_images",
    "train",
]

_logger = logging.getLogger(__name__)
_HELD_LOSSES = 50  # on a GPU, fetched together


class Use(enum.Enum):
    """What a generator's numbers are for. The values are part of the meaning of a seed: never rename."""

    TRAIN = "train"
    TEST = "test"
    SNAPSHOT = "snapshot"
    EVALUATION = "evaluation"


def pick_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed the default generators, from which networks are initialised: Python's, NumPy's, PyTorch's on all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is what the originals' users may draw from
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = True


def step_generator(seed: int, use: Use, step: int, device: torch.device) -> torch.Generator:
    """The generator of one step: a function of its arguments, whatever was drawn before."""
    # PyTorch's generator on the CPU reads 32 bits of a seed: counting up keeps the steps of one use apart.
    start = int.from_bytes(sha256(f"{seed}/{use.value}".encode()).digest()[:4], "little")
    return torch.Generator(device).manual_seed((start + step) % 2**32)


def to_images(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 ``[B, H, W, C]`` as float32 ``[B, C, H, W]`` in [0, 1] on the device."""
    tensor = torch.from_numpy(images)
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    # parity: divided, as torchvision's ToTensor does; TensorFlow multiplies (scalers.to_float)
    return tensor.permute(0, 3, 1, 2).contiguous().float().div_(255)


def data_parallel(network: nn.Module, device: torch.device) -> nn.Module:
    """The network, spread over all GPUs of the machine if there are several."""
    several = device.type == "cuda" and torch.cuda.device_count() > 1
    return nn.DataParallel(network) if several else network


def load_strictly(network: nn.Module, state: Mapping[str, Any], where: Path | str) -> None:
    """Load arrays by name; every one must be there in its shape and no other.

    Raises: CheckpointError naming what does not fit.
    """
    own = network.state_dict()
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [
        f"{key} {tuple(np.shape(state[key]))} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and tuple(np.shape(state[key])) != tuple(own[key].shape)
    ]
    parts = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("not in the network", unknown), ("of another shape", shapes))
        if names
    ]
    if parts:
        raise CheckpointError(
            f"{where} is not a checkpoint of the configured network ({type(network).__name__}): {'; '.join(parts)}. "
            "Take the configuration it was trained with."
        )
    network.load_state_dict({key: torch.as_tensor(np.asarray(value)) for key, value in state.items()})


@dataclass(frozen=True)
class TrainingPlan:
    """Where and how long a run trains.

    Attributes:
        log_path: folder of checkpoints; made if missing.
        tensorboard_path: folder of event files.
        n_iters: the last step. n_epochs: the run also ends when the data were seen this often.
        snapshot_freq, test_freq: steps between checkpoints, and between test losses.
        seed: of all random numbers and of the order of the data.
        config_hash: goes beside every checkpoint.
    """

    log_path: Path
    tensorboard_path: Path
    n_iters: int
    n_epochs: int
    snapshot_freq: int
    seed: int
    config_hash: str
    test_freq: int = 100


class ScoreProgram(ABC):
    """What one kind of training is made of; the loop (:func:`train`) calls it.

    A subclass has the network (perhaps wrapped by :func:`data_parallel`) and the optimiser, and says what the losses
    are.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    prefix: ClassVar[str] = "module."
    """What the keys of the network's state dict begin with in a checkpoint."""

    @abstractmethod
    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The scalar that is minimised, of images ``[B, C, H, W]`` in [0, 1] on the device."""

    @abstractmethod
    def test(self, images: Tensor, generator: torch.Generator, step: int) -> Mapping[str, float]:
        """Values of a test batch by TensorBoard tag; the first is the test loss."""

    def after_update(self) -> None:  # noqa: B027 - most programs have nothing to do here
        """Called after every step of the optimiser."""

    def scalars(self) -> Mapping[str, float]:
        """Further values to write at every step."""
        return {}

    def line(self, step: int, loss: float) -> str:
        """The log line of a step."""
        return f"step: {step}, loss: {loss}"

    def test_line(self, step: int, values: Mapping[str, float]) -> str | None:
        """The log line of a test, or None."""
        del step, values
        return None

    def checkpoint(self, epoch: int, step: int) -> list[Any]:
        """The contents of a checkpoint; a program with more than network and optimiser adds to them."""
        del epoch, step
        network = unwrapped(self.network).state_dict()
        # contiguous: how a network lies in memory is no business of its file
        named = OrderedDict((self.prefix + key, value.contiguous()) for key, value in network.items())
        return [named, self.optimizer.state_dict()]

    def restore(self, checkpoint: ListCheckpoint) -> None:
        """Take over the network's and the optimiser's state.

        Raises: CheckpointError if they are of another network or optimiser.
        """
        load_strictly(unwrapped(self.network), checkpoint.network, checkpoint.path)
        state = {key: _with_tensors(value) for key, value in checkpoint.optimizer["state"].items()}
        try:
            self.optimizer.load_state_dict({"state": state, "param_groups": checkpoint.optimizer["param_groups"]})
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"{checkpoint.path}: the optimiser's state is not that of optim.*: {error}"
            ) from error

        for parameter, values in self.optimizer.state.items():
            for key, value in values.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    values[key] = torch.empty_like(parameter).copy_(value)  # fused updates want one layout

    def snapshot(  # noqa: B027 - NCSN draws no samples while it trains
        self, step: int, generator: torch.Generator, summaries: SummaryWriter
    ) -> None:
        """Draw and write samples after a checkpoint."""

    def snapshot_done(self, step: int) -> bool:
        """Whether the samples of a step are there; if not, a resumed run draws them first."""
        del step
        return True


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside ``DataParallel``."""
    return network.module if isinstance(network, nn.DataParallel) else network


def _with_tensors(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: torch.as_tensor(v) if isinstance(v, (np.ndarray, np.generic)) else v for key, v in values.items()}


def train(
    program: ScoreProgram,
    plan: TrainingPlan,
    train_data: Pipeline,
    test_data: Pipeline | None,
    device: torch.device,
    stop: GracefulStop,
    *,
    resume: ListCheckpoint | None = None,
    workers: int = 1,
) -> None:
    """Train from the beginning, or from a checkpoint.

    Arguments:
        program: losses, network, optimiser.
        plan: where and how long.
        train_data, test_data: batches; without test data there are no test losses.
        device: where the network is.
        stop: asks for the end of the run.
        resume: the checkpoint to go on from.
        workers: threads that prepare batches.

    Raises:
        UserError: the loss or a parameter is not finite; no checkpoint is written over a good one.
        StopRequested: after a signal, once a checkpoint is written.
    """
    loop = _Loop(program, plan, train_data, test_data, device)
    first = 0 if resume is None else loop.restore(resume)
    total = min(plan.n_iters, plan.n_epochs * math.ceil(len(train_data.source) / train_data.batch_size))
    if first >= total:
        _logger.info("training is complete: step %d of %d (training.n_iters)", first, total)
        return
    with (
        SummaryWriter(plan.tensorboard_path, purge_step=None if resume is None else first + 1) as summaries,
        train_data.batches(first, workers=workers) as batches,
        Progress(total, initial=first, description="train") as progress,
    ):
        losses = _Losses(program, summaries, progress, hold=device.type != "cpu")
        if resume is not None and first % plan.snapshot_freq == 0:
            loop.sample(first, summaries)
        for step in range(first + 1, total + 1):
            losses.add(step, loop.update(step, to_images(next(batches).image, device)))
            if step < plan.n_iters:
                if step % plan.test_freq == 0:
                    losses.flush()
                    loop.test(step, summaries)
                if step % plan.snapshot_freq == 0:
                    losses.flush()
                    loop.save(step)
                    loop.sample(step, summaries)
            if stop.requested:
                losses.flush()
                loop.save(step, numbered=step % plan.snapshot_freq == 0 and step < plan.n_iters)
                stop.exit()
        losses.flush()


class _Loop:
    """The parts of an iteration."""

    def __init__(
        self,
        program: ScoreProgram,
        plan: TrainingPlan,
        train_data: Pipeline,
        test_data: Pipeline | None,
        device: torch.device,
    ) -> None:
        self.program, self.plan, self.device = program, plan, device
        self.train_data, self.test_data = train_data, test_data

    def restore(self, checkpoint: ListCheckpoint) -> int:
        """Take over a checkpoint; its step."""
        self.program.restore(checkpoint)
        if checkpoint.resume is not None:
            step = checkpoint.resume.step
            if checkpoint.resume.data != self.train_data.source.fingerprint:
                _logger.warning(
                    "the training images are not those that %s was trained on: the run goes on, but not to "
                    "the numbers of an uninterrupted one",
                    checkpoint.path,
                )
        else:
            step = checkpoint.step or 0
            _logger.warning(
                "%s was written by another program, which keeps no random state: training goes on from "
                "step %d, not to the numbers of an uninterrupted run",
                checkpoint.path,
                step,
            )
        _logger.info("resuming from %s at step %d", checkpoint.path, step)
        return step

    def update(self, step: int, images: Tensor) -> Tensor:
        program = self.program
        program.network.train()
        loss = program.loss(images, step_generator(self.plan.seed, Use.TRAIN, step, self.device))
        program.optimizer.zero_grad()
        loss.backward()
        program.optimizer.step()
        program.after_update()
        return loss.detach()

    def test(self, step: int, summaries: SummaryWriter) -> None:
        if self.test_data is None:
            return
        images = to_images(self.test_data.batch(step // self.plan.test_freq - 1).image, self.device)
        generator = step_generator(self.plan.seed, Use.TEST, step, self.device)
        values = self.program.test(images, generator, step)
        summaries.scalars(values, step)
        if line := self.program.test_line(step, values):
            _logger.info("%s", line)

    def save(self, step: int, *, numbered: bool = True) -> None:
        total = torch.stack([torch.sum(p.detach() * 0.0) for p in self.program.network.parameters()]).sum()
        _require_finite(float(total), step)
        epoch = (step - 1) * self.train_data.batch_size // len(self.train_data.source)
        resume = ResumePoint(step, self.plan.seed, self.plan.config_hash, self.train_data.source.fingerprint)
        data = dumps(self.program.checkpoint(epoch, step))
        path = save_list_checkpoint(self.plan.log_path, data, resume, numbered=numbered)
        _logger.debug("saved %s at step %d", path, step)

    def sample(self, step: int, summaries: SummaryWriter) -> None:
        if not self.program.snapshot_done(step):
            generator = step_generator(self.plan.seed, Use.SNAPSHOT, step, self.device)
            self.program.snapshot(step, generator, summaries)


class _Losses:
    """Writes the loss of every step; on a GPU many together, so that the device does not wait for the log."""

    def __init__(self, program: ScoreProgram, summaries: SummaryWriter, progress: Progress, *, hold: bool) -> None:
        self.program, self.summaries, self.progress = program, summaries, progress
        self.limit = _HELD_LOSSES if hold else 1
        self.held: list[tuple[int, Tensor]] = []

    def add(self, step: int, loss: Tensor) -> None:
        self.held.append((step, loss))
        if len(self.held) >= self.limit:
            self.flush()

    def flush(self) -> None:
        if not self.held:
            return
        steps, losses = zip(*self.held, strict=True)
        self.held = []
        for step, loss in zip(steps, torch.stack(losses).tolist(), strict=True):
            self.summaries.scalars({"loss": loss, **self.program.scalars()}, step)
            # a terminal shows the bar instead
            _logger.info("%s", self.program.line(step, loss), extra={"file_only": self.progress.on_terminal})
            self.progress.update(loss=loss)
            _require_finite(loss, step)


def _require_finite(value: float, step: int) -> None:
    if not math.isfinite(value):
        raise UserError(
            f"the loss or a parameter is {value} at step {step}. The checkpoints before are good; lower optim.lr, look "
            "at the data (training and data transforms), and go on from there with --resume_training."
        )
