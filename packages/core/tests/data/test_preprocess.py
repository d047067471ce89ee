"""Image operations give the originals' numbers, and an independent library's."""

import goldens
import numpy as np
import pytest
from PIL import Image

from score_core.data.errors import DataError
from score_core.data.preprocess import (
    central_crop,
    crop_resize,
    crop_square,
    resize,
    resize_bytes,
    resize_small,
    resize_square,
    to_channels,
)
from score_core.data.scalers import to_float

GOLDEN = goldens.load("core", "data_ops.npz")
PICTURES = ("smooth", "noise")


@pytest.mark.parametrize("picture", PICTURES)
def test_crop_resize_gives_the_original_bytes(picture):
    np.testing.assert_array_equal(crop_resize(GOLDEN[picture], 16), GOLDEN[f"crop_resize16/{picture}"])


@pytest.mark.parametrize("size", [12, 64])
@pytest.mark.parametrize("picture", PICTURES)
def test_bilinear_resize_gives_the_original_floats(picture, size):
    ours = resize(to_float(GOLDEN[picture]), size, size)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, GOLDEN[f"cifar_resize{size}/{picture}"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("picture", PICTURES)
def test_resize_small_gives_the_intended_size_and_floats(picture):
    np.testing.assert_allclose(
        resize_small(to_float(GOLDEN[picture]), 16), GOLDEN[f"shrink16_intended/{picture}"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("picture", PICTURES)
def test_central_crop_gives_the_original_pixels(picture):
    np.testing.assert_array_equal(central_crop(to_float(GOLDEN[picture]), 20), GOLDEN[f"central_crop20/{picture}"])


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 7), (19, 23), (40, 9), (128, 61), (1, 1), (2, 200)])
def test_resize_agrees_with_pillow_in_floating_point(method, size):
    """Pillow uses the same kernels and pixel centres with double precision weights."""
    plane = np.random.default_rng(0).uniform(0, 255, (31, 44)).astype(np.float32)
    theirs = Image.fromarray(plane).resize(size[::-1], Image.Resampling[method.upper()])
    np.testing.assert_allclose(resize(plane[..., None], *size, method)[..., 0], np.asarray(theirs), rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_resize_keeps_a_constant_image_and_an_image_of_the_right_size(method):
    flat = np.full((9, 13, 2), 200.0)
    np.testing.assert_allclose(resize(flat, 5, 30, method), np.full((5, 30, 2), 200.0), rtol=1e-6)
    rough = np.random.default_rng(1).normal(size=(4, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize(rough, 4, 6, method), rough)


def test_an_image_in_a_batch_is_resized_as_it_is_alone():
    batch = np.random.default_rng(2).integers(0, 256, (5, 9, 9, 3), dtype=np.uint8)
    together = resize(batch, 16, 16, "bicubic")
    for i in range(5):
        np.testing.assert_array_equal(together[i], resize(batch[i], 16, 16, "bicubic"))


def test_crop_resize_truncates_and_clips_where_resize_square_rounds():
    edge = np.zeros((8, 8, 1), np.uint8)
    edge[:, 4:] = 255
    exact = resize(edge, 16, 16, "bicubic")
    assert exact.min() < 0 and exact.max() > 255
    np.testing.assert_array_equal(crop_resize(edge, 16), np.floor(np.clip(exact, 0, 255)))
    np.testing.assert_array_equal(resize_square(edge, 16), np.rint(np.clip(exact, 0, 255)))


def test_resize_bytes_rounds_the_bilinear_resize():
    picture = GOLDEN["noise"]
    expected = np.rint(GOLDEN["cifar_resize12/noise"].astype(np.float64) * 255)
    np.testing.assert_array_equal(resize_bytes(picture, 12), expected)


def test_crop_offsets_are_rounded_down():
    image = np.arange(5 * 8).reshape(5, 8, 1)
    np.testing.assert_array_equal(central_crop(image, 2), image[1:3, 3:5])
    np.testing.assert_array_equal(crop_square(image), image[:, 1:6])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(DataError, match="cannot crop 9x9 from an image of 5x8"):
        central_crop(np.zeros((5, 8, 1)), 9)


def test_colour_becomes_pillow_s_grey_and_grey_is_repeated():
    colour = np.random.default_rng(3).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    grey = to_channels(colour, 1)
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(colour).convert("L")))
    np.testing.assert_array_equal(to_channels(grey, 3), np.concatenate([grey] * 3, axis=-1))
    assert to_channels(colour, 3) is colour


def test_other_changes_of_channels_are_refused_with_the_cure():
    with pytest.raises(
        DataError, match=r"5 channels .* num_channels=3; expected 5. Cure: --config.data.num_channels=5"
    ):
        to_channels(np.zeros((2, 4, 4, 5), np.uint8), 3)
