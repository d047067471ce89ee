r"""JAX's random numbers in PyTorch: the counter-based generator Threefry-2x32 (Salmon et al. 2011, "Random123").

Twenty rounds of additions, rotations and exclusive ors turn a key and a counter, two 32-bit words each, into two words.
Nothing is carried from one number to the next: number :math:`n` of an array comes from counter :math:`n` alone, so any
part of an array can be drawn by itself, on any device, with the same result. From the words :math:`(a, b)`:

    bits       a xor b
    uniform    the upper 23 bits as the fraction of a float in [1, 2), minus 1
    normal     sqrt(2) erfinv(u),  u uniform on (-1, 1)

These are the numbers of ``jax.random`` with ``jax_threefry_partitionable`` (its default): bits and uniforms exactly,
normals to the rounding of erfinv. Keys are int32 ``[..., 2]``; words are int32 as well, whose sums wrap as they must.

A JAX array has its channels last, ours first. ``channels_last`` counts in JAX's order, so that an image is the same
image in both wings.
"""

import math

import torch
from torch import Tensor

__all__ = ["counters", "fold_in", "normal", "prng_key", "randint", "random_bits", "split", "threefry2x32", "uniform"]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_WORD = 2**32 - 1
# erfinv(u) = u P(w), w = -ln(1 - u^2): P in w - 5/2 for w < 5, in sqrt(w) - 3 beyond, highest power first (Giles 2010,
# "Approximating the erfinv function", table 5).
_CENTRAL = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
    -0.00417768164,
    0.246640727,
    1.50140941,
)
_TAIL = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
    0.00943887047,
    1.00167406,
    2.83297682,
)


def prng_key(seed: int, device: torch.device | str | None = None) -> Tensor:
    """The key of a seed, int32 ``[2]``; like JAX's, of the seed's lower 32 bits."""
    low = seed & _WORD
    return torch.tensor([0, low - 2**32 if low >= 2**31 else low], dtype=torch.int32, device=device)


def _rotate(x: Tensor, distance: int) -> Tensor:
    # A shift to the right copies the sign, which the mask removes.
    return (x << distance) | ((x >> (32 - distance)) & ((1 << distance) - 1))


def threefry2x32(key: Tensor, high: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """The two words of each counter.

    Arguments:
        key: int32 ``[..., 2]``.
        high, low: the counter's words, int32; they broadcast against each other and against ``key[..., 0]``.
    """
    keys = (key[..., 0], key[..., 1], key[..., 0] ^ key[..., 1] ^ _PARITY)
    x, y = high + keys[0], low + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            x = x + y
            y = _rotate(y, distance) ^ x
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + (group + 1)
    return x, y


def fold_in(key: Tensor, data: Tensor | int) -> Tensor:
    """A new key for each number of ``data``; ``key`` ``[..., 2]`` and ``data`` ``[...]`` broadcast."""
    low = torch.as_tensor(data, dtype=torch.int32, device=key.device)
    return torch.stack(threefry2x32(key, torch.zeros_like(low), low), dim=-1)


def split(key: Tensor, num: int = 2) -> Tensor:
    """``num`` new keys, ``[num, 2]``, of the key ``[2]``."""
    return fold_in(key, torch.arange(num, dtype=torch.int32, device=key.device))


def counters(
    shape: tuple[int, ...], *, first: int = 0, channels_last: bool = False, device: torch.device | None = None
) -> Tensor:
    """The counter of every element of an array, int32 ``shape``: its place in the order of memory.

    Arguments:
        shape: the array's shape.
        first: the counter of its first element.
        channels_last: count as if the third axis from the end (the channels of an image) were the last.

    Raises:
        ValueError: the array has more elements than a word counts.
    """
    if first + math.prod(shape) > 2**31:
        raise ValueError(f"random arrays have at most 2**31 elements; shape {shape} after {first} elements has more")
    if not channels_last or len(shape) < 3:
        return torch.arange(first, first + math.prod(shape), dtype=torch.int32, device=device).reshape(shape)
    *batch, channels, height, width = shape
    count = torch.arange(first, first + math.prod(shape), dtype=torch.int32, device=device)
    return count.reshape(*batch, height, width, channels).movedim(-1, -3).contiguous()


def random_bits(key: Tensor, count: Tensor) -> Tensor:
    """32 random bits for each counter, int32: ``key`` ``[2]`` or ``[B, 2]``, ``count`` of any shape (one per key)."""
    key = key.reshape(*key.shape[:-1], *(1,) * count.ndim, 2)
    high, low = threefry2x32(key, torch.zeros_like(count), count)
    return high ^ low


def uniform(key: Tensor, count: Tensor) -> Tensor:
    """``U[0, 1)``, float32; arguments as for :func:`random_bits`."""
    fraction = (random_bits(key, count) >> 9) & 0x7FFFFF
    return (fraction | 0x3F800000).view(torch.float32) - 1.0


def normal(key: Tensor, count: Tensor) -> Tensor:
    """``N(0, 1)``, float32; arguments as for :func:`random_bits`."""
    low = -1.0 + 2.0**-24  # the float32 after -1: erfinv(-1) is infinite
    return math.sqrt(2.0) * _erfinv(torch.clamp(uniform(key, count) * 2.0 + low, min=low))


def _erfinv(u: Tensor) -> Tensor:
    """Giles's approximation, whose float32 rounding JAX's normals have; ``torch.erfinv`` differs by up to 2e-5."""
    w = -torch.log1p(-u * u)
    central = w < 5
    w = torch.where(central, w - 2.5, torch.sqrt(w) - 3.0)
    p = torch.where(central, _CENTRAL[0], _TAIL[0])
    for near, far in zip(_CENTRAL[1:], _TAIL[1:], strict=True):
        p = torch.where(central, near, far) + p * w
    return p * u


def randint(key: Tensor, count: Tensor, high: int) -> Tensor:
    """Integers in ``0 ... high - 1``, int64, ``high <= 2**16``; arguments as for :func:`random_bits`.

    Two words a number, so that the values are equally likely to within ``high / 2**64``.
    """
    upper, lower = (random_bits(fold_in(key, half), count).to(torch.int64) & _WORD for half in (0, 1))
    multiplier = (2**16 % high) ** 2 % high
    return ((upper % high) * multiplier + lower % high) % high
