"""TFRecord files of images, read in place and without TensorFlow.

A file is a sequence of records

    length (uint64)   masked CRC-32C of the 8 bytes (uint32)   data (length bytes)   masked CRC-32C of data (uint32)

all little-endian (see :mod:`score_core.data.crc32c`). Data is a protocol buffer ``tf.train.Example``: a map from
feature names to lists; only what an image needs is parsed. Opening a file hops from header to header, so the time does
not depend on the size of the images; data are checked when they are first read.
"""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from score_core.data.crc32c import crc32c, crc32c_rows, masked
from score_core.data.errors import DataError

__all__ = ["RecordFile", "bytes_feature", "example_features", "int64_feature"]

_HEADER, _FOOTER = 12, 4
_CURE = "Cure: make or fetch it again."


class RecordFile:
    """The records of a TFRecord file, in random order, from several threads if need be.

    ``checksums`` has the masked CRC-32C of every record's data as the file states it, uint32 [n].

    Raises:
        DataError: the file is empty, cut off, or no TFRecord file; at :meth:`record` damaged data.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise DataError(f"{path} cannot be read ({error}). {_CURE}") from error
        self._offsets, self._lengths = self._index()
        view = np.frombuffer(self._map, np.uint8)
        headers = view[self._offsets[:, None] + np.arange(_HEADER)]
        stated = np.ascontiguousarray(headers[:, 8:]).view("<u4")[:, 0]
        wrong = np.flatnonzero(masked(crc32c_rows(headers[:, :8])) != stated)
        if len(wrong):
            raise DataError(f"record {wrong[0]} of {path} has a damaged length. {_CURE}")
        footers = view[(self._offsets + _HEADER + self._lengths)[:, None] + np.arange(_FOOTER)]
        self.checksums = np.ascontiguousarray(footers).view("<u4")[:, 0]
        self._checked = np.zeros(len(self), bool)

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Where every record begins, and the length of its data, both int64 [n]."""
        unpack, view, size = struct.Struct("<Q").unpack_from, self._map, len(self._map)
        offsets, lengths = [], []
        offset = 0
        while offset < size:
            length = unpack(view, offset)[0] if offset + _HEADER <= size else 0
            end = offset + _HEADER + length + _FOOTER
            if end > size:
                raise DataError(
                    f"{self._path} is cut off or no TFRecord file: record {len(offsets)} would end at byte {end} of "
                    f"{size}. {_CURE}"
                )
            offsets.append(offset)
            lengths.append(length)
            offset = end
        return np.array(offsets, np.int64), np.array(lengths, np.int64)

    def __len__(self) -> int:
        return len(self._offsets)

    def record(self, i: int) -> memoryview:
        """The data of record ``i``, without a copy; its checksum is compared the first time."""
        begin = int(self._offsets[i]) + _HEADER
        data = memoryview(self._map)[begin : begin + int(self._lengths[i])]
        if not self._checked[i]:
            crc = masked(np.array([crc32c(np.frombuffer(data, np.uint8))], np.uint32))[0]
            if crc != self.checksums[i]:
                raise DataError(f"record {i} of {self._path} is damaged: its checksum is wrong. {_CURE}")
            self._checked[i] = True
        return data


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A base-128 number and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number of more than ten bytes")


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Field numbers and values of a protocol buffer message: bytes of length-delimited fields, numbers of varints."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at + length > len(data):
            raise ValueError("a field longer than its message")
        yield number, data[at : at + length]
        at += length


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    """The length-delimited fields ``number`` of a message."""
    for found, value in _fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def example_features(data: memoryview, where: str) -> dict[str, memoryview]:
    """The features of a ``tf.train.Example`` by name, not parsed further; ``where`` names it in an error."""
    try:
        features = {}
        for block in _messages(data, 1):
            for entry in _messages(block, 1):
                pair = dict(_fields(entry))
                name, feature = pair.get(1), pair.get(2)
                if isinstance(name, memoryview) and isinstance(feature, memoryview):
                    features[bytes(name).decode()] = feature
        return features
    except (ValueError, IndexError) as error:
        raise DataError(f"{where} is not a tf.train.Example ({error}). {_CURE}") from error


def bytes_feature(feature: memoryview, where: str) -> memoryview:
    """The one value of a bytes list."""
    try:
        (value,) = (value for block in _messages(feature, 1) for value in _messages(block, 1))
        return value
    except (ValueError, IndexError) as error:
        raise DataError(f"{where} is not one string of bytes ({error}). {_CURE}") from error


def int64_feature(feature: memoryview, where: str) -> list[int]:
    """The values of an int64 list, packed or not."""
    values: list[int] = []
    try:
        for block in _messages(feature, 3):
            for number, value in _fields(block):
                if number != 1:
                    continue
                if isinstance(value, int):
                    values.append(value)
                    continue
                at = 0
                while at < len(value):
                    one, at = _varint(value, at)
                    values.append(one)
        return [value - (1 << 64) if value >> 63 else value for value in values]
    except (ValueError, IndexError) as error:
        raise DataError(f"{where} is not a list of whole numbers ({error}). {_CURE}") from error
