"""Random integers by address: a pure function of (seed, stream, counter), never of what was drawn before.

Philox4x64 is a keyed block function of a 256-bit counter. Here

    key = (seed mod 2^64, stream),   counter = (0, counter, 0, 0)

and element ``j`` of the answer is 64-bit word ``j`` that follows. Streams are independent, so the order of an epoch,
its flips and a train/test split can be recomputed anywhere in a run from integers alone. Only raw words are used: NumPy
promises their stability between releases, which it does not for ``permutation`` or ``random``.
"""

import enum

import numpy as np

__all__ = ["Stream", "permutation", "random_bits", "random_flags"]


class Stream(enum.IntEnum):
    """What the numbers are for. The values are part of the meaning of a seed: never renumber."""

    SPLIT = 0
    SHUFFLE = 1
    FLIP = 2


def random_bits(seed: int, stream: Stream, counter: int, n: int) -> np.ndarray:
    """``n`` independent uniform uint64 words of ``stream`` at ``counter``."""
    key = np.array([int(seed) % 2**64, int(stream)], np.uint64)
    block = np.array([0, counter, 0, 0], np.uint64)
    return np.random.Philox(key=key, counter=block).random_raw(n)


def permutation(seed: int, stream: Stream, counter: int, n: int) -> np.ndarray:
    """A uniform random order of 0..n-1, int64 [n]: the ranks of ``n`` random words."""
    # A stable sort, as the default one may order equal words differently on another processor.
    return np.argsort(random_bits(seed, stream, counter, n), kind="stable")


def random_flags(seed: int, stream: Stream, counter: int, n: int) -> np.ndarray:
    """``n`` fair coins, bool [n]: the top bit of each random word."""
    return random_bits(seed, stream, counter, n) >> np.uint64(63) == 1
