"""Image folders and zip archives: the same images, splits and labels in both forms."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from score_core.data import DataError, MissingDataError, load_source
from score_core.data.image_files import natural_key
from score_core.data.preprocess import resize_square
from score_core.data.source import split_indices


def encode(image: np.ndarray, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
        file, format={"jpg": "JPEG", "jpeg": "JPEG"}.get(kind, kind.upper()), **options
    )
    return file.getvalue()


def tile(value: int, size: int = 8) -> bytes:
    """A PNG of one colour, by which an image is recognised."""
    return encode(np.full((size, size, 3), value, np.uint8))


@pytest.fixture(params=["folder", "zip"])
def build(request, tmp_path):
    """Write named files as a folder or an archive; gives a function to load them."""

    def write(files: dict[str, bytes]):
        if request.param == "zip":
            path = tmp_path / "images.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in files.items():
                    archive.writestr(name, content)
        else:
            path = tmp_path / "images"
            for name, content in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(content)
        return lambda split="train", size=8, **options: load_source(
            request.param, split, image_size=size, path=path, **options
        )

    return write


def values(source) -> list[int]:
    return source.fetch(np.arange(len(source)))[0][:, 0, 0, 0].tolist()


def labels(source) -> list[int]:
    return source.fetch(np.arange(len(source)))[1].tolist()


def test_natural_order():
    names = ["b/1.png", "a10/x.png", "a2/x.png", "a2/x10.png", "a2/x9.png", "10.png", "9.png", "a.png", "007.png"]
    expected = ["007.png", "9.png", "10.png", "a2/x9.png", "a2/x10.png", "a2/x.png", "a10/x.png", "a.png", "b/1.png"]
    assert sorted(names, key=natural_key) == expected


def test_train_and_test_are_divided_by_the_written_seed_in_natural_order(build):
    load = build({f"img{k}.png": tile(k) for k in range(25)})
    train, test = load("train"), load("test")
    assert values(train) == split_indices(25, "train").tolist()
    assert values(test) == split_indices(25, "test").tolist()
    assert sorted(values(train) + values(test)) == list(range(25))
    assert len(test) == 2
    assert (train.num_classes, train.fetch(np.arange(3))[1]) == (None, None)


def test_sub_folders_are_classes_in_natural_order(build):
    load = build({f"class{c}/{k}.png": tile(10 * c + k) for c in (10, 9, 2) for k in range(4)})
    for split in ("train", "test"):
        source = load(split)
        assert source.num_classes == 3
        assert labels(source) == [{2: 0, 9: 1, 10: 2}[value // 10] for value in values(source)]


def test_deeper_folders_count_for_their_first_and_a_common_folder_is_looked_through(build):
    files = {f"set/v1/{c}/{k}/x.png": tile(10 * c + k) for c in (1, 2) for k in range(5)}
    source = build(files)("train")
    assert source.num_classes == 2
    assert labels(source) == [value // 10 - 1 for value in values(source)]


def test_images_beside_folders_mean_no_labels(build):
    source = build({"a/1.png": tile(1), "b/2.png": tile(2), "3.png": tile(3)})()
    assert (source.num_classes, source.fetch(np.arange(1))[1]) == (None, None)


@pytest.mark.parametrize("test_folder", ["test", "val", "validation"])
@pytest.mark.parametrize("prefix", ["", "data/"])
def test_folders_train_and_test_are_the_split(build, test_folder, prefix):
    files = {f"{prefix}train/cat/{k}.png": tile(k) for k in range(3)}
    files |= {f"{prefix}train/dog/{k}.png": tile(10 + k) for k in range(2)}
    files |= {f"{prefix}{test_folder}/dog/{k}.png": tile(20 + k) for k in range(2)}
    load = build(files)
    assert (values(load("train")), labels(load("train"))) == ([0, 1, 2, 10, 11], [0, 0, 0, 1, 1])
    assert (values(load("test")), labels(load("test"))) == ([20, 21], [1, 1])
    assert load("test").num_classes == 2


def test_a_train_folder_without_classes(build):
    load = build({"train/1.png": tile(1), "train/2.png": tile(2), "test/3.png": tile(3)})
    assert (values(load("train")), values(load("test"))) == ([1, 2], [3])
    assert load("train").num_classes is None


def test_a_train_folder_alone_has_no_test_split(build):
    load = build({"train/1.png": tile(1), "train/2.png": tile(2)})
    assert len(load("train")) == 2
    with pytest.raises(
        DataError, match=r"images.* has a folder 'train' but none for the test split; expected one of test, val"
    ):
        load("test")


def test_other_and_hidden_files_are_passed_over(build):
    junk = {".hidden.png": b"", "__MACOSX/._1.png": b"", "notes.txt": b"", ".cache/2.png": b"", "1.npy": b""}
    load = build({"1.PNG": tile(1), "2.Jpeg": encode(np.full((8, 8, 3), 2, np.uint8), "jpeg"), **junk})
    assert len(load("train")) + len(load("test")) == 2


@pytest.mark.parametrize(("kind", "options", "tolerance"), [
    ("png", {}, 0), ("webp", {"lossless": True}, 0), ("webp", {"quality": 95}, 24),
    ("jpg", {"quality": 98, "subsampling": 0}, 8),
])  # fmt: skip
def test_every_format_is_decoded(build, image, kind, options, tolerance):
    picture = image(16, 16)
    source = build({f"a.{kind}": encode(picture, kind, **options)})(size=16)
    np.testing.assert_allclose(source.fetch(np.arange(1))[0][0], picture, atol=tolerance)


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (33, 33), (12, 9)])
def test_other_sizes_are_cut_to_the_central_square_and_resized(build, image, shape):
    """The same as our own floating-point operation, up to Pillow's rounding between the two axes."""
    picture = image(*shape)
    images, _ = build({"a.png": encode(picture)})(size=16).fetch(np.arange(1))
    np.testing.assert_allclose(images[0].astype(int), resize_square(picture, 16).astype(int), atol=1)


def test_a_photograph_is_turned_upright(build, image):
    picture = image(16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    images, _ = build({"a.png": encode(picture, exif=exif)})(size=16).fetch(np.arange(1))
    np.testing.assert_array_equal(images[0], np.rot90(picture, -1))


def test_channels_follow_the_first_file_or_the_request(build, image):
    colour, grey = image(8, 8), image(8, 8)[..., :1]
    load = build({"1.png": encode(grey), "2.png": encode(colour)})
    assert load("train").shape == load("test").shape == (8, 8, 1)
    images, _ = load(num_channels=3).fetch(np.arange(1))
    assert load(num_channels=3).shape == images.shape[1:] == (8, 8, 3)
    assert load(num_channels=4).fetch(np.arange(1))[0].shape == (1, 8, 8, 4)
    with pytest.raises(DataError, match="1, 3 or 4 channels, found num_channels=2"):
        load(num_channels=2)


def test_transparent_and_palette_images_become_rgb(build, image):
    rgba = np.concatenate([image(8, 8), np.full((8, 8, 1), 90, np.uint8)], axis=-1)
    palette = io.BytesIO()
    # A colour of the web palette, so that nothing is dithered.
    Image.fromarray(np.full((8, 8, 3), (51, 102, 204), np.uint8)).convert("P").save(palette, format="PNG")
    files = {"1.png": encode(rgba), "2.png": palette.getvalue(), "3.png": tile(3)}
    source = build({f"{folder}/{name}": content for name, content in files.items() for folder in ("train", "test")})()
    images, _ = source.fetch(np.arange(3))
    np.testing.assert_array_equal(images[0], image(8, 8))
    np.testing.assert_array_equal(images[1], np.full((8, 8, 3), (51, 102, 204)))


def test_sixteen_bit_images_are_refused(build):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(file, format="PNG")
    with pytest.raises(DataError, match=r"'a\.png' .* more than 8 bits"):
        build({"a.png": file.getvalue()})()


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_damaged_image_is_named(build, damage, image):
    good = encode(image(32, 32))
    bad = {"cut": good[: len(good) // 2], "text": b"not an image at all", "empty": b""}[damage]
    source = build({"train/a.png": good, "train/sub/b.png": bad, "test/c.png": good})()
    with pytest.raises(
        DataError, match=r"'train/sub/b\.png' of .*images.* cannot be decoded .*Cure: replace or remove"
    ):
        source.fetch(np.arange(2))


def test_a_place_without_images_says_what_it_expects(build):
    with pytest.raises(DataError, match=r"images.* holds no images; expected files ending in \.png, \.jpg"):
        build({"notes.txt": b""})()


def test_one_image_has_no_test_split(build):
    load = build({"1.png": tile(1)})
    assert len(load("train")) == 1
    with pytest.raises(DataError, match=r"holds 1 image\(s\), none of them in the test split"):
        load("test")


def test_fingerprints_follow_content_names_and_size(build, tmp_path):
    files = {f"{k}.png": tile(k, size=8 + k) for k in range(4)}
    load = build(files)
    first = load().fingerprint
    assert first == load().fingerprint
    assert first != load(size=9).fingerprint
    assert first != load("test").fingerprint
    larger = {name: tile(9, size=30) for name in files}
    for path in tmp_path.glob("images/*"):
        path.unlink()
    assert first != build(larger)().fingerprint


@pytest.mark.parametrize("dataset", ["folder", "zip"])
@pytest.mark.parametrize("path", [None, "absent"])
def test_a_missing_place_says_what_to_put_where(dataset, path, tmp_path):
    with pytest.raises(MissingDataError, match="digits") as error:
        load_source(dataset, "train", image_size=8, path=path and tmp_path / path)
    assert ("absent" if path else "no place was given") in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 but cut"])
def test_a_damaged_zip_is_named(tmp_path, content):
    (tmp_path / "images.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"images\.zip is not a usable zip file .*Cure"):
        load_source("zip", "train", image_size=8, path=tmp_path / "images.zip")


def test_a_damaged_member_of_a_zip_is_named(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", tile(1, size=64))
        archive.writestr("2.png", encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"'2\.png' of .*images\.zip cannot be unpacked .*Cure"):
        for split in ("train", "test"):
            load_source("zip", split, image_size=8, path=path).fetch(np.arange(1))


def test_links_are_followed_and_a_circle_ends(tmp_path):
    real, folder = tmp_path / "real", tmp_path / "images"
    (real / "cat").mkdir(parents=True)
    folder.mkdir()
    for k in range(3):
        (real / "cat" / f"{k}.png").write_bytes(tile(k))
    (folder / "cats").symlink_to(real / "cat")
    (folder / "loop").symlink_to(folder)
    source = load_source("folder", "train", image_size=8, path=folder)
    assert len(source) == 2
    assert Path(folder / "cats").is_symlink()
