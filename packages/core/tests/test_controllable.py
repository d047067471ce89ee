"""Controllable generation's formulas: replacement in both variants, masks, couplings, conditional score, arcs."""

import numpy as np
import pytest

from score_core.controllable import (
    GRAY_MATRIX,
    ChannelCoupling,
    Replacement,
    class_conditional_score,
    classification_loss,
    gray_measurement,
    measure,
    require_binary,
    spherical_interpolation,
)
from score_core.errors import UsageError
from score_core.sdes import VESDE, VPSDE

RNG = np.random.default_rng(7)
IMAGE, X, X_MEAN, Z = RNG.normal(size=(4, 2, 3, 4, 3))
T = np.array([0.3, 0.8])
SDE = VPSDE(0.1, 4.0, 8)
MATRICES = {
    "pixels": None,
    "gray": GRAY_MATRIX,
    "orthogonal": np.linalg.qr(RNG.normal(size=(3, 3)))[0],
    "invertible": np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.2, 0.0, 1.0]]),
}
MASKS = {
    "image": RNG.integers(0, 2, (2, 1, 1, 1)),
    "pixel": RNG.integers(0, 2, (3, 4, 1)),
    "channel": np.array([1, 0, 1]),
    "everything": RNG.integers(0, 2, IMAGE.shape) > 0,
}


def formulas(matrix, mask, consistent):
    """x_T, x and x_mean written out from the specification."""
    M = np.eye(3) if matrix is None else np.asarray(matrix, np.float32).astype(float)
    inverse = np.linalg.inv(M)
    m = mask * np.ones(IMAGE.shape)
    noise = Z if np.allclose(M @ M.T, np.eye(3), atol=1e-5) else Z @ M
    scale, std = (np.exp(-0.25 * T**2 * 3.9 - 0.05 * T)[:, None, None, None] for _ in range(2))
    std = np.sqrt(1 - scale**2)
    mean = scale * (IMAGE @ M)
    x = ((X @ M) * (1 - m) + (mean + std * noise) * m) @ inverse
    x_mean = (((X_MEAN if consistent else x) @ M) * (1 - m) + mean * m) @ inverse
    end = np.exp(-0.25 * 3.9 - 0.05)
    if consistent:
        y_T = end * (IMAGE @ M) + np.sqrt(1 - end**2) * noise
        return (y_T * m + (X @ M) * (1 - m)) @ inverse, x, x_mean
    return ((IMAGE @ M) * m + (X * (1 - m)) @ M) @ inverse, x, x_mean


@pytest.mark.parametrize("consistent", [False, True], ids=["published", "consistent"])
@pytest.mark.parametrize(("matrix", "mask"), list(zip(MATRICES, MASKS, strict=True)))
def test_replacement_is_the_formula(framework, matrix, mask, consistent):
    coupling = None if MATRICES[matrix] is None else ChannelCoupling(MATRICES[matrix])

    def run(image, mask, x, x_mean, z, t):
        rule = Replacement(SDE, measure(image, mask, coupling), consistent)
        return rule.start(x, z), *rule.update(x, x_mean, t, z)

    arrays = [a.astype(np.float32) for a in (IMAGE, MASKS[mask], X, X_MEAN, Z, T)]
    for found, expected in zip(
        framework.run(run, *arrays), formulas(MATRICES[matrix], MASKS[mask], consistent), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6)


def test_the_specification_in_float64():
    rule = Replacement(SDE, measure(IMAGE, MASKS["everything"]))
    expected = formulas(None, MASKS["everything"], False)
    for found, wanted in zip((rule.start(X, Z), *rule.update(X, X_MEAN, T, Z)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("matrix", [GRAY_MATRIX, MATRICES["invertible"]], ids=["gray", "invertible"])
def test_coupling_undoes_decoupling_for_either_place_of_the_channels(eager_framework, matrix):
    last, first = ChannelCoupling(matrix), ChannelCoupling(matrix, axis=1)
    c = eager_framework.run(last.decouple, X)
    np.testing.assert_allclose(eager_framework.run(last.couple, c), X, rtol=0, atol=2e-6)
    moved = eager_framework.run(first.decouple, np.moveaxis(X, -1, 1).copy())
    np.testing.assert_allclose(np.moveaxis(moved, 1, -1), c, rtol=0, atol=1e-6)


def test_the_gray_coordinate_is_the_grey_value():
    gray = np.repeat(X[..., :1], 3, axis=-1)
    last, first = gray_measurement(gray), gray_measurement(np.moveaxis(gray, -1, 1), axis=1)
    np.testing.assert_allclose(last.values[..., 0], np.sqrt(3) * gray[..., 0], rtol=1e-6)
    assert (last.values[..., 1:] == 0).all()
    assert (last.mask.shape, first.mask.shape) == ((1, 1, 1, 3), (1, 3, 1, 1))
    np.testing.assert_array_equal(np.moveaxis(first.values, 1, -1), last.values)


@pytest.mark.parametrize("hidden", [np.nan, np.inf, -1e30])
def test_hidden_values_are_not_read(eager_framework, hidden):
    def run(image, mask, x, z, t):
        rule = Replacement(SDE, measure(image, mask))
        return rule.start(x, z), *rule.update(x, x, t, z)

    mask = MASKS["everything"]
    spoilt = np.where(mask, IMAGE, hidden)
    for a, b in zip(
        eager_framework.run(run, IMAGE, mask, X, Z, T),
        eager_framework.run(run, spoilt, mask, X, Z, T),
        strict=True,
    ):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("shape", [(5,), (4, 3, 1), (1, 2, 3, 4, 3), (3, 1, 1, 1)])
def test_a_mask_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"mask of shape .* does not fit images of shape \(2, 3, 4, 3\)"):
        measure(IMAGE, np.ones(shape))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(np.ones((3, 2)), "square"), (np.ones((3, 3)), "cannot be inverted"), (np.zeros((2, 2)), "cannot be inverted")],
)
def test_a_matrix_that_does_not_fit_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        ChannelCoupling(matrix)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match="has 3 channels"):
        ChannelCoupling(np.eye(4)).decouple(X)


def test_the_conditional_score_is_bayes_rule(eager_framework):
    """With p(label | x) the normal density of label given the mean of x, the sum of the two gradients."""
    sde = VESDE(0.01, 5.0, 8)

    def run(x, t, labels):
        def gradient(x, std, labels):
            return (labels[:, None, None, None] - x) / std[:, None, None, None] ** 2

        return class_conditional_score(lambda x, t: -x, sde, gradient, labels)(x, t)

    labels = np.array([1, 3])
    sigma = (0.01 * 500**T)[:, None, None, None]
    expected = -X + (labels[:, None, None, None] - X) / sigma**2
    found = eager_framework.run(run, X, T, labels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_classification_loss_is_the_cross_entropy_of_noisy_images(framework):
    """Written out with SciPy; large logits do not overflow."""
    from scipy.special import log_softmax

    matrix = RNG.normal(size=(36, 5))

    def run(x0, labels, t, z, matrix):
        def logit_fn(x, std):
            return 300 * (x.reshape(2, 36) @ matrix) / (1 + std[:, None])

        return classification_loss(SDE, logit_fn, x0, labels, t, z)

    labels = np.array([4, 1])
    scale = np.exp(-0.25 * T**2 * 3.9 - 0.05 * T)
    std = np.sqrt(1 - scale**2)
    x = (scale[:, None] * IMAGE.reshape(2, 36) + std[:, None] * Z.reshape(2, 36)) @ matrix
    logits = 300 * x / (1 + std[:, None])
    nll, correct = framework.run(run, *(a.astype(np.float32) for a in (IMAGE,)), labels, *(
        a.astype(np.float32) for a in (T, Z, matrix)))  # fmt: skip
    expected = -log_softmax(logits, axis=-1)[np.arange(2), labels]
    np.testing.assert_allclose(nll, expected, rtol=0, atol=2e-6 * np.abs(logits).max())
    np.testing.assert_array_equal(correct, logits.argmax(-1) == labels)


@pytest.mark.parametrize("mask", [np.array([0.5, 1.0]), np.array([0, 255], np.uint8), np.array([np.nan, 1.0])])
def test_a_mask_of_other_values_is_refused(mask):
    with pytest.raises(UsageError, match=r"mask > 0.5"):
        require_binary(mask)
    require_binary(mask > 0.7)


def test_arcs(framework):
    """Ends are kept, the middle is halfway, norms of orthogonal unit codes too; parallel codes are joined straight."""
    a, b = np.zeros((2, 3, 2, 2), np.float32)
    a[:, 0, 0] = 1.0
    b[:2, 0, 1] = [3.0, 1.0]
    b[2] = 2 * a[2]
    w = np.array([0.0, 0.25, 0.5, 1.0], np.float32)
    arc = framework.run(spherical_interpolation, a, b, w)
    assert arc.shape == (4, 3, 2, 2)
    np.testing.assert_allclose(arc[0], a, atol=1e-6)
    np.testing.assert_allclose(arc[-1], b, atol=1e-6)
    np.testing.assert_allclose(arc[2, 0], (a[0] + b[0]) * np.sqrt(0.5), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(arc[:, 1], axis=(-2, -1)), 1.0, rtol=1e-6)
    np.testing.assert_allclose(arc[:, 2], (1 + w)[:, None, None] * a[2], rtol=1e-6)
