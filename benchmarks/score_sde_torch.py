"""Time and peak memory of training, sampling and likelihoods of NCSN++ in PyTorch, plain against shipped.

    python benchmarks/score_sde_torch.py [--networks tiny nf32 nf64] [--parts train sampler likelihood] [--calls 4]
        [--variants plain float32 bfloat16 float32_compiled bfloat16_compiled]

plain: eager, NCHW, float32, attention by its formula. float32, bfloat16: what the package runs, channels_last with
PyTorch's fused attention; bfloat16 is autocast over float32 parameters. compiled: the same through ``torch.compile``
(not by default: it compiles for minutes).
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import score_sde_common as common
import torch
from torch.utils.flop_counter import FlopCounterMode

VARIANTS = ("plain", "float32", "bfloat16", "float32_compiled", "bfloat16_compiled")


def build(network: str, part: str, variant: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """See ``score_sde_common.Build``."""
    from score_core.correctors import get_corrector
    from score_core.data import to_float
    from score_core.predictors import get_predictor
    from score_core.sdes import VESDE
    from score_core.torch import networks
    from score_core.torch.likelihood import drift_and_divergence
    from score_core.torch.noise import PerSampleNoise
    from score_core.torch.sampling import get_pc_sampler
    from score_core.torch.threefry import prng_key
    from score_core.torch.training import Adam, create_state, get_apply_fn, get_loss_fn, get_train_call

    options, size, batch = common.NETWORKS[network]
    plain = variant == "plain"
    torch.manual_seed(0)
    layout = torch.contiguous_format if plain else torch.channels_last
    model = networks.NCSNpp(**options, image_size=size)
    model.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
    if "compiled" in variant:
        model.compile(dynamic=False)
    apply_fn = get_apply_fn(model, torch.bfloat16 if "bfloat16" in variant else None)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8).contiguous(memory_format=layout)
    if part == "train":
        adam = Adam(beta1=0.9, eps=1e-8, warmup=5000, grad_clip=1.0, weight_decay=0.0)
        state = create_state(model, prng_key(0), adam=adam, lr=2e-4, ema_rate=0.999)
        loss_fn = get_loss_fn(VESDE(), apply_fn, continuous=True, reduce_mean=True)
        update = get_train_call(loss_fn, adam, lambda images, key, first: to_float(images))
        stacked = images[None]

        def run() -> None:
            update(state, stacked)

    elif part == "sampler":
        rules = (get_predictor("reverse_diffusion"), get_corrector("langevin"))
        sampler = get_pc_sampler(VESDE(N=1), apply_fn, *rules, snr=0.16, eps=1e-5)

        def run() -> None:
            sampler(None, PerSampleNoise(prng_key(1), torch.arange(batch), (3, size, size)))

    else:
        model.requires_grad_(False)
        x, t = to_float(images), torch.full((batch,), 0.5)
        probe = torch.randint(0, 2, x.shape).to(x.dtype) * 2 - 1

        def run() -> None:
            drift_and_divergence(VESDE(), apply_fn, None, x, t, probe)

    def call() -> None:
        with networks.higher_derivatives() if plain else nullcontext():
            run()

    facts: dict[str, Any] = {}
    if plain:  # the only one whose attention is made of operations that are counted
        with torch.no_grad(), networks.higher_derivatives(), FlopCounterMode(display=False) as counter:
            model.eval()(images / 255, torch.full((batch,), 0.5))
        # A product's gradient takes one product an operand; a likelihood needs that of the activations alone.
        facts["gflop"] = counter.get_total_flops() / 1e9 * {"train": 3, "sampler": 2, "likelihood": 2}[part]
    return call, facts


def limits() -> str:
    """The rate of a product of two square matrices of 2,048 rows."""
    lines = [f"torch {torch.__version__}, {torch.get_num_threads()} threads"]
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(2048, 2048).to(dtype)
        seconds = []
        for _ in range(8):
            start = time.perf_counter()
            a @ a
            seconds.append(time.perf_counter() - start)
        lines.append(f"matrix product {str(dtype).removeprefix('torch.')}: {2 * 2.048**3 / min(seconds):.0f} GFLOP/s")
    return "; ".join(lines)


if __name__ == "__main__":
    assert __doc__ is not None
    common.main(build, VARIANTS, limits, __doc__)
