"""What holds for every source, and the table of names."""

import numpy as np
import pytest

from score_core.data import SOURCES, DataError, MissingDataError, load_source
from score_core.data.source import ArraySource, fingerprint, split_indices


@pytest.mark.parametrize("n", [0, 1, 2, 3, 14, 15, 1797, 10_000])
def test_the_written_split_is_disjoint_complete_and_a_tenth(n):
    train, test = split_indices(n, "train"), split_indices(n, "test")
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
    assert len(test) == (max(1, round(n / 10)) if n > 1 else 0)
    np.testing.assert_array_equal(train, np.sort(train))


def test_the_written_split_is_pinned():
    """A change here moves images between training and testing: never update these numbers."""
    assert split_indices(30, "test").tolist() == [3, 4, 28]


def test_fingerprints_tell_content_type_shape_and_order_apart():
    a = np.arange(6, dtype=np.uint8)
    parts = [(a,), (a + 1,), (a.astype(np.int16),), (a.reshape(2, 3),), (a, "x"), ("x", a), ("x",), (["x"],), (None,)]
    assert len({fingerprint(*p) for p in parts}) == len(parts)
    assert fingerprint(a[::2]) == fingerprint(a[::2].copy())


def test_fetch_gives_new_arrays_in_the_order_asked_for(make_source):
    source = make_source(9)
    images, labels = source.fetch(np.array([7, 2, 7]))
    np.testing.assert_array_equal(images[0], images[2])
    assert labels.tolist() == [0, 2, 0]
    images[...] = 0
    assert source.fetch(np.array([7]))[0].any()


def test_resizing_happens_only_where_it_is_needed(make_request):
    def forbidden(images, size):
        raise AssertionError("resized without need")

    images = np.zeros((2, 4, 4, 1), np.uint8)
    settings = {"num_classes": None, "num_channels": 1, "resize": forbidden, "recipe": ""}
    ArraySource(make_request(image_size=4), images, None, **settings).fetch(np.arange(2))
    with pytest.raises(AssertionError, match="without need"):
        ArraySource(make_request(image_size=5), images, None, **settings).fetch(np.arange(2))


def test_names_are_found_in_any_case():
    assert load_source("DIGITS", "train", image_size=8).name == "digits"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DataError, match="unknown dataset 'cifar9'") as error:
        load_source("cifar9", "train", image_size=32)
    assert all(name in str(error.value) for name in SOURCES)
    assert error.value.exit_code == 2 and not isinstance(error.value, MissingDataError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "eval", "image_size": 8}, "unknown split 'eval' of dataset 'digits'; expected one of train, test"),
        ({"split": "train", "image_size": 0}, "at least 1, found image_size=0, num_channels=None"),
        ({"split": "train", "image_size": 8, "num_channels": 0}, "at least 1, found image_size=8, num_channels=0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        load_source("digits", **arguments)
