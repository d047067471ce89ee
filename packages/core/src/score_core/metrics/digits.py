"""The ``digits`` extractor: a small convolutional classifier of handwritten digits, run in NumPy.

It makes every score computable with nothing but the package: no download, no deep-learning framework, the same numbers
whichever framework drew the images. It is trained on the embedded digits (``benchmarks/train_digits_extractor.py``) and
stands in for Inception on other small images; its scores compare runs with each other, not with published tables.

    g      = mean_c x_c / 127.5 - 1                        grey, [-1, 1]             [n, H, W]
    g_16   = R_H g R_W^T                                   linear resize             [n, 16, 16]
    h_1    = avgpool_2 lrelu(conv_3x3(g_16) + b_1)                                   [n, 8, 8, 24]
    h_2    = avgpool_2 lrelu(conv_3x3(h_1) + b_2)                                    [n, 4, 4, 48]
    h_3    = lrelu(conv_3x3(h_2) + b_3)                                              [n, 4, 4, 64]
    pool_3 = mean over the 16 positions of h_3                                       [n, 64]
    logits = pool_3 W + b                                                            [n, 10]

lrelu(x) = max(x, 0.1 x): no feature can go dead on images unlike digits. Convolutions are zero-padded, stride 1,
written as matrix products over the nine shifted copies of the input. A product never spans two images: one for a whole
batch would round an image's features by its place in the batch.
"""

import hashlib
import io
from collections.abc import Mapping
from importlib import resources

import numpy as np

from score_core.metrics.validation import MetricError, check_images

__all__ = ["DigitsExtractor"]

SHA256 = "b8faaf68d1e7d9c6b7d69abbb4e8065fe9487e3759d85ebbab04fd8d57109f4d"
IMAGE_SIZE = 16
MIN_SIZE = 8
NEGATIVE_SLOPE = np.float32(0.1)
CHUNK = 64  # images at a time: their patches stay in the cache
# OpenBLAS starts threads for a matrix product above this many multiplications, and waking them takes longer than these
# small products do.
SERIAL_PRODUCTS = 2**18


class DigitsExtractor:
    """Images uint8 [n, H, W, C] -> (pool_3 float32 [n, 64], logits float32 [n, 10]).

    H, W >= 8 and any C >= 1: channels are averaged to grey, other sizes are resized linearly to 16 x 16.

    Raises:
        MetricError: on construction if the packaged weights are missing or damaged.
    """

    name = "digits"

    def __init__(self) -> None:
        data = _read_weights()
        self.sha256 = hashlib.sha256(data).hexdigest()
        if self.sha256 != SHA256:
            raise MetricError(
                f"digits extractor: weights have SHA-256 {self.sha256}, expected {SHA256}; reinstall score-core"
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            self._weights = dict(arrays)
        self.feature_dim, self.num_logits = self._weights["logits/kernel"].shape

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features and logits of images uint8 [n, H, W, C].

        Raises:
            MetricError: another dtype, number of dimensions, or an image smaller than 8 x 8.
        """
        images = check_images("digits extractor", images, min_size=MIN_SIZE)
        pool_3 = np.empty((len(images), self.feature_dim), np.float32)
        logits = np.empty((len(images), self.num_logits), np.float32)
        for start in range(0, len(images), CHUNK):
            part = slice(start, start + CHUNK)
            pool_3[part], logits[part] = forward(self._weights, to_grey(images[part]))
        return pool_3, logits


def to_grey(images: np.ndarray) -> np.ndarray:
    """Images uint8 [n, H, W, C] as grey float32 [n, 16, 16] in [-1, 1]."""
    height, width, channels = images.shape[1:]
    grey = images.sum(axis=-1, dtype=np.float32) / np.float32(127.5 * channels) - np.float32(1)
    if (height, width) == (IMAGE_SIZE, IMAGE_SIZE):
        return grey
    return resize_matrix(height, IMAGE_SIZE) @ grey @ resize_matrix(width, IMAGE_SIZE).T


def resize_matrix(size: int, new_size: int) -> np.ndarray:
    """Linear interpolation from ``size`` to ``new_size`` samples as a matrix R, float32 [new_size, size].

    Pixel centres lie at half-integers; when shrinking, the triangle is widened by size / new_size (no aliasing); rows
    sum to 1.
    """
    ratio = size / new_size
    support = max(ratio, 1.0)
    centre = (np.arange(new_size)[:, None] + 0.5) * ratio
    weight = np.maximum(0, 1 - np.abs(np.arange(size) + 0.5 - centre) / support)
    return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def forward(weights: Mapping[str, np.ndarray], grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(pool_3 [n, 64], logits [n, 10]) of grey images float32 [n, 16, 16] in [-1, 1]."""
    h = grey[..., None]
    h = _halve(_convolve(h, weights["conv_1/kernel"], weights["conv_1/bias"]))
    h = _halve(_convolve(h, weights["conv_2/kernel"], weights["conv_2/bias"]))
    h = _convolve(h, weights["conv_3/kernel"], weights["conv_3/bias"])
    pool_3 = h.mean(axis=(1, 2))
    # A matrix-vector product of the library would round by the position in memory; these are 640 products an image.
    return pool_3, (pool_3[:, :, None] * weights["logits/kernel"]).sum(axis=1) + weights["logits/bias"]


def _convolve(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """lrelu(x * kernel + bias): x [n, h, w, c], kernel [3, 3, c, d], zero padding, stride 1 -> [n, h, w, d]."""
    n, height, width, channels = x.shape
    padded = np.zeros((n, height + 2, width + 2, channels), np.float32)
    padded[:, 1:-1, 1:-1] = x
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    rows = height * width
    while rows % 2 == 0 and rows * kernel.size > SERIAL_PRODUCTS:
        rows //= 2
    patches = np.concatenate(shifted, axis=-1).reshape(-1, rows, 9 * channels)
    y = patches @ kernel.reshape(9 * channels, -1)
    y += bias
    np.maximum(y, NEGATIVE_SLOPE * y, out=y)
    return y.reshape(n, height, width, -1)


def _halve(x: np.ndarray) -> np.ndarray:
    """Average over 2 x 2 blocks: [n, h, w, c] -> [n, h/2, w/2, c]."""
    rows = x[:, ::2] + x[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]) * np.float32(0.25)


def _read_weights() -> bytes:
    try:
        return resources.files("score_core.metrics").joinpath("weights", "digits.npz").read_bytes()
    except FileNotFoundError as error:
        raise MetricError(f"digits extractor: weights not found ({error}); reinstall score-core") from error
