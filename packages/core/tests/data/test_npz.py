"""numpy archives: which names count, what is refused and how it is said."""

import numpy as np
import pytest

from score_core.data import DataError, MissingDataError, load_source
from score_core.data.preprocess import resize_square
from score_core.data.source import split_indices

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture
def save(tmp_path):
    """Write arrays; gives a function to load them."""

    def write(**arrays):
        path = tmp_path / "data.npz"
        np.savez_compressed(path, **arrays)
        return lambda split="train", size=6, **options: load_source("npz", split, image_size=size, path=path, **options)

    return write


def everything(source):
    return source.fetch(np.arange(len(source)))


@pytest.mark.parametrize(("images", "labels"), [
    ("images", "labels"), ("samples", "labels"), ("arr_0", "arr_1"), ("x_train", "y_train"),
    ("train_images", "train_labels"), ("train", "train_labels"),
])  # fmt: skip
def test_one_array_is_divided_by_the_written_seed(save, images, labels):
    load = save(**{images: IMAGES, labels: LABELS})
    for split in ("train", "test"):
        chosen = split_indices(20, split)
        found, numbers = everything(load(split))
        np.testing.assert_array_equal(found, IMAGES[chosen])
        np.testing.assert_array_equal(numbers, LABELS[chosen])
    assert load().num_classes == 4


@pytest.mark.parametrize(("images", "labels"), [("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}", "{}_labels")])
def test_two_arrays_are_the_split(save, images, labels):
    parts = {"train": (IMAGES[:15], LABELS[:15]), "test": (IMAGES[15:], LABELS[15:])}
    arrays = {images.format(split): part[0] for split, part in parts.items()}
    load = save(**arrays, **{labels.format(split): part[1] for split, part in parts.items()})
    for split, part in parts.items():
        np.testing.assert_array_equal(everything(load(split))[0], part[0])
        np.testing.assert_array_equal(everything(load(split))[1], part[1])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels_is_served_at_any_size(save, channels):
    images = np.random.default_rng(1).integers(0, 256, (5, 10, 8, channels), dtype=np.uint8)
    source = save(images=images)(size=4)
    assert source.shape == (4, 4, channels) and source.num_classes is None
    found, labels = everything(source)
    np.testing.assert_array_equal(found, resize_square(images[split_indices(5, "train")], 4))
    assert labels is None


def test_grey_images_need_no_channel_axis_and_labels_may_be_a_column(save):
    source = save(images=IMAGES[..., 0], labels=LABELS[:, None].astype(np.uint8))()
    assert source.shape == (6, 6, 1)
    np.testing.assert_array_equal(everything(source)[1], LABELS[split_indices(20, "train")])


def test_classes_are_counted_over_both_splits_of_one_array(save):
    labels = np.zeros(20, int)
    labels[split_indices(20, "test")[0]] = 9
    load = save(images=IMAGES, labels=labels)
    assert load("train").num_classes == load("test").num_classes == 10


@pytest.mark.parametrize(("values", "found"), [
    (IMAGES / 255, r"float64 from 0\.0 to 1\.0"), (IMAGES.astype(np.float32), "float32 from 0.0 to 255.0"),
    (IMAGES.astype(np.int64), "int64 from 0 to 255"), (IMAGES > 3, "bool"),
])  # fmt: skip
def test_values_that_are_not_bytes_are_refused_and_the_scale_explained(save, values, found):
    with pytest.raises(DataError, match=rf"'images' of .*data\.npz holds {found}.*scale of other numbers") as error:
        save(images=values)()
    assert "scale 255 and shift 0 for values in [0, 1]" in str(error.value)


def test_the_cure_of_the_message_works(save):
    x = IMAGES / 127.5 - 1
    load = save(images=np.clip(np.rint(127.5 * x + 127.5), 0, 255).astype(np.uint8))
    np.testing.assert_array_equal(everything(load())[0], IMAGES[split_indices(20, "train")])


@pytest.mark.parametrize(("arrays", "message"), [
    ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"looks like \[n, C, H, W\].*images.transpose\(0, 2, 3, 1\)"),
    ({"images": IMAGES[0, 0]}, r"has shape \(6, 3\); expected \[n, H, W, C\]"),
    ({"images": IMAGES[:0]}, "no images in its train split"),
    ({"images": IMAGES, "labels": LABELS[:3]}, r"'labels' of .* holds int64 \(3,\); expected 20 whole numbers"),
    ({"images": IMAGES, "labels": LABELS - 1}, "expected 20 whole numbers from 0"),
    ({"images": IMAGES, "labels": np.eye(20)}, r"holds float64 \(20, 20\)"),
    ({"pictures": IMAGES}, "holds pictures; expected the images under one of images, samples, arr_0, or x_train"),
    ({"images": np.array([{}], object)}, "cannot be read .*allow_pickle"),
])  # fmt: skip
def test_what_cannot_be_used_is_said_with_the_cure(save, arrays, message):
    with pytest.raises(DataError, match=message):
        save(**arrays)()


def test_a_wrong_number_of_channels_is_said_at_once(save):
    with pytest.raises(DataError, match=r"2 channels .* num_channels=3"):
        save(images=IMAGES[..., :2])(num_channels=3)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"hello", lambda b: b[:300] + b"x" * 99 + b[399:]]
)
def test_a_damaged_file_is_named(save, tmp_path, damage):
    load = save(images=IMAGES)
    path = tmp_path / "data.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"data\.npz cannot be read .*Cure"):
        load()


def test_a_single_array_file_is_not_an_archive(tmp_path):
    with open(tmp_path / "data.npz", "wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(DataError, match=r"is not an npz archive. Cure: save the images with numpy\.savez"):
        load_source("npz", "train", image_size=6, path=tmp_path / "data.npz")


@pytest.mark.parametrize("path", [None, "absent.npz"])
def test_a_missing_file_says_what_to_put_where(path, tmp_path):
    with pytest.raises(MissingDataError, match=r"npz file .*digits"):
        load_source("npz", "train", image_size=6, path=path and tmp_path / path)


def test_fingerprints_follow_images_labels_and_size(save):
    prints = [
        save(**arrays)(size=size).fingerprint
        for arrays, size in (
            ({"images": IMAGES}, 6),
            ({"images": IMAGES}, 5),
            ({"images": IMAGES ^ 1}, 6),
            ({"images": IMAGES, "labels": LABELS}, 6),
        )
    ]
    assert len(set(prints)) == 4
    assert save(samples=IMAGES)().fingerprint == prints[0]
