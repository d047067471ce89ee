"""Accuracy of a classifier against the noise level: measured, recorded, drawn.

Every image counts once at each of the levels, with noise that is a function of the seed, the image and the level.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from score_core.checkpoints.atomic import atomic_write
from score_core.data import Pipeline, Source
from score_core.runs.results import Result
from score_core.runs.signals import GracefulStop
from score_core.sdes import SDE

__all__ = ["LEVELS", "Accuracy", "draw_accuracy", "measure_accuracy", "results_of"]

LEVELS = 13
"""At the times eps + (T - eps) (k / 12)^2, k = 0 .. 12: half of them where classes can still be told apart."""
_SMALLEST_TIME = 1e-5  # as in training
_AT_ONCE = 256


class Measures(Protocol):
    """The part of a wing's ``Classifier`` that is needed here."""

    sde: SDE

    def measure(
        self, params: Any, images: np.ndarray, labels: np.ndarray, index: np.ndarray, times: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cross-entropy and correctness, each ``[K, B]``."""
        ...


@dataclass(frozen=True)
class Accuracy:
    """One split at :data:`LEVELS` noise levels, least noise first."""

    split: str
    times: np.ndarray
    std: np.ndarray
    """Standard deviation of the noise, ``[K]``, in the network's range."""
    accuracy: np.ndarray
    """``[K]``, 0 to 1."""
    cross_entropy: np.ndarray
    """``[K]``, nats."""
    count: int
    """Images."""
    num_classes: int


def measure_accuracy(
    classifier: Measures, params: Any, source: Source, count: int, seed: int, stop: GracefulStop
) -> Accuracy:
    """The accuracy on the first ``count`` images of ``source``.

    Raises:
        StopRequested: a signal asked for it; nothing is kept.
    """
    times = _SMALLEST_TIME + (classifier.sde.T - _SMALLEST_TIME) * np.linspace(0, 1, LEVELS) ** 2
    pipeline = Pipeline(source, min(_AT_ONCE, count), seed=seed, shuffle=False)
    sums = np.zeros((2, LEVELS))
    for step in range(-(-count // pipeline.batch_size)):
        if stop.requested:
            stop.exit()
        batch = pipeline.epoch_batch(step)
        measured = classifier.measure(params, batch.image, batch.label, batch.index, times, seed)  # type: ignore[arg-type]
        counts = batch.valid & (batch.index < count)
        sums += [np.where(counts, values, 0).sum(axis=1, dtype=np.float64) for values in measured]
    cross_entropy, accuracy = sums / count
    std = classifier.sde.marginal_prob(np.zeros((LEVELS, 1), np.float32), np.asarray(times, np.float32))[1]
    assert source.num_classes is not None  # the trainer has looked
    std = np.asarray(std, np.float64)
    return Accuracy(source.split, times, std, accuracy, cross_entropy, count, source.num_classes)


def results_of(measured: Accuracy, **circumstances: Any) -> list[Result]:
    """The entries of ``results.json``: at the least noise, and the mean over the levels."""
    per_level = {
        "std": measured.std.tolist(),
        "accuracy": measured.accuracy.tolist(),
        "cross_entropy": measured.cross_entropy.tolist(),
    }
    clean, mean = float(measured.accuracy[0]), float(measured.accuracy.mean())
    error = (clean * (1 - clean) / measured.count) ** 0.5
    return [
        Result("classifier_accuracy_clean", clean, error, measured.count, details=per_level, **circumstances),
        Result("classifier_accuracy_mean", mean, None, measured.count, details=per_level, **circumstances),
    ]


def draw_accuracy(path: str | os.PathLike[str], curves: list[Accuracy], title: str) -> None:
    """Draws accuracy against the standard deviation of the noise, one curve a split, as a PNG."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for curve, (color, marker) in zip(curves, (("tab:blue", "o"), ("tab:orange", "s")), strict=False):
        label = f"{curve.split} ({curve.count:,} images)"
        axes.plot(curve.std, 100 * curve.accuracy, marker=marker, markersize=4, color=color, label=label)
    chance = 100 / curves[0].num_classes
    axes.axhline(chance, color="gray", linestyle=":", linewidth=1, label=f"chance ({chance:.0f} %)")
    wide = curves[0].std.max() > 2  # VE; a VP SDE has at most 1
    axes.set(
        xlabel="standard deviation of the noise",
        ylabel="accuracy / %",
        ylim=(0, 103),
        title=title,
        xscale="log" if wide else "linear",
    )
    axes.legend(loc="lower left")
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    atomic_write(Path(path), picture.getvalue())
