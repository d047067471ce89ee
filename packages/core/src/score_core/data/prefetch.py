"""Prepare the next batches in the background while the device works on this one.

``make(k)`` is random access, so a prefetcher is a short queue of futures for ``k, k+1, ..``, delivered in order
whatever the number of workers. Nothing is remembered between items: the position of the consumer is one integer.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Prefetcher"]

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterator over ``make(start), make(start + 1), ..``, prepared by threads; ``stop`` is exclusive, None endless.

    At most ``depth`` items wait. An exception of ``make(k)`` is raised by the ``next`` that would have returned item
    ``k``, and ends the iterator. A context manager; :meth:`close` ends the threads, as do exhaustion and garbage
    collection.
    """

    def __init__(
        self, make: Callable[[int], T], start: int = 0, stop: int | None = None, *, depth: int = 4, workers: int = 1
    ) -> None:
        if depth < 1 or workers < 1:
            raise ValueError(f"depth and workers must be at least 1, found depth={depth}, workers={workers}")
        self._make = make
        self._next = start
        self._stop = stop
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
        self._queue: deque[Future[T]] = deque()
        for _ in range(depth):
            self._submit()

    def _submit(self) -> None:
        if self._stop is None or self._next < self._stop:
            self._queue.append(self._executor.submit(self._make, self._next))
            self._next += 1

    def __iter__(self) -> "Prefetcher[T]":
        return self

    def __next__(self) -> T:
        if not self._queue:
            self.close()
            raise StopIteration
        future = self._queue.popleft()
        try:
            item = future.result()
            self._submit()
        except BaseException:
            self.close()
            raise
        return item

    def close(self) -> None:
        """Drop what is waiting and end the threads; a second call does nothing."""
        self._queue.clear()
        self._stop = self._next
        self._executor.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
