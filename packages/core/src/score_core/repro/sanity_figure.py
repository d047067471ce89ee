"""The picture of ``repro sanity``: FID against the number of samples, both axes logarithmic."""

import io

import numpy as np

from score_core.repro.sanity import Curve, Point

_INK, _FAINT, _GRID = "#1c2128", "#59636e", "#d9dce1"
_MEASURED, _FLOOR, _REPORTED = "#1f6feb", "#11632e", "#b35900"


def draw(curve: Curve, reported: dict[int, float]) -> bytes:
    """A PNG of the measured points, the fit, the floor and, where there is one, a reported curve."""
    # The object interface: no pyplot, hence no global state and no choice of a window system.
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(7.2, 4.4), dpi=170, layout="constrained")
    axes = canvas.subplots()
    _bars(axes, curve.measured, curve.standard_error, _MEASURED, "o", "measured")
    last = curve.measured[-1].count
    end = max(last, curve.published_count)
    if curve.fit is not None:
        n = np.geomspace(curve.fit.counts[0], end, 200)
        fitted = np.array([curve.fit.at(count) for count in n])
        label = f"expected: {curve.fit.limit:.4g} + {curve.fit.slope:.4g} / n"
        axes.plot(n[fitted > 0], fitted[fitted > 0], color=_MEASURED, linestyle="--", linewidth=1.2, label=label)
    if curve.floor:
        _bars(axes, curve.floor, None, _FLOOR, "s", "floor: training data themselves")
    if reported:
        axes.plot(
            list(reported),
            list(reported.values()),
            color=_REPORTED,
            marker="D",
            linestyle=":",
            label="reported, NCSN++ on CIFAR-10",
        )
    axes.axvline(curve.published_count, color=_FAINT, linewidth=1)
    axes.annotate(
        f"published: {curve.published_count:,} ",
        (curve.published_count, 0.97),
        xycoords=("data", "axes fraction"),
        color=_FAINT,
        fontsize=9,
        ha="right",
        va="top",
        rotation=90,
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("number of samples n", color=_INK)
    axes.set_ylabel(f"FID (extractor {curve.extractor or 'unknown'})", color=_INK)
    axes.grid(color=_GRID, linewidth=0.6, which="both")
    axes.tick_params(colors=_INK, which="both", labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
    png = io.BytesIO()
    canvas.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def _bars(axes, points: list[Point], last_error: float | None, colour: str, marker: str, label: str) -> None:
    spreads = [point.spread or 0.0 for point in points]
    if last_error is not None:
        spreads[-1] = last_error
    counts, means = [point.count for point in points], [point.mean for point in points]
    axes.errorbar(
        counts, means, yerr=spreads, color=colour, marker=marker, markersize=5, linewidth=1.2, capsize=3, label=label
    )
