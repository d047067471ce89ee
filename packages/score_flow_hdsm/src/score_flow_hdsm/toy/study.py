"""The paper's claim, tested: does the ODE's likelihood improve from first to third order?

One distribution and one SDE; every order is trained with every seed, at the same draws of data, noise and times. The
test points are fixed. For the mixture the result is KL(data || ODE) = NLL - NLL of the exact density on these points,
whose sampling error is far below that of the NLL.

    {folder}/{method}_seed{seed}/...      the runs
    {folder}/results.json, study.csv      nll (and kl) by order, mean and spread over the seeds
    {folder}/figures/study.png            curves and densities
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from score_core.checkpoints.atomic import atomic_write
from score_core.runs.config_record import config_hash
from score_core.runs.figures import png_of, save_figure
from score_core.runs.results import Result, add_results
from score_flow_hdsm.toy import mixture
from score_flow_hdsm.toy.data import DATA, Streams
from score_flow_hdsm.toy.ode import log_density, model_score
from score_flow_hdsm.toy.plots import draw_line, draw_plane, new_figure, plane_density
from score_flow_hdsm.toy.sdes import START_TIME
from score_flow_hdsm.toy.settings import ToySettings
from score_flow_hdsm.toy.train import ToyRun, load_checkpoint, train

__all__ = ["study"]

_logger = logging.getLogger(__name__)
_TEST_SEED = 12345


def study(base: ToySettings, methods: Sequence[str], seeds: Sequence[int], workdir: Path, *, test_points: int) -> None:
    """Trains every method with every seed in ``workdir``, then compares them.

    Arguments:
        base: what all runs share.
        methods: losses, in the order of the figure.
        seeds: at least one.
        test_points: size of the fixed test set.
    """
    runs: dict[str, list[ToyRun]] = {}
    for method in methods:
        for seed in seeds:
            settings = replace(base, method=method, seed=seed)
            runs.setdefault(method, []).append(train(settings, workdir / f"{method}_seed{seed}", pictures=False))
    x = DATA[base.data].draw(test_points, base.dim, Streams.seeded(_TEST_SEED))
    measured = {method: [_nll(run, x) for run in group] for method, group in runs.items()}
    _record(base, measured, x, workdir)
    _figure(base, runs, measured, workdir)


def _nll(run: ToyRun, x: torch.Tensor) -> np.ndarray:
    """-log p of every point, with the averaged parameters."""
    with run.ema.applied():
        return -log_density(run.sde, model_score(run.network, run.sde), x)


def _truth(base: ToySettings, run: ToyRun, x: torch.Tensor) -> np.ndarray | None:
    """-log of the data's density, diffused to where the model's ODE ends; None where it is not known."""
    if base.data != "mog" or base.dim != 1:
        return None
    return -mixture.log_density(run.sde, x, torch.full((len(x),), START_TIME)).double().numpy()


def _record(base: ToySettings, measured: dict[str, list[np.ndarray]], x: torch.Tensor, workdir: Path) -> None:
    truth = _truth(base, ToyRun(replace(base, n_iters=1)), x)
    rows = ["method,metric,mean,spread,seeds"]
    results = []
    for method, values in measured.items():
        metrics = {"nll": [v.mean() for v in values]}
        if truth is not None:
            metrics["kl"] = [(v - truth).mean() for v in values]
        for metric, of_seed in metrics.items():
            spread = float(np.std(of_seed, ddof=1)) if len(of_seed) > 1 else None
            mean = float(np.mean(of_seed))
            rows.append(f"{method},{metric},{mean!r},{spread!r},{' '.join(repr(float(v)) for v in of_seed)}")
            _logger.info("%s: %s %.5f (spread over %d seeds %s)", method, metric, mean, len(of_seed), spread)
            results.append(
                Result(
                    metric=f"{metric}_{method}",
                    value=mean,
                    standard_error=None if spread is None else spread / len(of_seed) ** 0.5,
                    sample_count=len(x),
                    dataset=f"{base.data}{base.dim}/test",
                    checkpoint_step=base.n_iters,
                    config_hash=config_hash(base.record()),
                    framework="torch",
                    ema=True,
                    details={"sde": base.sde, "values": of_seed, "spread": spread, "unit": "nats"},
                )
            )
    atomic_write(workdir / "study.csv", ("\n".join(rows) + "\n").encode())
    add_results(workdir / "results.json", results)


def _figure(
    base: ToySettings, runs: dict[str, list[ToyRun]], measured: dict[str, list[np.ndarray]], workdir: Path
) -> None:
    """NLL against the iteration on the left (one faint line a seed), then a density a method (the first seed)."""
    figure, axes = new_figure(1, 1 + len(runs), (4.2 + 2.9 * len(runs), 3.2))
    curves = axes[0, 0]
    for index, method in enumerate(runs):
        series = [_curve(workdir / f"{method}_seed{run.settings.seed}" / "nll.csv") for run in runs[method]]
        for steps, values in series:
            curves.plot(steps, values, color=f"C{index}", alpha=0.25, linewidth=0.8)
        curves.plot(
            series[0][0], np.mean([v for _, v in series], 0), color=f"C{index}", marker=".", label=_label(method)
        )
        nll = np.mean([v.mean() for v in measured[method]])
        title = f"{_label(method)}, NLL {nll:.3f}"
        run = runs[method][0]
        with run.ema.applied():
            if base.dim == 1:
                draw_line(axes[0, 1 + index], run, title)
            elif base.dim == 2:
                data = DATA[base.data]
                draw_plane(axes[0, 1 + index], plane_density(run), data.low, data.high, title)
    curves.set_xlabel("iteration")
    curves.set_ylabel("NLL of the ODE, nats")
    curves.set_title(f"{base.data}, {base.sde}", fontsize=9)
    curves.legend(fontsize=7, frameon=False)
    seeds = len(next(iter(runs.values())))
    save_figure(
        workdir / "figures" / "study.png",
        png_of(figure),
        f"Negative log-likelihood of the ODE against the iteration, and a density for each order ({base.sde}).",
        f"Left: negative log-likelihood of the ODE during training, mean of {seeds} seeds, each of them faint. Then, "
        "order by order: densities of the data and of the model of the first seed.",
    )


_LABELS = {
    "score": "order 1, unweighted",
    "score_eps": "order 1",
    "score_eps_second": "order 2 (trace)",
    "score_eps_second_jac": "order 2",
    "score_eps_third": "order 3",
}


def _label(method: str) -> str:
    return _LABELS[method]


def _curve(file: Path) -> tuple[np.ndarray, np.ndarray]:
    rows: Any = np.loadtxt(file, delimiter=",", skiprows=1, ndmin=2)
    return rows[:, 0], rows[:, 1]


def reopen(settings: ToySettings, workdir: Path, *, final: bool = False) -> ToyRun:
    """A trained run from its best checkpoint, or its last."""
    run = ToyRun(settings)
    file = workdir / ("checkpt_final.pth" if final else "checkpt.pth")
    run.load(load_checkpoint(file), file)
    return run
