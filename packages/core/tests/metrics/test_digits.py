"""The digits extractor: its weights, its accuracy, its arithmetic, and features that live on other images."""

import hashlib
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from score_core.data import load_source
from score_core.data.preprocess import resize
from score_core.metrics import MetricError, MetricUsageError, digits, frechet_distance_from_activations, get_extractor

WEIGHTS = resources.files("score_core.metrics").joinpath("weights", "digits.npz")


@pytest.fixture(scope="module")
def extractor() -> digits.DigitsExtractor:
    return digits.DigitsExtractor()


def images_of(dataset: str, split: str, size: int) -> tuple[np.ndarray, np.ndarray | None]:
    source = load_source(dataset, split, image_size=size)
    return source.fetch(np.arange(len(source)))


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_weights_are_the_named_ones_and_small(extractor: digits.DigitsExtractor) -> None:
    data = WEIGHTS.read_bytes()
    assert len(data) < 300_000
    assert hashlib.sha256(data).hexdigest() == digits.SHA256 == extractor.sha256


@pytest.mark.parametrize("size", [8, 16, 32])
def test_accuracy_on_the_test_split(extractor: digits.DigitsExtractor, size: int) -> None:
    images, labels = images_of("digits", "test", size)
    _, logits = extractor(images)
    assert np.mean(logits.argmax(axis=1) == labels) > 0.97


def test_found_by_name_in_any_case() -> None:
    for name in ("digits", "Digits"):
        found = get_extractor(name)
        assert (found.name, found.feature_dim, found.num_logits) == ("digits", 64, 10)
    with pytest.raises(MetricUsageError, match=r"unknown feature extractor 'vgg'; known: digits, inception, "):
        get_extractor("vgg")
    with pytest.raises(MetricUsageError, match="takes no file"):
        get_extractor("digits", weights="weights.pth")


def test_forward_agrees_with_torch_in_float64(extractor: digits.DigitsExtractor) -> None:
    import torch
    from torch.nn import functional

    images = images_of("digits", "test", 16)[0][:20]
    with np.load(str(WEIGHTS)) as file:
        weights = {name: torch.from_numpy(file[name]).double() for name in file.files}
    h = torch.from_numpy(images).double().permute(0, 3, 1, 2).mean(1, keepdim=True) / 127.5 - 1
    for layer in (1, 2, 3):
        kernel = weights[f"conv_{layer}/kernel"].permute(3, 2, 0, 1)
        h = functional.leaky_relu(functional.conv2d(h, kernel, weights[f"conv_{layer}/bias"], padding=1), 0.1)
        h = functional.avg_pool2d(h, 2) if layer < 3 else h.mean((2, 3))
    logits = h @ weights["logits/kernel"] + weights["logits/bias"]
    features, scores = extractor(images)
    assert features.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(features, h.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scores, logits.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [8, 11, 16, 28, 32, 100])
def test_resize_is_linear_with_antialiasing(size: int) -> None:
    image = np.random.default_rng(0).standard_normal((size, size, 1)).astype(np.float32)
    matrix = digits.resize_matrix(size, 16)
    np.testing.assert_allclose(matrix @ image[..., 0] @ matrix.T, resize(image, 16, 16)[..., 0], rtol=1e-5, atol=1e-5)


def test_sizes_and_channels_become_grey(extractor: digits.DigitsExtractor) -> None:
    grey = random_images(3, 12, 20, 1)
    pool_3, logits = extractor(grey)
    assert pool_3.shape == (3, 64)
    assert logits.shape == (3, 10)
    for channels in (2, 3, 5):
        np.testing.assert_allclose(extractor(np.repeat(grey, channels, axis=3))[0], pool_3, rtol=1e-5, atol=1e-5)
    colour = random_images(3, 12, 20, 3)
    np.testing.assert_array_equal(extractor(colour[..., ::-1])[0], extractor(colour)[0])


@pytest.mark.parametrize("shape", [(16, 16, 1), (32, 20, 3)])
def test_an_image_has_the_same_features_in_any_batch(
    extractor: digits.DigitsExtractor, shape: tuple[int, int, int]
) -> None:
    images = random_images(digits.CHUNK + 37, *shape)
    whole = extractor(images)
    for start, stop in ((0, 1), (5, 12), (30, 30 + digits.CHUNK), (digits.CHUNK, None)):
        for found, expected in zip(extractor(images[start:stop]), whole, strict=True):
            np.testing.assert_array_equal(found, expected[start:stop])
    assert extractor(images[:0])[0].shape == (0, 64)


def test_every_feature_lives_on_photographs(extractor: digits.DigitsExtractor) -> None:
    for split in ("train", "test"):
        features = extractor(images_of("photos", split, 32)[0])[0]
        assert features.std(axis=0).min() > 0.2
        variances = np.linalg.eigvalsh(np.cov(features.T, dtype=np.float64))
        assert variances[0] > 1e-5 * variances[-1]  # of full rank far above rounding


@pytest.mark.parametrize(("dataset", "size"), [("digits", 16), ("photos", 32)])
def test_distance_grows_with_corruption(extractor: digits.DigitsExtractor, dataset: str, size: int) -> None:
    generator = np.random.default_rng(1)
    clean, other = np.array_split(generator.permutation(images_of(dataset, "train", size)[0]), 2)
    noise = generator.standard_normal(clean.shape)
    noisy = [np.clip(clean + level * noise, 0, 255).astype(np.uint8) for level in (0, 15, 30, 60, 120)]
    reference = extractor(other)[0]
    distances = [frechet_distance_from_activations(reference, extractor(images)[0]) for images in noisy]
    assert distances == sorted(distances)
    assert distances[-1] > 10 * distances[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 16, 16, 1), np.float32), r"found float32 \[2, 16, 16, 1\]"),
        (np.zeros((2, 16, 16), np.uint8), r"found uint8 \[2, 16, 16\]"),
        (np.zeros((2, 7, 16, 1), np.uint8), "at least 8 x 8"),
        (np.zeros((2, 16, 16, 0), np.uint8), "1 channel"),
    ],
)
def test_what_is_no_image_is_refused(extractor: digits.DigitsExtractor, images: np.ndarray, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        extractor(images)


def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "_read_weights", lambda: WEIGHTS.read_bytes() + b"x")
    with pytest.raises(MetricError, match=f"expected {digits.SHA256}; reinstall"):
        digits.DigitsExtractor()


def test_scores_need_nothing_but_numpy() -> None:
    program = (
        "import sys, numpy as np\n"
        "from score_core.metrics import get_extractor, compute_metrics, collect_statistics\n"
        "images = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 1), dtype=np.uint8)\n"
        "statistics = collect_statistics(get_extractor('digits'), [images], header={})\n"
        "compute_metrics(statistics, statistics)\n"
        "heavy = {'torch', 'jax', 'scipy', 'sklearn', 'tensorflow', 'matplotlib', 'PIL'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
