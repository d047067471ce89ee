"""Images a second through the ``digits`` feature extractor, resizing and grey conversion included.

OMP_NUM_THREADS=1 uv run python benchmarks/extractor_speed.py
"""

import time

import numpy as np

from score_core.metrics import get_extractor

SHAPES = ((16, 16, 1), (32, 32, 3), (256, 256, 3))
REPEATS = 5


def main() -> None:
    """Print one line for each image shape."""
    extractor = get_extractor("digits")
    generator = np.random.default_rng(0)
    for shape in SHAPES:
        images = generator.integers(0, 256, (2**21 // np.prod(shape), *shape), dtype=np.uint8)
        seconds = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            extractor(images)
            seconds.append(time.perf_counter() - start)
        print(f"{extractor.name}: {shape[0]} x {shape[1]} x {shape[2]}: {len(images) / min(seconds):.0f} images/s")


if __name__ == "__main__":
    main()
