"""What every metric asks of its arrays, and the one error it raises when it does not get it.

Activations are [n, D] floating-point numbers, moments are a mean [D] and a symmetric covariance [D, D]. A single NaN
turns a score into NaN or, worse, into a plausible number (an eigenvalue routine may return anything), so every array is
checked before it is used.
"""

from typing import Any

import numpy as np

from score_core.errors import UsageError, UserError

__all__ = ["MetricError", "MetricUsageError", "check_finite", "check_images", "check_matrix", "check_moments"]

SYMMETRY_TOLERANCE = 1e-5  # relative to the largest entry: a covariance that went through float32 still passes


class MetricError(UserError, ValueError):
    """A metric was given data it cannot be computed from; the message says which, and what to do."""


class MetricUsageError(MetricError, UsageError):
    """What the user named cannot be used: a statistics file, an extractor, or the two together."""


def check_matrix(name: str, values: Any, *, min_rows: int = 2, columns: int | None = None) -> np.ndarray:
    """``values`` as a finite floating-point matrix, dtype unchanged.

    Arguments:
        name: what the array is, for the message.
        values: array-like [n, D]: numpy, or anything ``numpy.asarray`` takes without a copy from a device.
        min_rows: fewest rows that make sense (2 for anything with a covariance).
        columns: the D it has to have, if known.

    Returns:
        The array [n, D].

    Raises:
        MetricError: wrong number of dimensions, dtype, too few rows, other D, NaN or infinity.
    """
    array = np.asarray(values)
    if array.ndim != 2:
        raise MetricError(
            f"{name}: expected a matrix [n, D], found shape {list(array.shape)}; flatten each item to one row"
        )
    if not np.issubdtype(array.dtype, np.floating):
        raise MetricError(
            f"{name}: expected floating-point values, found dtype {array.dtype}; "
            "hand over the extractor's output (not images), or convert it to float32 or float64"
        )
    if array.shape[0] < min_rows:
        raise MetricError(f"{name}: {array.shape[0]} row(s), at least {min_rows} are needed; use more samples")
    if array.shape[1] < 1 or (columns is not None and array.shape[1] != columns):
        expected = "at least 1" if columns is None else str(columns)
        raise MetricError(
            f"{name}: {array.shape[1]} columns, expected {expected}; both sets must come from the same extractor"
        )
    check_finite(name, array)
    return array


def check_images(name: str, images: Any, *, min_size: int = 1, channels: tuple[int, ...] | None = None) -> np.ndarray:
    """``images`` as an array uint8 [n, H, W, C].

    Arguments:
        name: who asks, for the message.
        images: array-like.
        min_size: least height and width.
        channels: the numbers of channels that will do; None: any.

    Raises:
        MetricError: another dtype, number of dimensions or channels, or images smaller than that.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise MetricError(
            f"{name}: expected images uint8 [n, H, W, C], found {images.dtype} {list(images.shape)}; "
            "convert with score_core.data.to_uint8, channels last"
        )
    found = images.shape[3]
    if min(images.shape[1:3]) < min_size or found < 1 or (channels is not None and found not in channels):
        wanted = "at least 1 channel" if channels is None else f"{' or '.join(map(str, channels))} channels"
        raise MetricError(
            f"{name}: images of shape {list(images.shape[1:])}, expected at least {min_size} x {min_size} and {wanted}"
        )
    return images


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise :class:`MetricError` if ``array`` (any shape) holds NaN or infinity, naming the first place."""
    finite = np.isfinite(array)
    if not finite.all():
        first = [int(i) for i in np.unravel_index(finite.argmin(), finite.shape)]
        bad = finite.size - int(finite.sum())
        raise MetricError(
            f"{name}: {bad} of {finite.size} values are NaN or infinite (first at index {first}); "
            "look for diverged samples or an overflow in the extractor"
        )


def check_moments(name: str, mean: Any, cov: Any) -> tuple[np.ndarray, np.ndarray]:
    """``mean`` [D] and ``cov`` [D, D] as float64, the covariance made exactly symmetric.

    Raises:
        MetricError: shapes that do not fit each other, dtype, NaN or infinity, a covariance that is not symmetric
            or has a negative variance.
    """
    mean, cov = np.asarray(mean), np.asarray(cov)
    if mean.ndim != 1 or mean.size < 1 or cov.shape != (mean.size, mean.size):
        raise MetricError(
            f"{name}: expected a mean [D] and a covariance [D, D], "
            f"found shapes {list(mean.shape)} and {list(cov.shape)}"
        )
    for what, array in (("mean", mean), ("covariance", cov)):
        if not np.issubdtype(array.dtype, np.floating):
            raise MetricError(
                f"{name}: expected a floating-point {what}, found dtype {array.dtype}; convert to float64"
            )
        check_finite(f"{name}, {what}", array)
    cov = cov.astype(np.float64)
    if np.abs(cov - cov.T).max() > SYMMETRY_TOLERANCE * np.abs(cov).max():
        raise MetricError(f"{name}: the covariance is not symmetric; compute it with score_core.metrics.moments")
    if cov.diagonal().min() < 0:
        raise MetricError(f"{name}: the covariance has a negative variance; compute it with score_core.metrics.moments")
    return mean.astype(np.float64), (cov + cov.T) / 2
