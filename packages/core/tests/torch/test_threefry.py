"""The random numbers of the PyTorch wing are JAX's, number for number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from score_core.jax import noise as jax_noise
from score_core.random import Role
from score_core.torch import noise, threefry

SEED = 2**32 - 3
KEY, JAX_KEY = threefry.prng_key(SEED), jax.random.PRNGKey(SEED)
SHAPE = (5, 3, 4, 6)  # [B, C, H, W]
COUNT = threefry.counters(SHAPE, channels_last=True)


def last(x):
    """Channels last, as JAX's arrays."""
    return x.movedim(-3, -1).numpy()


def words(x):
    return x.numpy().view(np.uint32)


@pytest.mark.parametrize("seed", [0, 42, 2**31, 2**32 - 1, 2**40 + 5])
def test_keys(seed):
    key, expected = threefry.prng_key(seed), jax.random.PRNGKey(seed)
    np.testing.assert_array_equal(words(key), expected)
    np.testing.assert_array_equal(words(threefry.split(key, 3)), jax.random.split(expected, 3))
    np.testing.assert_array_equal(words(threefry.fold_in(key, 2**31 - 1)), jax.random.fold_in(expected, 2**31 - 1))


def test_bits_uniforms_and_integers_are_equal():
    shape = (5, 4, 6, 3)
    np.testing.assert_array_equal(
        last(threefry.random_bits(KEY, COUNT)).view(np.uint32), jax.random.bits(JAX_KEY, shape)
    )
    np.testing.assert_array_equal(last(threefry.uniform(KEY, COUNT)), jax.random.uniform(JAX_KEY, shape))
    for high in (2, 50, 1000, 2**16):
        drawn = threefry.randint(KEY, threefry.counters((300,)), high)
        np.testing.assert_array_equal(drawn, jax.random.choice(JAX_KEY, high, (300,)))


def test_normals_are_equal_to_their_rounding():
    """Half a million, so that the tails are met: one unit in the last place at 4.9 is 4.8e-7."""
    drawn = threefry.normal(KEY, threefry.counters((2**19,))).numpy()
    expected = np.asarray(jax.random.normal(JAX_KEY, (2**19,)))
    assert np.abs(expected).max() > 4.6
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=1e-6)


def test_any_part_of_an_array_can_be_drawn_by_itself():
    whole = threefry.uniform(KEY, COUNT)
    part = threefry.uniform(KEY, threefry.counters((2, 3, 4, 6), first=3 * 72, channels_last=True))
    np.testing.assert_array_equal(part, whole[3:])
    np.testing.assert_array_equal(noise.uniform_like(whole[3:], KEY, first=3), whole[3:])
    with pytest.raises(ValueError, match="2\\*\\*31"):
        threefry.counters((2**16, 2**16))


def test_per_sample_streams_are_those_of_the_jax_wing():
    indices = np.array([7, 0, 2**20])
    ours = noise.PerSampleNoise(KEY, torch.tensor(indices), (3, 4, 6))
    theirs = jax_noise.PerSampleNoise(JAX_KEY, jnp.asarray(indices), (4, 6, 3))

    def draw(source):
        drawn = source.prior(), source.corrector((), 999, 2), source.predictor((), 17), source.measurement((), 3)
        return [noise for _, noise in drawn]

    for a, b in zip(draw(ours), jax.jit(draw)(theirs), strict=True):
        np.testing.assert_allclose(last(a), b, rtol=0, atol=1e-6)
    drawn = noise.uniform_per_sample(KEY, torch.tensor(indices), Role.DEQUANTIZATION, (3, 4, 6))
    expected = jax.jit(jax_noise.uniform_per_sample, static_argnums=(2, 3))(
        JAX_KEY, jnp.asarray(indices), Role.DEQUANTIZATION, (4, 6, 3)
    )
    np.testing.assert_array_equal(last(drawn), expected)
    jax_probe = jax.jit(jax_noise.probe, static_argnums=(2, 3))
    for kind in ("Rademacher", "gaussian"):
        for some in (None, indices):
            drawn = noise.probe(KEY, None if some is None else torch.tensor(some), (3, 3, 4, 6), kind)
            expected = jax_probe(JAX_KEY, None if some is None else jnp.asarray(some), (3, 4, 6, 3), kind)
            np.testing.assert_allclose(last(drawn), expected, rtol=0, atol=1e-6)


def test_probes_of_a_generator_and_of_another_kind():
    generator = torch.Generator().manual_seed(0)
    draws = noise.probe(generator, None, (50, 3), "Rademacher")
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    gaussian = noise.probe(torch.Generator().manual_seed(1), None, (2, 3), "Gaussian")
    np.testing.assert_array_equal(gaussian, torch.randn(2, 3, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="Rademacher"):
        noise.probe(generator, None, (2, 2), "uniform")
