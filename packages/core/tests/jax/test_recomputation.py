"""``remat`` of NCSN++: the same parameters, numbers and gradients, also differentiated forwards, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from residuals import kept_bytes

from score_core.jax.networks.ncsnpp import NCSNpp

KEYS = {"params": jax.random.PRNGKey(0), "dropout": jax.random.PRNGKey(1)}


@pytest.mark.parametrize("block", ["ddpm", "biggan"])
def test_blocks_that_recompute_themselves_change_nothing_but_memory(block):
    plain = NCSNpp(nf=16, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), resblock_type=block, init_scale=1.0)
    recomputing = plain.clone(remat=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    labels = jnp.asarray([1.0, 2.0])
    params = plain.init(KEYS, x, labels)
    jax.tree.map(np.testing.assert_array_equal, params, recomputing.init(KEYS, x, labels))

    def loss_of(network):
        def loss(params):
            def score(x):
                return network.apply(params, x, labels, True, rngs={"dropout": KEYS["dropout"]})

            value, slope = jax.jvp(score, (x,), (jnp.ones_like(x),))  # as the second order of score matching has it
            return (value**2).sum() + (slope**2).sum()

        return loss

    losses = loss_of(plain), loss_of(recomputing)
    (value, gradient), (value_again, gradient_again) = (jax.jit(jax.value_and_grad(loss))(params) for loss in losses)
    np.testing.assert_allclose(value_again, value, rtol=1e-6)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))  # some are nothing but rounding
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_again), strict=True):
        # Rounding differs by 1e-6 of the largest, with the compiler's settings; another dropout mask by 0.3 of it.
        np.testing.assert_allclose(other, one, rtol=0, atol=5e-6 * largest)
    kept, needed = (kept_bytes(loss, params) for loss in losses)
    assert needed < 0.5 * kept
