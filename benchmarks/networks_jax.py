"""Time and memory of the Flax networks, and of their pieces against the obvious ways to write them.

    python benchmarks/networks_jax.py [--only networks|pieces] [--model tiny|cifar10] [--batch-size 4] [--bfloat16]

networks: NCSN++ forward, and forward with the gradient of the parameters: seconds to compile, milliseconds a call (best
of several), temporary memory the compiler reserves, peak resident memory of the process so far.
pieces: milliseconds forward and of the gradient; the first row of each group is what the networks use.
"""

import argparse
import functools
import resource
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from score_core.jax import networks
from score_core.jax.networks import blocks, normalization, refine, resampling

NHWC = ("NHWC", "HWIO", "NHWC")
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "tiny": ({"nf": 16, "ch_mult": (1, 2), "num_res_blocks": 1, "attn_resolutions": (8,), "dropout": 0.0}, 16),
    "cifar10": ({"dropout": 0.0}, 32),
}
"""Options and image size; the defaults of NCSNpp are the published CIFAR-10 network."""


def best(function: Callable[..., Any], arguments: tuple[Any, ...], repeats: int) -> float:
    """Milliseconds of the fastest call; the first is not counted."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return 1e3 * min(seconds)


def network(name: str, batch_size: int, repeats: int, dtype: Any) -> None:
    """Print forward and forward-and-backward of one network."""
    options, size = MODELS[name]
    model = networks.NCSNpp(**options, dtype=dtype)
    init = functools.partial(networks.init_params, model, image_shape=(size, size, 3))
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), jax.eval_shape(init, jax.random.key(0)))
    x = jax.random.uniform(jax.random.key(0), (batch_size, size, size, 3))
    sigma = jnp.full((batch_size,), 0.5)

    def forward(params: Any, x: jax.Array, sigma: jax.Array) -> Any:
        return model.apply({"params": params}, x, sigma, train=False)

    def loss(params: Any, x: jax.Array, sigma: jax.Array) -> jax.Array:
        return jnp.square(forward(params, x, sigma)).mean()

    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    print(f"\nNCSN++ {name}: {count:,} parameters, {batch_size} x {size} x {size} x 3, {jnp.dtype(dtype).name}")
    for label, function in (("forward", forward), ("forward + backward", jax.value_and_grad(loss))):
        start = time.perf_counter()
        compiled = jax.jit(function).lower(params, x, sigma).compile()
        compile_seconds = time.perf_counter() - start
        milliseconds = best(compiled, (params, x, sigma), repeats)
        memory = compiled.memory_analysis()
        temporary = memory.temp_size_in_bytes / 2**20 if memory else float("nan")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(
            f"  {label:20} compile {compile_seconds:6.1f} s   {milliseconds:9.1f} ms   "
            f"temporary {temporary:7.1f} MiB   peak resident {peak:7.0f} MiB"
        )


def piece(group: str, label: str, function: Callable[..., jax.Array], arguments: tuple[Any, ...], repeats: int) -> None:
    """Print one row: forward and gradient with respect to all arguments."""
    cotangent = jax.random.normal(jax.random.key(2), jax.eval_shape(function, *arguments).shape)

    def gradient(cotangent: jax.Array, *arguments: jax.Array) -> Any:
        return jax.vjp(function, *arguments)[1](cotangent)

    forward_ms = best(jax.jit(function), arguments, repeats)
    gradient_ms = best(jax.jit(gradient), (cotangent, *arguments), repeats)
    print(f"  {group:18} {label:40} {forward_ms:9.2f} ms   gradient {gradient_ms:9.2f} ms")


def grouped(x: jax.Array, kernel: np.ndarray, up: int, down: int, pad: tuple[int, int]) -> jax.Array:
    """FIR resampling as one convolution with a group a channel."""
    weight = jnp.tile(jnp.asarray(kernel[::-1, ::-1, None, None]), (1, 1, 1, x.shape[-1]))
    pads = ((pad[0], pad[1] + up - 1),) * 2
    return lax.conv_general_dilated(
        x, weight, (down, down), pads, (up, up), dimension_numbers=NHWC, feature_group_count=x.shape[-1]
    )


def reshaped_group_norm(x: jax.Array, groups: int) -> jax.Array:
    """Group normalisation by a five-dimensional reshape."""
    h = x.reshape(*x.shape[:3], groups, -1)
    mean, square = h.mean((1, 2, 4), keepdims=True), jnp.square(h).mean((1, 2, 4), keepdims=True)
    return ((h - mean) * lax.rsqrt(square - jnp.square(mean) + 1e-6)).reshape(x.shape)


def library_attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The library's attention, one head."""
    flat = (q.shape[0], -1, 1, q.shape[-1])
    return jax.nn.dot_product_attention(q.reshape(flat), k.reshape(flat), v.reshape(flat)).reshape(q.shape)


def pieces(repeats: int) -> None:
    """Print every group."""
    x = jax.random.normal(jax.random.key(0), (8, 32, 32, 128))
    small = jax.random.normal(jax.random.key(1), (8, 16, 16, 256))
    w = jnp.ones((3, 3, 128, 128))
    kernel = resampling.fir_kernel_2d((1, 3, 3, 1))
    ones = jnp.ones((1, 1, 1, 128))
    rows: list[tuple[str, str, Callable[..., jax.Array], tuple[Any, ...]]] = [
        ("FIR up", "shifted copies", lambda x: resampling.upsample_2d(x, (1, 3, 3, 1)), (x,)),
        ("FIR up", "grouped convolution", lambda x: grouped(x, 4 * kernel, 2, 1, (2, 1)), (x,)),
        ("FIR down", "shifted copies", lambda x: resampling.downsample_2d(x, (1, 3, 3, 1)), (x,)),
        ("FIR down", "grouped convolution", lambda x: grouped(x, kernel, 1, 2, (1, 1)), (x,)),
        ("FIR up + conv", "phases as channels", lambda x, w: resampling.upsample_conv_2d(x, w, (1, 3, 3, 1)), (x, w)),
        (
            "FIR up + conv",
            "dilated input",
            lambda x, w: resampling.upfirdn_2d(
                lax.conv_general_dilated(x, w, (1, 1), ((2, 2), (2, 2)), (2, 2), dimension_numbers=NHWC),
                4 * kernel,
                pad=((1, 1), (1, 1)),
            ),
            (x, w),
        ),
        ("nearest", "broadcast", resampling.naive_upsample_2d, (x,)),
        ("nearest", "repeat", lambda x: x.repeat(2, axis=1).repeat(2, axis=2), (x,)),
        ("GroupNorm", "space first", lambda x, s: normalization._group_norm(x, s, 0 * s, 32, 1e-6), (x, ones)),
        ("GroupNorm", "reshaped", lambda x, s: reshaped_group_norm(x, 32) * s, (x, ones)),
        ("attention 16x16", "einsum", blocks.attend, (small, small, small)),
        ("attention 16x16", "library", library_attention, (small, small, small)),
        ("maximum pool 5x5", "shifted copies", refine.max_pool_5x5, (small,)),
        ("maximum pool 5x5", "window", lambda x: nn.max_pool(x, (5, 5), (1, 1), "SAME"), (small,)),
    ]
    print("\npieces, 8 x 32 x 32 x 128 (attention, pooling: 8 x 16 x 16 x 256), float32")
    for group, label, function, arguments in rows:
        piece(group, label, function, arguments, repeats)


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["networks", "pieces"])
    parser.add_argument("--model", choices=sorted(MODELS), action="append")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}, {jax.devices()[0].device_kind}")
    if options.only != "pieces":
        for name in options.model or ["tiny", "cifar10"]:
            network(name, options.batch_size, options.repeats, jnp.bfloat16 if options.bfloat16 else jnp.float32)
    if options.only != "networks":
        pieces(options.repeats)


if __name__ == "__main__":
    main()
