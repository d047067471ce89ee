"""Bytes to network input and back, in every library."""

import goldens
import numpy as np
import pytest

from score_core.data.images import to_uint8
from score_core.data.scalers import dequantize, get_data_inverse_scaler, get_data_scaler, to_float

BYTES = np.arange(256, dtype=np.uint8).reshape(4, 64)


def test_to_float_is_the_same_float32_in_every_library(framework):
    ours = framework.run(to_float, BYTES)
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(ours, BYTES * np.float32(1 / 255))
    np.testing.assert_allclose(ours, BYTES / 255, rtol=1e-7)


def test_bytes_survive_the_way_to_floats_and_back_despite_truncation():
    np.testing.assert_array_equal(to_uint8(to_float(BYTES)), BYTES)


@pytest.mark.parametrize(("centered", "low", "high"), [(True, -1.0, 1.0), (False, 0.0, 1.0)])
def test_scalers_map_the_range_and_are_inverse(framework, centered, low, high):
    x = np.linspace(0, 1, 11, dtype=np.float32)
    scaled = framework.run(get_data_scaler(centered), x)
    assert (scaled[0], scaled[-1]) == (low, high)
    np.testing.assert_allclose(framework.run(get_data_inverse_scaler(centered), scaled), x, atol=1e-7)


def test_dequantisation_fills_the_bin_of_its_grey_level(framework):
    u = np.random.default_rng(0).random(BYTES.shape, np.float32)
    values = framework.run(dequantize, to_float(BYTES), u)
    np.testing.assert_allclose(values, (BYTES + u.astype(np.float64)) / 256, rtol=2e-7)
    np.testing.assert_array_equal(np.floor(values[u < 0.99] * 256), BYTES[u < 0.99])
    assert values.min() >= 0 and values.max() < 1


def test_the_original_s_dequantised_range_is_within_ours():
    facts = goldens.load("core", "data_ops.json")["get_dataset/CIFAR10_deq"]
    assert dequantize(0.0, 0.0) <= facts["min"] < 1 / 256
    assert 255 / 256 < facts["max"] < dequantize(1.0, 1.0)
