"""The stream of batches is a function of (seed, step): nothing else may change it."""

import dataclasses
import itertools
import threading

import numpy as np
import pytest

from score_core.data.errors import DataError
from score_core.data.pipeline import Batch, Pipeline


def assert_same(a: Batch, b: Batch) -> None:
    for field in dataclasses.fields(Batch):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def join(parts: list[Batch]) -> Batch:
    return Batch(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in dataclasses.fields(Batch))
    )


def take(pipeline: Pipeline, start: int, count: int, **options) -> list[Batch]:
    with pipeline.batches(start, **options) as batches:
        return list(itertools.islice(batches, count))


SETTINGS = [
    {"shuffle": shuffle, "random_flip": flip, "drop_remainder": drop}
    for shuffle in (True, False)
    for flip in (True, False)
    for drop in (True, False)
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_two_pipelines_with_one_seed_agree(make_source, settings):
    one, two = (Pipeline(make_source(37), 8, seed=3, **settings) for _ in range(2))
    for a, b in zip(take(one, 0, 12), take(two, 0, 12), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("start", [1, 4, 5, 23])
def test_a_resumed_stream_equals_the_uninterrupted_one(make_source, settings, start):
    whole = take(Pipeline(make_source(37), 8, seed=3, **settings), 0, 30)
    resumed = take(Pipeline(make_source(37), 8, seed=3, **settings), start, 30 - start)
    for a, b in zip(whole[start:], resumed, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("processes", [2, 4])
def test_the_parts_of_all_processes_are_the_batch_of_one(make_source, settings, processes):
    source = make_source(37)
    whole = Pipeline(source, 8, seed=3, **settings)
    parts = [
        Pipeline(source, 8, seed=3, process_index=p, process_count=processes, **settings) for p in range(processes)
    ]
    for step in range(12):
        assert_same(whole.batch(step), join([part.batch(step) for part in parts]))
    for batches in zip(whole.epoch(), *(part.epoch() for part in parts), strict=True):
        assert_same(batches[0], join(list(batches[1:])))


def test_threads_and_depth_do_not_change_the_stream(make_source):
    pipeline = Pipeline(make_source(37), 8, seed=3, random_flip=True)
    for a, b in zip(take(pipeline, 2, 20), take(pipeline, 2, 20, depth=7, workers=3), strict=True):
        assert_same(a, b)


def test_seeds_and_epochs_give_other_orders(make_source):
    source = make_source(64)
    orders = [Pipeline(source, 64, seed=seed).batch(epoch).index for seed in range(3) for epoch in range(3)]
    assert len({tuple(order) for order in orders}) == 9


def test_images_and_labels_belong_to_their_index(make_source):
    source = make_source(37)
    images, labels = source.fetch(np.arange(37))
    batch = Pipeline(source, 8, seed=0).batch(2)
    np.testing.assert_array_equal(batch.image, images[batch.index])
    np.testing.assert_array_equal(batch.label, labels[batch.index])
    assert (batch.image.dtype, batch.label.dtype, batch.index.dtype) == (np.uint8, np.int64, np.int64)
    assert batch.valid.all()


def test_a_source_without_labels_gives_none(make_source):
    pipeline = Pipeline(make_source(9, labels=False), 4, seed=0)
    assert pipeline.batch(0).label is None
    assert [batch.label for batch in pipeline.epoch()] == [None] * 3


def test_drop_remainder_leaves_out_the_end_of_every_epoch(make_source):
    pipeline = Pipeline(make_source(37), 8, seed=1)
    assert pipeline.steps_per_epoch == 4
    left_out = set()
    for epoch in range(40):
        items = np.concatenate([pipeline.batch(4 * epoch + k).index for k in range(4)])
        assert len(set(items.tolist())) == 32
        left_out |= set(range(37)) - set(items.tolist())
    assert left_out == set(range(37)), "the items left out must change"


@pytest.mark.parametrize("batch_size", [8, 37, 100])
def test_without_drop_remainder_batches_run_on_and_every_epoch_is_complete(make_source, batch_size):
    pipeline = Pipeline(make_source(37), batch_size, seed=1, drop_remainder=False)
    assert pipeline.steps_per_epoch == -(-37 // batch_size)
    stream = np.concatenate([pipeline.batch(step).index for step in range(-(-37 * 6 // batch_size))])
    for epoch in range(6):
        assert sorted(stream[37 * epoch : 37 * (epoch + 1)]) == list(range(37))


def test_without_shuffling_items_come_in_order(make_source):
    pipeline = Pipeline(make_source(10), 4, seed=1, shuffle=False, drop_remainder=False)
    np.testing.assert_array_equal(np.concatenate([pipeline.batch(k).index for k in range(5)]), np.arange(20) % 10)


def test_flips_mirror_columns_and_nothing_else(make_source):
    source = make_source(64)
    plain = Pipeline(source, 64, seed=5).batch(0)
    flipped = Pipeline(source, 64, seed=5, random_flip=True).batch(0)
    np.testing.assert_array_equal(plain.index, flipped.index)
    mirrored = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(flipped.image, plain.image, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(flipped.image, plain.image, strict=True)])
    np.testing.assert_array_equal(mirrored, ~same)
    assert mirrored.any() and same.any()


def flips(source, pipeline: Pipeline, step: int) -> dict[int, bool]:
    batch = pipeline.batch(step)
    images, _ = source.fetch(batch.index)
    changed = (batch.image != images).any(axis=(1, 2, 3))
    return dict(zip(batch.index.tolist(), changed.tolist(), strict=True))


def test_a_flip_depends_on_seed_epoch_and_item_but_not_on_the_batch_size(make_source):
    source = make_source(48)
    whole = flips(source, Pipeline(source, 48, seed=5, random_flip=True), 1)
    small = Pipeline(source, 6, seed=5, random_flip=True)
    parts = {key: value for step in range(8, 16) for key, value in flips(source, small, step).items()}
    assert parts == whole
    assert flips(source, Pipeline(source, 48, seed=5, random_flip=True, shuffle=False), 1) == whole
    assert flips(source, Pipeline(source, 48, seed=5, random_flip=True), 2) != whole
    assert flips(source, Pipeline(source, 48, seed=6, random_flip=True), 1) != whole


def test_flips_are_fair_for_the_stream_and_for_every_item(make_source):
    source = make_source(50)
    pipeline = Pipeline(source, 50, seed=0, random_flip=True)
    table = np.array([[item[1] for item in sorted(flips(source, pipeline, k).items())] for k in range(400)])
    assert abs(table.mean() - 0.5) < 4 * 0.5 / np.sqrt(table.size)
    assert np.abs(table.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(400)


@pytest.mark.parametrize("n", [1, 16, 37])
@pytest.mark.parametrize("processes", [1, 4])
def test_an_epoch_has_every_item_once_and_full_batches(make_source, n, processes):
    source = make_source(n)
    images, labels = source.fetch(np.arange(n))
    seen = []
    for p in range(processes):
        pipeline = Pipeline(source, 8, seed=0, random_flip=True, process_index=p, process_count=processes)
        batches = list(pipeline.epoch())
        assert len(batches) == -(-n // 8)
        for batch in batches:
            assert len(batch.image) == len(batch.label) == len(batch.valid) == 8 // processes
            np.testing.assert_array_equal(batch.image, images[batch.index])
            np.testing.assert_array_equal(batch.label, labels[batch.index])
            seen += batch.index[batch.valid].tolist()
    assert sorted(seen) == list(range(n))


def test_an_epoch_is_in_order_and_can_be_resumed(make_source):
    pipeline = Pipeline(make_source(37), 8, seed=0, shuffle=True)
    whole = list(pipeline.epoch())
    np.testing.assert_array_equal(join(whole).index[:37], np.arange(37))
    assert join(whole).valid.sum() == 37
    for a, b in zip(whole[3:], pipeline.epoch(3), strict=True):
        assert_same(a, b)


def test_a_failing_source_fails_the_consumer(make_source):
    source = make_source(16)

    def broken(indices):
        raise DataError("image 'x.png' cannot be decoded")

    source.fetch = broken
    with pytest.raises(DataError, match=r"x\.png"), Pipeline(source, 4, seed=0).batches() as batches:
        next(batches)
    with pytest.raises(DataError, match=r"x\.png"):
        list(Pipeline(source, 4, seed=0).epoch())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_a_batch_larger_than_the_data_is_an_error_for_training_only(make_source):
    pipeline = Pipeline(make_source(5), 8, seed=0)
    with pytest.raises(DataError, match=r"batch_size=8 exceeds the 5 images of 'memory' .* drop_remainder=False"):
        pipeline.batch(0)
    assert pipeline.steps_per_epoch == 0
    assert [batch.valid.sum() for batch in pipeline.epoch()] == [5]


@pytest.mark.parametrize("batch_size", [0, 6, -4])
def test_a_batch_that_cannot_be_divided_is_refused(make_source, batch_size):
    with pytest.raises(DataError, match=f"batch_size={batch_size} cannot be divided over 4"):
        Pipeline(make_source(37), batch_size, seed=0, process_count=4)


def test_impossible_positions_are_refused(make_source):
    with pytest.raises(ValueError, match=r"process_index must be in 0\.\.1, found 2"):
        Pipeline(make_source(8), 4, seed=0, process_index=2, process_count=2)
    with pytest.raises(ValueError, match="step must not be negative"):
        Pipeline(make_source(8), 4, seed=0).batch(-1)


def test_batches_are_the_consumer_s_to_change(make_source):
    pipeline = Pipeline(make_source(16), 8, seed=0)
    first = pipeline.batch(0)
    kept = first.image.copy()
    first.image[...] = 0
    np.testing.assert_array_equal(pipeline.batch(0).image, kept)
