"""Flat names and strict restoring."""

import goldens
import jax
import ml_dtypes
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.tree import flatten, restore_tree, sort_names, unflatten


def golden_tree():
    path = goldens.path("score_sde", "checkpoint_real/checkpoint_1")
    return msgpack_format.loads(path.read_bytes())


def test_flatten_and_unflatten_are_inverse_with_empty_groups_and_order():
    tree = {"b": {"z": 1, "a": {"c": 2}}, "empty": {}, "a": {"inner": {}}}
    flat = flatten(tree)
    assert list(flat.items()) == [("b/z", 1), ("b/a/c", 2), ("empty", {}), ("a/inner", {})]
    assert unflatten(flat) == tree
    assert list(unflatten(flat)) == list(tree)
    assert flatten({}) == {} == unflatten({})
    assert unflatten(flatten(golden_tree())).keys() == golden_tree().keys()


@pytest.mark.parametrize("tree", [{"a/b": 1}, {"": 1}, {"a": {3: 1}}])
def test_keys_that_would_be_ambiguous_have_no_flat_name(tree):
    with pytest.raises(ValueError, match="cannot be part of a flat name"):
        flatten(tree)


@pytest.mark.parametrize("flat", [{"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}, {"a/b": 1, "a/b/c/d": 2}])
def test_names_inside_other_names_collide(flat):
    with pytest.raises(ValueError, match="collides"):
        unflatten(flat)


def test_names_are_sorted_as_text_on_every_level():
    tree = {"c_2": 1, "c_10": {"b": 1, "B": 2}, "c_1": 3}
    assert list(flatten(sort_names(tree))) == ["c_1", "c_10/B", "c_10/b", "c_2"]


def test_a_checkpoint_restores_into_shapes_alone_in_the_targets_order():
    loaded = golden_tree()
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), loaded)
    target = dict(reversed(target.items()))
    restored = restore_tree(target, loaded)
    assert list(restored) == list(target)
    for name, leaf in flatten(restored).items():
        np.testing.assert_array_equal(leaf, flatten(loaded)[name])


def test_normalisation_parameters_fold_both_ways():
    values = np.arange(8, dtype=np.float32)
    for stored, wanted in [((1, 1, 1, 8), (8,)), ((8,), (1, 1, 1, 8))]:
        restored = restore_tree({"scale": np.zeros(wanted, np.float32)}, {"scale": values.reshape(stored)})
        assert restored["scale"].shape == wanted
        np.testing.assert_array_equal(restored["scale"].ravel(), values)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [((1, 1, 8), (8,)), ((8, 1, 1, 1), (8,)), ((1, 1, 1, 8), (4,)), ((2, 4), (8,)), ((1,), ()), ((1, 1, 1, 8), (8, 1))],
)
def test_no_other_shape_is_folded(stored, wanted):
    with pytest.raises(CheckpointError, match="1 of another shape: a "):
        restore_tree({"a": np.zeros(wanted, np.float32)}, {"a": np.zeros(stored, np.float32)})


def test_one_error_counts_and_names_everything_that_does_not_fit():
    target = {
        "params": {f"conv_{index}": {"kernel": np.zeros((3, 3))} for index in range(8)},
        "step": np.array(0, np.int32),
        "gone": {"deep": {"leaf": np.zeros(1)}, "other": np.zeros(1)},
        "group": {"x": np.zeros(1)},
        "leaf": np.zeros(1),
        "emptied": {},
    }
    loaded = {
        "params": {f"conv_{index}": {"kernel": np.zeros((5, 5))} for index in range(8)},
        "step": np.array(0.5, np.float32),
        "extra": {"one": np.zeros(1)},
        "group": np.zeros(1),
        "leaf": {"x": np.zeros(1)},
        "emptied": {"y": np.zeros(1)},
    }
    with pytest.raises(CheckpointError) as caught:
        restore_tree(target, loaded, where="runs/checkpoint_4")
    message = str(caught.value)
    assert message.startswith("runs/checkpoint_4 does not fit: ")
    assert "2 missing from it: gone/deep/leaf, gone/other;" in message
    assert "2 unknown to the target: emptied/y, extra/one;" in message
    assert "8 of another shape: params/conv_0/kernel (5, 5), expected (3, 3)" in message
    assert "params/conv_4/kernel" in message
    assert "params/conv_5/kernel" not in message
    assert "... (3 more)" in message
    assert "step (float32, expected int32)" in message
    assert "group (float64, expected a group of names)" in message
    assert "leaf (a group of names, expected float64)" in message
    assert "configuration it was made with" in message


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (np.array([0.1, 1e-3]), np.float32),
        (np.array([0.1], np.float32), np.float64),
        (np.array([0.1], np.float32), ml_dtypes.bfloat16),
        (np.array([0.1], ml_dtypes.bfloat16), np.float32),
        (np.array([1, 2**31 - 1], np.int64), np.int32),
        (np.array([5], np.int32), np.uint8),
        (np.array([0, 1], np.int8), np.bool_),
        (np.array([True]), np.int32),
        (np.array([3], np.int32), np.float32),
        (np.array([1], np.complex128), np.complex64),
    ],
)
def test_types_that_may_be_cast(stored, wanted):
    restored = restore_tree({"a": np.zeros(stored.shape, wanted)}, {"a": stored})["a"]
    assert restored.dtype == wanted
    np.testing.assert_array_equal(restored, stored.astype(wanted))


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (np.array([1.0]), np.int32),
        (np.array([2**31], np.int64), np.int32),
        (np.array([-1], np.int64), np.uint32),
        (np.array([2**63], np.uint64), np.int64),
        (np.array([2], np.int32), np.bool_),
        (np.array([2**24 + 1], np.int32), np.float32),
        (np.array([70000], np.int32), np.float16),
        (np.array([257], np.int32), ml_dtypes.bfloat16),
        (np.array([1j]), np.float32),
        (np.array([1.0], np.float32), np.complex64),
    ],
)
def test_types_that_would_lose_values_are_refused(stored, wanted):
    with pytest.raises(CheckpointError, match="1 of another type: a "):
        restore_tree({"a": np.zeros(stored.shape, wanted)}, {"a": stored})


def test_plain_numbers_and_zero_dimensional_arrays_stand_for_each_other():
    target = {"id": 0, "rate": 0.0, "on": False, "step": np.zeros((), np.int32), "name": "", "none": None}
    loaded = {"id": np.array(3, np.int32), "rate": np.float32(0.5), "on": np.array(True), "step": 7, "name": "x"}
    restored = restore_tree(target, {**loaded, "none": None})
    assert restored == {"id": 3, "rate": 0.5, "on": True, "step": 7, "name": "x", "none": None}
    assert [type(restored[key]) for key in ("id", "rate", "on")] == [int, float, bool]
    assert restored["step"].dtype == np.int32


@pytest.mark.parametrize(
    ("wanted", "value"), [(0, "3"), ("", 3), (0, None), (np.zeros(1), [0.0]), (np.zeros(()), "x"), (0, 0.5), (None, 1)]
)
def test_text_none_and_lists_are_not_numbers(wanted, value):
    with pytest.raises(CheckpointError, match="1 of another type"):
        restore_tree({"a": wanted}, {"a": value})
