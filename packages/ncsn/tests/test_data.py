"""Preprocessing and CelebA's annotations against the original's, the parts of ScoreNet's splits."""

from types import SimpleNamespace

import goldens
import numpy as np
import pytest
from PIL import Image
from torch_goldens import close

from ncsn.celeba import FILES, CelebA
from ncsn.data import open_data, shuffled_2019
from score_core.data.errors import DataError
from score_core.data.torchvision_sources import center_crop, resize_shorter

CASES = goldens.load("ncsn", "datasets.json")
ARRAYS = goldens.load("ncsn", "datasets.npz")
READER = CASES["CelebA_reader"]


@pytest.mark.parametrize("name", ARRAYS)
def test_preprocessing(name):
    case = CASES[name]
    base = CASES[name.removesuffix("_normalized")]
    height, width, channels = case.get("input_hwc", base.get("input_hwc"))
    shape = (height, width, 3) if channels == 3 else (height, width)
    image = np.random.RandomState(case["seed"]).randint(0, 256, shape).astype(np.uint8).reshape(height, width, channels)
    size = ARRAYS[name].shape[1]
    if name.startswith("celeba"):
        image = center_crop(image, 140)
    found = np.moveaxis(resize_shorter(image, size), -1, 0).astype(np.float32) / 255
    close(2 * found - 1 if name.endswith("normalized") else found, ARRAYS[name], 1e-6)


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """The seven images and five tables the golden numbers were made from."""
    root = tmp_path_factory.mktemp("celeba") / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    inputs = READER["inputs"]
    for i, name in enumerate(inputs["filenames"]):
        image = Image.new("RGB", (178, 218), (10 * i + 5, 100, 200 - 10 * i))
        image.save(root / "img_align_celeba" / name, quality=95)
    for kind, (file, _) in FILES.items():
        rows = [np.atleast_1d(row) for row in inputs[kind]]
        lines = [f"{name}  {' '.join(map(str, row))}" for name, row in zip(inputs["filenames"], rows, strict=True)]
        header = (
            []
            if kind in ("identity", "partition")
            else [str(len(lines)), " ".join(f"c{i}" for i in range(len(rows[0])))]
        )
        (root / file).write_text("\n".join([*header, *lines]) + "\n")
    return root.parent


@pytest.mark.parametrize("split", ["train", "valid", "test", "TRAIN"])
def test_annotations(celeba, split):
    expected = READER[split]
    kinds = ["attr", "identity", "bbox", "landmarks"]
    data = CelebA(
        celeba, split, kinds, lambda image: resize_shorter(center_crop(np.asarray(image), 140), 32), verify=False
    )
    assert len(data) == expected["length"]
    assert data.filename == expected["filenames"]
    image, targets = data[0]
    assert list(np.moveaxis(image, -1, 0).shape) == expected["x_shape"]
    np.testing.assert_allclose(image.mean((0, 1)) / 255, expected["x_mean"], atol=0.01)  # another JPEG coder
    for kind, target in zip(kinds, targets, strict=True):
        np.testing.assert_array_equal(target, expected[f"{kind}0"])
        assert target.dtype == np.int64


def test_annotations_by_default(celeba):
    image, target = CelebA(celeba, verify=False)[0]
    assert image.size == tuple(READER["defaults"]["image_size"])
    assert list(target.shape) == READER["defaults"]["target_shape"]


def test_annotations_that_are_refused(celeba, tmp_path):
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        CelebA(celeba, "dev", verify=False)
    with pytest.raises(ValueError, match="unknown target_type 'age'"):
        CelebA(celeba, target_type=["attr", "age"], verify=False)
    with pytest.raises(DataError, match="is not the published file"):
        CelebA(celeba)
    with pytest.raises(DataError, match="img_align_celeba"):
        CelebA(tmp_path)


def config(**data):
    return SimpleNamespace(data=SimpleNamespace(**{"path": None, "download": False, "channels": 3} | data))


def test_scorenet_cuts_celeba_at_70_and_80_percent(celeba):
    """Any folder of images; the seven of the fixture: four to train, one to test."""
    made = config(dataset="CELEBA", image_size=32, path=str(celeba))
    train, test = (open_data(made, "ScoreNetRunner", celeba, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (int(0.7 * 7), int(0.8 * 7) - int(0.7 * 7))
    images, labels = train.fetch(np.arange(len(train)))
    assert images.shape == (4, 32, 32, 3)
    assert labels is None
    colours = images[:, 16, 16, 0].astype(int)
    np.testing.assert_allclose(colours, 10 * shuffled_2019(7)[:4] + 5, atol=2)
    assert train.fingerprint != test.fingerprint


def test_missing_folder_of_images(tmp_path):
    with pytest.raises(DataError, match=r"'CELEBA' was not found.*any folder of images"):
        open_data(config(dataset="CELEBA", image_size=32), "ScoreNetRunner", tmp_path, "train")
