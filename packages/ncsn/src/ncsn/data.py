"""The images of a configuration, split and preprocessed as each runner of the original had them.

    Anneal, Baseline      the dataset's own training and test part; flips if data.random_flip says so
    ScoreNet, CIFAR10     the same without flips, both looked for in one folder
    ScoreNet, MNIST       the training part, shuffled by NumPy's generator seeded 2019, 80 % and 20 %
    ScoreNet, CELEBA      images of the folder celeba (any sub-folders), shuffled likewise, 70 % and 10 %

Values stay bytes here. parity: ScoreNet normalises CELEBA to [-1, 1] before the network doubles and shifts once more;
see :class:`ncsn.training.ScoreNetProgram`.
"""

import argparse
from pathlib import Path

import numpy as np

from score_core.data import Pipeline
from score_core.data.errors import MissingDataError
from score_core.data.image_files import IMAGE_SUFFIXES, natural_key
from score_core.data.source import Source, fingerprint
from score_core.data.torchvision_sources import center_crop, load_torchvision_source, resize_shorter

__all__ = ["open_data", "pipeline", "shuffled_2019"]

_CELEBA_CROP = 140
# Where the parts of the shuffled list begin and end: train, test.
_PARTS = {"mnist": ((0.0, 0.8), (0.8, 1.0)), "celeba": ((0.0, 0.7), (0.7, 0.8))}


def open_data(config: argparse.Namespace, runner: str, run: Path, split: str) -> Source:
    """One split (``train`` or ``test``) of ``config.data`` as ``runner`` has it.

    Raises: MissingDataError saying what to put where; DataError.
    """
    data, name = config.data, config.data.dataset.lower()
    scorenet = runner == "ScoreNetRunner" and name in _PARTS
    if scorenet and name == "celeba":
        source: Source = _ImageFolder(Path(data.path or run / "datasets" / "celeba"), data.image_size, data.channels)
    else:
        source = load_torchvision_source(
            data.dataset,
            "train" if scorenet else split,
            image_size=data.image_size,
            num_channels=data.channels,
            datasets=run / "datasets",
            path=data.path,
            download=data.download,
        )
    return _Part(source, split, *_PARTS[name][split == "test"]) if scorenet else source


def pipeline(config: argparse.Namespace, runner: str, source: Source, batch_size: int, seed: int) -> Pipeline:
    """Shuffled batches; those of the training split with flips, which ScoreNet has none of."""
    # parity: the original compares with `is False`: whatever else stands there flips.
    flips = runner != "ScoreNetRunner" and source.split == "train" and config.data.random_flip is not False
    return Pipeline(source, batch_size, seed=seed, random_flip=flips, drop_remainder=False)


def shuffled_2019(count: int) -> np.ndarray:
    """The order of ``count`` items that the original's splits of ScoreNet are cut from."""
    order = np.arange(count)
    # parity: NumPy's legacy generator with this seed makes the original's split.
    np.random.RandomState(2019).shuffle(order)
    return order


class _Part:
    """A part of a source's items in the order of :func:`shuffled_2019`."""

    def __init__(self, source: Source, split: str, begin: float, end: float) -> None:
        count = len(source)
        self._indices = shuffled_2019(count)[int(begin * count) : int(end * count)]
        self._source = source
        self.name, self.split, self.shape, self.num_classes = source.name, split, source.shape, source.num_classes
        self.fingerprint = fingerprint(source.fingerprint, "2019", begin, end)

    def __len__(self) -> int:
        return len(self._indices)

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """See :class:`score_core.data.source.Source`."""
        return self._source.fetch(self._indices[indices])


class _ImageFolder:
    """Every image file below a folder, cut to its central 140x140 pixels and resized."""

    name, split, num_classes = "celeba", "train", None

    def __init__(self, folder: Path, size: int, channels: int) -> None:
        found = (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        self._files = sorted(found, key=lambda file: natural_key(file.relative_to(folder).as_posix()))
        if not self._files:
            put = "CelebA's aligned images there (ScoreNetRunner reads any folder of images)"
            raise MissingDataError("CELEBA", folder, put)
        self.shape = (size, size, channels)
        names = [file.relative_to(folder).as_posix() for file in self._files]
        sizes = [file.stat().st_size for file in self._files]
        self.fingerprint = fingerprint(names, sizes, "crop 140, Pillow bilinear", list(self.shape))

    def __len__(self) -> int:
        return len(self._files)

    def fetch(self, indices: np.ndarray) -> tuple[np.ndarray, None]:
        """See :class:`score_core.data.source.Source`."""
        return np.stack([self._read(self._files[i]) for i in indices]), None

    def _read(self, file: Path) -> np.ndarray:
        from score_core.data.encoded import open_image
        from score_core.data.preprocess import to_channels

        image = np.asarray(open_image(file.read_bytes(), file.name, str(file.parent)).convert("RGB"))
        resized = resize_shorter(center_crop(image, _CELEBA_CROP), self.shape[0])
        return to_channels(resized[None], self.shape[2])[0]
