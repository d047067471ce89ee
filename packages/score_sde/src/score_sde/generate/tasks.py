"""The tasks: from a request to arrays, a picture and numbers."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from score_core.controllable import spherical_interpolation
from score_core.data import image_grid, to_uint8
from score_core.errors import UsageError
from score_core.runs.progress import Progress
from score_core.runs.signals import GracefulStop
from score_sde.classifier.load import LoadedClassifier
from score_sde.generate.inputs import read_images, read_mask
from score_sde.generate.options import Options

__all__ = ["Outcome", "Session", "perform"]

_logger = logging.getLogger(__name__)

_SHOWN_SIDE = 64
"""Smaller images are enlarged to about this many pixels in pictures."""
_HIDDEN = 96
"""The grey of hidden pixels in pictures."""


@dataclass(frozen=True)
class Session:
    """What the tasks work with.

    Attributes:
        experiment: the configuration.
        generator: the framework's samplers (``score_sde.generate.jax_wing`` or ``torch_wing``).
        options: the request.
        load_classifier: called by the task that needs one.
        stop: looked at between batches.
    """

    experiment: Any
    generator: Any
    options: Options
    load_classifier: Callable[[], LoadedClassifier]
    stop: GracefulStop


Number = tuple[str, float, float | None, int]
"""Name, value, standard error and count of images."""


@dataclass(frozen=True)
class Outcome:
    """What a task made: arrays for the archive, a picture, and numbers."""

    arrays: dict[str, np.ndarray]
    picture: np.ndarray
    numbers: list[Number] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def perform(session: Session) -> Outcome:
    """Does what ``session.options`` asks for.

    Raises:
        UserError: see its message.
        StopRequested: a signal came; there is no outcome.
    """
    return _TASKS[session.options.task](session)


def _batches(total: int, size: int) -> Iterator[np.ndarray]:
    """The numbers 0 .. total - 1 in batches of one size, the last of which repeats its last number."""
    size = min(total, size)
    for first in range(0, total, size):
        yield np.minimum(np.arange(first, first + size), total - 1)


def _in_batches(session: Session, what: str, total: int, draw: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """``draw(numbers)`` for the numbers 0 .. total - 1, put together."""
    parts: list[np.ndarray] = []
    with Progress(total, description=what, unit="image") as progress:
        for numbers in _batches(total, session.experiment.config.eval.batch_size):
            if session.stop.requested:
                session.stop.exit()
            parts.append(draw(numbers))
            progress.update(min(len(numbers), total - progress.step))
    images = np.concatenate(parts)[:total]
    if not np.isfinite(images).all():
        _logger.warning("some of the images are not finite: the sampler diverged")
    return images


def _picture(rows: list[np.ndarray]) -> np.ndarray:
    """One picture of rows of uint8 images ``[n, H, W, C]``, all of one length, enlarged if they are small."""
    images = np.concatenate(rows)
    factor = max(1, _SHOWN_SIDE // images.shape[1])
    return image_grid(images.repeat(factor, axis=1).repeat(factor, axis=2), nrow=len(rows[0]))


def _sample(session: Session) -> Outcome:
    count = session.options.count
    images = to_uint8(_in_batches(session, "sample", count, session.generator.sample))
    per_row = max(1, round(count**0.5))
    rows = [images[first : first + per_row] for first in range(0, count, per_row)]
    return Outcome({"images": images}, _picture(rows))


def _given(session: Session) -> np.ndarray:
    return read_images(session.options.images, session.experiment.source, session.experiment.image_shape)


def _restored(session: Session, shown: np.ndarray, original: np.ndarray, draw: Any) -> tuple[np.ndarray, np.ndarray]:
    """``num`` results of each of ``n`` measurements, uint8 ``[n, num, H, W, C]``, and rows of them between
    measurement and original."""
    n, num = len(original), session.options.count
    images = _in_batches(session, session.options.task, n * num, lambda i: draw(i, i // num))
    results = to_uint8(images).reshape(n, num, *original.shape[1:])
    rows = [np.concatenate([shown[i : i + 1], results[i], original[i : i + 1]]) for i in range(n)]
    return results, _picture(rows)


def _inpaint(session: Session) -> Outcome:
    original, options = _given(session), session.options
    mask = read_mask(options.mask, len(original), session.experiment.image_shape, options.seed)
    shown = np.where(mask > 0, original, np.uint8(_HIDDEN))
    # What is hidden is not even handed to the sampler.
    known = np.where(mask > 0, original, np.uint8(0))

    def draw(numbers: np.ndarray, which: np.ndarray) -> np.ndarray:
        return session.generator.inpaint(numbers, known[which], mask[which])

    results, picture = _restored(session, shown, original, draw)
    gap = np.abs(results.astype(np.int16) - original[:, None])[np.broadcast_to(mask[:, None] > 0, results.shape)]
    numbers: list[Number] = (
        [("inpaint_known_mean_error", float(gap.mean()) / 255, None, len(original))] if gap.size else []
    )
    arrays = {"original": original, "mask": mask, "measurement": known, "results": results}
    return Outcome(arrays, picture, numbers, {"mask": options.mask})


def _colorize(session: Session) -> Outcome:
    if session.experiment.image_shape[2] != 3:
        raise UsageError(
            f"--task=colorize needs a model of 3 channels; this one has {session.experiment.image_shape[2]}. "
            "Take another --config, such as photos"
        )
    original = _given(session)
    gray = np.repeat(np.round(original.mean(axis=-1, keepdims=True)).astype(np.uint8), 3, axis=-1)
    results, picture = _restored(session, gray, original, lambda i, which: session.generator.colorize(i, gray[which]))
    return Outcome({"original": original, "measurement": gray, "results": results}, picture)


def _class(session: Session) -> Outcome:
    classifier = session.load_classifier()
    classes, num = session.options.chosen_classes(classifier.num_classes), session.options.count
    session.generator.use_classifier(classifier, session.options.guidance)
    labels = np.repeat(np.asarray(classes, np.int32), num)
    images = to_uint8(_in_batches(session, "class", len(labels), lambda i: session.generator.conditional(i, labels[i])))
    picture = _picture(list(images.reshape(len(classes), num, *images.shape[1:])))
    arrays = {"images": images, "labels": labels}
    if session.experiment.config.data.dataset.lower() != "digits":
        return Outcome(arrays, picture)
    recognised = _recognised_digits(images)
    hits = recognised == labels
    accuracy = float(hits.mean())
    numbers = [("class_accuracy", accuracy, (accuracy * (1 - accuracy) / len(labels)) ** 0.5, len(labels))]
    per_class = {str(c): float(hits[labels == c].mean()) for c in classes}
    return Outcome(
        arrays | {"recognised": recognised},
        picture,
        numbers,
        {"guidance": session.options.guidance, "per_class": per_class},
    )


def _recognised_digits(images: np.ndarray) -> np.ndarray:
    """What an independent classifier of clean digits sees: the packaged extractor's."""
    from score_core.metrics.digits import DigitsExtractor

    return DigitsExtractor()(images)[1].argmax(axis=1).astype(np.int32)


def _codes(session: Session, images: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Latent codes of uint8 images ``[n, H, W, C]``, and the function evaluations of every batch."""
    nfe: list[int] = []

    def encode(numbers: np.ndarray) -> np.ndarray:
        z, evaluations = session.generator.encode(images[numbers])
        nfe.append(evaluations)
        return z

    return _in_batches(session, "encode", len(images), encode), nfe


def _decoded(session: Session, z: np.ndarray) -> np.ndarray:
    return _in_batches(session, "decode", len(z), lambda numbers: session.generator.decode(z[numbers])[0])


def _encode(session: Session) -> Outcome:
    original = _given(session)
    z, nfe = _codes(session, original)
    images = _decoded(session, z)
    error = float(np.sqrt(np.mean((images - original / 255.0) ** 2)))
    decoded = to_uint8(images + 0.5 / 255)  # to the nearest grey level: nothing is scored here
    arrays = {"original": original, "z": z, "decoded": decoded}
    numbers: list[Number] = [("encode_rms_error", error, None, len(original))]
    return Outcome(arrays, _picture([original, decoded]), numbers, {"nfe": nfe})


def _interpolate(session: Session) -> Outcome:
    original, count = _given(session), session.options.count
    if len(original) % 2:
        raise UsageError(
            f"--task=interpolate needs pairs of images; --images={session.options.images} are {len(original)}"
        )
    z, nfe = _codes(session, original)
    weights = np.linspace(0, 1, count, dtype=np.float32)
    arcs = spherical_interpolation(z[::2], z[1::2], weights).swapaxes(0, 1)
    images = to_uint8(_decoded(session, arcs.reshape(-1, *z.shape[1:])) + 0.5 / 255)
    images = images.reshape(len(original) // 2, count, *original.shape[1:])
    rows = [np.concatenate([original[2 * i, None], images[i], original[2 * i + 1, None]]) for i in range(len(images))]
    arrays = {"original": original, "z": z, "weights": weights, "images": images}
    return Outcome(arrays, _picture(rows), details={"nfe": nfe})


_TASKS: dict[str, Callable[[Session], Outcome]] = {
    "sample": _sample,
    "inpaint": _inpaint,
    "colorize": _colorize,
    "class": _class,
    "encode": _encode,
    "interpolate": _interpolate,
}
