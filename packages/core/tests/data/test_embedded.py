"""The data inside the scikit-learn package: content, split, speed."""

import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_images

from score_core.data import DataError, load_source
from score_core.data.source import split_indices
from score_core.data.sources import embedded


def everything(source):
    return source.fetch(np.arange(len(source)))


def test_digits_are_scikit_learn_s_divided_by_the_written_seed():
    digits = load_digits()
    for split, size in (("train", 1617), ("test", 180)):
        source = load_source("digits", split, image_size=8)
        images, labels = everything(source)
        chosen = split_indices(1797, split)
        assert len(source) == len(chosen) == size
        np.testing.assert_array_equal(images[..., 0], np.rint(digits.images[chosen] * 255 / 16))
        np.testing.assert_array_equal(labels, digits.target[chosen])
        assert len(np.unique(images)) == 17


@pytest.mark.parametrize("size", [8, 12, 28, 32, 64])
def test_digits_have_any_size_from_8(size):
    source = load_source("Digits", "train", image_size=size)
    images, labels = source.fetch(np.arange(40))
    assert (source.shape, source.num_classes, source.name) == ((size, size, 1), 10, "digits")
    assert images.shape == (40, size, size, 1) and images.dtype == np.uint8 and labels.dtype == np.int64
    small, _ = load_source("digits", "train", image_size=8).fetch(np.arange(40))
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), small.mean(axis=(1, 2, 3)), atol=6)
    assert images.max() == 255


def test_enlarged_digits_are_smooth():
    """Nearest-neighbour enlargement would jump by up to 255 every fourth pixel and stand still between."""
    images, _ = load_source("digits", "train", image_size=32).fetch(np.arange(200))
    steps = np.abs(np.diff(images[..., 0].astype(int), axis=2))
    assert steps.max() < 160
    assert (steps[steps.sum(axis=2) > 0] > 0).mean() > 0.4


def test_photos_have_the_documented_grid():
    train, test = (load_source("photos", split, image_size=32) for split in ("train", "test"))
    assert (len(train), len(test), train.shape, train.num_classes) == (2508, 1292, (32, 32, 3), 2)
    images, labels = everything(train)
    assert images.shape == (2508, 32, 32, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(labels), [1254, 1254])
    np.testing.assert_array_equal(images[0, :, 2:], images[1, :, :-2])  # the stride is 2, columns first
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(images)


@pytest.mark.parametrize("size", [8, 16, 32, 64, 96, 128, 256])
def test_photos_have_several_sizes(size):
    for split in ("train", "test"):
        source = load_source("photos", split, image_size=size)
        images, labels = source.fetch(np.array([len(source) - 1, 0]))
        assert images.shape == (2, size, size, 3) and images.flags.writeable
        assert labels.tolist() == [1, 0]


def test_crops_are_cut_from_the_photographs_left_for_training_right_for_testing():
    """At 128 nothing is shrunk, so the crops can be found in the photographs: columns 0..383 and 384..639."""
    china, flower = load_sample_images().images
    for split, left in (("train", 0), ("test", 384)):
        source = load_source("photos", split, image_size=128)
        images, _ = source.fetch(np.array([0, len(source) - 1]))
        np.testing.assert_array_equal(images[0], china[:128, left : left + 128])
        right = 384 if split == "train" else 640
        bottom = 128 + (427 - 128) // 4 * 4
        np.testing.assert_array_equal(images[1], flower[bottom - 128 : bottom, right - 128 : right])


@pytest.mark.parametrize("size", [32, 64])
def test_no_test_pixel_touches_a_training_crop(monkeypatch, size):
    """Painting the test columns black leaves every training crop as it was, and the reverse."""
    import PIL.Image

    before = {split: everything(load_source("photos", split, image_size=size))[0] for split in ("train", "test")}
    open_file = PIL.Image.open

    def paint(columns: tuple[int, int]) -> None:
        def open_painted(path):
            image = open_file(path).convert("RGB")
            image.paste((0, 0, 0), (columns[0], 0, columns[1], image.height))
            return image

        monkeypatch.setattr(PIL.Image, "open", open_painted)

    for split, other, columns in (("train", "test", (384, 640)), ("test", "train", (0, 384))):
        paint(columns)
        np.testing.assert_array_equal(everything(load_source("photos", split, image_size=size))[0], before[split])
        assert not everything(load_source("photos", other, image_size=size))[0].any()


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_train_and_test_share_no_image_and_no_fingerprint(name):
    train, test = (load_source(name, split, image_size=32) for split in ("train", "test"))
    images = [{image.tobytes() for image in everything(source)[0]} for source in (train, test)]
    assert not images[0] & images[1]
    assert train.fingerprint != test.fingerprint


@pytest.mark.parametrize(("name", "own", "other"), [("digits", 1, 3), ("photos", 3, 1)])
def test_embedded_data_come_in_grey_and_colour(name, own, other):
    first, second = (load_source(name, "train", image_size=16, num_channels=c) for c in (None, other))
    assert (first.shape[2], second.shape[2]) == (own, other)
    colour, _ = max(first, second, key=lambda s: s.shape[2]).fetch(np.arange(5))
    grey, _ = min(first, second, key=lambda s: s.shape[2]).fetch(np.arange(5))
    luma = colour @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey[..., 0], luma, atol=1)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_fingerprints_are_reproducible_and_tell_sizes_apart(name):
    prints = [load_source(name, "train", image_size=size).fingerprint for size in (16, 16, 24)]
    assert prints[0] == prints[1] != prints[2]
    assert len(prints[0]) == 64


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("digits", {"image_size": 7}, "any size of at least 8, found image_size=7"),
        ("photos", {"image_size": 4}, "any size from 8 to 256, found image_size=4"),
        ("photos", {"image_size": 257}, "any size from 8 to 256, found image_size=257"),
        ("digits", {"image_size": 8, "num_channels": 2}, "1 or 3 channels, found num_channels=2"),
    ],
)
def test_what_cannot_be_served_is_refused(name, wrong, message):
    with pytest.raises(DataError, match=message):
        load_source(name, "train", **wrong)


def test_a_missing_scikit_learn_is_said(monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"Cure: install scikit-learn"):
        load_source("digits", "train", image_size=8)


def test_embedded_data_are_there_in_less_than_a_second_without_importing_scikit_learn():
    """The best of three, so that another process on the machine does not fail it."""

    def measure(name: str) -> float:
        begin = time.perf_counter()
        load_source(name, "train", image_size=32).fetch(np.arange(64))
        return time.perf_counter() - begin

    for name in ("digits", "photos"):
        assert min(measure(name) for _ in range(3)) < 1.0
    program = (
        "import sys; from score_core.data import load_source\n"
        "assert not {'PIL', 'sklearn', 'tqdm', 'scipy', 'urllib.request', 'jax', 'torch'} & set(sys.modules)\n"
        "load_source('digits', 'train', image_size=32), load_source('photos', 'test', image_size=32)\n"
        "assert not {'sklearn', 'scipy', 'jax', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
