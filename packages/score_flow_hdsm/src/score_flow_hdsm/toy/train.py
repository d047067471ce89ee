"""Training a toy model: the original's loop, made to resume to the same numbers.

    {folder}/stdout.txt, history.csv, nll.csv            log and curves
    {folder}/checkpt.pth, checkpt_final.pth              the best and the last evaluated parameters
    {folder}/{itr}_marginal.jpg, {itr}_density.npy, ...  pictures
    {folder}/resume.pth                                  everything that training changes

``checkpt*.pth`` hold ``state_dict`` (the raw parameters) and ``ema`` as the original's, but of plain containers;
``resume.pth`` adds the optimiser and both random streams.
"""

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.pth_objects import PickledObject, loads_objects
from score_core.checkpoints.store import read_checkpoint
from score_core.errors import UserError
from score_core.runs.history import History
from score_core.runs.log import RunLog
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_core.runs.workdir import Workdir
from score_core.torch.pth import dumps
from score_flow_hdsm.toy.data import DATA, Streams
from score_flow_hdsm.toy.losses import ToyLoss, Weights, toy_loss
from score_flow_hdsm.toy.network import MovingAverage, ScoreNetwork
from score_flow_hdsm.toy.ode import log_density, model_score
from score_flow_hdsm.toy.sdes import draw_times, toy_sde
from score_flow_hdsm.toy.settings import ToySettings

__all__ = ["ToyRun", "load_checkpoint", "train"]

_logger = logging.getLogger(__name__)
_RESUME = "resume.pth"
# Classes in the original's checkpoints, read as holders of their attributes.
_CLASSES = (
    "__main__.ScoreNetwork",
    "__main__.MLP",
    "utils_toy.ExponentialMovingAverage",
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.activation.SiLU",
)


@dataclass
class Step:
    """One update: the losses and the gradient's norm before clipping."""

    loss: ToyLoss
    gradient_norm: Tensor


class ToyRun:
    """A toy model under training.

    Attributes:
        settings, sde: what is trained.
        streams: its random numbers.
        network, ema: the parameters and their average.
        itr: updates done.
        best: the lowest NLL of the evaluations so far.
    """

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings
        self.sde = toy_sde(settings.sde)
        self.streams = Streams.seeded(settings.seed)
        self.network = ScoreNetwork.seeded(self.streams.torch, settings.dim, **settings.network)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.ema = MovingAverage(self.network)
        self.itr = 0
        self.best = 1e10
        self._weights = Weights(settings.score_lambda, settings.third_score_lambda)

    def draw(self, n: int) -> Tensor:
        """Points of the data."""
        return DATA[self.settings.data].draw(n, self.settings.dim, self.streams)

    def update(self) -> Step:
        """One update of the parameters."""
        x0 = self.draw(self.settings.batch_size)
        eps = self.streams.normal(tuple(x0.shape))
        t = draw_times(self.sde, len(x0), self.streams.numpy, reweighted=self.settings.reweighted)
        loss = toy_loss(self.network, self.sde, self.settings.method, x0, eps, t, self._weights, self.streams.torch)
        self.optimizer.zero_grad()
        loss.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.itr += 1
        if self.itr > self.settings.ema_start:
            self.ema.update()
        return Step(loss, norm)

    def nll(self, x: Tensor, *, original_divergence: bool = False) -> float:
        """The mean negative log-density of the model's ODE, in nats, with the parameters as they are."""
        score = model_score(self.network, self.sde)
        return float(-log_density(self.sde, score, x, original_divergence=original_divergence).mean())

    def tree(self) -> dict[str, Any]:
        """The parameters as in the original's checkpoints, of plain containers."""
        return {
            "state_dict": {name: value.detach().numpy().copy() for name, value in self.network.state_dict().items()},
            "ema": {
                "decay": self.ema.decay,
                "shadow_params": {name: value.numpy().copy() for name, value in self.ema.shadow.items()},
            },
        }

    def load(self, tree: Any, where: Any) -> None:
        """Takes the parameters and averages of a checkpoint, ours or the original's.

        Raises:
            CheckpointError: they are not those of this network.
        """
        try:
            state, ema = tree["state_dict"], tree["ema"]
            shadow = (ema.state if isinstance(ema, PickledObject) else ema)["shadow_params"]
            own = {name: tuple(value.shape) for name, value in self.network.state_dict().items()}
            for found in (state, shadow or state):
                shapes = {name: tuple(value.shape) for name, value in found.items()}
                if shapes != own:
                    wrong = sorted(set(shapes.items()) ^ set(own.items()), key=str)[:4]
                    raise CheckpointError(
                        f"{where} is of another network: {', '.join(map(str, wrong))}. Give the --dim, "
                        "--encoder_layers, --pos_dim and --decoder_layers that it was trained with"
                    )
            self.network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
            self.ema.shadow = {name: torch.from_numpy(np.array(value)) for name, value in shadow.items()}
        except (KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(
                f"{where} is no checkpoint of the toy study ({type(error).__name__}: {error})"
            ) from error

    def everything(self) -> dict[str, Any]:
        """All that training changes."""
        state: Any = self.streams.numpy.get_state(legacy=True)
        name, keys, *rest = state
        return self.tree() | {
            "optimizer": self.optimizer.state_dict(),
            "itr": self.itr,
            "best": self.best,
            "numpy": {"name": name, "keys": keys.astype(np.int64), "rest": list(rest)},
            "torch": self.streams.torch.get_state(),
        }

    def load_everything(self, tree: dict[str, Any], where: Any) -> None:
        """The inverse of :meth:`everything`."""
        self.load(tree, where)
        try:
            optimizer = {
                "state": {
                    key: {name: torch.as_tensor(np.array(value)) for name, value in moments.items()}
                    for key, moments in tree["optimizer"]["state"].items()
                },
                "param_groups": tree["optimizer"]["param_groups"],
            }
            self.optimizer.load_state_dict(optimizer)
            self.itr, self.best = int(tree["itr"]), float(tree["best"])
            state = tree["numpy"]
            self.streams.numpy.set_state((state["name"], state["keys"].astype(np.uint32), *state["rest"]))
            self.streams.torch.set_state(torch.from_numpy(np.array(tree["torch"])))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{where} cannot be gone on from ({type(error).__name__}: {error}). Move it away to start anew"
            ) from error


def load_checkpoint(path: Path) -> Any:
    """The contents of a checkpoint of this program or the original's; nothing in it is run."""
    return loads_objects(read_checkpoint(path), _CLASSES, where=path)


def train(settings: ToySettings, workdir: Path, *, force: bool = False, pictures: bool = True) -> ToyRun:
    """Trains until ``settings.n_iters``, from where an earlier start of the same run ended.

    Arguments:
        settings, workdir: what, and where everything is written.
        force: go on although the settings differ from those the folder was started with.
        pictures: draw them at every evaluation; paths, which take longer than the rest, at the last.

    Raises:
        UserError: see its message; nothing that was there is lost.
        StopRequested: after SIGTERM or SIGINT, once everything is saved.
    """
    with Workdir(workdir, role="toy") as folder, RunLog(folder.path / "stdout.txt"), GracefulStop() as stop:
        folder.record_config(settings.record(), ignore=("log_freq",), may_grow=("n_iters",), force=force)
        _logger.info("%s", folder.path)
        run = ToyRun(settings)
        file = folder.path / _RESUME
        if file.exists():
            run.load_everything(load_checkpoint(file), file)
            _logger.info("resuming at iteration %d", run.itr)
        _Loop(run, folder.path, stop, pictures).run()
    return run


class _Loop:
    """One start of the loop."""

    def __init__(self, run: ToyRun, folder: Path, stop: GracefulStop, pictures: bool) -> None:
        self.run_, self.folder, self.stop, self.pictures = run, folder, stop, pictures

    def run(self) -> None:
        run, settings = self.run_, self.run_.settings
        history = History(self.folder / "history.csv", resume_at=run.itr + 1)
        with Progress(settings.n_iters, initial=run.itr, description="toy") as progress:
            while run.itr < settings.n_iters:
                step = run.update()
                if run.itr % settings.log_freq == 0:
                    self._log(step, history)
                if run.itr % settings.viz_freq == 0 or run.itr == settings.n_iters:
                    self._evaluate()
                    self._save(_RESUME, run.everything())
                progress.update(1)
                if self.stop.requested:
                    self._save(_RESUME, run.everything())
                    self.stop.exit()

    def _log(self, step: Step, history: History) -> None:
        loss, itr = step.loss, self.run_.itr
        total = float(loss.total.detach())
        if not np.isfinite(total):
            raise UserError(f"the loss is {total} at iteration {itr}; start again with another --seed or fewer orders")
        values = (total, *(float(part.detach()) for part in (loss.first, loss.second, loss.third)))
        # parity: a blank, no comma, before gnorm
        _logger.info(
            "itr: %d, loss: %.5e, loss1: %.5e, loss2: %.5e, loss3: %.5e gnorm: %.5e",
            itr,
            *values,
            float(step.gradient_norm),
        )
        history.add(itr, training_loss=total)

    def _evaluate(self) -> None:
        from score_flow_hdsm.toy.plots import visualize

        run = self.run_
        with run.ema.applied():
            if self.pictures:
                visualize(run, self.folder, run.itr, with_paths=run.itr == run.settings.n_iters)
            nll = run.nll(run.draw(run.settings.eval_batch))
        _logger.info("itr: %d, nll: %.5e, best_nll: %.5e", run.itr, nll, run.best)
        append_row(self.folder / "nll.csv", "itr,nll", run.itr, nll)
        if nll < run.best:
            _logger.info("saving ckpt...")
            run.best = nll
            self._save("checkpt.pth", run.tree())
        self._save("checkpt_final.pth", run.tree())

    def _save(self, name: str, tree: dict[str, Any]) -> None:
        atomic_write(self.folder / name, dumps(tree))


def append_row(file: Path, header: str, step: int, *values: float) -> None:
    """A CSV file with one more row; rows of the same or a later step, of a start that was killed, are dropped."""
    rows = file.read_text().splitlines()[1:] if file.exists() else []
    rows = [row for row in rows if int(row.split(",")[0]) < step]
    text = io.StringIO()
    print(header, *rows, ",".join([str(step), *(repr(value) for value in values)]), sep="\n", file=text)
    atomic_write(file, text.getvalue().encode())
