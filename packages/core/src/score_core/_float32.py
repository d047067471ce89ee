"""Float32 tables on the host, rounded exactly as the published implementation's XLA (CPU) rounds them.

Noise-level tables are data: sampler indices, labels and losses are read off them, and sqrt(1 - alpha_bar_i) or
sqrt(sigma_i^2 - sigma_{i-1}^2) magnify one unit in the last place of an entry up to a few hundred times. Hence the
tables are not only computed in float32 but in XLA's order of operations, and agree with the reference's bit for bit.
"""

import numpy as np

__all__ = ["cumprod", "exp", "linspace"]

# exp(r) ~ 1 + r + r^2 P(r) on |r| <= ln(2) / 2, highest power of P first (the classical Cephes minimax polynomial).
_EXP_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_LOG2_E = np.float32(1.44269504088896341)
# ln(2) in two parts: multiples of the first are exact for the exponents that occur.
_LN2_HIGH = np.float32(0.693359375)
_LN2_LOW = np.float32(-2.12194440e-4)


def _multiply_add(a: np.ndarray, b: np.ndarray | np.float32, c: np.ndarray | np.float32) -> np.ndarray:
    """``a * b + c`` with a single rounding to float32 (the product of two float32 is exact in float64)."""
    return (np.asarray(a, np.float64) * np.float64(b) + c).astype(np.float32)


def linspace(start: float, stop: float, num: int) -> np.ndarray:
    """``num`` equally spaced float32 values from ``start`` to ``stop``, both included."""
    if num < 2:
        return np.full(num, start, np.float32)
    a, b = np.float32(start), np.float32(stop)
    i = np.arange(num - 1, dtype=np.float32)
    step = np.float32(1) / np.float32(num - 1)
    weight = _multiply_add(-i, step, np.float32(1))
    return np.append(_multiply_add(weight, a, (b * step) * i), b)


def exp(x: np.ndarray) -> np.ndarray:
    """exp(x) in float32 for \\|x\\| < 80: range reduction x = n ln 2 + r, a polynomial in r, scaling by 2^n."""
    x = np.asarray(x, np.float32)
    n = np.floor(_multiply_add(x, _LOG2_E, np.float32(0.5)))
    r = _multiply_add(-n, _LN2_LOW, _multiply_add(-n, _LN2_HIGH, x))
    polynomial = np.full_like(r, _EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        polynomial = _multiply_add(polynomial, r, np.float32(coefficient))
    return np.ldexp(np.float32(1) + _multiply_add(polynomial, r * r, r), n.astype(np.int32))


def cumprod(x: np.ndarray) -> np.ndarray:
    """The running product of the float32 ``x`` ``[n]``, by the parallel-prefix (odd-even) recursion."""
    if len(x) < 2:
        return x
    odd = cumprod(x[:-1:2] * x[1::2])
    later = x[2::2]
    products = np.empty_like(x)
    products[0], products[1::2], products[2::2] = x[0], odd, odd[: len(later)] * later
    return products
