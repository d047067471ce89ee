"""What ``repro sanity`` does: find samples and statistics, measure the curve, print the table, draw the picture."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_core.checkpoints.atomic import atomic_write
from score_core.errors import UsageError
from score_core.repro.formatting import number, with_error
from score_core.repro.printing import columns

if TYPE_CHECKING:
    from score_core.metrics import Statistics
    from score_core.repro.sanity import Curve

NAME = "fid_against_count"


def add_command(commands: Any) -> None:
    """Add ``sanity`` to the sub-commands."""
    parser = commands.add_parser(
        "sanity",
        help="FID against the number of samples, measured and expected",
        description="Measure FID on parts of the samples at hand, fit its bias, and draw both beside the floor that "
        "the training data themselves set. Of a work folder the picture joins the run's report.",
    )
    parser.add_argument(
        "workdir", nargs="?", type=Path, help="a run that was evaluated: its newest activations are read"
    )
    parser.add_argument("--samples", nargs="+", metavar="PATH", help="instead: a folder of images, or .npz files")
    parser.add_argument("--statistics", type=Path, metavar="FILE", help="of the data (default: the work folder's own)")
    parser.add_argument("--extractor", metavar="NAME", help="of --samples (default: the statistics')")
    parser.add_argument("--weights", metavar="PATH", help="of the extractor, if they are not where it looks")
    parser.add_argument("--published-count", type=int, metavar="N", help="of the number to compare with (50,000)")
    parser.add_argument("--parts", type=int, default=5, metavar="N", help="disjoint sets of a size (default: 5)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="of the picture (default: see above, or here)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from score_core.metrics import load_statistics
    from score_core.repro.sanity import PUBLISHED_COUNT, fid_curve

    if (options.workdir is None) == (options.samples is None):
        raise UsageError("Name a work folder, or samples with --samples and the data's statistics with --statistics.")
    if options.parts < 1 or (options.published_count or 1) < 1:
        raise UsageError("--parts and --published-count are whole numbers, 1 or more.")
    if options.workdir is not None:
        reference = load_statistics(options.statistics or _own_statistics(options.workdir))
        samples = _recorded(options.workdir)
        count = options.published_count or _count_of_the_run(options.workdir) or PUBLISHED_COUNT
        folder = options.output or options.workdir / "figures"
    else:
        if options.statistics is None:
            raise UsageError("--samples needs --statistics: the data's statistics, as `score-stats make` writes them.")
        reference = load_statistics(options.statistics)
        samples = _measured(options, reference)
        count, folder = options.published_count or PUBLISHED_COUNT, options.output or Path()
    curve = fid_curve(samples, reference, published_count=count, parts=options.parts)
    print(_table(curve, reference))
    for warning in curve.warnings:
        print(f"warning: {warning}")
    print(f"Picture: {_write(curve, reference, folder)}")
    return 0


def _recorded(workdir: Path) -> "Statistics":
    """The activations of the newest checkpoint that a run evaluated."""
    import numpy as np

    from score_core.data.image_files import natural_key
    from score_core.metrics import Statistics, load_statistics

    files = sorted(workdir.glob("eval/ckpt_*/statistics_*.npz"), key=lambda file: natural_key(file.as_posix()))
    if not files:
        raise UsageError(
            f"{workdir} holds no activations (eval/ckpt_*/statistics_*.npz). Evaluate the run, or name its images with "
            "--samples."
        )
    checkpoint = files[-1].parent.name.split("_")[1]
    rounds = {file.name: file for file in files if file.parent.name.split("_")[1] == checkpoint}
    parts = [load_statistics(rounds[name]) for name in sorted(rounds, key=natural_key)]
    pool_3 = [part.pool_3 for part in parts if part.pool_3 is not None]
    return Statistics.from_activations(np.concatenate(pool_3), header={"extractor": _extractor_of_the_run(workdir)})


def _extractor_of_the_run(workdir: Path) -> str | None:
    """The extractor's name, which the files of activations do not hold."""
    from score_core.repro.compare_results import RESULTS
    from score_core.runs.results import read_results

    results = (result for file in workdir.rglob(RESULTS) for result in read_results(file))
    named = {result.extractor.split(":")[0] for result in results if result.extractor}
    return named.pop() if len(named) == 1 else None


def _own_statistics(workdir: Path) -> Path:
    files = [*workdir.glob("statistics/*.npz"), *workdir.glob("datasets/fid_*.npz")]
    if len(files) != 1:
        found = ", ".join(str(file) for file in sorted(files)) or "none"
        raise UsageError(f"Name the data's statistics with --statistics; found in {workdir}: {found}.")
    return files[0]


def _count_of_the_run(workdir: Path) -> int | None:
    """The number of samples of the FID that the run is compared with."""
    from score_core.repro.resolve import resolve
    from score_core.repro.runner import RECORD, read_record
    from score_core.repro.tables import load_all

    if not (workdir / RECORD).is_file():
        return None
    metrics = resolve(read_record(workdir).id, load_all()).metrics
    return next((reference.count for reference in metrics if reference.metric.startswith("fid")), None)


def _measured(options: argparse.Namespace, reference: "Statistics") -> "Statistics":
    """The activations of images."""
    from score_core.metrics import collect_statistics, get_extractor
    from score_core.metrics.image_sets import open_images

    name = options.extractor or reference.header["extractor"]
    if name is None:
        raise UsageError(f"{options.statistics} does not say which extractor made it: name it with --extractor.")
    extractor = get_extractor(name, weights=options.weights)
    return collect_statistics(extractor, open_images(options.samples).batches(500), header={})


def _reported(reference: "Statistics") -> dict[int, float]:
    """What users report for a well-known model on this data and with this kind of extractor; empty elsewhere."""
    from score_core.repro.sanity import REPORTED_CIFAR10

    data, extractor = (str(reference.header[name] or "").lower() for name in ("dataset", "extractor"))
    return REPORTED_CIFAR10 if "cifar10" in data and "digits" not in extractor else {}


def _table(curve: "Curve", reference: "Statistics") -> str:
    floor = {point.count: point for point in curve.floor}
    lines = [("SAMPLES", "FID", "SETS", "FIT", "TRAINING DATA THEMSELVES")]
    for point in curve.measured:
        last = point is curve.measured[-1]
        error = curve.standard_error if last else point.spread
        fitted = "–" if curve.fit is None else number(curve.fit.at(point.count))
        own = floor.get(point.count)
        below = "–" if own is None else with_error(own.mean, own.spread)
        lines.append((f"{point.count:,}", with_error(point.mean, error), str(point.parts), fitted, below))
    if curve.fit is not None:
        if curve.published_count > curve.measured[-1].count:
            lines.append((f"{curve.published_count:,}", "–", "", number(curve.fit.at(curve.published_count)), "–"))
        lines.append(("infinitely many", "–", "", number(curve.fit.limit), "0"))
    text = [
        f"Extractor {curve.extractor or 'unknown'}, {curve.features} features; reference of "
        f"{number(curve.reference_count)} images.",
        columns(lines),
        "± is the spread of sets of that size; of all samples, the jackknife's standard error.",
    ]
    if curve.fit is not None:
        counts = curve.fit.counts
        text.append(
            f"Fit: FID(n) = {number(curve.fit.limit)} + {number(curve.fit.slope)} / n over n = {counts[0]:,} to "
            f"{counts[-1]:,}; largest deviation {curve.fit.misfit:.1%}."
        )
    if reported := _reported(reference):
        pairs = ", ".join(f"{value:g} at {count:,}" for count, value in reported.items())
        text.append(f"For comparison, users' reports for NCSN++ cont. (VE) on CIFAR-10: {pairs}.")
    return "\n".join(text)


def _write(curve: "Curve", reference: "Statistics", folder: Path) -> Path:
    """The picture, and beside it its words (which the report takes up) with the numbers."""
    from score_core.repro.sanity_figure import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Cannot make the folder {folder}: {error.strerror}. Choose another with -o.") from error
    picture = folder / f"{NAME}.png"
    atomic_write(picture, draw(curve, _reported(reference)))
    first, last = curve.measured[0], curve.measured[-1]
    extrapolated = "" if curve.fit is None else f" The fit tends to {number(curve.fit.limit)}."
    words = {
        "alt": f"FID against the number of samples: {number(first.mean)} at {first.count:,} samples falls to "
        f"{number(last.mean)} at {last.count:,}.{extrapolated}",
        "caption": "FID against the number of samples: parts of this run's samples (bars: spread of sets), the fit "
        "a + c/n, and as many images of the training data themselves, the floor."
        + "".join(f" Caution: {warning}." for warning in curve.warnings[:1]),
        "numbers": asdict(curve),
    }
    atomic_write(picture.with_suffix(".json"), (json.dumps(words, indent=1, ensure_ascii=False) + "\n").encode())
    return picture
