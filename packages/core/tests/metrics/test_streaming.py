"""Moments: streaming equals batch, merges are exact, and what cannot be summed up is refused."""

import numpy as np
import pytest

from score_core.metrics import MetricError, StreamingMoments, moments

RTOL = 1e-12


def rows(n: int = 500, dim: int = 7, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((n, dim)) @ generator.standard_normal((dim, dim)) + offset


def assert_same(state: StreamingMoments, data: np.ndarray) -> None:
    assert state.count == len(data)
    np.testing.assert_allclose(state.mean, data.mean(axis=0), rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(state.cov, np.cov(data.T), rtol=RTOL, atol=RTOL * np.abs(np.cov(data.T)).max())


def test_moments_are_the_mean_and_the_unbiased_covariance() -> None:
    data = rows()
    mean, cov = moments(data)
    np.testing.assert_allclose(mean, data.mean(axis=0), rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(cov, np.cov(data.T, ddof=1), rtol=RTOL, atol=RTOL)


@pytest.mark.parametrize("sizes", [[500], [1, 499], [1] * 500, [200, 1, 299], [64] * 7 + [52]])
def test_streaming_equals_batch_for_any_cut(sizes: list[int]) -> None:
    data = rows()
    state = StreamingMoments(7)
    for part in np.split(data, np.cumsum(sizes)[:-1]):
        state.update(part)
    assert_same(state, data)


def test_more_rows_than_one_block() -> None:
    data = rows(n=9000, dim=3)
    assert_same(StreamingMoments(3).update(data), data)


def test_merging_is_associative_and_commutative() -> None:
    parts = [rows(n, seed=n, offset=n / 50) for n in (3, 90, 400)]

    def state(k: int) -> StreamingMoments:
        return StreamingMoments(7).update(parts[k])

    left = state(0).merge(state(1)).merge(state(2))
    right = state(0).merge(state(1).merge(state(2)))
    reversed_order = state(2).merge(state(1)).merge(state(0))
    for merged in (left, right, reversed_order):
        assert_same(merged, np.concatenate(parts))


def test_merging_nothing_changes_nothing() -> None:
    state = StreamingMoments(7).update(rows())
    mean, cov = state.mean, state.cov
    state.merge(StreamingMoments(7))
    np.testing.assert_array_equal(state.mean, mean)
    np.testing.assert_array_equal(state.cov, cov)
    assert_same(StreamingMoments(7).merge(state), rows())


def test_a_large_mean_does_not_cost_digits() -> None:
    data = rows()
    state = StreamingMoments(7)
    for part in np.array_split(data + 1e6, 9):
        state.update(part)
    # Adding 1e6 rounds the data themselves to 1e-10; sums of squares would be off by 1e-3 here.
    np.testing.assert_allclose(state.cov, np.cov(data.T), rtol=1e-8, atol=1e-8)


def test_taking_a_part_out_leaves_the_rest() -> None:
    data = rows()
    part = StreamingMoments(7).update(data[:60])
    assert_same(StreamingMoments(7).update(data).without(part), data[60:])


def test_a_state_can_be_rebuilt_from_its_moments() -> None:
    data = rows()
    first = StreamingMoments(7).update(data[:300])
    again = StreamingMoments.from_moments(first.mean, first.cov, first.count)
    assert_same(again.update(data[300:]), data)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_accumulation_is_in_float64(dtype: type) -> None:
    data = rows(offset=100.0).astype(dtype)
    state = StreamingMoments(7).update(data)
    assert state.mean.dtype == state.cov.dtype == np.float64
    assert_same(state, data.astype(np.float64))


def test_a_refused_batch_leaves_the_state_alone() -> None:
    data = rows()
    state = StreamingMoments(7).update(data)
    bad = data.copy()
    bad[3, 2] = np.nan
    with pytest.raises(MetricError, match=r"1 of 3500 values .*first at index \[3, 2\]"):
        state.update(bad)
    assert_same(state, data)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: StreamingMoments(0), "at least 1"),
        (lambda: StreamingMoments(3).update(np.zeros((4, 2))), "2 columns, expected 3"),
        (lambda: StreamingMoments(3).merge(StreamingMoments(2)), "cannot merge 2 features into 3"),
        (lambda: StreamingMoments(3).without(StreamingMoments(3)), "cannot take"),
        (lambda: StreamingMoments(3).mean, "no activations seen"),
        (lambda: StreamingMoments(3).update(np.zeros((1, 3))).cov, "at least 2"),
        (lambda: StreamingMoments.from_moments(np.zeros(2), np.eye(2), 1), "at least 2 rows"),
        (lambda: moments(np.zeros((1, 3))), r"1 row\(s\), at least 2"),
        (lambda: moments(np.zeros(3)), r"shape \[3\]"),
        (lambda: moments(np.zeros((4, 3), np.uint8)), "dtype uint8"),
        (lambda: moments(np.full((4, 3), np.inf)), "12 of 12 values"),
        (lambda: moments(np.zeros((4, 0))), "0 columns"),
    ],
)
def test_what_has_no_moments_is_refused(action, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        action()


def test_a_feature_that_varies_only_in_the_part_keeps_no_negative_variance() -> None:
    data = np.random.default_rng(0).uniform(0, 1, (200, 60))
    data[20:] = data[20]  # constant behind the part
    rest = StreamingMoments(60).update(data).without(StreamingMoments(60).update(data[:20]))
    assert rest.cov.diagonal().min() >= 0
    np.testing.assert_allclose(rest.cov, 0, atol=1e-14)
