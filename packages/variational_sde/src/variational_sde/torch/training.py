"""Training: the original's loop and files, made to resume to the same numbers.

    <saveroot>/sde-flow/<expname>/<dataset>-<real>-<debias>-<batch_size>-<lr>-<num_iterations>/
        args.txt, log.txt, events.out.tfevents.*, checkpoint.pt      as the original's
        config.json, history.csv, results.json                       every flag; loss and bits/dim; with circumstances

One iteration: batch, dequantisation, logit, loss, Adam; then, at their cadence, evaluation, sample grid, checkpoint.
The batch of iteration k is a function of (seed, k), and evaluations and grids draw from streams of their own, so that
nothing but the state in the checkpoint decides how training goes on. A run that is stopped inside an evaluation saves
first that this iteration's evaluation is pending.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.checkpoints.atomic import atomic_write
from score_core.data import Pipeline
from score_core.errors import UserError
from score_core.runs.config_record import config_hash
from score_core.runs.history import History
from score_core.runs.log import RunLog
from score_core.runs.progress import Progress
from score_core.runs.results import Result, add_results
from score_core.runs.signals import GracefulStop
from score_core.runs.tensorboard import SummaryWriter
from score_core.runs.workdir import Workdir
from score_core.torch.ema import ema_update
from score_core.torch.noise import PerSampleNoise
from score_core.torch.threefry import fold_in, prng_key
from variational_sde.experiment import DATASETS, FREE_KEYS, config_of, load_data, network_options, run_folder
from variational_sde.flags import ORIGINAL
from variational_sde.logit import LogitTransform
from variational_sde.torch import checkpoint
from variational_sde.torch.checkpoint import RunState
from variational_sde.torch.evaluation import Estimate, Protocol, bound_bpd, evaluating, to_tensor
from variational_sde.torch.sampling import SamplingStopped, sample_grid
from variational_sde.torch.start import Log, choose_device

__all__ = ["settings_of", "train", "training_step"]

_logger = logging.getLogger(__name__)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What a checkpoint says about its model."""
    return {
        "network": {"kind": "unet", **network_options(args)},
        "sde": {"beta_min": args.beta_min, "beta_max": args.beta_max, "T": args.T0, "t_epsilon": 0.001},
        "vtype": args.vtype,
        "debias": bool(args.debias),
        "real": bool(args.real),
        "dataset": args.dataset,
        "ema_rate": args.ema_rate,
    }


def training_step(state: RunState, x: Tensor) -> Tensor:
    """One update of Adam on a batch in the network's range; the mean loss, on the device."""
    state.optimizer.zero_grad(set_to_none=True)
    noise = state.model.draw_dsm_noise(x, state.generators)
    loss = state.model.dsm(x, noise).mean()
    loss.backward()
    state.optimizer.step()
    if state.ema:
        names = dict(state.model.a.named_parameters())
        ema_update(state.ema.values(), [names[name] for name in state.ema], state.settings["ema_rate"])
    return loss.detach()


def train(args: argparse.Namespace, *, folder: Path | None = None) -> Path:
    """Trains until ``num_iterations``, from the checkpoint in the folder if there is one.

    Arguments:
        args: the values of :func:`variational_sde.flags.training_parser`.
        folder: instead of the original's (:func:`variational_sde.experiment.run_folder`).

    Returns: the folder.

    Raises:
        UserError: see its message; nothing that was there is lost.
        StopRequested: after SIGTERM or SIGINT, once a checkpoint is written.
    """
    device = choose_device(args.device)
    options = network_options(args)
    data = {
        split: load_data(args.dataset, split, options["input_height"], args.dataroot, args.download)
        for split in ("train", "test")
    }
    path = run_folder(args) if folder is None else folder
    with Workdir(path, role="train") as workdir, RunLog(None), GracefulStop() as stop:
        _warn_of_other_flags(path, args)
        workdir.record_config(config_of(args), ignore=FREE_KEYS, force=args.force)
        _Training(args, path, device, data, stop).run()
    return path


def _warn_of_other_flags(path: Path, args: argparse.Namespace) -> None:
    """A folder that the original wrote has no ``config.json``, but its flags: its name says only some of them."""
    file = path / "args.txt"
    if (path / "config.json").exists() or not file.exists():
        return
    try:
        before = json.loads(file.read_text())
    except ValueError:
        _logger.warning("%s is not readable as JSON and is written anew", file)
        return
    for name in ("T0", "vtype"):
        if name in before and before[name] != getattr(args, name):
            _logger.warning("%s: the folder was started with --%s=%s; its checkpoint decides", path, name, before[name])


class _Training:
    """One start of the loop."""

    def __init__(
        self, args: argparse.Namespace, path: Path, device: torch.device, data: dict[str, Any], stop: GracefulStop
    ) -> None:
        self.args = args
        self.path = path
        self.device = device
        self.stop = stop
        self.log = Log(path / "log.txt")
        self.test = data["test"]
        flip = DATASETS[args.dataset].flip
        # The last batch of an epoch runs on into the next one instead of being smaller: positions are then a function
        # of the iteration alone.
        self.batches = Pipeline(data["train"], args.batch_size, seed=args.seed, random_flip=flip, drop_remainder=False)
        original = args.protocol == "original"
        self.protocol = Protocol(
            bool(args.real), args.test_batch_size, args.seed, args.repeats, original, flip and original
        )
        self.hash = config_hash(config_of(args))
        self.begin = time.monotonic()

    def run(self) -> None:
        args, path = self.args, self.path
        original = {name: getattr(args, name) for name in ORIGINAL}
        self.log(f"folder path: {path}")
        self.log(str(argparse.Namespace(**original)))
        atomic_write(path / "args.txt", json.dumps(original, indent=4).encode())
        state, found = self._initial_state()
        if state.count >= args.num_iterations and not state.pending:
            with SummaryWriter(path):
                self.log("Finished training")
            return
        resumed = state.count if found else None
        self.history = History(path / "history.csv", resume_at=state.count + (not state.pending))
        with SummaryWriter(path, purge_step=None if resumed is None else resumed + (not state.pending)) as self.writer:
            if not found:
                self.writer.scalar("T", state.model.law.T, 0)
                if not self._write_grid(state):
                    self.stop.exit()
            self._loop(state)

    def _initial_state(self) -> tuple[RunState, bool]:
        args = self.args
        found = checkpoint.read_run(self.path)
        settings = settings_of(args)
        if found is not None:
            settings |= found[0]["settings"]
        seed = args.seed if found is None else args.seed + found[0]["count"]
        state = checkpoint.new_state(
            settings, lr=args.lr, seed=args.seed, device=self.device, exact_times=bool(args.exact_times)
        )
        if found is None:
            return state, False
        content, file = found
        if content["format"] == "original":
            state.generators = type(state.generators).seeded(seed, self.device)
            self._keep_original(file, settings_of(args), settings)
        checkpoint.restore(state, content, file)
        _logger.info("resuming from %s after iteration %d", file, state.count)
        return state, True

    def _keep_original(self, file: Path, asked: dict[str, Any], given: dict[str, Any]) -> None:
        """Puts the original's file aside before it is replaced, and says what of the flags it overrules."""
        keep = self.path / checkpoint.ORIGINAL
        if file.name == checkpoint.FILE and not keep.exists():
            atomic_write(keep, file.read_bytes())
            _logger.info("the original's checkpoint is kept as %s", keep.name)
        # parity: what the checkpoint says goes before what the flags say
        for name in asked:
            if asked[name] != given[name] and name != "network":
                _logger.warning(
                    "the checkpoint has %s = %s, the flags %s: the checkpoint's is used", name, given[name], asked[name]
                )

    def _loop(self, state: RunState) -> None:
        args = self.args
        model = state.model.train()
        logit = LogitTransform()
        loss = torch.tensor(state.loss)
        with (
            self.batches.batches(state.count) as batches,
            Progress(args.num_iterations, initial=state.count, description="train", unit="iteration") as progress,
        ):
            while state.count < args.num_iterations or state.pending:
                if not state.pending:
                    images = to_tensor(next(batches).image, self.device)
                    with torch.no_grad():
                        x, _ = self.protocol.to_model(images, state.generators.uniform_like(images))
                    loss = training_step(state, x)
                    state.count += 1
                    progress.update()
                self._after(state, model, loss, logit, progress)

    def _after(self, state: RunState, model: Any, loss: Tensor, logit: LogitTransform, progress: Progress) -> None:
        """What follows an update at the cadences; also what a stopped run left undone."""
        args, count = self.args, state.count
        last = count >= args.num_iterations
        state.pending = True
        if count == 1 or count % args.print_every == 0:
            state.loss = float(loss)
            if not np.isfinite(state.loss):
                raise UserError(
                    f"training has diverged: the loss of iteration {count} is {state.loss}. The last good checkpoint "
                    "is kept; lower --lr, and start again"
                )
            self.writer.scalars({"loss": state.loss, "T": model.law.T}, count)
            estimate = self._evaluate(state)
            if estimate is None:
                self._save(state)
                self.stop.exit()
            self._report(state, estimate)
            progress.update(0, loss=state.loss, bpd=estimate.mean)
        # parity: neither a grid nor (unless asked for) a checkpoint at the last iteration
        if last:
            self.log("Finished training")
        elif count % args.sample_every == 0 and not self._write_grid(state):
            self._save(state)
            self.stop.exit()
        state.pending = False
        if self.stop.requested or (args.final_checkpoint if last else count % args.checkpoint_every == 0):
            self._save(state)
        if self.stop.requested and not last:
            self.stop.exit()

    def _evaluate(self, state: RunState) -> Estimate | None:
        with averaged(state):
            return bound_bpd(
                state.model, self.test, self.protocol, stream=state.count, stop=lambda: self.stop.requested
            )

    def _report(self, state: RunState, estimate: Estimate) -> None:
        count = state.count
        self.writer.scalars({"bpd": estimate.mean, "bpd_std_err": estimate.standard_error}, count)
        self.log(f"Iteration {count} \tBPD {estimate.mean}")
        self.history.add(count, training_loss=state.loss, eval_loss=estimate.mean)
        add_results(
            self.path / "results.json",
            [
                Result(
                    "bpd",
                    estimate.mean,
                    standard_error=estimate.standard_error,
                    sample_count=len(self.test),
                    dataset=f"{self.args.dataset}/test",
                    checkpoint_step=count,
                    config_hash=self.hash,
                    seed=self.args.seed,
                    ema=bool(state.ema),
                    protocol=self.args.protocol,
                    devices={"platform": self.device.type},
                    seconds=time.monotonic() - self.begin,
                    details={"repeats": self.args.repeats, "estimator": "bound", "debias": bool(self.args.debias)},
                )
            ],
        )

    def _write_grid(self, state: RunState) -> bool:
        """The original's picture of 4 x 4 samples; its noise depends on the seed and the iteration alone.

        Returns: False if a signal came meanwhile; there is no picture then.
        """
        args, options = self.args, state.settings["network"]
        shape = (options["input_channels"], options["input_height"], options["input_height"])
        noise = PerSampleNoise(
            fold_in(prng_key(args.seed, self.device), state.count), torch.arange(16, device=self.device), shape
        )
        transform = LogitTransform().inverse if args.real else None
        with averaged(state), evaluating(state.model):
            try:
                grid = sample_grid(
                    state.model,
                    shape[0],
                    shape[1],
                    4,
                    args.num_steps,
                    transform,
                    lmbd=args.lmbd,
                    noise=noise,
                    stop=lambda: self.stop.requested,
                )
            except SamplingStopped:
                return False
        # parity: scaled and cut off to bytes, grey as three channels
        picture = (grid.transpose(1, 2, 0) * 255).astype(np.uint8)
        self.writer.image("samples", np.repeat(picture, 3, axis=2) if shape[0] == 1 else picture, state.count)
        return True

    def _save(self, state: RunState) -> None:
        checkpoint.save_run(self.path, state, original=bool(self.args.original_checkpoint))


@contextmanager
def averaged(state: RunState) -> Iterator[None]:
    """The network with its averaged parameters, if there are any."""
    if not state.ema:
        yield
        return
    own = {name: value.clone() for name, value in state.model.a.state_dict().items()}
    state.model.a.load_state_dict(state.ema)
    try:
        yield
    finally:
        state.model.a.load_state_dict(own)
