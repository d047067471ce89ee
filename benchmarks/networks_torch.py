"""Time of the PyTorch networks in both memory layouts, and of their resampling filters.

    python benchmarks/networks_torch.py [--nf 32] [--batch-size 4] [--threads 1] [--repeats 3] [--bfloat16]

network: DDPM++ for CIFAR-10 with ``nf`` channels, forward, and forward with the gradient of the parameters:
milliseconds a call, best of several, images as NCHW and as channels_last.
filters: the FIR filters of NCSN++ on 8 x 128 x 32 x 32, forward and with the gradient.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from score_core.torch import networks
from score_core.torch.networks import resampling

LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def best(function: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of the fastest call; the first is not counted."""
    function()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds)


def row(label: str, layout: str, forward: Callable[[], Tensor], inputs: Sequence[Tensor], repeats: int) -> None:
    """Print one line: forward, and forward with the gradient by ``inputs``."""

    def alone() -> None:
        with torch.inference_mode():
            forward()

    cotangent = torch.ones_like(forward())

    def both() -> None:
        torch.autograd.grad(forward(), inputs, cotangent)

    print(
        f"  {label:20} {layout:14} forward {best(alone, repeats):9.1f} ms   with gradient {best(both, repeats):9.1f} ms"
    )


def main() -> None:
    """Read the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nf", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = networks.NCSNpp(
        nf=options.nf,
        fir=False,
        progressive_input="none",
        embedding_type="positional",
        scale_by_sigma=False,
        dropout=0.0,
        centered=True,
    )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    images = torch.rand(options.batch_size, 3, 32, 32)
    labels = torch.full((options.batch_size,), 500.0)
    count = sum(parameter.numel() for parameter in parameters)
    print(f"torch {torch.__version__}, {options.threads} thread(s)")
    print(f"DDPM++ nf {options.nf}: {count:,} parameters, {options.batch_size} x 3 x 32 x 32")
    for name, layout in LAYOUTS.items():
        model.to(memory_format=layout)
        x = images.contiguous(memory_format=layout)

        def network(x: Tensor = x) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
                return model(x, labels)

        row("DDPM++", name, network, parameters, options.repeats)

    maps = torch.rand(8, 128, 32, 32)
    print(f"filters on {' x '.join(map(str, maps.shape))}")
    for label, function in (("FIR up", resampling.upsample_2d), ("FIR down", resampling.downsample_2d)):
        for name, layout in LAYOUTS.items():
            h = maps.contiguous(memory_format=layout).requires_grad_()
            row(label, name, lambda f=function, h=h: f(h, (1, 3, 3, 1)), [h], options.repeats)


if __name__ == "__main__":
    main()
