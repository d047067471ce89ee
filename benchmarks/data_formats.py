"""Time to open and read the large dataset formats, and to find the largest pairwise distance.

    python benchmarks/data_formats.py [--images 10000] [--records 70000] [--folder DIR]

Distances: random 32x32x3 images, of which no pair of blocks can be left out, so this is the longest that it can take.
TFRecord: a file of 4x4 images (the index does not look at the pixels, so size matters only to the disk), and one of
256x256 images, read at random: the first time with the comparison of the checksums, then without. Image operations:
those of LSUN and CelebA, without the decoding. All are seconds of processor time, so that other programs may share the
machine; run with OMP_NUM_THREADS=1, or the threads' times are added up.
"""

import argparse
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from score_core.data import load_source, max_pairwise_distance
from score_core.data.crc32c import crc32c, crc32c_rows, masked
from score_core.data.preprocess import central_crop, crop_resize, resize_small, round_to_bytes
from score_core.data.tfrecord import RecordFile


def best(run: Callable[[], object], repeats: int = 3) -> float:
    """Processor seconds of the fastest of several runs."""
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def write_records(path: Path, planes: np.ndarray, count: int) -> None:
    """``count`` records, each the image uint8 [C, H, W]."""
    dims = b"".join(map(varint, planes.shape))
    entries = {"data": field(1, field(1, planes.tobytes())), "shape": field(3, field(1, dims))}
    record = field(1, b"".join(field(1, field(1, k.encode()) + field(2, v)) for k, v in entries.items()))
    length = np.frombuffer(struct.pack("<Q", len(record)), np.uint8)[None]
    data_crc = np.array([crc32c(np.frombuffer(record, np.uint8))], np.uint32)
    frame = length.tobytes() + masked(crc32c_rows(length)).tobytes() + record + masked(data_crc).tobytes()
    with path.open("wb") as file:
        for _ in range(count):
            file.write(frame)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="images whose distances are taken")
    parser.add_argument("--records", type=int, default=70_000, help="records of the indexed file")
    parser.add_argument("--folder", help="where to put temporary files (default: the system's place)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)

    images = rng.integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8)
    seconds = best(lambda: max_pairwise_distance(images), repeats=1)
    rate = options.images**2 * 3072 / seconds / 1e9
    print(f"largest distance of {options.images:,} random 32x32x3 images: {seconds:.1f} s ({rate:.0f} Gflop/s)")

    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        small, large = Path(folder, "small.tfrecords"), Path(folder, "large.tfrecords")
        write_records(small, rng.integers(0, 256, (3, 4, 4), dtype=np.uint8), options.records)
        seconds = best(lambda: RecordFile(small))
        print(
            f"index of {options.records:,} TFRecords: {seconds:.3f} s ({1e6 * seconds / options.records:.2f} us each)"
        )

        write_records(large, rng.integers(0, 256, (3, 256, 256), dtype=np.uint8), 500)
        source = load_source("ffhq", "train", image_size=256, path=large)
        order = rng.permutation(500)
        for what in ("with", "without"):
            seconds = best(lambda: source.fetch(order), repeats=1 if what == "with" else 3)
            print(f"256x256x3 images from TFRecords, {what} checksums: {500 / seconds:.0f} images/s")

    photo = rng.integers(0, 256, (256, 341, 3), dtype=np.uint8)
    face = rng.integers(0, 256, (218, 178, 3), dtype=np.uint8)
    operations = {
        "CelebA, 178x218 to 64": lambda: round_to_bytes(resize_small(central_crop(face, 140), 64)),
        "LSUN, 256x341 to 128": lambda: round_to_bytes(central_crop(resize_small(photo, 128), 128)),
        "LSUN, 256x341 to 256": lambda: crop_resize(photo, 256),
        "LSUN, 256x341 to 64": lambda: crop_resize(photo, 64),
    }
    for name, run in operations.items():
        print(f"{name} pixels, without decoding: {1000 * best(run, repeats=20):.2f} ms")


if __name__ == "__main__":
    main()
