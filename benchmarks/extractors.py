"""Images a second of the Inception network (random weights, 32 x 32 images) on the CPU: threads and memory layout.

python benchmarks/extractors.py [--images 32] [--threads 1 2]
"""

import argparse
import time

import numpy as np
import torch

from score_core.torch.inception import Inception, InceptionFeatures, to_input


@torch.inference_mode()
def plain(network: Inception, images: np.ndarray, memory_format: torch.memory_format) -> None:
    """The network alone in either layout, in one batch."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    network(to_input(x, "tfgan").contiguous(memory_format=memory_format))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (options.images, 32, 32, 3), dtype=np.uint8)
    network = Inception().eval()
    extractor = InceptionFeatures(network.state_dict(), "tfgan", "unbiased", device="cpu")
    runs = {"extractor": lambda: extractor(images)}
    for memory_format in (torch.contiguous_format, torch.channels_last):
        copy = Inception().eval().to(memory_format=memory_format)  # pyright: ignore[reportCallIssue]
        runs[str(memory_format)] = lambda copy=copy, form=memory_format: plain(copy, images, form)
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name, run in runs.items():
            run()
            seconds = []
            for _ in range(3):
                begin = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - begin)
            print(f"{threads} thread(s)  {name:25}  {options.images / min(seconds):6.1f} images/s")


if __name__ == "__main__":
    main()
