"""The convolution with a plain input gradient is JAX's own, in value and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from score_core.jax.networks.convolution import convolve


@pytest.mark.parametrize("padding", ["SAME", "VALID", [(2, 0), (0, 1)]])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize("side", [6, 7])
def test_value_and_gradients_are_those_of_the_library(strides, padding, side):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, side, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)

    def library(x, kernel):
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def ours(x, kernel):
        return convolve(x, kernel, strides, padding)

    cotangent = jnp.asarray(rng.normal(size=library(x, kernel).shape), jnp.float32)

    def with_gradients(function):
        @jax.jit
        def compute(x, kernel):
            value, pull = jax.vjp(function, x, kernel)
            return value, pull(cotangent)

        return compute(x, kernel)

    for found, expected in zip(
        jax.tree.leaves(with_gradients(ours)), jax.tree.leaves(with_gradients(library)), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("option", [{"rhs_dilation": (2, 2)}, {"feature_group_count": 3}])
def test_what_it_cannot_do_is_refused(option):
    with pytest.raises(ValueError, match="neither dilation nor groups"):
        convolve(jnp.zeros((1, 4, 4, 3)), jnp.zeros((3, 3, 1, 3)), (1, 1), "SAME", **option)
