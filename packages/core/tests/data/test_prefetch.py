"""Prefetching changes when items are made, never which, and leaves no thread behind."""

import gc
import itertools
import threading
import time

import pytest

from score_core.data.prefetch import Prefetcher


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert not prefetch_threads()
    yield
    deadline = time.monotonic() + 10
    while prefetch_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not prefetch_threads()


@pytest.mark.parametrize("workers", [1, 3])
def test_items_come_in_order_whatever_their_duration(workers):
    def slow_when_even(k: int) -> int:
        time.sleep(0.005 * (k % 2 == 0))
        return k

    with Prefetcher(slow_when_even, 5, workers=workers) as items:
        assert list(itertools.islice(items, 20)) == list(range(5, 25))


def test_a_finite_range_ends_and_ends_its_threads_without_closing():
    items = Prefetcher(lambda k: k, 2, 6)
    assert list(items) == [2, 3, 4, 5]
    assert not prefetch_threads()
    assert next(items, "end") == "end"


def test_an_empty_range_is_empty():
    assert list(Prefetcher(lambda k: k, 3, 3)) == []


def test_no_more_than_depth_items_are_made_ahead():
    made = []
    with Prefetcher(lambda k: made.append(k) or k, depth=3) as items:
        next(items)
        time.sleep(0.1)
        assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_is_raised_in_the_consumer_at_its_item_and_ends_the_threads(workers):
    def fails_at_3(k: int) -> int:
        if k == 3:
            raise OSError("disk gone")
        return k

    items = Prefetcher(fails_at_3, workers=workers)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(items)
    assert not prefetch_threads()
    with pytest.raises(StopIteration):
        next(items)


def test_closing_early_ends_the_threads_and_the_iterator():
    items = Prefetcher(lambda k: k)
    assert next(items) == 0
    items.close()
    items.close()
    assert not prefetch_threads()
    with pytest.raises(StopIteration):
        next(items)


def test_closing_does_not_wait_for_items_that_nobody_began():
    begun, release = [], threading.Event()

    def wait(k: int) -> None:
        begun.append(k)
        release.wait(10)

    items = Prefetcher(wait, depth=8)
    while not begun:
        time.sleep(0.001)
    threading.Timer(0.05, release.set).start()
    items.close()
    assert begun == [0]


def test_leaving_the_with_block_by_an_exception_closes():
    with pytest.raises(KeyError), Prefetcher(lambda k: k) as items:
        raise KeyError(next(items))
    assert not prefetch_threads()


def test_forgetting_an_iterator_ends_its_threads():
    """The fixture proves it."""
    items = Prefetcher(lambda k: k)
    next(items)
    del items
    gc.collect()


def test_items_are_made_in_another_thread_while_the_consumer_works():
    with Prefetcher(lambda k: threading.current_thread().name) as items:
        assert next(items).startswith("prefetch")


@pytest.mark.parametrize("wrong", [{"depth": 0}, {"workers": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        Prefetcher(lambda k: k, **wrong)
