"""Frechet distance: golden numbers, closed forms, invariances, scipy, and its standard error."""

import goldens
import numpy as np
import pytest

from score_core.metrics import (
    FrechetReference,
    MetricError,
    frechet_distance,
    frechet_distance_from_activations,
    frechet_standard_error,
    moments,
)

CASES = ["c0", "c1", "c2", "c3"]


def covariance(dim: int, seed: int, rank: int | None = None) -> np.ndarray:
    factor = np.random.default_rng(seed).standard_normal((dim, rank or 2 * dim))
    return factor @ factor.T / factor.shape[1]


@pytest.mark.parametrize("case", CASES)
def test_golden_fid_in_float64(case: str) -> None:
    arrays, numbers = goldens.load("core", "metrics.npz"), goldens.load("core", "metrics.json")
    reference, samples = arrays[f"{case}/data_pool"], arrays[f"{case}/sample_pool"]
    fid = frechet_distance_from_activations(reference.astype(np.float64), samples.astype(np.float64))
    assert fid == pytest.approx(numbers[case]["fid64"], rel=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_golden_fid_of_float32_activations(case: str) -> None:
    arrays, numbers = goldens.load("core", "metrics.npz"), goldens.load("core", "metrics.json")
    fid = frechet_distance_from_activations(arrays[f"{case}/data_pool"], arrays[f"{case}/sample_pool"])
    assert np.float32(fid) == pytest.approx(numbers[case]["fid"], rel=1.2e-7)  # theirs is rounded to float32


def test_closed_form_for_diagonal_gaussians() -> None:
    generator = np.random.default_rng(0)
    mean_1, mean_2 = generator.standard_normal((2, 9))
    std_1, std_2 = generator.uniform(0.1, 3, (2, 9))
    expected = np.sum((mean_1 - mean_2) ** 2) + np.sum((std_1 - std_2) ** 2)
    found = frechet_distance(mean_1, np.diag(std_1**2), mean_2, np.diag(std_2**2))
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_shift_costs_its_squared_length() -> None:
    data = np.random.default_rng(1).standard_normal((300, 12))
    shift = np.linspace(-1, 2, 12)
    assert frechet_distance_from_activations(data, data + shift) == pytest.approx(shift @ shift, rel=1e-12)


@pytest.mark.parametrize("rank", [None, 5])
def test_equal_gaussians_have_distance_zero(rank: int | None) -> None:
    cov = covariance(12, 2, rank)
    assert abs(frechet_distance(np.ones(12), cov, np.ones(12), cov)) < 1e-12 * np.trace(cov)


@pytest.mark.parametrize("rank", [None, 5])
def test_an_orthogonal_transform_of_both_sides_changes_nothing(rank: int | None) -> None:
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((12, 12)))[0]
    mean_1, mean_2 = np.random.default_rng(4).standard_normal((2, 12))
    cov_1, cov_2 = covariance(12, 5, rank), covariance(12, 6, rank)
    turned = (rotation @ mean_1, rotation @ cov_1 @ rotation.T, rotation @ mean_2, rotation @ cov_2 @ rotation.T)
    assert frechet_distance(*turned) == pytest.approx(frechet_distance(mean_1, cov_1, mean_2, cov_2), rel=1e-10)


def test_symmetric_in_its_arguments_and_quadratic_in_scale() -> None:
    one, two = moments(np.random.default_rng(7).gamma(2.0, size=(80, 6))), moments(covariance(6, 8, 40)[:, :6])
    distance = frechet_distance(*one, *two)
    assert frechet_distance(*two, *one) == pytest.approx(distance, rel=1e-12)
    scaled = frechet_distance(3 * one[0], 9 * one[1], 3 * two[0], 9 * two[1])
    assert scaled == pytest.approx(9 * distance, rel=1e-12)


@pytest.mark.parametrize("dim", [5, 64])
def test_agrees_with_the_square_root_of_the_product(dim: int) -> None:
    from scipy.linalg import sqrtm

    cov_1, cov_2 = covariance(dim, 9), covariance(dim, 10)
    mean_1, mean_2 = np.random.default_rng(11).standard_normal((2, dim))
    root = np.real(sqrtm(cov_1 @ cov_2))
    expected = np.sum((mean_1 - mean_2) ** 2) + np.trace(cov_1 + cov_2 - 2 * root)
    assert frechet_distance(mean_1, cov_1, mean_2, cov_2) == pytest.approx(expected, rel=1e-6)


def test_singular_covariances_match_the_nuclear_norm() -> None:
    """Tr (C_1 C_2)^(1/2) is the nuclear norm of X_1 X_2^T / sqrt((n_1 - 1)(n_2 - 1)) for centred rows X."""
    x_1, x_2 = (np.random.default_rng(seed).standard_normal((n, 40)) for seed, n in ((12, 15), (13, 11)))
    x_1, x_2 = x_1 - x_1.mean(axis=0), x_2 - x_2.mean(axis=0)
    nuclear = np.linalg.svd(x_1 @ x_2.T, compute_uv=False).sum() / np.sqrt(14 * 10)
    expected = np.sum(x_1**2) / 14 + np.sum(x_2**2) / 10 - 2 * nuclear
    assert frechet_distance_from_activations(x_1, x_2) == pytest.approx(expected, rel=1e-12)


def test_gaussians_in_separate_subspaces() -> None:
    one, two = np.diag([1.0, 2.0, 0.0, 0.0]), np.diag([0.0, 0.0, 3.0, 4.0])
    assert frechet_distance(np.zeros(4), one, np.zeros(4), two) == pytest.approx(10, rel=1e-12)


def test_torch_and_jax_arrays_are_taken() -> None:
    import jax.numpy as jnp
    import torch

    data = np.random.default_rng(14).standard_normal((2, 30, 4)).astype(np.float32)
    expected = frechet_distance_from_activations(*data)
    assert frechet_distance_from_activations(*(torch.from_numpy(d) for d in data)) == expected
    assert frechet_distance_from_activations(*(jnp.asarray(d) for d in data)) == expected


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), "2 reference features, 3 sample"),
        (lambda: frechet_distance(np.zeros(2), np.eye(3), np.zeros(2), np.eye(2)), r"shapes \[2\] and \[3, 3\]"),
        (lambda: frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.eye(2) * np.nan), "sample moments.*NaN"),
        (lambda: frechet_distance(np.zeros(2), np.array([[1.0, 2], [0, 1]]), np.zeros(2), np.eye(2)), "not symmetric"),
        (lambda: frechet_distance(np.zeros(2), -np.eye(2), np.zeros(2), np.eye(2)), "negative variance"),
        (lambda: frechet_distance(np.zeros(2), np.eye(2, dtype=int), np.zeros(2), np.eye(2)), "dtype int64"),
        (
            lambda: frechet_distance(np.zeros(2), np.array([[1.0, 2], [2, 1]]), np.zeros(2), np.eye(2)),
            "reference moments: found the eigenvalue -1",
        ),
        (
            lambda: frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.array([[1.0, 2], [2, 1]])),
            "sample moments: found the eigenvalue -1",
        ),
        (lambda: frechet_distance_from_activations(np.zeros((3, 2)), np.zeros((3, 4))), "4 columns, expected 2"),
        (lambda: frechet_distance_from_activations(np.zeros((1, 2)), np.zeros((3, 2))), "reference activations: 1 row"),
        (
            lambda: frechet_standard_error(FrechetReference(np.zeros(2), np.eye(2)), np.zeros((20, 2))),
            "20 samples in 10 groups",
        ),
    ],
)
def test_what_is_no_pair_of_gaussians_is_refused(action, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        action()


def test_covariances_stored_in_float32_are_taken() -> None:
    data = np.random.default_rng(15).standard_normal((20, 60))
    mean, cov = moments(data)
    stored = mean.astype(np.float32), cov.astype(np.float32)
    assert abs(frechet_distance(*stored, mean, cov)) < 1e-4 * np.trace(cov)


def test_standard_error_is_the_spread_of_independent_sample_sets() -> None:
    """Over 200 sets of 400 samples: the root mean square of the estimates against the spread of the distance itself.

    The spread of 200 values is known to 5 %; the band of 20 % is four times that (one false alarm in 10^4).
    """
    generator = np.random.default_rng(16)
    reference = FrechetReference(np.full(6, 0.3), covariance(6, 17))
    distances, errors = [], []
    for _ in range(200):
        samples = generator.standard_normal((400, 6))
        distances.append(reference.distance(*moments(samples)))
        errors.append(frechet_standard_error(reference, samples))
    ratio = np.sqrt(np.mean(np.square(errors))) / np.std(distances, ddof=1)
    assert 0.8 < ratio < 1.2


def test_standard_error_repeats_and_follows_its_formula() -> None:
    samples = np.random.default_rng(18).standard_normal((50, 3))
    reference = FrechetReference(np.zeros(3), np.eye(3))
    found = frechet_standard_error(reference, samples, groups=5, seed=3)
    assert found == frechet_standard_error(reference, samples, groups=5, seed=3)
    assert found != frechet_standard_error(reference, samples, groups=5, seed=4)
    parts = np.array_split(np.random.default_rng(3).permutation(50), 5)
    theta = np.array([reference.distance(*moments(np.delete(samples, part, axis=0))) for part in parts])
    assert found == pytest.approx(np.sqrt(4 / 5 * np.sum((theta - theta.mean()) ** 2)), rel=1e-10)
