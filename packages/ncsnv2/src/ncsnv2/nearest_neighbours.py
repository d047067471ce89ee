"""``python -m ncsnv2.nearest_neighbours``: the training images most like samples, in the space of Inception features.

A row of the picture is a sample and its k nearest training images, by Euclidean distance of features, the smaller of
the distances of the sample and of its mirror image. Training images are measured one batch after the other and only
the k nearest are kept.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from score_core.errors import UsageError, run_main

__all__ = ["Neighbours", "find_neighbours", "main", "neighbour_rows", "parser"]

_BATCH = 128
_LSUN = {"church": ("church_outdoor", 96), "tower": ("tower", 128), "bedroom": ("bedroom", 128)}
_SIZES = {"celeba": 64, "cifar10": 32, "ffhq": 256, "digits": 16, "photos": 32}


class Neighbours(NamedTuple):
    """The nearest images of every sample, nearest first."""

    distance: np.ndarray
    """float64 ``[n, k]``."""
    index: np.ndarray  # type: ignore[assignment]
    """int64 ``[n, k]``: places among the training images."""


def find_neighbours(samples: np.ndarray, mirrored: np.ndarray, features: Iterable[np.ndarray], k: int) -> Neighbours:
    """The ``k`` nearest rows of a stream of features.

    Arguments:
        samples, mirrored: features ``[n, D]`` of the samples and of their mirror images.
        features: batches ``[b, D]`` of the training images' features, in order.

    Raises: UsageError if there are fewer than ``k``.
    """
    from scipy.spatial.distance import cdist

    best = Neighbours(np.empty((len(samples), 0)), np.empty((len(samples), 0), np.int64))
    seen = 0
    for batch in features:
        distance = np.minimum(cdist(samples, batch), cdist(mirrored, batch))
        index = np.broadcast_to(np.arange(seen, seen + len(batch)), distance.shape)
        distance, index = np.hstack([best.distance, distance]), np.hstack([best.index, index])
        order = np.argsort(distance, axis=1, kind="stable")[:, :k]
        best = Neighbours(np.take_along_axis(distance, order, 1), np.take_along_axis(index, order, 1))
        seen += len(batch)
    if seen < k:
        raise UsageError(f"--k {k}: there are only {seen} training images.")
    return best


def neighbour_rows(samples: np.ndarray, training: Any, found: Neighbours) -> np.ndarray:
    """Samples and neighbours row by row: uint8 ``[n (k + 1), H, W, C]``.

    Arguments:
        samples: uint8 ``[n, H, W, C]``.
        training: a source of images of that shape.
    """
    rows = [
        np.concatenate([sample[None], training.fetch(index)[0]])
        for sample, index in zip(samples, found.index, strict=True)
    ]
    return np.concatenate(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = parser().parse_args(argv)
    return run_main(lambda: _run(args))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m ncsnv2.nearest_neighbours", description=str(__doc__).partition("\n")[0]
    )
    made.add_argument("--path", required=True, help="samples_*.pth of a run, or an .npz of uint8 images")
    made.add_argument("--k", type=int, default=9, help="neighbours of a sample (default: 9)")
    made.add_argument("--n_samples", type=int, default=10, help="how many samples, from the first (default: 10)")
    made.add_argument(
        "--dataset", required=True, help=f"training images: {', '.join([*_LSUN, *_SIZES])}, folder, npz or zip"
    )
    made.add_argument("-i", required=True, metavar="NAME", help="the picture, without its ending .png")
    made.add_argument("--exp", default="exp", help="root of the datasets (default: exp)")
    made.add_argument("--data_path", help="the dataset's own file or folder")
    made.add_argument("--extractor", help="features (default: inception_ncsnv2; for digits and photos: digits)")
    made.add_argument("--weights", help="file of the extractor's weights")
    return made


def _run(args: argparse.Namespace) -> None:
    from ncsnv2.config import EMBEDDED
    from score_core.data import image_grid, save_png
    from score_core.data.torchvision_sources import load_torchvision_source
    from score_core.metrics import get_extractor
    from score_core.runs.progress import Progress

    if args.k < 1 or args.n_samples < 1:
        raise UsageError(f"--k {args.k} --n_samples {args.n_samples}: both must be at least 1.")
    samples = _read_samples(Path(args.path))[: args.n_samples]
    size: Any
    category, size = _LSUN.get(args.dataset, (None, _SIZES.get(args.dataset.lower(), samples.shape[1])))
    training = load_torchvision_source(
        "lsun" if category else args.dataset,
        "train",
        image_size=size,
        num_channels=samples.shape[-1],
        datasets=Path(args.exp) / "datasets",
        path=args.data_path,
        category=category,
    )
    if training.shape != samples.shape[1:]:
        raise UsageError(f"{args.path} has images of {samples.shape[1:]}, {args.dataset} of {training.shape}.")
    extractor = get_extractor(
        args.extractor or ("digits" if args.dataset.lower() in EMBEDDED else "inception_ncsnv2"), weights=args.weights
    )
    with Progress(len(training), description="features", unit="image") as progress:

        def features() -> Iterable[np.ndarray]:
            for first in range(0, len(training), _BATCH):
                index = np.arange(first, min(first + _BATCH, len(training)))
                yield extractor(training.fetch(index)[0])[0]
                progress.update(len(index))

        ours = [extractor(np.ascontiguousarray(each))[0] for each in (samples, samples[:, :, ::-1])]
        found = find_neighbours(ours[0], ours[1], features(), args.k)
    picture = Path(f"{args.i}.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_png(picture, image_grid(neighbour_rows(samples, training, found), args.k + 1))
    print(f"{picture}: {len(samples)} samples, each with its {args.k} nearest of {len(training)} images")


def _read_samples(path: Path) -> np.ndarray:
    """uint8 ``[n, H, W, C]``."""
    from score_core.checkpoints.pth_format import load_pth
    from score_core.data.images import to_uint8
    from score_core.metrics.image_sets import open_images

    if path.suffix == ".npz":
        return np.concatenate(list(open_images([str(path)]).batches(1000)))
    images = load_pth(path)
    if not isinstance(images, np.ndarray) or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UsageError(f"{path} holds no images [n, C, H, W] with 1 or 3 channels.")
    return to_uint8(np.clip(images, 0, 1).transpose(0, 2, 3, 1))


if __name__ == "__main__":
    sys.exit(main())
