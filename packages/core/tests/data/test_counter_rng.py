"""The numbers behind every order and flip are a function of their address, and stay what they are."""

import numpy as np

from score_core.data.counter_rng import Stream, permutation, random_bits, random_flags


def test_words_are_pinned():
    """A change here changes every run and every split: never update these numbers."""
    words = random_bits(42, Stream.SHUFFLE, 7, 3).tolist()
    assert words == [5362162366488802786, 17564202600962369041, 7247185697740115986]
    assert permutation(20201126, Stream.SPLIT, 0, 8).tolist() == [3, 4, 2, 7, 1, 0, 6, 5]


def test_a_shorter_answer_is_the_start_of_a_longer_one():
    np.testing.assert_array_equal(random_bits(1, Stream.FLIP, 3, 5), random_bits(1, Stream.FLIP, 3, 11)[:5])


def test_every_part_of_the_address_matters():
    base = random_bits(1, Stream.SHUFFLE, 3, 8)
    for seed, stream, counter in ((2, 1, 3), (1, 2, 3), (1, 1, 4)):
        assert not np.intersect1d(base, random_bits(seed, Stream(stream), counter, 8)).size


def test_neighbouring_counters_do_not_overlap():
    words = np.concatenate([random_bits(5, Stream.FLIP, counter, 1000) for counter in range(20)])
    assert len(np.unique(words)) == 20_000


def test_any_integer_is_a_seed():
    for seed in (-1, 2**70 + 3, np.int64(5), np.int32(-5)):
        assert random_bits(seed, Stream.FLIP, 0, 2).shape == (2,)
    np.testing.assert_array_equal(random_bits(-1, Stream.FLIP, 0, 2), random_bits(2**64 - 1, Stream.FLIP, 0, 2))


def test_permutations_are_permutations_and_uniform():
    orders = np.stack([permutation(0, Stream.SHUFFLE, epoch, 6) for epoch in range(3000)])
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(6), orders.shape))
    counts = np.stack([(orders == item).sum(axis=0) for item in range(6)])
    assert np.abs(counts - 500).max() < 5 * np.sqrt(3000 * 5 / 36)


def test_flags_are_fair_and_independent_of_the_neighbour():
    flags = random_flags(3, Stream.FLIP, 0, 40_000)
    assert abs(flags.mean() - 0.5) < 4 * 0.5 / 200
    assert abs((flags[1:] == flags[:-1]).mean() - 0.5) < 4 * 0.5 / 200
