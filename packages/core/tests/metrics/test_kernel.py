"""Kernel distance: golden numbers, blocks, unbiasedness against closed forms."""

import math

import goldens
import numpy as np
import pytest

from score_core.metrics import MetricError, kernel_distance

GOLDEN = [(case, key) for case in ("c0", "c1", "c2", "c3") for key in ("kid", "kid_block64")]
# Here three kernel means between 2 and 23 cancel to 0.01 and 0.04: the golden float32 number itself is only good to
# some 4e-5 (a float32 replay differs from it by as much), see the second test.
CANCELLING = [("c0", "kid_block64"), ("c2", "kid")]


def golden(case: str, key: str) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Both sets, the distance found here and TF-GAN's."""
    arrays, numbers = goldens.load("core", "metrics.npz"), goldens.load("core", "metrics.json")
    reference, samples = arrays[f"{case}/data_pool"], arrays[f"{case}/sample_pool"]
    found, _ = kernel_distance(reference, samples, 64 if key == "kid_block64" else 1024)
    return reference, samples, found, numbers[case][key]


@pytest.mark.parametrize(("case", "key"), [pair for pair in GOLDEN if pair not in CANCELLING])
def test_golden_kernel_distance(case: str, key: str) -> None:
    _, _, found, expected = golden(case, key)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("case", "key"), GOLDEN)
def test_golden_kernel_distance_to_one_float32_rounding_of_its_terms(case: str, key: str) -> None:
    reference, samples, found, expected = golden(case, key)

    def mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.mean((x.astype(np.float64) @ y.T / x.shape[1] + 1) ** 3))

    terms = mean_kernel(reference, reference) + mean_kernel(samples, samples) + 2 * mean_kernel(reference, samples)
    assert abs(found - expected) < 2**-24 * terms


def definition(r: np.ndarray, g: np.ndarray) -> float:
    """The unbiased squared discrepancy, by loops."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    def within(s: np.ndarray) -> float:
        pairs = [k(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j]
        return sum(pairs) / len(pairs)

    return within(r) + within(g) - 2 * float(np.mean([k(x, y) for x in r for y in g]))


def test_one_block_is_the_definition_and_has_no_error() -> None:
    r, g = np.random.default_rng(0).standard_normal((2, 14, 3))
    found, error = kernel_distance(r, g[:9])
    assert found == pytest.approx(definition(r, g[:9]), rel=1e-12)
    assert math.isnan(error)


def test_blocks_are_consecutive_with_the_larger_ones_last() -> None:
    generator = np.random.default_rng(1)
    r, g = generator.standard_normal((22, 3)), generator.standard_normal((17, 3))
    # ceil(22 / 8) = 3 blocks: 22 = 7 + 7 + 8, 17 = 5 + 6 + 6
    parts = [definition(r[:7], g[:5]), definition(r[7:14], g[5:11]), definition(r[14:], g[11:])]
    found, error = kernel_distance(r, g, max_block_size=8)
    assert found == pytest.approx(np.mean(parts), rel=1e-12)
    assert error == pytest.approx(np.std(parts, ddof=1) / math.sqrt(3), rel=1e-10)


def test_symmetric_in_its_arguments() -> None:
    r, g = np.random.default_rng(2).standard_normal((2, 40, 5))
    assert kernel_distance(r, g + 1)[0] == pytest.approx(kernel_distance(g + 1, r)[0], rel=1e-12)


def test_an_orthogonal_transform_of_both_sides_changes_nothing() -> None:
    r, g = np.random.default_rng(3).standard_normal((2, 40, 5))
    rotation = np.linalg.qr(np.random.default_rng(4).standard_normal((5, 5)))[0]
    turned = kernel_distance(r @ rotation, (g + 1) @ rotation)[0]
    assert turned == pytest.approx(kernel_distance(r, g + 1)[0], rel=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_unbiased(shift: float) -> None:
    """Mean over 2000 independent pairs of sets against the closed form, within 4.5 standard errors (7 in 10^6).

    In one dimension k = 1 + 3xy + 3x^2 y^2 + x^3 y^3, so the discrepancy of N(0, 1) and N(s, 1) is that of their first
    three moments, 3 s^2 + 3 (s^2)^2 + (s^3 + 3s)^2; zero for s = 0. The biased estimate (diagonals left in, n = 20)
    lies more than 50 standard errors away.
    """
    generator = np.random.default_rng(5)
    found = [
        kernel_distance(generator.standard_normal((20, 1)), shift + generator.standard_normal((20, 1)))[0]
        for _ in range(2000)
    ]
    expected = 3 * shift**2 + 3 * shift**4 + (shift**3 + 3 * shift) ** 2
    assert abs(np.mean(found) - expected) < 4.5 * np.std(found, ddof=1) / math.sqrt(len(found))


def test_standard_error_is_the_spread_of_independent_sets() -> None:
    """Root mean square of 200 errors against the spread of the 200 distances, within 25 % (spread known to 5 %)."""
    generator = np.random.default_rng(6)
    pairs = [
        kernel_distance(generator.standard_normal((200, 4)), 0.5 + generator.standard_normal((200, 4)), 20)
        for _ in range(200)
    ]
    distances, errors = np.transpose(pairs)
    ratio = np.sqrt(np.mean(errors**2)) / np.std(distances, ddof=1)
    assert 0.75 < ratio < 1.25


@pytest.mark.parametrize(
    ("reference", "samples", "size", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), 1024, "3 columns, expected 2"),
        (np.zeros((1, 2)), np.zeros((9, 2)), 1024, "1 row"),
        (np.zeros((9, 2)), np.full((9, 2), np.inf), 1024, "sample activations: 18 of 18"),
        (np.zeros((9, 2), np.uint8), np.zeros((9, 2)), 1024, "dtype uint8"),
        (np.zeros((100, 2)), np.zeros((9, 2)), 10, "100 reference and 9 sample rows in blocks of at most 10"),
        (np.zeros((9, 2)), np.zeros((9, 2)), 1, "max_block_size 1"),
    ],
)
def test_what_has_no_distance_is_refused(reference: np.ndarray, samples: np.ndarray, size: int, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        kernel_distance(reference, samples, size)
