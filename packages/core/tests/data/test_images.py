"""Sample files: bytes, grids, PNG."""

import numpy as np
import pytest
from PIL import Image

from score_core.data.images import image_grid, save_png, to_uint8


def test_arrays_are_truncated_and_grids_are_rounded():
    """Specification 1.2.11: the two differ for values just below a grey level."""
    x = np.array([-0.2, 0.0, 0.5 / 255, 99.6 / 255, 1.0, 1.7])
    np.testing.assert_array_equal(to_uint8(x), [0, 0, 0, 99, 255, 255])
    grid = image_grid(np.repeat(x.reshape(1, 1, 6, 1), 3, axis=-1), padding=0)
    np.testing.assert_array_equal(grid[0, :, 0], [0, 0, 1, 100, 255, 255])


def test_not_a_number_becomes_black():
    with np.errstate(invalid="raise"):
        assert to_uint8(np.array([np.nan, np.inf, -np.inf])).tolist() == [0, 255, 0]


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (4, 2, 2), (7, 2, 4), (9, 3, 3), (128, 11, 12)])
def test_grid_has_int_sqrt_n_columns(n, columns, rows):
    grid = image_grid(np.ones((n, 3, 5, 3)))
    assert grid.shape == ((3 + 2) * rows + 2, (5 + 2) * columns + 2, 3)
    assert grid.dtype == np.uint8
    assert (grid == 255).sum() == n * 3 * 5 * 3


def test_images_stand_row_by_row_two_black_pixels_apart():
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((5, 2, 3, 3), np.uint8)
    grid = image_grid(images, nrow=3)
    expected = np.zeros((2 * 4 + 2, 3 * 5 + 2, 3), np.uint8)
    for k in range(5):
        top, left = 2 + 4 * (k // 3), 2 + 5 * (k % 3)
        expected[top : top + 2, left : left + 3] = k + 1
    np.testing.assert_array_equal(grid, expected)


def test_any_number_of_channels_can_be_shown():
    images = np.random.default_rng(0).integers(1, 256, (1, 2, 2, 5), dtype=np.uint8)
    inside = slice(2, 4), slice(2, 4)
    np.testing.assert_array_equal(image_grid(images[..., :1])[inside], np.repeat(images[0, ..., :1], 3, axis=-1))
    np.testing.assert_array_equal(image_grid(images)[inside], images[0, ..., :3])
    two = image_grid(images[..., :2])[inside]
    np.testing.assert_array_equal(two[..., :2], images[0, ..., :2])
    assert not two[..., 2].any()


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4, 3)])
def test_what_is_not_a_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=r"shape \[n, H, W, C\]"):
        image_grid(np.zeros(shape))


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_bytes_and_leaves_nothing_else(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (6, 7, channels), dtype=np.uint8)
    save_png(tmp_path / "sample.png", image)
    with Image.open(tmp_path / "sample.png") as png:
        np.testing.assert_array_equal(np.asarray(png).reshape(image.shape), image)
    assert [file.name for file in tmp_path.iterdir()] == ["sample.png"]


def test_a_png_that_cannot_be_written_leaves_the_old_one(tmp_path):
    save_png(tmp_path / "sample.png", np.full((2, 2, 3), 9, np.uint8))
    with pytest.raises(TypeError):
        save_png(tmp_path / "sample.png", np.zeros((2, 2, 7), np.uint8))
    with Image.open(tmp_path / "sample.png") as png:
        assert np.asarray(png).min() == 9
    assert len(list(tmp_path.iterdir())) == 1
