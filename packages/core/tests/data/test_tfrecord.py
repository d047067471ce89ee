"""TFRecord files are read without TensorFlow: the golden file, files written here, and damaged ones."""

import struct
from pathlib import Path

import goldens
import numpy as np
import pytest

from score_core.data import DataError, MissingDataError, load_source
from score_core.data.crc32c import crc32c, crc32c_rows, masked
from score_core.data.tfrecord import RecordFile, bytes_feature, example_features, int64_feature

FIRST = goldens.load("core", "tiny_tfrecords_first.npz")["first_chw"]
TINY = goldens.path("core", "tiny.tfrecords")


def slow_crc(data: bytes) -> int:
    """CRC-32C bit by bit, from its definition."""
    r = 0xFFFFFFFF
    for byte in data:
        r ^= byte
        for _ in range(8):
            r = (r >> 1) ^ (0x82F63B78 if r & 1 else 0)
    return r ^ 0xFFFFFFFF


def slow_masked(data: bytes) -> bytes:
    crc = slow_crc(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def example(dims: list[int], pixels: bytes, *, packed: bool = True, **more: bytes) -> bytes:
    values = [varint(value & 0xFFFFFFFFFFFFFFFF) for value in dims]
    ints = field(1, b"".join(values)) if packed else b"".join(varint(1 << 3) + value for value in values)
    features = {"data": field(1, field(1, pixels)), "shape": field(3, ints), **more}
    return field(1, b"".join(field(1, field(1, k.encode()) + field(2, v)) for k, v in features.items()))


def framed(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + slow_masked(length) + record + slow_masked(record)


def write(path: Path, records: list[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(map(framed, records)))
    return path


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 63, 64, 128, 1000, 5001, 20000])
def test_checksums_follow_the_definition(n):
    data = np.random.default_rng(n).integers(0, 256, n, dtype=np.uint8)
    assert crc32c(data) == slow_crc(data.tobytes())
    rows = np.random.default_rng(n).integers(0, 256, (3, 2 * (n % 20)), dtype=np.uint8)
    np.testing.assert_array_equal(crc32c_rows(rows), [slow_crc(row.tobytes()) for row in rows])


def test_checksums_are_those_of_the_published_check_values():
    """RFC 3720, appendix B.4, and the customary check value."""
    assert crc32c(np.frombuffer(b"123456789", np.uint8)) == 0xE3069283
    assert crc32c(np.zeros(32, np.uint8)) == 0x8A9136AA
    assert crc32c(np.full(32, 255, np.uint8)) == 0x62A8AB43
    assert masked(np.array([0], np.uint32))[0] == 0xA282EAD8


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("dataset", ["ffhq", "celebahq"])
def test_the_golden_file_gives_the_original_images_in_both_splits(dataset, split):
    source = load_source(dataset, split, image_size=16, path=TINY)
    images, labels = source.fetch(np.array([5, 0, 3]))
    expected = [np.roll(FIRST, k, axis=1).transpose(1, 2, 0) for k in (5, 0, 3)]
    np.testing.assert_array_equal(images, expected)
    assert labels is None and source.num_classes is None
    assert (len(source), source.shape, source.name, source.split) == (6, (16, 16, 3), dataset, split)
    images[:] = 0  # the caller's to change
    np.testing.assert_array_equal(source.fetch(np.array([0]))[0][0], expected[1])


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("ffhq", "ffhq/ffhq-r02.tfrecords"),
        ("ffhq", "ffhq-r02.tfrecords"),
        ("celebahq", "celebahq/r02.tfrecords"),
        ("celebahq", "celebahq/celebahq-r02.tfrecords"),
    ],
)
def test_a_file_is_found_under_its_published_name(tmp_path, dataset, name):
    planes = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    file = write(tmp_path / name, [example([3, 4, 4], planes.tobytes(), packed=packed) for packed in (True, False)])
    for place in ({"root": tmp_path}, {"path": file.parent}, {"path": file}):
        source = load_source(dataset, "train", image_size=4, **place)
        np.testing.assert_array_equal(source.fetch(np.arange(2))[0], [planes.transpose(1, 2, 0)] * 2)
    grey = load_source(dataset, "train", image_size=4, num_channels=1, root=tmp_path)
    assert grey.fetch(np.arange(1))[0].shape == (1, 4, 4, 1) and grey.fingerprint != source.fingerprint


def test_missing_files_are_named_with_their_place(tmp_path):
    with pytest.raises(MissingDataError) as error:
        load_source("FFHQ", "train", image_size=256, root=tmp_path)
    for words in ("ffhq-r08.tfrecords", str(tmp_path / "ffhq"), "--config.data.path", "SCORE_DATA", "digits"):
        assert words in str(error.value)
    with pytest.raises(MissingDataError, match=r"celebahq-r10\.tfrecords"):
        load_source("CelebAHQ", "train", image_size=1024, root=tmp_path)
    with pytest.raises(DataError, match=r"4, 8, .. 1024 pixels, found image_size=96"):
        load_source("ffhq", "train", image_size=96, root=tmp_path)


def test_records_of_another_size_are_refused_with_the_cure(tmp_path):
    with pytest.raises(DataError, match=r"images of 16x16, expected 64x64.*image_size=16"):
        load_source("ffhq", "train", image_size=64, path=TINY)
    file = write(tmp_path / "f", [example([1, 4, 4], bytes(16)), example([1, 2, 2], bytes(4))])
    source = load_source("ffhq", "train", image_size=4, path=file)
    assert source.shape == (4, 4, 1)
    with pytest.raises(DataError, match=r"record 1 of .* has 2x2 pixels"):
        source.fetch(np.arange(2))


@pytest.mark.parametrize("keep", [0, 5, 11, 12, 800, -1, -4])
def test_a_cut_file_is_refused_when_opened(tmp_path, keep):
    content = TINY.read_bytes()
    file = tmp_path / "cut.tfrecords"
    file.write_bytes(content[:keep] if keep else b"")
    with pytest.raises(DataError, match=r"cut\.tfrecords.*Cure"):
        load_source("ffhq", "train", image_size=16, path=file)


def test_a_changed_length_is_found_when_opened_and_changed_data_when_read(tmp_path):
    content = bytearray(TINY.read_bytes())
    size = len(content) // 6
    file = tmp_path / "f.tfrecords"
    file.write_bytes(bytes([*content[:8], content[8] ^ 1, *content[9:]]))  # the length's checksum
    with pytest.raises(DataError, match=r"record 0 of .* has a damaged length"):
        load_source("ffhq", "train", image_size=16, path=file)
    file = tmp_path / "g.tfrecords"
    content[2 * size + 300] ^= 4
    file.write_bytes(content)
    source = load_source("ffhq", "train", image_size=16, path=file)
    source.fetch(np.array([0, 1, 3, 4, 5]))
    for _ in range(2):
        with pytest.raises(DataError, match=r"record 2 of .* is damaged: its checksum is wrong"):
            source.fetch(np.array([2]))


def test_noise_and_absurd_lengths_are_refused(tmp_path):
    for number, content in enumerate(
        (np.random.default_rng(0).bytes(5000), b"\xff" * 64, framed(b"")[:8] + b"\0" * 8, bytes(7))
    ):
        file = tmp_path / f"{number}"
        file.write_bytes(content)
        with pytest.raises(DataError, match="Cure"):
            load_source("ffhq", "train", image_size=16, path=file)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\x0a",
        b"\x0a\x80",
        b"\x0a\x7fx",
        b"\x80" * 12,
        b"\x0b\x01",
        field(1, field(1, b"\x0a\x05ab")),
        field(1, field(1, field(1, b"\xff\xfe") + field(2, b""))),
        example([3, 4, 4], bytes(47)),
        example([3, 4], bytes(12)),
        example([-3, -4, 4], bytes(48)),
        example([2**40, 2**40, 2**40], bytes(48)),
        example([0, 4, 4], b""),
        example([3, 4, 4], bytes(48), data=b"\x0a\x00"),
        example([3, 4, 4], bytes(48), shape=b"\x1a\x02\x0a\x09"),
        example([3, 4, 4], bytes(48), data=field(1, field(1, bytes(48)) * 2)),
    ],
    ids=range(16),
)
def test_a_valid_frame_around_a_hostile_record_is_refused(tmp_path, record):
    file = write(tmp_path / "hostile.tfrecords", [record])
    with pytest.raises(DataError, match=r"record 0 of .*hostile"):
        load_source("ffhq", "train", image_size=4, path=file)


def test_unknown_features_and_fields_are_passed_over(tmp_path):
    extra = varint(9 << 3 | 5) + b"abcd" + varint(8 << 3 | 1) + b"abcdefgh" + varint(7 << 3) + varint(300)
    record = extra + example([1, 2, 3], b"abcdef", name=field(2, b"\0\0\0\0")) + extra
    file = RecordFile(write(tmp_path / "f", [record]))
    features = example_features(file.record(0), "here")
    assert sorted(features) == ["data", "name", "shape"]
    assert int64_feature(features["shape"], "") == [1, 2, 3]
    assert bytes(bytes_feature(features["data"], "")) == b"abcdef"
    assert int64_feature(memoryview(field(3, field(1, varint(2**64 - 5)))), "") == [-5]


def test_other_content_has_another_fingerprint(tmp_path):
    files = [write(tmp_path / f"{k}", [example([1, 4, 4], bytes([k] * 16))]) for k in range(2)]
    prints = [load_source("ffhq", "train", image_size=4, path=file).fingerprint for file in (*files, files[0])]
    assert prints[0] == prints[2] != prints[1]
