"""The Swissroll study: training, bound, likelihood, samples, figures (the paper's toy example and Figure 5).

    workdir/checkpoint.pt, log.txt, history.csv           training; resumes to the same numbers
    workdir/curve.json                                    loss and bound at every print
    workdir/results.json                                  the last bound, the ODE's likelihood, distances of samples
    workdir/samples/lambda_*.npz                          states of the samples that the figures show
    workdir/figures/training.png                          loss and bound
    workdir/figures/density.png                           data and samples for lambda 0 and 1
    workdir/figures/trajectories.png                      the lambda family on its way from noise to data

The batch of every iteration, its times and noise come from generators whose states are in the checkpoint.
"""

import argparse
import io
import json
import logging
import math
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UserError
from score_core.runs.config_record import config_hash
from score_core.runs.figures import save_figure
from score_core.runs.history import History
from score_core.runs.log import RunLog
from score_core.runs.progress import Progress
from score_core.runs.results import Result, add_results
from score_core.runs.signals import GracefulStop
from score_core.runs.workdir import Workdir
from variational_sde import figures
from variational_sde.swissroll import expected_log_density, swiss_roll
from variational_sde.torch import checkpoint
from variational_sde.torch.checkpoint import RunState
from variational_sde.torch.evaluation import evaluating
from variational_sde.torch.likelihood import ode_log_likelihood
from variational_sde.torch.reverse_sde import Generators, PluginReverseSDE, probe
from variational_sde.torch.sampling import StreamNoise, euler_maruyama
from variational_sde.torch.start import Log, choose_device
from variational_sde.torch.training import training_step

__all__ = ["bound", "run", "total_variation"]

_logger = logging.getLogger(__name__)

_FREE = ("workdir", "device", "num_steps", "num_samples", "figure_samples", "elbo_points", "ode_points", "lambdas")
_CHUNK, _SAMPLED = 20_000, 1000
_BINS = 32
_MEASURED = (0.0, 0.5, 1.0)


def run(args: argparse.Namespace) -> None:
    """Does what is left of the study in ``args.workdir``.

    Raises:
        UserError: see its message.
        StopRequested: after a signal; the same command goes on.
    """
    device = choose_device(args.device)
    path = Path(args.workdir).expanduser()
    config = {key: value for key, value in vars(args).items() if key != "force"}
    with Workdir(path, role="train") as workdir, RunLog(None), GracefulStop() as stop:
        workdir.record_config(config, ignore=_FREE, may_grow=("num_iterations",), force=args.force)
        state = _Training(args, path, device, stop).run()
        with evaluating(state.model):
            _measure(args, path, state, config_hash(config), stop)


class _Training:
    """The training part."""

    def __init__(self, args: argparse.Namespace, path: Path, device: torch.device, stop: GracefulStop) -> None:
        self.args, self.path, self.stop = args, path, stop
        self.log = Log(path / "log.txt")
        settings = {
            "network": {"kind": "mlp", "input_dim": 2, "index_dim": 1, "hidden_dim": 128},
            "sde": {"beta_min": 0.1, "beta_max": 20.0, "T": 1.0, "t_epsilon": 0.001},
            "vtype": args.vtype,
            "debias": False,
        }
        self.state = checkpoint.new_state(settings, lr=args.lr, seed=args.seed, device=device)
        self.state.numpy = np.random.RandomState(args.seed)
        found = checkpoint.read_run(path)
        if found is not None:
            checkpoint.restore(self.state, *found)
            _logger.info("resuming after iteration %d", self.state.count)
        rows = json.loads((path / "curve.json").read_text()) if (path / "curve.json").exists() else []
        self.rows: list[dict[str, float]] = [row for row in rows if row["iteration"] <= self.state.count]

    def run(self) -> RunState:
        args, state = self.args, self.state
        state.model.train()
        history = History(self.path / "history.csv", resume_at=state.count + 1)
        # the sum of the losses since the last print stays on the device and in the checkpoint
        total = torch.tensor(state.loss, dtype=torch.float64, device=state.device)
        begin, first = time.monotonic(), state.count
        progress = Progress(args.num_iterations, initial=first, description="train", unit="iteration")
        with progress, _one_thread():
            while state.count < args.num_iterations:
                batch = torch.from_numpy(swiss_roll(args.batch_size, _rng(state))).to(state.device)
                total += training_step(state, batch)
                state.count += 1
                progress.update()
                printed = state.count % args.print_every == 0 or state.count == args.num_iterations
                if printed:
                    self._print(history, float(total), (time.monotonic() - begin) / (state.count - first))
                    total.zero_()
                if printed or self.stop.requested:
                    state.loss = float(total)
                    checkpoint.save_run(self.path, state)
                if self.stop.requested:
                    self.stop.exit()
        return state

    def _print(self, history: History, total: float, seconds: float) -> None:
        """The notebook's line, with the mean loss of the interval and the bound of fresh points."""
        args, state = self.args, self.state
        since = state.count - (self.rows[-1]["iteration"] if self.rows else 0)
        mean_loss = total / since
        if not math.isfinite(mean_loss):
            raise UserError(f"training has diverged before iteration {state.count}: lower --lr, and start again")
        values = bound(state.model, args.curve_points, args.seed + state.count)
        row = {
            "iteration": state.count,
            "loss": mean_loss,
            "elbo": float(values.mean()),
            "elbo_std_err": float(values.std() / math.sqrt(len(values))),
        }
        self.rows.append(row)
        atomic_write(self.path / "curve.json", (json.dumps(self.rows, indent=1) + "\n").encode())
        history.add(state.count, training_loss=mean_loss)
        self.log(
            f"| iter {state.count:6d} | {1000 * seconds:5.2f} ms/step | loss {mean_loss:8.3f} "
            f"| elbo {row['elbo']:8.3f} | elbo std {row['elbo_std_err']:8.3f} "
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Batches of 256 points are too small to share out."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rng(state: RunState) -> np.random.RandomState:
    assert state.numpy is not None
    return state.numpy


def bound(model: PluginReverseSDE, n: int, seed: int) -> np.ndarray:
    """The bound of ``n`` fresh points, one random time each, in nats: float32 ``[n]``. A function of the seed."""
    device = model.T.device
    rng, generators = np.random.RandomState(seed), Generators.seeded(seed, device)
    values: list[Tensor] = []
    with evaluating(model):
        for size in _pieces(n):
            x = torch.from_numpy(swiss_roll(size, rng)).to(device)
            values.append(model.elbo(x, model.draw_elbo_noise(x, generators)).detach())
    return torch.cat(values).cpu().numpy()


def _pieces(n: int, most: int = _CHUNK) -> Iterator[int]:
    while n > 0:
        yield min(n, most)
        n -= most


def total_variation(one: np.ndarray, other: np.ndarray) -> float:
    """Half the summed difference of two sets' histograms, 32 x 32 bins on [-5, 5]^2, fractions of all points."""

    def fractions(points: np.ndarray) -> np.ndarray:
        counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], bins=_BINS, range=[[-5, 5], [-5, 5]])
        return counts / len(points)

    return float(0.5 * np.abs(fractions(one) - fractions(other)).sum())


def _measure(args: argparse.Namespace, path: Path, state: RunState, digest: str, stop: GracefulStop) -> None:
    model = state.model
    common: dict[str, Any] = {
        "dataset": "swissroll",
        "checkpoint_step": state.count,
        "config_hash": digest,
        "seed": args.seed,
    }
    results: list[Result] = []

    def record(metric: str, value: float, error: float | None, count: int, **details: Any) -> None:
        results.append(Result(metric, value, standard_error=error, sample_count=count, details=details, **common))
        _logger.info("%s: %.4f%s", metric, value, "" if error is None else f" +- {error:.4f}")

    elbo = bound(model, args.elbo_points, args.seed + 1_000_003).astype(np.float64)
    record("elbo", float(elbo.mean()), float(elbo.std() / math.sqrt(len(elbo))), len(elbo), std=float(elbo.std()))
    record("loss", _rows(path)[-1]["loss"], None, args.batch_size * args.print_every)
    _check(stop)
    nats, nfe = _ode_likelihood(args, model)
    record("ode_log_likelihood", float(nats.mean()), float(nats.std() / math.sqrt(len(nats))), len(nats), nfe=nfe)
    entropy, error = expected_log_density(seed=args.seed)
    record("data_log_density", entropy, error, 20_000)
    save_figure(
        path / "figures" / "training.png",
        figures.elbo_curve(_rows(path), entropy),
        f"Loss and bound during training; the bound ends at {elbo.mean():.3f} nats.",
        f"Left: denoising score-matching loss. Right: the bound of {args.curve_points:,} fresh points with its "
        "standard error, and the mean log-density of the data themselves, which no model exceeds.",
    )
    _check(stop)
    states = _sample(args, path, state, digest, stop)
    data = swiss_roll(100_000, np.random.RandomState(args.seed + 2_000_003))
    for lmbd in _MEASURED:
        points = states[lmbd][-1]
        name = f"total_variation_lambda_{lmbd:g}".replace(".", "_")
        record(name, total_variation(points, data), None, len(points))
    add_results(path / "results.json", results)
    _draw(args, path, data, states)


def _check(stop: GracefulStop) -> None:
    if stop.requested:
        stop.exit()


def _rows(path: Path) -> list[dict[str, float]]:
    return json.loads((path / "curve.json").read_text())


def _ode_likelihood(args: argparse.Namespace, model: PluginReverseSDE) -> tuple[np.ndarray, int]:
    device = model.T.device
    x = torch.from_numpy(swiss_roll(args.ode_points, np.random.RandomState(args.seed + 3_000_003))).to(device)
    v = probe(tuple(x.shape), args.vtype, torch.Generator().manual_seed(args.seed)).to(device)
    result = ode_log_likelihood(model, x, v)
    return result.nats.double().cpu().numpy(), result.nfe


def _shown(num_steps: int) -> list[int]:
    """The ten states that the paper shows: 82, 84, ..., 100 per cent of the way."""
    return sorted({max(1, round(num_steps * share / 100)) for share in range(82, 101, 2)})


def _sample(
    args: argparse.Namespace, path: Path, state: RunState, digest: str, stop: GracefulStop
) -> dict[float, np.ndarray]:
    """lambda to states ``[10, n, 2]``, each from the same generator; those that are measured have more points.

    Each lambda's states are kept in ``samples/``, so that a study that was stopped need not draw them again.
    """
    states: dict[float, np.ndarray] = {}
    for lmbd in sorted({*args.lambdas, *_MEASURED}, key=lambda value: (value not in _MEASURED, value)):
        n = args.num_samples if lmbd in _MEASURED else min(args.figure_samples, args.num_samples)
        made_with = json.dumps([digest, state.count, n, args.num_steps])
        file = path / "samples" / f"lambda_{lmbd:g}.npz"
        kept = _kept(file, made_with)
        if kept is None:
            kept = _trajectory(args, state.model, lmbd, n, stop)
            buffer = io.BytesIO()
            np.savez(buffer, states=kept, made_with=made_with)
            atomic_write(file, buffer.getvalue())
            _logger.info("sampled %d points with lambda %g", n, lmbd)
        states[lmbd] = kept
    return dict(sorted(states.items()))


def _kept(file: Path, made_with: str) -> np.ndarray | None:
    """The states in a file, if they were made with these settings."""
    try:
        with np.load(file) as arrays:
            return arrays["states"] if str(arrays["made_with"]) == made_with else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _trajectory(
    args: argparse.Namespace, model: PluginReverseSDE, lmbd: float, n: int, stop: GracefulStop
) -> np.ndarray:
    generators, parts = Generators.seeded(args.seed + 4_000_003, model.T.device), []
    steps = _shown(args.num_steps)
    # Few points at a time: their activations then stay in the processor's cache, which halves the time.
    for size in _pieces(n, _SAMPLED):
        noise = StreamNoise(generators, (size, 2), model.T.device)
        parts.append(euler_maruyama(model, noise, args.num_steps, lmbd=lmbd, keep=steps).cpu().numpy())
        _check(stop)
    return np.concatenate(parts, axis=1)


def _draw(args: argparse.Namespace, path: Path, data: np.ndarray, states: dict[float, np.ndarray]) -> None:
    folder, steps = path / "figures", _shown(args.num_steps)
    save_figure(
        folder / "density.png",
        figures.density({"data": data, "λ = 0 (reverse SDE)": states[0.0][-1], "λ = 1 (ODE)": states[1.0][-1]}),
        "Histograms of the data and of samples with lambda 0 and lambda 1: the same spiral.",
        f"{args.num_samples:,} samples of {args.num_steps} Euler-Maruyama steps beside 100,000 points of the data.",
    )
    save_figure(
        folder / "trajectories.png",
        figures.trajectories(states, steps),
        f"Histograms of samples after {steps[0]} to {steps[-1]} steps, a row a lambda: noise becomes the spiral.",
        "The lambda family on its way: each row one lambda, each column one step (the paper's Figure 5).",
    )
