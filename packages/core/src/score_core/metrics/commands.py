"""What the commands of ``score-stats`` do; :mod:`score_core.metrics.__main__` has their options."""

import argparse
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from score_core.checkpoints.atomic import atomic_write
from score_core.metrics.collect import collect_statistics
from score_core.metrics.evaluate import compute_metrics
from score_core.metrics.extractors import Extractor, get_extractor
from score_core.metrics.image_sets import ImageSet, open_images
from score_core.metrics.statistics import Statistics, load_statistics
from score_core.metrics.tfgan import MODELS
from score_core.metrics.validation import MetricUsageError
from score_core.runs.progress import Progress

__all__ = ["compare", "convert", "fid", "make", "show"]

_DASH = "-"


def make(options: argparse.Namespace) -> None:
    """Statistics of images into a file."""
    _check_free(options)
    images = _open(options.images, options)
    extractor = get_extractor(options.extractor, weights=options.weights, download=options.download)
    statistics = _measure(images, extractor, options)
    statistics.save(options.out)
    print(
        f"{options.out}: {statistics.count} images, {statistics.mean.size} features of {extractor.name}, "
        f"SHA-256 {statistics.digest[:12]}"
    )


def show(options: argparse.Namespace) -> None:
    """What a statistics file says and holds."""
    statistics = load_statistics(options.file)
    facts = {
        "file": str(options.file),
        "kind": _kind(options.file),
        "count": statistics.count,
        "features": statistics.mean.size,
        "logits": None if statistics.logits is None else statistics.logits.shape[1],
        "activations": statistics.pool_3 is not None,
        **statistics.header,
        "mean_norm": float(np.linalg.norm(statistics.mean)),
        "trace": float(np.trace(statistics.cov)),
        "sha256": statistics.digest,
    }
    if options.json:
        print(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        print(f"{name:17} {'unknown' if value is None else value}")


def convert(options: argparse.Namespace) -> None:
    """A statistics file in another program's form."""
    _check_free(options)
    known = {"dataset": options.dataset, "split": options.split, "extractor": options.extractor}
    known = {field: value for field, value in known.items() if value is not None}
    statistics = load_statistics(options.source, assume=known)
    if options.to == "native":
        statistics.save(options.out)
    elif options.to == "ttur":
        _save(options.out, mu=statistics.mean, sigma=statistics.cov)
    elif statistics.pool_3 is None:
        raise MetricUsageError(
            f"{options.source} holds moments only, and the original's form is the activations themselves; "
            "make them from the images: score-stats make, without --moments-only"
        )
    else:
        more = {} if statistics.logits is None else {"logits": statistics.logits}
        _save(options.out, pool_3=statistics.pool_3, **more)
    print(f"{options.out}: {options.to} form of {options.source}")


def fid(options: argparse.Namespace) -> None:
    """All scores of one set against another."""
    _print([_scores(options.samples, options.reference, options.extractor, options)], options)


def compare(options: argparse.Namespace) -> None:
    """All scores of one set under several extractors, side by side."""
    rows = []
    for name in options.extractor:
        fitting = vars(options) | {"weights": _weights_for(name, options.weights)}
        rows.append(_scores(options.samples, _reference(name, options), name, argparse.Namespace(**fitting)))
    _print(rows, options)


def _weights_for(extractor: str, weights: str | None) -> str | None:
    """``weights`` if it can be those of this one of several extractors: a folder for a SavedModel, else a file."""
    if weights is None or extractor.lower() == "digits" or Path(weights).is_dir() != (extractor.lower() in MODELS):
        return None
    return weights


def _reference(extractor: str, options: argparse.Namespace) -> str:
    """The one of the references that was measured with ``extractor``; images serve all."""
    for reference in options.reference:
        if not _is_statistics(reference):
            return reference
        if load_statistics(reference).header["extractor"] in (extractor.lower(), None):
            return reference
    raise MetricUsageError(
        f"none of the references {', '.join(options.reference)} was measured with {extractor!r}; "
        f"make one with score-stats make --extractor {extractor}, or give images"
    )


def _scores(samples: str, reference: str, extractor: str | None, options: argparse.Namespace) -> dict[str, Any]:
    """Both sides are statistics files or images; images need an extractor, by default the other side's."""
    files = {side: load_statistics(side) for side in (samples, reference) if _is_statistics(side)}
    known = next((of.header["extractor"] for of in files.values() if of.header["extractor"] is not None), None)
    if extractor is not None and known not in (None, extractor.lower()):
        raise MetricUsageError(f"the statistics were measured with {known!r}, not {extractor!r}; use others, or images")
    name = extractor or known
    if len(files) < len({samples, reference}):
        if name is None:
            raise MetricUsageError("no extractor is known to measure the images with; name one with --extractor")
        network = get_extractor(name, weights=options.weights, download=options.download)
        for side in {samples, reference} - files.keys():
            files[side] = _measure(_open([side], options), network, options)
    scores = compute_metrics(files[samples], files[reference], splits=options.splits)
    return {"samples": samples, "reference": reference, **scores}


def _print(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps(rows if len(rows) > 1 else rows[0], indent=1))
        return
    table = [["extractor", "FID", "IS", "KID", "samples", "reference"]]
    for row in rows:
        pairs = (("fid", "fid_se"), ("is", "is_std"), ("kid", "kid_se"))
        scores = [_with_error(row[key], row[error]) for key, error in pairs]
        counts = [str(row[key] or _DASH) for key in ("num_samples", "num_reference")]
        table.append([row["extractor"] or _DASH, *scores, *counts])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for warning in dict.fromkeys(row["warning"] for row in rows if row["warning"]):
        print(f"warning: {warning}")


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:.6g}" if error is None else f"{value:.6g} +- {error:.2g}"


def _open(targets: list[str], options: argparse.Namespace) -> ImageSet:
    return open_images(
        targets,
        split=options.split,
        image_size=options.image_size,
        root=options.root,
        path=options.path,
        category=options.category,
        download=options.download,
    )


def _measure(images: ImageSet, extractor: Extractor, options: argparse.Namespace) -> Statistics:
    with Progress(images.count, description=images.name, unit="image") as progress:

        def counted() -> Iterator[np.ndarray]:
            for batch in images.batches(options.batch_size):
                yield batch
                progress.update(len(batch))

        statistics = collect_statistics(extractor, counted(), header={}, keep_activations=not options.moments_only)
    # The header is complete when every image was seen.
    return replace(statistics, header={**statistics.header, **images.header()})


def _is_statistics(target: str) -> bool:
    """Whether ``target`` is an archive that holds activations or moments, rather than images."""
    return target.endswith(".npz") and Path(target).is_file() and bool(_names(Path(target)) & {"pool_3", "mu"})


def _names(file: Path) -> set[str]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise MetricUsageError(f"{file}: not a readable .npz file ({error}); make or copy it again") from error


def _kind(file: Path) -> str:
    names = _names(file)
    if "header" in names:
        return "native"
    return "original (activations)" if "pool_3" in names else "ttur (moments)"


def _check_free(options: argparse.Namespace) -> None:
    if options.out.suffix != ".npz":
        raise MetricUsageError(f"{options.out}: the name of a statistics file ends in .npz")
    if options.out.exists() and not options.overwrite:
        raise MetricUsageError(f"{options.out} exists; choose another name, or replace it with --overwrite")


def _save(path: Path, **arrays: Any) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(path, buffer.getvalue())
