"""The extractors of the SDE papers as they were: TensorFlow SavedModels from a folder.

    tfgan     (x - 127.5) / 127.5 into TF-GAN's Inception: a dict with pool_3 and logits         images below 256 pixels
    tfgan_v3  x / 255 into inception_v3/feature_vector: one tensor, pool_3; no logits      256 pixels and more

x are bytes 0..255, in the images' own size (the first model resizes inside). TensorFlow is imported when one of the two
is asked for, and computes on the CPU: it would otherwise take all memory of every GPU. A SavedModel is a program, so
take one from whom you trust.
"""

import hashlib
import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from score_core.metrics.inception_weights import cache_folder
from score_core.metrics.validation import MetricError, MetricUsageError, check_images

__all__ = ["MODELS", "TfganExtractor"]

BATCH = 32  # images at a time
PROBE_SIZE = 299
SIGNATURES = ("default", "serving_default", "image_feature_vector")


@dataclass(frozen=True)
class Model:
    """``centre``, ``scale``: the input is (x - centre) / scale. ``folder``: its name in the cache."""

    variable: str
    folder: str
    address: str
    centre: float
    scale: float
    logits: bool


MODELS = {
    "tfgan": Model(
        "SCORE_TFGAN_INCEPTION",
        "tfgan_inception_1",
        "https://tfhub.dev/tensorflow/tfgan/eval/inception/1",
        centre=127.5,
        scale=127.5,
        logits=True,
    ),
    "tfgan_v3": Model(
        "SCORE_TFGAN_INCEPTION_V3",
        "inception_v3_feature_vector_4",
        "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/4",
        centre=0.0,
        scale=255.0,
        logits=False,
    ),
}


class TfganExtractor:
    """Images uint8 [n, H, W, C], C = 1 or 3 -> (pool_3 float32 [n, D], logits float32 [n, K] or None).

    ``sha256`` is of the SavedModel's files and the scaling.

    Arguments:
        name: one of MODELS.
        folder: of the SavedModel; default: the model's environment variable, else its folder in the cache.
        batch_size: images computed at a time.

    Raises:
        MetricUsageError: TensorFlow or the folder is missing, or the folder holds something else.
    """

    def __init__(self, name: str, folder: str | os.PathLike[str] | None = None, *, batch_size: int = BATCH) -> None:
        self.name = name
        self._model = MODELS[name]
        self._batch_size = batch_size
        place = _find(name, self._model, folder)
        self.sha256 = _hash_folder(place, f"(x - {self._model.centre}) / {self._model.scale}")
        self._tf = _import_tensorflow(name)
        self._function = _load(self._tf, place)
        self._place = place
        pool_3, logits = self._compute(np.zeros((1, PROBE_SIZE, PROBE_SIZE, 3), np.uint8))
        self.feature_dim = pool_3.shape[1]
        self.num_logits = None if logits is None else logits.shape[1]

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features and logits of images uint8 [n, H, W, C].

        Raises:
            MetricError: another dtype, number of dimensions or channels.
        """
        images = check_images(f"{self.name} extractor", images, channels=(1, 3))
        images = np.broadcast_to(images, (*images.shape[:3], 3))
        pool_3 = np.empty((len(images), self.feature_dim), np.float32)
        logits = None if self.num_logits is None else np.empty((len(images), self.num_logits), np.float32)
        for start in range(0, len(images), self._batch_size):
            part = slice(start, start + self._batch_size)
            pool_3[part], scores = self._compute(images[part])
            if logits is not None:
                logits[part] = scores
        return pool_3, logits

    def _compute(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        scaled = (images.astype(np.float32) - np.float32(self._model.centre)) / np.float32(self._model.scale)
        tf = self._tf
        try:
            with tf.device("/CPU:0"):
                found = self._function(tf.constant(scaled))
        except (ValueError, TypeError, tf.errors.OpError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise MetricError(f"{self._place}: does not take images {list(images.shape)} ({reason})") from error
        wanted = ("pool_3", "logits") if self._model.logits else ()
        if isinstance(found, dict) and not wanted and len(found) == 1:
            (found,) = found.values()
        if isinstance(found, dict) != bool(wanted) or (wanted and not found.keys() >= set(wanted)):
            what = f"a dict with {sorted(found)}" if isinstance(found, dict) else "one tensor"
            raise MetricUsageError(
                f"{self._place}: returns {what}, expected {'pool_3 and logits' if wanted else 'one tensor'}; "
                f"the extractor {self.name!r} needs {self._model.address}"
            )
        outputs = [found[key] for key in wanted] or [found]
        arrays = [np.asarray(output, np.float32).reshape(len(images), -1) for output in outputs]
        return arrays[0], arrays[1] if wanted else None


def _find(name: str, model: Model, folder: str | os.PathLike[str] | None) -> Path:
    named = folder or os.environ.get(model.variable)
    place = Path(named) if named else cache_folder() / model.folder
    if not (place / "saved_model.pb").is_file():
        raise MetricUsageError(
            f"the extractor {name!r} needs a SavedModel: no saved_model.pb in {place}. Unpack {model.address} to "
            f"{cache_folder() / model.folder}, or name its folder in the environment variable {model.variable} "
            "(score-stats: --weights FOLDER). The extractor 'digits' needs nothing"
        )
    return place


def _hash_folder(folder: Path, scaling: str) -> str:
    """SHA-256 over names and contents of all files, and the scaling."""
    digest = hashlib.sha256(scaling.encode())
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        with file.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"\0{file.relative_to(folder).as_posix()}\0{content}".encode())
    return digest.hexdigest()


def _import_tensorflow(name: str) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        tf = importlib.import_module("tensorflow")
    except ModuleNotFoundError as error:
        if error.name != "tensorflow":
            raise
        raise MetricUsageError(
            f"the extractor {name!r} runs in TensorFlow, which is not installed: install score-core[tfgan], or take "
            "the extractor 'inception' (the same network in PyTorch) or 'digits' (which needs nothing)"
        ) from error
    # RuntimeError: TensorFlow is at work in this process already, with the devices that whoever started it chose.
    with suppress(RuntimeError):
        tf.config.set_visible_devices([], "GPU")
    return tf


def _load(tf: Any, folder: Path) -> Callable[[Any], Any]:
    """The SavedModel in ``folder`` as a function of one batch."""
    # Modules of the first TensorFlow Hub have no tags.
    tags = [] if (folder / "tfhub_module.pb").exists() else None
    try:
        with tf.device("/CPU:0"):
            model = tf.saved_model.load(str(folder), tags=tags)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, tf.errors.OpError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise MetricUsageError(f"{folder}: not a usable SavedModel ({reason}); unpack it again") from error
    if callable(model):
        return model
    signatures = getattr(model, "signatures", {})
    for name in SIGNATURES:
        if name in signatures:
            (argument,) = signatures[name].structured_input_signature[1]
            return lambda images: {**signatures[name](**{argument: images})}
    raise MetricUsageError(f"{folder}: neither callable nor with one of the signatures {', '.join(SIGNATURES)}")
