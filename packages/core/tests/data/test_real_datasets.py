"""Every real dataset in small: files of its real format, its image operation, damaged files, and what is missing."""

import gzip
import io
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import goldens
import lmdb
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from score_core.data import SOURCES, DataError, MissingDataError, Pipeline, load_source
from score_core.data.sources import idx, lsun, svhn
from score_core.data.sources.imagenet32 import PlanarSource

GOLDEN = goldens.load("core", "data_ops.npz")

TRAIN, TEST = 5, 3


def noise(n: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


# --- writers: folder -> files of both splits; each returns {split: (images, labels)} as they should be served --------

Content = dict[str, tuple[np.ndarray, np.ndarray | None]]


def labelled(n: int, *shape: int, classes: int = 10) -> Content:
    sizes = {"train": n, "test": TEST}
    return {
        split: (noise(k, *shape, seed=k), np.random.default_rng(k).integers(0, classes, k))
        for split, k in sizes.items()
    }


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, zipped: bool) -> Content:
    content = labelled(TRAIN, 28, 28, 1)
    for split, (images, labels) in content.items():
        for name, array in zip(idx._FILES[split], (images[..., 0], labels.astype(np.uint8)), strict=True):
            data = idx_bytes(array)
            put(folder / (f"{name}.gz" if zipped else name), gzip.compress(data) if zipped else data)
    return content


def write_svhn(folder: Path) -> Content:
    content = labelled(12, 32, 32, 3)
    content["train"][1][:2] = (0, 9)
    folder.mkdir(parents=True)
    for split, (images, labels) in content.items():
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": images.transpose(1, 2, 3, 0), "y": y}, do_compression=True)
    return content


def imagenet_batches() -> tuple[Content, dict[str, bytes]]:
    content = labelled(22, 32, 32, 3, classes=1000)
    files = {}
    for split, (images, labels) in content.items():
        names = [f"train_data_batch_{k}" for k in range(1, 11)] if split == "train" else ["val_data"]
        cuts = np.array_split(np.arange(len(images)), len(names))
        for name, rows in zip(names, cuts, strict=True):
            planes = np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)).reshape(len(rows), 3072)
            batch = {"data": planes, "labels": (labels[rows] + 1).tolist(), "mean": planes.mean(axis=0)}
            files[name] = pickle.dumps(batch, protocol=3)
    return content, files


def write_imagenet(folder: Path) -> Content:
    content, files = imagenet_batches()
    for name, data in files.items():
        put(folder / name, data)
    return content


def write_imagenet_zip(folder: Path) -> Content:
    content, files = imagenet_batches()
    folder.mkdir(parents=True)
    for archive, select in (("Imagenet32_train.zip", "train"), ("Imagenet32_val.zip", "val")):
        with zipfile.ZipFile(folder / archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                if name.startswith(select):
                    file.writestr(f"inner/{name}", data)
    return content


def write_old_imagenet(folder: Path, size: int = 32) -> Content:
    content: Content = {"train": (noise(TRAIN, size, size, 3), None), "test": (noise(TEST, size, size, 3), None)}
    for split, (images, _) in content.items():
        stem = f"{'train' if split == 'train' else 'valid'}_{size}x{size}"
        for k, image in enumerate(images):
            put(folder / stem / f"{k:07d}.png", encode(image))
        put(folder / stem / "notes.txt", b"no image")
    return content


def write_old_imagenet_tar(folder: Path, size: int = 32) -> Content:
    content = write_old_imagenet(folder / "unpacked", size)
    for place in (folder / "unpacked").iterdir():
        with tarfile.open(folder / f"{place.name}.tar", "w") as tar:
            tar.add(place, place.name)  # in any order
    return content


def write_celeba(folder: Path, packed: bool) -> Content:
    """Faces of 178x218, of which the served size 140 leaves the central crop as it is."""
    faces = noise(8, 218, 178, 3)
    partition = [0, 1, 0, 2, 0, 1, 2, 0]
    lines = [f"{k + 1:06d}.png {part}" for k, part in enumerate(partition)]
    put(folder / ("Eval" if packed else "") / "list_eval_partition.txt", ("\n".join(lines) + "\n").encode())
    files = {f"{k + 1:06d}.png": encode(face) for k, face in enumerate(faces)}
    if packed:
        (folder / "Img").mkdir()
        with zipfile.ZipFile(folder / "Img" / "img_align_celeba.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(f"img_align_celeba/{name}", data)
    else:
        for name, data in files.items():
            put(folder / "img_align_celeba" / name, data)
    crops = faces[:, 39:179, 19:159]
    return {split: (crops[np.array(partition) == part], None) for split, part in (("train", 0), ("test", 1))}


def write_database(folder: Path, entries: dict[bytes, bytes]) -> None:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)


def write_lsun(folder: Path) -> Content:
    """Photographs whose central square is served as it is; WebP as in the real files."""
    content: Content = {}
    for split, n in (("train", TRAIN), ("test", TEST)):
        images = noise(n, 20, 20, 3, seed=n)
        wide = np.concatenate([images[:, :, :3], images, images[:, :, :4]], axis=2)
        keys = [f"{k:040x}".encode() for k in range(n)]
        stored = dict(zip(keys, (encode(image, "WEBP") for image in wide), strict=True))
        write_database(folder / f"tower_{'train' if split == 'train' else 'val'}_lmdb", stored)
        content[split] = images, None
    return content


def write_ffhq_database(folder: Path) -> Content:
    source = goldens.load("core", "ffhq_lmdb.npz")
    entries = {f"8-{k:05d}".encode(): encode(image) for k, image in enumerate(source["source"])}
    write_database(folder, {b"length": b"%d" % len(entries), **entries})
    return {split: (source["source"][source[f"{split}_indices"]], None) for split in ("train", "test")}


WRITERS: dict[str, tuple[str, str, int, Callable[[Path], Content], dict[str, str]]] = {
    # id: dataset, folder below the root, image size, writer, further options
    "mnist": ("mnist", "mnist", 28, lambda f: write_idx(f, False), {}),
    "mnist.gz": ("mnist", "MNIST/raw", 28, lambda f: write_idx(f, True), {}),
    "fashion.gz": ("fashion_mnist", "fashion_mnist", 28, lambda f: write_idx(f, True), {}),
    "svhn": ("svhn", "svhn", 32, write_svhn, {}),
    "imagenet": ("imagenet32", "imagenet32", 32, write_imagenet, {}),
    "imagenet.zip": ("imagenet32", "imagenet32", 32, write_imagenet_zip, {}),
    "imagenet-old": ("imagenet32_old", "imagenet32_old", 32, write_old_imagenet, {}),
    "imagenet-old.tar": ("imagenet32_old", "imagenet32_old", 32, write_old_imagenet_tar, {}),
    "imagenet64-old": ("imagenet64_old", "imagenet64_old", 64, lambda f: write_old_imagenet(f, 64), {}),
    "celeba": ("celeba", "celeba", 140, lambda f: write_celeba(f, False), {}),
    "celeba.zip": ("celeba", "CelebA", 140, lambda f: write_celeba(f, True), {}),
    "lsun": ("lsun", "lsun", 20, write_lsun, {"category": "tower"}),
    "ffhq-lmdb": ("ffhq_lmdb", "FFHQ", 8, write_ffhq_database, {}),
}


@pytest.mark.parametrize("case", WRITERS)
def test_every_format_gives_its_images_in_both_splits(tmp_path, case):
    dataset, folder, size, write, options = WRITERS[case]
    content = write(tmp_path / folder)
    prints = set()
    for split, (images, labels) in content.items():
        source = load_source(dataset.upper(), split, image_size=size, root=tmp_path, **options)
        order = np.random.default_rng(0).permutation(len(images))
        assert (len(source), source.name, source.split) == (len(images), dataset, split)
        assert source.shape == images.shape[1:]
        served, numbers = source.fetch(order)
        np.testing.assert_array_equal(served, images[order])
        assert served.dtype == np.uint8 and served.flags.writeable
        assert (labels is None) == (numbers is None) == (source.num_classes is None)
        if labels is not None:
            np.testing.assert_array_equal(numbers, labels[order])
            assert numbers.dtype == np.int64
        by_path = load_source(dataset, split, image_size=size, path=tmp_path / folder, **options)
        assert by_path.fingerprint == source.fingerprint
        np.testing.assert_array_equal(by_path.fetch(order)[0], served)
        grey = load_source(dataset, split, image_size=size, num_channels=1, root=tmp_path, **options)
        assert grey.fetch(order[:1])[0].shape == (1, size, size, 1)
        prints |= {source.fingerprint, grey.fingerprint}
    assert len(prints) == (2 if images.shape[-1] == 1 else 4), "a split or a number of channels shares a fingerprint"


def test_the_same_images_packed_or_not_have_the_same_fingerprint_and_releases_have_not(tmp_path):
    forms: dict[str, set[str]] = {}
    for case, (dataset, folder, size, write, options) in WRITERS.items():
        if case.startswith(("mnist", "imagenet", "celeba")):
            write(tmp_path / case / folder)
            source = load_source(dataset, "train", image_size=size, root=tmp_path / case, **options)
            forms.setdefault(dataset, set()).add(source.fingerprint)
    assert {dataset: len(prints) for dataset, prints in forms.items()} == dict.fromkeys(forms, 1)
    assert len(set.union(*forms.values())) == len(forms)


@pytest.mark.parametrize("dataset", [n for n in SOURCES if SOURCES[n].layout.files])
def test_missing_data_say_what_to_put_where(tmp_path, dataset):
    options = {"category": "tower"} if dataset == "lsun" else {}
    for split in ("train", "test"):
        with pytest.raises(MissingDataError) as error:
            load_source(dataset, split, image_size=32, root=tmp_path / "data", **options)
        message = str(error.value)
        layout = SOURCES[dataset].layout
        assert str(tmp_path / "data" / layout.folders[0]) in message
        assert "Cure: put " in message and "--config.data.dataset=digits" in message
        names = {name.partition("[")[0].strip("*").removesuffix("ubyte") for name in layout.files}
        assert any(name in message for name in names)
        if dataset != "cifar10":  # which says it in its own words
            assert "--config.data.path" in message and "SCORE_DATA" in message
        with pytest.raises(MissingDataError, match="nowhere"):
            load_source(dataset, split, image_size=32, path=tmp_path / "nowhere", **options)
    assert not list(tmp_path.iterdir()), "nothing may be made while looking"


def test_the_originals_names_are_understood(tmp_path):
    write_idx(tmp_path / "fashion_mnist", zipped=False)
    assert load_source("FashionMNIST", "train", image_size=28, root=tmp_path).name == "fashion_mnist"
    for name in ("CIFAR10", "SVHN", "CELEBA", "LSUN", "FFHQ", "CelebAHQ", "MNIST"):
        with pytest.raises(MissingDataError):
            load_source(name, "train", image_size=32, root=tmp_path / "none", category="bedroom")


@pytest.mark.parametrize(
    ("case", "name"), [("svhn", "train_32x32.mat"), ("imagenet-old.tar", "train_32x32.tar"), ("imagenet", "val_data")]
)
def test_a_path_that_names_one_split_s_file_finds_the_other_split_beside_it(tmp_path, case, name):
    dataset, folder, size, write, _ = WRITERS[case]
    content = write(tmp_path / folder)
    for split, (images, _) in content.items():
        source = load_source(dataset, split, image_size=size, path=tmp_path / folder / name)
        np.testing.assert_array_equal(source.fetch(np.arange(len(images)))[0], images)


@pytest.mark.parametrize("case", ["celeba.zip", "lsun", "ffhq-lmdb", "imagenet-old.tar"])
def test_images_are_decoded_by_several_threads_at_once(tmp_path, case):
    dataset, folder, size, write, options = WRITERS[case]
    images, _ = write(tmp_path / folder)["train"]
    pipeline = Pipeline(load_source(dataset, "train", image_size=size, root=tmp_path, **options), 2, seed=0)
    with pipeline.batches(depth=16, workers=8) as batches:
        for _ in range(20):
            batch = next(batches)
            np.testing.assert_array_equal(batch.image, images[batch.index])


def test_a_database_needs_the_lmdb_package(tmp_path, monkeypatch):
    write_lsun(tmp_path / "lsun")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(
        DataError, match=r"lmdb package is not installed. Cure: install score-core with its extra `lsun`"
    ):
        load_source("lsun", "train", image_size=20, root=tmp_path, category="tower")


# --- image operations ------------------------------------------------------------------------------------------------


def pillow_float(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased bilinear resize by another library, without rounding."""
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in image]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


@pytest.mark.parametrize("size", [32, 64, 140, 200])
def test_celeba_is_cut_to_140_then_shrunk_and_rounded(tmp_path, image, size):
    face = image(218, 178)
    put(tmp_path / "list_eval_partition.txt", b"a.png 0\n")
    put(tmp_path / "img_align_celeba" / "a.png", encode(face))
    ours = load_source("celeba", "train", image_size=size, path=tmp_path).fetch(np.arange(1))[0][0]
    crop = face[39:179, 19:159].astype(np.float32).transpose(2, 0, 1)
    np.testing.assert_allclose(ours, pillow_float(crop, size, size), rtol=0, atol=0.502)


def lsun_of(tmp_path: Path, picture: np.ndarray, size: int) -> np.ndarray:
    write_database(tmp_path / "tower_train_lmdb", {b"k": encode(picture)})
    return load_source("lsun", "train", image_size=size, path=tmp_path, category="tower").fetch(np.arange(1))[0][0]


@pytest.mark.parametrize("picture", ["smooth", "noise"])
def test_lsun_gives_the_original_truncated_bytes(tmp_path, picture):
    np.testing.assert_array_equal(lsun_of(tmp_path, GOLDEN[picture], 16), GOLDEN[f"crop_resize16/{picture}"])


@pytest.mark.parametrize("picture", ["smooth", "noise"])
def test_lsun_at_the_special_size_shrinks_then_crops_as_the_original_intended(tmp_path, monkeypatch, picture):
    monkeypatch.setattr(lsun, "_SMALL_FIRST", 16)
    shrunk = GOLDEN[f"shrink16_intended/{picture}"] * 255.0
    top, left = (shrunk.shape[0] - 16) // 2, (shrunk.shape[1] - 16) // 2
    expected = shrunk[top : top + 16, left : left + 16]
    np.testing.assert_allclose(lsun_of(tmp_path, GOLDEN[picture], 16), expected, rtol=0, atol=0.501)


def test_lsun_takes_the_special_operation_at_128_pixels_only(tmp_path, image):
    photo = image(150, 190)
    small = lsun_of(tmp_path / "128", photo, 128)
    width = round(190 * 128 / 150)
    left = (width - 128) // 2
    expected = pillow_float(photo.astype(np.float32).transpose(2, 0, 1), 128, width)[:, left : left + 128]
    np.testing.assert_allclose(small, expected, rtol=0, atol=0.502)
    prints = {
        load_source("lsun", "train", image_size=n, path=tmp_path / "128", category="tower").fingerprint
        for n in (127, 128)
    }
    assert len(prints) == 2


@pytest.mark.parametrize("case", ["mnist", "svhn", "imagenet", "imagenet-old"])
def test_other_sizes_are_bilinear_and_rounded(tmp_path, case):
    dataset, folder, _, write, _ = WRITERS[case]
    images = write(tmp_path / folder)["test"][0]
    ours, _ = load_source(dataset, "test", image_size=20, root=tmp_path).fetch(np.arange(TEST))
    for image, served in zip(images, ours, strict=True):
        expected = pillow_float(image.astype(np.float32).transpose(2, 0, 1), 20, 20)
        np.testing.assert_allclose(served, expected, rtol=0, atol=0.502)


def test_the_ffhq_split_is_ncsnv2_s(tmp_path):
    """The golden permutation of 1000 items: the seed, the generator and the nine tenths."""
    golden = goldens.load("core", "ffhq_lmdb.npz")["permutation_1000"]
    entries = {f"2-{k:05d}".encode(): encode(np.full((2, 2, 3), k % 256, np.uint8)) for k in range(1000)}
    write_database(tmp_path / "FFHQ", {b"length": b"1000", **entries})
    for split, items in (("train", golden[:900]), ("test", golden[900:])):
        images, _ = load_source("ffhq_lmdb", split, image_size=2, root=tmp_path).fetch(np.arange(len(items)))
        np.testing.assert_array_equal(images[:, 0, 0, 0], items % 256)


# --- damaged and hostile files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize(
    "change",
    [
        lambda b: b"",
        lambda b: b[:7],
        lambda b: b[:-1],
        lambda b: b + b"\0",
        lambda b: b"\0\0\x0d" + b[3:],
        lambda b: b[:3] + bytes([b[3] % 3 + 1]) + b[4:],
        lambda b: b[:4] + b"\xff\xff\xff\xff" + b[8:],
        lambda b: b[:4] + bytes(4) + b[8:],
        lambda b: (
            b[: 4 + 4 * b[3]] + b"\xff" * (len(b) - 4 - 4 * b[3]) if b[3] == 1 else b[:8] + b"\0\0\0\x1d" + b[12:]
        ),
        lambda b: idx_bytes(np.zeros((4, 28, 28), np.uint8) if b[3] == 3 else np.zeros(4, np.uint8)),
    ],
    ids=["empty", "header", "cut", "long", "type", "dims", "huge", "none", "values", "count"],
)
def test_damaged_idx_files_are_named(tmp_path, name, change):
    write_idx(tmp_path, zipped=False)
    file = tmp_path / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=r"train-(images|labels).*Cure"):
        load_source("mnist", "train", image_size=28, path=tmp_path)


def test_damaged_and_incomplete_gz_files_are_named(tmp_path):
    write_idx(tmp_path, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    content = file.read_bytes()
    for damaged in (content[:-200], b"no gzip", content[:100] + bytes(50) + content[150:]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz.*Cure"):
            load_source("mnist", "train", image_size=28, path=tmp_path)
    bomb = bytes((0, 0, 8, 3)) + struct.pack(">3I", 1, 28, 28) + bytes(50_000_000)
    file.write_bytes(gzip.compress(bomb))
    with pytest.raises(DataError, match="found more bytes, expected 784"):
        load_source("mnist", "train", image_size=28, path=tmp_path)
    file.unlink()
    with pytest.raises(DataError, match=r"has train-labels-idx1-ubyte\.gz but not train-images-idx3-ubyte\[\.gz\]"):
        load_source("mnist", "train", image_size=28, path=tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        {"X": np.zeros((32, 32, 3, 2), np.uint8)},
        {"X": np.zeros((32, 32, 3, 2), np.float32), "y": np.ones((2, 1))},
        {"X": np.zeros((2, 32, 32, 3), np.uint8), "y": np.ones((2, 1))},
        {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.ones((3, 1))},
        {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [11]])},
        {"X": "text", "y": "text"},
        None,
        "cut",
    ],
    ids=["no-y", "float", "order", "count", "values", "text", "noise", "cut"],
)
def test_damaged_mat_files_are_named(tmp_path, content):
    file = tmp_path / "train_32x32.mat"
    if isinstance(content, dict):
        savemat(file, content)
    elif content is None:
        file.write_bytes(np.random.default_rng(0).bytes(3000))
    else:
        savemat(file, {"X": noise(4, 32, 32, 3).transpose(1, 2, 3, 0), "y": np.ones((4, 1))}, do_compression=True)
        file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train_32x32\.mat.*Cure"):
        load_source("svhn", "train", image_size=32, path=tmp_path)


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        {"data": np.zeros((2, 3072), np.uint8)},
        {"data": np.zeros((2, 3072), np.float32), "labels": [1, 2]},
        {"data": np.zeros((2, 12), np.uint8), "labels": [1, 2]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, 1001]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [1, "2"]},
        {"data": np.zeros((0, 3072), np.uint8), "labels": []},
        Path("code"),
    ],
    ids=["list", "no-labels", "float", "short", "count", "zero", "1001", "text", "empty", "code"],
)
def test_another_pickle_is_no_imagenet_batch(tmp_path, batch):
    put(tmp_path / "val_data", pickle.dumps(batch))
    with pytest.raises(DataError, match=r"val_data of .*Cure"):
        load_source("imagenet32", "test", image_size=32, path=tmp_path)


def test_an_incomplete_imagenet_names_the_missing_batch(tmp_path):
    write_imagenet(tmp_path / "folder")
    (tmp_path / "folder" / "train_data_batch_7").unlink()
    with pytest.raises(DataError, match="lacks train_data_batch_7"):
        load_source("imagenet32", "train", image_size=32, path=tmp_path / "folder")
    with zipfile.ZipFile(tmp_path / "Imagenet32_val.zip", "w") as archive:
        archive.writestr("other", b"")
    with pytest.raises(DataError, match=r"Imagenet32_val\.zip lacks val_data"):
        load_source("imagenet32", "test", image_size=32, path=tmp_path)


def test_many_arrays_are_served_without_being_copied_together(make_request):
    parts = [noise(n, 3072, seed=n) for n in (3, 0, 1, 4)]
    source = PlanarSource(make_request("imagenet32", image_size=32), parts, np.arange(8), 1000)
    indices = np.array([7, 0, 3, 2, 4, 7])
    expected = np.concatenate(parts)[indices].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(source.fetch(indices)[0], expected)
    np.testing.assert_array_equal(source.fetch(indices)[1], indices)


@pytest.mark.parametrize("kind", ["cut", "gz", "empty", "noise", "png"])
def test_a_damaged_tar_or_image_of_the_old_imagenet_is_named(tmp_path, kind):
    write_old_imagenet_tar(tmp_path)
    file = tmp_path / "train_32x32.tar"
    content = file.read_bytes()
    start = content.index(b"\x89PNG")
    damaged = {
        "cut": content[: start + 700],
        "gz": gzip.compress(content),
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(4096),
        "png": content[: start + 40] + bytes(2000) + content[start + 2040 :],
    }
    file.write_bytes(damaged[kind])
    with pytest.raises(DataError, match=r"train_32x32\.tar.*Cure"):
        load_source("imagenet32_old", "train", image_size=32, path=tmp_path).fetch(np.arange(TRAIN))


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (None, "put list_eval_partition.txt beside img_align_celeba"),
        (b"a.png 0\nb.png\n", "line 2 of .* is 'b.png'"),
        (b"a.png 3\n", "line 1"),
        (b"../../etc/passwd 0\n", "line 1"),
        (b"a.png 0 0\n", "line 1"),
        (b"\xff\xfe 0\n", "cannot be read"),
        (b"a.png 0\nzz.png 0\n", "lacks 1 of the 2 images .* zz.png for one"),
        (b"a.png 2\n", "holds no images of the train split"),
        (b"", "holds no images of the train split"),
        (b"small.png 0\n", "'small.png' of .*: cannot crop 140x140 from an image of 20x20"),
        (b"broken.png 0\n", "'broken.png' of .* cannot be decoded"),
        (b"deep.png 0\n", "more than 8 bits"),
    ],
    ids=range(12),
)
def test_damaged_celeba_is_named(tmp_path, listing, message):
    images = tmp_path / "img_align_celeba"
    put(images / "a.png", encode(noise(1, 218, 178, 3)[0]))
    put(images / "small.png", encode(noise(1, 20, 20, 3)[0]))
    put(images / "broken.png", encode(noise(1, 218, 178, 3)[0])[:900])
    Image.fromarray(np.zeros((218, 178), np.uint16)).save(images / "deep.png")
    if listing is not None:
        put(tmp_path / "list_eval_partition.txt", listing)
    with pytest.raises(DataError, match=message):
        load_source("celeba", "train", image_size=64, path=tmp_path).fetch(np.arange(1))


def test_a_bad_zip_of_celeba_is_named(tmp_path):
    put(tmp_path / "list_eval_partition.txt", b"a.png 0\n")
    put(tmp_path / "img_align_celeba.zip", b"PK no zip")
    with pytest.raises(DataError, match=r"img_align_celeba\.zip is not a usable zip file"):
        load_source("celeba", "train", image_size=64, path=tmp_path)


@pytest.mark.parametrize("category", [None, "", "flowers", "../tower"])
def test_lsun_needs_one_of_its_categories(tmp_path, category):
    with pytest.raises(DataError, match=r"needs a category, found .*church_outdoor.*--config\.data\.category"):
        load_source("lsun", "train", image_size=64, root=tmp_path, category=category)


def test_damaged_databases_are_named(tmp_path):
    write_database(tmp_path / "tower_val_lmdb", {b"a": b"no image", b"b": b"x" * 100_000})
    place = {"path": tmp_path, "category": "tower"}
    source = load_source("lsun", "test", image_size=8, **place)
    with pytest.raises(DataError, match=r"image 'a' of .*tower_val_lmdb cannot be decoded"):
        source.fetch(np.arange(1))
    content = (tmp_path / "tower_val_lmdb" / "data.mdb").read_bytes()
    for name, damaged, message in (
        ("bedroom", content[:20_000], "is cut off: 20000 bytes"),
        ("bridge", b"", "not a usable LMDB|cut off"),
        ("kitchen", np.random.default_rng(0).bytes(len(content)), "not a usable LMDB"),
    ):
        put(tmp_path / f"{name}_val_lmdb" / "data.mdb", damaged)
        with pytest.raises(DataError, match=message):
            load_source("lsun", "test", image_size=8, path=tmp_path, category=name)
    (tmp_path / "tower_train_lmdb").mkdir()
    with pytest.raises(DataError, match=r"has no file data\.mdb"):
        load_source("lsun", "train", image_size=8, **place)


@pytest.mark.parametrize(
    ("length", "size", "message"),
    [
        (b"x", 8, "says it has b'x' images"),
        (b"100", 8, "says it has b'100' images"),
        (b"2", 16, "no entry b'16-0000"),
        (b"2", 8, "'8-0000[01]' of .*: it has 4x4 pixels; expected 8x8"),
        (None, 8, "no entry b'length'"),
    ],
    ids=range(5),
)
def test_a_strange_ffhq_database_is_named(tmp_path, length, size, message):
    entries = {f"8-{k:05d}".encode(): encode(noise(1, 4, 4, 3)[0]) for k in range(3)}
    write_database(tmp_path / "FFHQ", entries if length is None else {b"length": length, **entries})
    with pytest.raises(DataError, match=message):
        load_source("ffhq_lmdb", "train", image_size=size, root=tmp_path).fetch(np.arange(1))


def test_downloads_are_checked_against_the_published_checksums(tmp_path, monkeypatch):
    """The files are asked for one by one, into the dataset's own folder, with the checksum they must have."""
    asked = []
    monkeypatch.setattr(
        "score_core.data.download.download",
        lambda url, target, md5: asked.append((url.rpartition("/")[2], target.relative_to(tmp_path).as_posix(), md5)),
    )
    for dataset in ("mnist", "fashion_mnist", "svhn"):
        with pytest.raises(DataError):
            load_source(dataset, "test", image_size=32, root=tmp_path, download=True)
    assert asked == [
        (f"{name}.gz", f"{folder}/{name}.gz", sums[name])
        for folder, sums in (("mnist", idx.MNIST_MD5), ("fashion_mnist", idx.FASHION_MD5))
        for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    ] + [("test_32x32.mat", "svhn/test_32x32.mat", svhn.MD5["test_32x32.mat"])]
