"""The pictures of a report, as PNG files in memory: sample grids and the training curve.

Of two losses of one kind at one step in ``history.csv``, the later line holds.
"""

import base64
import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from score_core.errors import UserError
from score_core.runs.history import read_history

HISTORY = "history.csv"


@dataclass(frozen=True)
class Figure:
    """A picture for both colour schemes (they may be the same), with its text alternative and caption."""

    light: bytes
    dark: bytes
    width: int  # in CSS pixels, as large as it should be shown
    height: int
    alt: str
    caption: str
    pixelated: bool = False  # enlarge pixels as squares


@dataclass(frozen=True)
class Losses:
    """The losses of a training run, by ascending step."""

    steps: list[int]
    training_loss: list[float]
    eval_steps: list[int]
    eval_loss: list[float]


def data_uri(picture: bytes) -> str:
    """A PNG or WebP file as the address of an image inside a page."""
    kind = "webp" if picture[8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def light_weight(figure: Figure) -> Figure:
    """The figure for a page that holds many: at most :data:`_MOST_PIXELS` wide, and as WebP where a PNG stays heavy."""
    light = _light_weight(figure.light)
    dark = light if figure.dark == figure.light else _light_weight(figure.dark)
    return replace(figure, light=light, dark=dark)


_MOST_PIXELS = 1280  # the largest width shown, at one and a half dots a CSS pixel
_HEAVY = 60_000  # bytes


def _light_weight(png: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        small = image.width <= _MOST_PIXELS
        if small and len(png) <= _HEAVY:
            return png
        if not small:
            height = max(1, round(image.height * _MOST_PIXELS / image.width))
            mode = "RGBA" if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA") else "RGB"
            image = image.convert(mode).resize((_MOST_PIXELS, height), Image.Resampling.LANCZOS)
        files = {kind: io.BytesIO() for kind in ("PNG", "WEBP")}
        image.save(files["PNG"], "PNG", optimize=True)
        image.save(files["WEBP"], "WEBP", quality=85, method=4)
    encoded = [file.getvalue() for file in files.values()] + ([png] if small else [])
    return min(encoded, key=len)


def grid_figures(workdir: Path) -> list[Figure]:
    """The pictures of the evaluation, or if there are none the newest one of training.

    ``eval/samples_{k}.png`` and ``eval/trajectory_{k}.png`` belong to checkpoint k (without k: to the only one),
    ``eval/figure_{k}.png`` is figure k of the paper, ``samples/iter_{step}_host_{h}/sample.png`` to a step.
    """
    figures = []
    for file in sorted(workdir.glob("eval/*.png")):
        kind, _, number = file.stem.partition("_")
        if kind in _EVALUATION:
            alt, caption = _EVALUATION[kind] if number else _UNNUMBERED
            figures.append(_grid_figure(file, alt.format(number), caption.format(number)))
    if not figures and (newest := _newest_snapshot(workdir)):
        step = f"{int(newest.parent.name.split('_')[1]):,}"
        alt = f"A grid of images drawn from the model after {step} training steps."
        figures.append(_grid_figure(newest, alt, f"Samples after {step} training steps, not selected."))
    return figures


def captioned_figures(workdir: Path) -> list[Figure]:
    """The pictures that an experiment drew itself: ``figures/{name}.png`` with ``figures/{name}.json`` beside it, which
    holds the text alternative ``alt`` and the ``caption``. Pictures without such a file are left out.

    Raises:
        UserError: a text file is damaged.
    """
    figures = []
    for file in sorted(workdir.glob("figures/*.png")):
        words = file.with_suffix(".json")
        if not words.is_file():
            continue
        try:
            record = json.loads(words.read_bytes())
            alt, caption = str(record["alt"]), str(record["caption"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{words} does not hold alt and caption ({error!r}). Run the experiment again.") from error
        figure = _grid_figure(file, alt, caption)
        shrink = min(1.0, _WIDEST / figure.width)
        size = {"width": round(figure.width * shrink), "height": round(figure.height * shrink)}
        figures.append(replace(figure, **size, pixelated=False))
    return figures


_WIDEST = 860  # CSS pixels

_UNNUMBERED = ("A grid of images drawn from the model.", "Samples, the first ones drawn, not selected.")
# The text alternative and the caption of each picture of the evaluation.
_EVALUATION = {
    "samples": (
        "A grid of images drawn from the model at checkpoint {}.",
        "Samples of checkpoint {}, the first ones drawn, not selected.",
    ),
    "figure": ("Figure {} of the paper, computed by this run.", "Figure {} of the paper, computed by this run."),
    "trajectory": (
        "Rows of images that turn from noise into a sample of checkpoint {}.",
        "How samples of checkpoint {} come about: each row is one of them, from noise on the left to the sample.",
    ),
}


def _newest_snapshot(workdir: Path) -> Path | None:
    grids = {}
    for file in workdir.glob("samples/iter_*_host_*/sample.png"):
        if match := re.fullmatch(r"iter_(\d+)_host_(\d+)", file.parent.name):
            grids[int(match[1]), -int(match[2])] = file
    return grids[max(grids)] if grids else None


def _grid_figure(file: Path, alt: str, caption: str) -> Figure:
    """A grid of samples, enlarged by a whole factor if it is small."""
    from PIL import Image

    png = file.read_bytes()
    with Image.open(io.BytesIO(png)) as image:
        width, height = image.size
    factor = max(1, 480 // width)
    return Figure(png, png, width * factor, height * factor, alt, caption, pixelated=factor > 1)


def losses_of(file: Path) -> Losses | None:
    """The losses in a ``history.csv``; None if there is no such file or no training loss in it yet.

    Raises:
        UserError: a line cannot be read.
    """
    rows = read_history(file)
    training = {row.step: row.training_loss for row in rows if row.training_loss is not None}
    evaluation = {row.step: row.eval_loss for row in rows if row.eval_loss is not None}
    if not training:
        return None
    steps, eval_steps = sorted(training), sorted(evaluation)
    return Losses(steps, [training[s] for s in steps], eval_steps, [evaluation[s] for s in eval_steps])


def curve_figure(history: Losses) -> Figure:
    """The training and evaluation losses against the step."""
    last = f"{history.training_loss[-1]:.4g}"
    return Figure(
        light=_plot(history, ink="#3a3f47", grid="#d9dce1", colours=("#1f6feb", "#b35900")),
        dark=_plot(history, ink="#c4cad3", grid="#363c45", colours=("#6cb0ff", "#f0a35e")),
        width=_WIDTH,
        height=_HEIGHT,
        alt=f"Training loss against the step, from {history.training_loss[0]:.4g} at step {history.steps[0]:,} "
        f"to {last} at step {history.steps[-1]:,}.",
        caption="Training loss (faint: as logged, firm: running mean) and loss on held-out data with averaged weights.",
    )


_WIDTH, _HEIGHT, _DOTS = 640, 300, 2  # CSS pixels, and image pixels for each


def _plot(history: Losses, *, ink: str, grid: str, colours: tuple[str, str]) -> bytes:
    # The object interface: no pyplot, hence no global state and no choice of a window system.
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(_WIDTH / 100, _HEIGHT / 100), dpi=100 * _DOTS, layout="constrained")
    axes = canvas.subplots()
    axes.plot(history.steps, history.training_loss, color=colours[0], alpha=0.3, linewidth=0.8)
    axes.plot(history.steps, _running_mean(history.training_loss), color=colours[0], label="training", linewidth=1.6)
    if history.eval_steps:
        smooth = _running_mean(history.eval_loss)
        axes.plot(history.eval_steps, smooth, color=colours[1], label="held-out", linewidth=1.6, linestyle="--")
    if min(history.training_loss + history.eval_loss) > 0:
        axes.set_yscale("log")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("step", color=ink)
    axes.set_ylabel("loss", color=ink)
    axes.tick_params(colors=ink, which="both", labelsize=9)
    axes.grid(color=grid, linewidth=0.6, which="both", alpha=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.legend(frameon=False, labelcolor=ink, fontsize=9)
    png = io.BytesIO()
    canvas.savefig(png, format="png", transparent=True, metadata={"Software": None})
    return png.getvalue()


def _running_mean(values: list[float]) -> list[float]:
    """Mean over a window of a twentieth of the values, centred, cut at the ends."""
    half = len(values) // 40
    windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
