"""Data under the names of the original's ``datasets``."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ml_collections
import numpy as np

from score_core.data import Pipeline, Source, dequantize, to_float
from score_core.data import get_data_inverse_scaler as _inverse_scaler
from score_core.data import get_data_scaler as _scaler
from score_sde.data_source import source_of

__all__ = ["get_data_inverse_scaler", "get_data_scaler", "get_dataset"]


def get_data_scaler(config: ml_collections.ConfigDict) -> Any:
    """The map from [0, 1] to the network's range that ``config.data.centered`` asks for."""
    return _scaler(config.data.centered)  # type: ignore[attr-defined]


def get_data_inverse_scaler(config: ml_collections.ConfigDict) -> Any:
    """The inverse of :func:`get_data_scaler`."""
    return _inverse_scaler(config.data.centered)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Dataset:
    """Batches as dicts of ``image`` float32 ``[(additional_dim,) B, H, W, C]`` in [0, 1] and ``label`` (or None)."""

    pipeline: Pipeline
    seed: int
    additional_dim: int | None
    dequantization: bool
    endless: bool

    def __iter__(self) -> Iterator[dict[str, Any]]:
        group = self.additional_dim or 1
        steps = len(self.pipeline.source) // self.pipeline.batch_size
        call = 0
        while self.endless or (call + 1) * group <= steps:
            batches = [self.pipeline.batch(call * group + j) for j in range(group)]
            images = to_float(np.stack([batch.image for batch in batches]))
            if self.dequantization:
                u = np.random.default_rng([self.seed, call]).random(images.shape, np.float32)
                images = dequantize(images, u)
            found = [batch.label for batch in batches if batch.label is not None]
            labels = np.stack(found) if found else None
            if self.additional_dim is None:
                images, labels = images[0], None if labels is None else labels[0]
            yield {"image": images, "label": labels}
            call += 1


def get_dataset(
    config: ml_collections.ConfigDict,
    additional_dim: int | None = None,
    uniform_dequantization: bool = False,
    evaluation: bool = False,
) -> tuple[_Dataset, _Dataset, Source]:
    """Training and evaluation batches.

    Arguments:
        config: which data, which batch size (``eval.batch_size`` if ``evaluation``, else ``training.batch_size``).
        additional_dim: number of batches that are handed out together, or None.
        uniform_dequantization: whether to add uniform noise (see :func:`score_core.data.dequantize`).
        evaluation: one pass without flips instead of an endless stream.

    Returns:
        Two iterables of dicts (training, evaluation), and the training images as a source. Batches are whole, as the
        original's are, and have no leading device axis.
    """
    settings: Any = config
    batch_size = settings.eval.batch_size if evaluation else settings.training.batch_size
    sources = [source_of(config, split) for split in ("train", "test")]
    train, test = (
        _Dataset(
            Pipeline(
                source,
                batch_size,
                seed=settings.seed,
                random_flip=settings.data.random_flip and not evaluation,
                drop_remainder=evaluation,
            ),
            settings.seed,
            additional_dim,
            uniform_dequantization,
            endless=not evaluation,
        )
        for source in sources
    )
    return train, test, sources[0]
