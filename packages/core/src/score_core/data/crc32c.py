"""The checksum of TFRecord files: CRC-32C (Castagnoli), computed on whole arrays.

The register r (32 bits, reflected) advances by two message bytes w through a table T of 65,536 entries,

    r <- T[(r xor w) and 0xffff] xor (r >> 16),          crc = not r after all bytes, r = 0xffffffff before the first

which is linear over GF(2): zeros in front of a message do not move a register that is 0, so that starting at 0xffffffff
is to invert the first four bytes; and of a message in two halves a, b the register is  S r(a) xor r(b)  with the 32x32
bit matrix S of "len(b) zero bytes". One long message is therefore cut in equal lanes, all lanes advance together, and
neighbours are joined until one is left; S doubles by applying it to itself.

    masked(crc) = rotate_right(crc, 15) + 0xa282ead8 mod 2^32            what TFRecord files store
"""

from functools import lru_cache

import numpy as np

__all__ = ["crc32c", "crc32c_rows", "masked"]

_POLYNOMIAL = 0x82F63B78
_MOST_LANES = 12  # 2^12: more registers would not stay in the nearest memory
_BITS = np.uint32(1) << np.arange(32, dtype=np.uint32)


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """T: the register after two zero bytes from each of 0 .. 65535, uint32."""
    r = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        r = np.where(r & 1, (r >> 1) ^ np.uint32(_POLYNOMIAL), r >> 1)
    return r


def _advance(r: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Registers uint32 [k] after the little-endian 16-bit ``words`` [m, k]."""
    table = _table()
    for w in words:
        r = np.take(table, (r ^ w) & 0xFFFF) ^ (r >> 16)
    return r


def _apply(matrix: np.ndarray, r: np.ndarray) -> np.ndarray:
    """``matrix`` (its 32 columns as uint32) times each register of ``r``."""
    return np.bitwise_xor.reduce(np.where(r[:, None] & _BITS, matrix, np.uint32(0)), axis=1)


@lru_cache(maxsize=64)
def _zeros(num_words: int) -> np.ndarray:
    """S of ``num_words`` zero words."""
    return _advance(_BITS.copy(), np.zeros((num_words, 1), np.uint32))


def crc32c(data: np.ndarray) -> int:
    """CRC-32C of uint8 [n]."""
    n = len(data)
    if n < 4:  # too short for the inverted start
        r = 0xFFFFFFFF
        for byte in data.tolist():
            r ^= byte
            for _ in range(8):
                r = (r >> 1) ^ (_POLYNOMIAL if r & 1 else 0)
        return r ^ 0xFFFFFFFF
    lanes = 1 << min(max((n // 64).bit_length() - 1, 0), _MOST_LANES)
    words = -(-n // (2 * lanes))
    padded = np.zeros(2 * words * lanes, np.uint8)
    message = padded[len(padded) - n :]
    message[:] = data
    message[:4] ^= 0xFF
    r = _advance(np.zeros(lanes, np.uint32), np.ascontiguousarray(padded.view("<u2").reshape(lanes, words).T))
    shift = _zeros(words)
    while len(r) > 1:
        r = _apply(shift, r[0::2]) ^ r[1::2]
        shift = _apply(shift, shift)
    return int(~r[0])


def crc32c_rows(rows: np.ndarray) -> np.ndarray:
    """CRC-32C, uint32 [k], of each of ``k`` short messages of one even length: uint8 [k, n]."""
    words = np.ascontiguousarray(np.ascontiguousarray(rows).view("<u2").T)
    return ~_advance(np.full(len(rows), 0xFFFFFFFF, np.uint32), words)


def masked(crc: np.ndarray) -> np.ndarray:
    """The masked form of checksums uint32 [k]."""
    return ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
