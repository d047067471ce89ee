"""The parameter fill rule, checked against values computed by hand from its definition."""

import zlib

import goldens
import numpy as np


def draw(name, shape):
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(size=shape)


def test_matrices_are_scaled_by_their_smaller_size():
    value = goldens.fill("Dense_0/kernel", (4, 6))
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, draw("Dense_0/kernel", (4, 6)) / np.sqrt(24 / 6), rtol=1e-6)


def test_vectors_named_scale_are_centred_at_one_and_others_at_zero():
    np.testing.assert_allclose(goldens.fill("a/scale", (5,)), 1 + 0.1 * draw("a/scale", (5,)), rtol=1e-6)
    np.testing.assert_allclose(goldens.fill("a/bias", (5,)), 0.1 * draw("a/bias", (5,)), rtol=1e-6)
    np.testing.assert_allclose(goldens.fill("m.0.weight", (5,)), 1 + 0.1 * draw("m.0.weight", (5,)), rtol=1e-6)


def test_flatten_and_unflatten_are_inverse():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert goldens.flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert goldens.unflatten(goldens.flatten(tree)) == tree
