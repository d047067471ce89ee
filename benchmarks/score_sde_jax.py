"""Time and peak memory of training, sampling and likelihoods of NCSN++ in JAX, plain against shipped.

    python benchmarks/score_sde_jax.py [--networks tiny nf32 nf64] [--parts train sampler likelihood] [--calls 4]
        [--variants plain float32 bfloat16]

plain: operation by operation, without jit, float32 (the images are NHWC, Flax's layout, in every variant). float32,
bfloat16: what the package runs, compiled; bfloat16 computes in bfloat16 with float32 parameters and statistics.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import score_sde_common as common

VARIANTS = ("plain", "float32", "bfloat16")


def build(network: str, part: str, variant: str) -> tuple[Callable[[], Any], dict[str, Any]]:
    """See ``score_sde_common.Build``."""
    from score_core.correctors import get_corrector
    from score_core.jax import networks
    from score_core.jax.noise import PerSampleNoise
    from score_core.jax.sampling import get_pc_sampler
    from score_core.jax.training import Adam, create_state, get_loss_fn, get_train_call
    from score_core.likelihood import hutchinson, probability_flow_drift
    from score_core.parameterization import get_score_fn
    from score_core.predictors import get_predictor
    from score_core.sdes import VESDE

    options, size, batch = common.NETWORKS[network]
    model = networks.NCSNpp(**options, dtype=jnp.bfloat16 if variant == "bfloat16" else jnp.float32)
    shape = (size, size, 3)
    init = functools.partial(networks.init_params, model, image_shape=shape)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), jax.eval_shape(init, jax.random.key(0)))
    jit: Any = (lambda function: function) if variant == "plain" else jax.jit

    def apply_fn(params: Any, x: jax.Array, labels: jax.Array, dropout_key: Any = None) -> Any:
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        return model.apply({"params": params}, x, labels, train=dropout_key is not None, rngs=rngs)

    images = jax.random.randint(jax.random.key(1), (batch, *shape), 0, 256, jnp.int32).astype(jnp.uint8)
    x = images / jnp.float32(255)
    if part == "train":
        adam = Adam(beta1=0.9, eps=1e-8, warmup=5000, grad_clip=1.0, weight_decay=0.0)
        loss_fn = get_loss_fn(VESDE(), apply_fn, continuous=True, reduce_mean=True)
        call = get_train_call(loss_fn, adam, lambda images, key: images / jnp.float32(255))
        state = create_state(params, jax.random.PRNGKey(0), adam=adam, lr=2e-4, ema_rate=0.999)

        def run() -> Any:
            nonlocal state  # its buffers are donated
            state, loss = call(state, images[None])
            return loss

    elif part == "sampler":
        rules = (get_predictor("reverse_diffusion"), get_corrector("langevin"))
        sampler = jit(get_pc_sampler(VESDE(N=1), apply_fn, *rules, snr=0.16, eps=1e-5))
        noise = PerSampleNoise(jax.random.PRNGKey(1), jnp.arange(batch), shape)

        def run() -> Any:
            return sampler(params, noise).images

    else:
        probe = jax.random.rademacher(jax.random.key(2), x.shape, jnp.float32)

        @jit
        def likelihood(params: Any, x: jax.Array) -> Any:
            score_fn = get_score_fn(VESDE(), lambda x, labels: apply_fn(params, x, labels), True)
            drift = probability_flow_drift(VESDE(), score_fn)
            value, vjp = jax.vjp(lambda x: drift(x, jnp.full((batch,), 0.5)), x)
            return value, hutchinson(probe, vjp(probe)[0])

        def run() -> Any:
            return likelihood(params, x)

    def call_once() -> None:
        if variant == "plain" and part != "likelihood":
            with jax.disable_jit():
                jax.block_until_ready(run())
        else:
            jax.block_until_ready(run())

    return call_once, {}


def limits() -> str:
    """The rate of a product of two square matrices of 2,048 rows."""
    lines = [f"jax {jax.__version__}, {jax.default_backend()}"]
    for dtype in (jnp.float32, jnp.bfloat16):
        a = jax.random.normal(jax.random.key(0), (2048, 2048)).astype(dtype)
        product = jax.jit(jnp.matmul)
        product(a, a).block_until_ready()
        seconds = []
        for _ in range(8):
            start = time.perf_counter()
            product(a, a).block_until_ready()
            seconds.append(time.perf_counter() - start)
        lines.append(f"matrix product {dtype.__name__}: {2 * 2.048**3 / min(seconds):.0f} GFLOP/s")
    return "; ".join(lines)


if __name__ == "__main__":
    assert __doc__ is not None
    common.main(build, VARIANTS, limits, __doc__)
