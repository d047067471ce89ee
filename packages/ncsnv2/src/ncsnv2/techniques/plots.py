"""The picture of the techniques: a panel each, for one dataset."""

from pathlib import Path
from typing import Any

import numpy as np

from ncsnv2.techniques.schedule import Schedule, overlap, variance_ratio

__all__ = ["draw"]

_STEPS = (1, 3, 5, 10)
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#555555")


def draw(
    path: Path,
    schedule: Schedule,
    distances: np.ndarray,
    largest: float,
    norm_sigmas: np.ndarray,
    norms: np.ndarray,
    mixture: dict[str, float] | None,
) -> None:
    """Write the figure.

    Arguments:
        distances: of random pairs of images. largest: the largest of all.
        norm_sigmas, norms: mean norm of the score by noise level.
        mixture: mean distances of samples of the mixture, by what they are, or None.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    count = 4 + (mixture is not None)
    figure, panels = plt.subplots(1, count, figsize=(3.4 * count, 3.1), constrained_layout=True)
    _distances(panels[0], schedule, distances, largest)
    _overlap(panels[1], schedule)
    _norms(panels[2], norm_sigmas, norms)
    _variance(panels[3], schedule)
    if mixture is not None:
        panels[4].barh(list(mixture), list(mixture.values()), color=_COLOURS[0])
        panels[4].set(xlabel="mean distance of two samples", title="1: samples of the exact score")
        panels[4].invert_yaxis()
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _distances(panel: Any, schedule: Schedule, distances: np.ndarray, largest: float) -> None:
    panel.hist(distances, bins=60, color=_COLOURS[0], density=True)
    panel.axvline(largest, color=_COLOURS[3], linestyle=":", label=f"largest: {largest:.4g}")
    panel.axvline(schedule.sigma_begin, color=_COLOURS[1], label=f"sigma_begin: {schedule.sigma_begin:.4g}")
    panel.set(xlabel="distance of two images", title="1: largest noise", yticks=[])
    panel.legend(frameon=False, fontsize=8)


def _overlap(panel: Any, schedule: Schedule) -> None:
    excess = np.linspace(0, 3 * (schedule.gamma - 1), 200)
    panel.plot(1 + excess, [overlap(1 + e, schedule.dimension) for e in excess], color=_COLOURS[0])
    panel.plot(schedule.gamma, schedule.overlap, "o", color=_COLOURS[1])
    panel.annotate(
        f"ratio {schedule.gamma:.4f}\n{schedule.num_classes} levels",
        (schedule.gamma, schedule.overlap),
        xytext=(8, 4),
        textcoords="offset points",
        fontsize=8,
    )
    panel.set(xlabel="ratio of neighbouring levels", ylabel="overlap C", title="2: number of levels")
    panel.ticklabel_format(useOffset=False)


def _norms(panel: Any, sigmas: np.ndarray, norms: np.ndarray) -> None:
    panel.loglog(sigmas, norms, "o", markersize=3, color=_COLOURS[0], label="norm of the score")
    panel.loglog(sigmas, norms[-1] * sigmas[-1] / sigmas, color=_COLOURS[1], label="proportional to 1 / sigma")
    panel.set(xlabel="sigma", title="3: conditioning by 1 / sigma")
    panel.legend(frameon=False, fontsize=8)


def _variance(panel: Any, schedule: Schedule) -> None:
    limit = schedule.sigma_end**2
    epsilons = np.geomspace(limit * 1e-3, limit * 0.6, 300)
    for steps, colour in zip(sorted({*_STEPS[:3], schedule.n_steps_each}), (*_COLOURS, "#CC79A7"), strict=False):
        ratios = [variance_ratio(e, schedule.gamma, steps, schedule.sigma_end) for e in epsilons]
        panel.semilogx(epsilons, ratios, color=colour, label=f"T = {steps}")
    panel.plot(schedule.step_lr, schedule.variance_ratio, "o", color=_COLOURS[1])
    panel.set_ylim(1, 1 + 1.1 * (schedule.gamma**2 - 1))
    panel.set(xlabel="step_lr", ylabel="variance ratio", title=f"4: step size {schedule.step_lr:.2g}")
    panel.legend(frameon=False, fontsize=8)
