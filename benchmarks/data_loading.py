"""Images per second of our pipeline beside torch's DataLoader: in-memory uint8 images, random flips, float conversion.

    python benchmarks/data_loading.py [--images 50000] [--batch-size 128] [--repeats 3]

Both shuffle and give batches of float32 in [0, 1]. Ours leave `Pipeline.batches` as bytes and are converted by
`to_float` in the consumer; torch's data set flips and converts one image at a time, as is usual there. A row is the
best of several passes after one that is not counted (it starts torch's workers), as other programs may share the
machine. The last column is the processor time of this process, all threads; that of workers cannot be seen from here.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch

from score_core.data import Pipeline, to_float
from score_core.data.preprocess import resize_bytes
from score_core.data.source import ArraySource, Request


class TorchImages(torch.utils.data.Dataset):
    """The same images for torch's DataLoader."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = torch.from_numpy(self.images[index])
        if torch.rand(()) < 0.5:
            image = image.flip(1)
        return image.to(torch.float32) / 255


def ours(images: np.ndarray, batch_size: int, prefetch: bool) -> Callable[[], int]:
    """A pass over the images with our pipeline; returns how many were seen."""
    request = Request("benchmark", "train", images.shape[1], None, Path())
    options = {"num_classes": None, "num_channels": 3, "resize": resize_bytes, "recipe": ""}
    pipeline = Pipeline(ArraySource(request, images, None, **options), batch_size, seed=0, random_flip=True)

    def run() -> int:
        seen = 0
        if not prefetch:
            for step in range(pipeline.steps_per_epoch):
                seen += len(to_float(pipeline.batch(step).image))
            return seen
        with pipeline.batches() as batches:
            for _ in range(pipeline.steps_per_epoch):
                seen += len(to_float(next(batches).image))
        return seen

    return run


def torch_loader(images: np.ndarray, batch_size: int, workers: int) -> Iterable[torch.Tensor]:
    return torch.utils.data.DataLoader(
        TorchImages(images),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def theirs(images: np.ndarray, batch_size: int, workers: int) -> Callable[[], int]:
    """A pass over the images with torch's DataLoader; returns how many were seen."""
    loader = torch_loader(images, batch_size, workers)
    return lambda: sum(len(batch) for batch in loader)


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of our pipeline and of torch's DataLoader.")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(0, 256, (arguments.images, 32, 32, 3), dtype=np.uint8)
    rows = {
        "ours, no thread": ours(images, arguments.batch_size, prefetch=False),
        "ours, prefetching": ours(images, arguments.batch_size, prefetch=True),
        "torch, 0 workers": theirs(images, arguments.batch_size, workers=0),
        "torch, 2 workers": theirs(images, arguments.batch_size, workers=2),
    }
    print(
        f"{arguments.images} images 32x32x3, batches of {arguments.batch_size}; load average {os.getloadavg()[0]:.1f}"
    )
    print(f"{'':20}{'images/s':>10}{'us/image':>10}{'cpu us/image':>14}")
    for name, run in rows.items():
        run()
        passes = []
        for _ in range(arguments.repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            seen = run()
            passes.append(((time.perf_counter() - wall) / seen, (time.process_time() - cpu) / seen))
        wall, cpu = (1e6 * best for best in min(passes))
        used = "-" if "2 workers" in name else f"{cpu:.1f}"
        print(f"{name:20}{1e6 / wall:10,.0f}{wall:10.1f}{used:>14}")


if __name__ == "__main__":
    main()
