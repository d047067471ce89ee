"""CIFAR-10 in both published forms, packed and unpacked, found and fetched."""

import dataclasses
import functools
import hashlib
import http.server
import io
import pickle
import pickletools
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from score_core.data import DataError, MissingDataError, load_source
from score_core.data.sources import cifar10

PER_FILE = 3


@pytest.fixture(scope="module")
def data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """File stem -> images [n, 32, 32, 3] and labels: five train batches and a test batch."""
    rng = np.random.default_rng(0)
    stems = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    return {
        stem: (rng.integers(0, 256, (PER_FILE, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, PER_FILE))
        for stem in stems
    }


class Python2Pickler(pickle._Pickler):
    """Protocol 2 as Python 2 wrote the real files: every string, even inside a dtype, is a STRING opcode."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012 - the base class's own form

    def save_bytes(self, obj):
        if len(obj) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(obj)]) + obj)
        else:
            self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)
        self.memoize(obj)

    dispatch[bytes] = save_bytes
    dispatch[str] = lambda self, obj: self.save_bytes(obj.encode())

    def save_array_function(self, obj):
        self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
        self.memoize(obj)

    dispatch[type(np.zeros(0).__reduce__()[0])] = save_array_function


def python2_pickle(value) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


def python_file(images: np.ndarray, labels: np.ndarray) -> bytes:
    return python2_pickle(
        {
            b"batch_label": b"a batch",
            b"labels": labels.tolist(),
            b"data": np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072),
            b"filenames": [b"picture.png"] * len(images),
        }
    )


def binary_file(images: np.ndarray, labels: np.ndarray) -> bytes:
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    return np.concatenate([labels[:, None].astype(np.uint8), rows], axis=1).tobytes()


FORMS = {"python": ("cifar-10-batches-py", "", python_file), "binary": ("cifar-10-batches-bin", ".bin", binary_file)}


def write_folder(root: Path, data, form: str) -> Path:
    name, suffix, encode = FORMS[form]
    folder = root / name
    folder.mkdir(parents=True)
    for stem, (images, labels) in data.items():
        (folder / f"{stem}{suffix}").write_bytes(encode(images, labels))
    (folder / "readme.html").write_text("the real archives hold one, too")
    return folder


def write_archive(root: Path, data, form: str) -> Path:
    folder = write_folder(root / "unpacked", data, form)
    archive = root / f"cifar-10-{form}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    return archive


def expected(data, split: str) -> tuple[np.ndarray, np.ndarray]:
    stems = [f"data_batch_{k}" for k in range(1, 6)] if split == "train" else ["test_batch"]
    return np.concatenate([data[s][0] for s in stems]), np.concatenate([data[s][1] for s in stems])


def assert_content(source, data, split: str) -> None:
    images, labels = source.fetch(np.arange(len(source)))
    expected_images, expected_labels = expected(data, split)
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)
    assert images.dtype == np.uint8 and labels.dtype == np.int64


def test_the_test_s_own_pickles_look_like_the_real_ones(data):
    """Python 2's protocol 2: no codec call, no unicode string, the old module name, readable with encoding='bytes'."""
    content = python_file(*data["test_batch"])
    names = {opcode.name for opcode, _, _ in pickletools.genops(content)}
    assert {"PROTO", "SHORT_BINSTRING", "BINSTRING", "GLOBAL", "REDUCE", "BUILD"} <= names
    assert not [name for name in names if "UNICODE" in name or "BYTES" in name]
    assert content.startswith(b"\x80\x02") and b"numpy.core.multiarray" in content and b"_codecs" not in content
    assert set(pickle.loads(content, encoding="bytes")) == {b"batch_label", b"labels", b"data", b"filenames"}


@pytest.mark.parametrize("write", [write_folder, write_archive])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_form_gives_the_same_images(tmp_path, data, write, form, split):
    write(tmp_path, data, form)
    source = load_source("CIFAR10", split, image_size=32, root=tmp_path)
    assert (source.name, source.split, source.shape, source.num_classes) == ("cifar10", split, (32, 32, 3), 10)
    assert_content(source, data, split)


def test_every_form_has_the_same_fingerprint_and_another_image_another(tmp_path, data):
    prints = set()
    for form in FORMS:
        for write in (write_folder, write_archive):
            write(tmp_path / form / write.__name__, data, form)
            root = tmp_path / form / write.__name__
            prints.add(load_source("cifar10", "train", image_size=32, root=root).fingerprint)
    assert len(prints) == 1
    images, labels = data["data_batch_5"]
    write_folder(tmp_path / "other", {**data, "data_batch_5": (images ^ 1, labels)}, "binary")
    assert load_source("cifar10", "train", image_size=32, root=tmp_path / "other").fingerprint not in prints


def test_the_place_is_the_path_then_the_root_then_the_environment_then_the_folder_data(tmp_path, data, monkeypatch):
    places = {name: tmp_path / name for name in ("path", "root", "environment", "here/data")}
    for number, (name, place) in enumerate(places.items()):
        one = {stem: (np.full_like(images, number), labels) for stem, (images, labels) in data.items()}
        write_folder(place, one, "binary" if name == "path" else "python")

    def found(**options) -> int:
        return int(load_source("cifar10", "test", image_size=32, **options).fetch(np.arange(1))[0].max())

    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("SCORE_DATA", raising=False)
    assert found() == 3
    monkeypatch.setenv("SCORE_DATA", str(places["environment"]))
    assert found() == 2
    assert found(root=places["root"]) == 1
    assert found(root=places["root"], path=places["path"] / "cifar-10-batches-bin") == 0


def test_other_sizes_and_channels(tmp_path, data):
    write_folder(tmp_path, data, "python")
    images, _ = load_source("cifar10", "test", image_size=16, num_channels=1, root=tmp_path).fetch(np.arange(2))
    assert images.shape == (2, 16, 16, 1)
    # Noise shrunk by two is about the mean of its blocks (the triangle filter is wider, so only roughly).
    constant = {stem: (np.full_like(a, 77), b) for stem, (a, b) in data.items()}
    write_folder(tmp_path / "constant", constant, "python")
    enlarged, _ = load_source("cifar10", "test", image_size=40, root=tmp_path / "constant").fetch(np.arange(2))
    np.testing.assert_array_equal(enlarged, np.full((2, 40, 40, 3), 77))


def test_missing_data_say_what_to_put_where_and_what_to_take_instead(tmp_path):
    with pytest.raises(MissingDataError) as error:
        load_source("CIFAR10", "train", image_size=32, root=tmp_path / "empty")
    message = str(error.value)
    for words in (
        str(tmp_path / "empty"),
        "cifar-10-python.tar.gz",
        "cifar-10-batches-bin",
        "--config.data.dataset=digits",
    ):
        assert words in message
    assert "photos" in message and "download=True" in message
    assert error.value.exit_code == 2
    assert not (tmp_path / "empty").exists(), "nothing may be made while looking"
    with pytest.raises(MissingDataError, match="nowhere"):
        load_source("cifar10", "train", image_size=32, path=tmp_path / "nowhere")


def corrupt(content: bytes, kind: str) -> bytes:
    match kind:
        case "cut":
            return content[: len(content) // 2 - 1]
        case "empty":
            return b""
        case "noise":
            return bytes(reversed(content))
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["cut", "empty", "noise"])
@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_archive_is_named(tmp_path, data, form, kind):
    archive = write_archive(tmp_path, data, form)
    archive.write_bytes(corrupt(archive.read_bytes(), kind))
    with pytest.raises(DataError, match=rf"cifar-10-{form}\.tar\.gz.*Cure"):
        load_source("cifar10", "test", image_size=32, root=tmp_path)


@pytest.mark.parametrize("kind", ["cut", "noise"])
@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_is_named(tmp_path, data, form, kind):
    folder = write_folder(tmp_path, data, form)
    file = folder / f"data_batch_4{FORMS[form][1]}"
    content = corrupt(file.read_bytes(), kind)
    if form == "binary" and kind == "noise":
        content = b"\xff" * 3073  # a label of 255 in a record of the right length
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_4.*cifar-10-batches") as error:
        load_source("cifar10", "train", image_size=32, root=tmp_path)
    assert not isinstance(error.value, MissingDataError)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_an_incomplete_dataset_names_the_missing_file(tmp_path, data, form, write):
    write(tmp_path, {stem: value for stem, value in data.items() if stem != "data_batch_3"}, form)
    with pytest.raises(DataError, match=rf"not a complete CIFAR-10: data_batch_3{FORMS[form][1]} is missing"):
        load_source("cifar10", "train", image_size=32, root=tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {b"data": np.zeros((2, 3072), np.uint8)},
        {b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]},
        {b"data": np.zeros((2, 100), np.uint8), b"labels": [0, 1]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]},
        {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, "1"]},
    ],
    ids=["list", "no-labels", "float", "short-rows", "label-count", "label-value", "label-type"],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, data, content):
    folder = write_folder(tmp_path, data, "python")
    (folder / "test_batch").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match=r"test_batch of .* is not a CIFAR-10 batch"):
        load_source("cifar10", "test", image_size=32, root=tmp_path)


def test_an_archive_writes_nothing_to_disk(tmp_path, data):
    """Members with escaping names are never unpacked."""
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("../../escaped", str(tmp_path / "absolute"), "cifar-10-batches-bin/test_batch.bin"):
            content = binary_file(*data["test_batch"])
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    assert_content(load_source("cifar10", "test", image_size=32, root=tmp_path), data, "test")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def server(tmp_path, data, monkeypatch):
    """A loopback server with the tiny python archive, which the table of forms then names."""
    served = tmp_path / "served"
    archive = write_archive(served, data, "python")
    handler = functools.partial(QuietHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_address[1]}/{archive.name}"
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        set_form(monkeypatch, url=url, md5=md5)
        yield url
        httpd.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def set_form(monkeypatch, **changes) -> None:
    monkeypatch.setattr(cifar10, "FORMS", (dataclasses.replace(cifar10.FORMS[0], **changes), cifar10.FORMS[1]))


def test_the_archive_is_fetched_only_when_allowed_and_only_once(tmp_path, data, server, monkeypatch):
    root = tmp_path / "new" / "root"
    with pytest.raises(MissingDataError):
        load_source("cifar10", "test", image_size=32, root=root)
    assert_content(load_source("cifar10", "test", image_size=32, root=root, download=True), data, "test")
    assert [file.name for file in root.iterdir()] == ["cifar-10-python.tar.gz"]
    set_form(monkeypatch, url="http://127.0.0.1:9/gone")
    assert_content(load_source("cifar10", "train", image_size=32, root=root, download=True), data, "train")


def test_a_wrong_checksum_keeps_nothing(tmp_path, server, monkeypatch):
    set_form(monkeypatch, md5="0" * 32)
    with pytest.raises(DataError, match=r"has MD5 .*, expected 00000.*nothing was kept"):
        load_source("cifar10", "test", image_size=32, root=tmp_path / "root", download=True)
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/cifar-10-python.tar.gz", "{server}.missing"])
def test_a_failed_download_says_how_to_do_it_by_hand(tmp_path, server, monkeypatch, url):
    url = url.format(server=server)
    set_form(monkeypatch, url=url)
    with pytest.raises(DataError, match="could not download") as error:
        load_source("cifar10", "test", image_size=32, root=tmp_path / "root", download=True)
    assert url in str(error.value) and str(tmp_path / "root") in str(error.value) and "digits" in str(error.value)
    assert error.value.exit_code == 2
    assert list((tmp_path / "root").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said(tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write to"):
        load_source("cifar10", "test", image_size=32, root=tmp_path / "file", download=True)


def test_the_published_checksums_are_written_down():
    assert [form.md5 for form in cifar10.FORMS] == [
        "c58f30108f718f92721af3b95e74349a",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ]
