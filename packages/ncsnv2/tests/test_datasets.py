"""Images as the original's loaders served them: resized and cropped by Pillow, split and ordered as there."""

import io

import goldens
import numpy as np
import pytest
from PIL import Image

from score_core.data import MissingDataError, image_grid
from score_core.data.torchvision_sources import center_crop, load_torchvision_source, resize_shorter

GOLDEN = goldens.load("ncsnv2", "datasets.npz")


def as_tensor(images):
    """What torchvision's ToTensor makes of uint8 [n, H, W, C]."""
    return images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_lmdb(folder, entries):
    lmdb = pytest.importorskip("lmdb")
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key.encode(), value)


def served(name, split, root, **options):
    source = load_torchvision_source(name, split, num_channels=3, datasets=root, **options)
    return as_tensor(source.fetch(np.arange(len(source)))[0])


def test_ffhq(tmp_path):
    images = GOLDEN["ffhq/source"]
    entries = {"length": str(len(images)).encode()}
    entries |= {f"8-{i:05d}": png(image) for i, image in enumerate(images)}
    write_lmdb(tmp_path / "FFHQ", entries)
    train, test = (served("FFHQ", split, tmp_path, image_size=8) for split in ("train", "test"))
    np.testing.assert_array_equal(train[:3], GOLDEN["ffhq/train"])
    np.testing.assert_array_equal(test, GOLDEN["ffhq/test"])
    np.testing.assert_array_equal(train, as_tensor(images[GOLDEN["ffhq/train_indices"]]))
    np.testing.assert_array_equal(test, as_tensor(images[GOLDEN["ffhq/test_indices"]]))


@pytest.mark.parametrize("part", ["train", "val"])
def test_lsun(tmp_path, part):
    sources = [GOLDEN[f"lsun/source{i}"] for i in range(4)]
    write_lmdb(tmp_path / "lsun" / f"tower_{part}_lmdb", {f"key{i}": png(image) for i, image in enumerate(sources)})
    split = "train" if part == "train" else "test"
    images = served("LSUN", split, tmp_path, image_size=24, category="tower")
    np.testing.assert_array_equal(images, GOLDEN[f"lsun/{split}24"])


def test_celeba(tmp_path):
    folder = tmp_path / "celeba" / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    blank = np.zeros((218, 178, 3), np.uint8)
    images = [GOLDEN["celeba/source_first"], blank, blank, GOLDEN["celeba/source_test_first"], blank, blank]
    facts = {key: value for part in goldens.load("ncsnv2", "datasets.json") for key, value in part.items()}
    lines = []
    for i, (image, partition) in enumerate(zip(images, facts["partitions"], strict=True), 1):
        (folder / "img_align_celeba" / f"{i:06d}.png").write_bytes(png(image))
        lines.append(f"{i:06d}.png {partition}\n")
    (folder / "list_eval_partition.txt").write_text("".join(lines))
    train, test = (served("CELEBA", split, tmp_path, image_size=16) for split in ("train", "test"))
    assert (len(train), len(test)) == (facts["celeba_train_len"], facts["celeba_test_len"])
    np.testing.assert_array_equal(train[0], GOLDEN["celeba/train16_first"])
    np.testing.assert_array_equal(test[0], GOLDEN["celeba/test16_first"])


@pytest.mark.parametrize("size", [16, 32, 48])
def test_cifar10(tmp_path, size):
    image = GOLDEN["cifar/source"]
    record = bytes([3]) + image.transpose(2, 0, 1).tobytes()
    for folder in ("cifar10", "cifar10_test"):
        batches = tmp_path / folder / "cifar-10-batches-bin"
        batches.mkdir(parents=True)
        names = ["test_batch.bin"] if folder.endswith("test") else [f"data_batch_{k}.bin" for k in range(1, 6)]
        for name in names:
            (batches / name).write_bytes(record)
    for split, count in (("train", 5), ("test", 1)):
        images = served("CIFAR10", split, tmp_path, image_size=size)
        assert len(images) == count
        np.testing.assert_array_equal(images[0], GOLDEN[f"cifar/resize{size}"])


def test_church_crop_of_the_neighbour_script():
    image = center_crop(resize_shorter(GOLDEN["lsun/source3"], 30), 30)
    np.testing.assert_array_equal(as_tensor(image[None])[0], GOLDEN["nn/church96_from_source3_resize"])


def test_grids_are_the_originals():
    images = GOLDEN["grid/in"].transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(image_grid(images, 3), GOLDEN["grid/png"])
    np.testing.assert_array_equal(image_grid(images[:1], 1, 0), GOLDEN["grid/single_png"])
    np.testing.assert_array_equal(image_grid(images[:4, ..., :1], 2), GOLDEN["grid/gray_png"])


def test_a_dataset_that_is_not_there_says_what_to_put_where(tmp_path):
    with pytest.raises(MissingDataError) as caught:
        served("CIFAR10", "train", tmp_path / "datasets", image_size=32)
    message = str(caught.value)
    assert str(tmp_path / "datasets" / "cifar10") in message and "data.path" in message and "digits.yml" in message
    assert "--config.data" not in message


def test_embedded_digits_need_no_files(tmp_path):
    images = served("digits", "train", tmp_path, image_size=16)
    assert images.shape == (1617, 3, 16, 16)
