"""Inception-v3 as the feature network of FID, IS and KID.

The network is the graph of 2015-12-05 that all these scores were defined on, in the layout of pytorch-fid and
torch-fidelity (566 state-dict entries, 1008 classes). An image becomes, with all convolutions followed by batch
normalisation (eps = 0.001) and ReLU,

    tap 0     after the first max pool    64 channels
    tap 1     after the second           192
    tap 2     after block Mixed_6e       768
    tap 3     pool_3, the mean over all positions after Mixed_7c    2048
    logits    W pool_3 (+ b)    1008

The graph of 2015 differs from the one trained for ImageNet with torchvision: padding does not count in the average
pools, and the last block pools by the maximum (``pooling="fid"``). ``pooling="imagenet"`` is the other one.

Bytes x in 0..255 become the network's input in one of three ways, R_s the bilinear resize to 299 x 299 in which output
pixel j samples the input at j s (no half-pixel centres, TensorFlow 1), R_h the one that samples at (j + 1/2) s - 1/2,
s = size / 299, both without antialiasing:

    tfgan            R_s (x / 127.5 - 1)
    torch_fidelity   (R_s x - 128) / 128
    pytorch_fid      2 R_h (x / 255) - 1
"""

import hashlib
import io
import pickle
import struct
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from score_core.metrics.validation import MetricUsageError

__all__ = ["BLOCKS", "Inception", "InceptionFeatures", "read_state", "resize_bilinear", "to_input"]

# What PyTorch's reader raises on bytes that are no file of weights.
_DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)

Pooling = Literal["fid", "imagenet"]
Scaling = Literal["tfgan", "torch_fidelity", "pytorch_fid"]
Size = int | tuple[int, int]

INPUT_SIZE = 299
FEATURES = 2048
CLASSES = 1008
BATCH = 32  # images at a time: the first layers take 12 MB an image

BLOCKS = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
    ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)
"""Modules up to each tap; other code names module ``i`` of tap ``b`` ``blocks.<b>.<i>``."""


class Conv(nn.Module):
    """relu(bn(conv(x)))."""

    def __init__(self, channels: int, out: int, kernel: Size, stride: int = 1, padding: Size = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


def _row(channels: int, out: int, width: int) -> Conv:
    return Conv(channels, out, (1, width), padding=(0, width // 2))


def _column(channels: int, out: int, height: int) -> Conv:
    return Conv(channels, out, (height, 1), padding=(height // 2, 0))


def _average(x: Tensor, pooling: Pooling) -> Tensor:
    return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=pooling == "imagenet")


class MixedA(nn.Module):
    """35 x 35: 1x1, 5x5, double 3x3, pool."""

    def __init__(self, channels: int, pool_features: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.branch1x1 = Conv(channels, 64, 1)
        self.branch5x5_1 = Conv(channels, 48, 1)
        self.branch5x5_2 = Conv(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Conv(channels, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, padding=1)
        self.branch_pool = Conv(channels, pool_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x, self.pooling))], 1)


class MixedB(nn.Module):
    """35 x 35 to 17 x 17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Conv(channels, 384, 3, stride=2)
        self.branch3x3dbl_1 = Conv(channels, 64, 1)
        self.branch3x3dbl_2 = Conv(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Conv(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, functional.max_pool2d(x, 3, stride=2)], 1)


class MixedC(nn.Module):
    """17 x 17: 1x1, 7x7 and double 7x7 in factors, pool."""

    def __init__(self, channels: int, width: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.branch1x1 = Conv(channels, 192, 1)
        self.branch7x7_1 = Conv(channels, width, 1)
        self.branch7x7_2 = _row(width, width, 7)
        self.branch7x7_3 = _column(width, 192, 7)
        self.branch7x7dbl_1 = Conv(channels, width, 1)
        self.branch7x7dbl_2 = _column(width, width, 7)
        self.branch7x7dbl_3 = _row(width, width, 7)
        self.branch7x7dbl_4 = _column(width, width, 7)
        self.branch7x7dbl_5 = _row(width, 192, 7)
        self.branch_pool = Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x, self.pooling))], 1)


class MixedD(nn.Module):
    """17 x 17 to 8 x 8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1 = Conv(channels, 192, 1)
        self.branch3x3_2 = Conv(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Conv(channels, 192, 1)
        self.branch7x7x3_2 = _row(192, 192, 7)
        self.branch7x7x3_3 = _column(192, 192, 7)
        self.branch7x7x3_4 = Conv(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        three = self.branch3x3_2(self.branch3x3_1(x))
        return torch.cat([three, self.branch7x7x3_4(seven), functional.max_pool2d(x, 3, stride=2)], 1)


class MixedE(nn.Module):
    """8 x 8: 1x1, 3x3 and double 3x3 that fan out, pool."""

    def __init__(self, channels: int, pooling: Pooling, max_pool: bool) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.max_pool = max_pool
        self.branch1x1 = Conv(channels, 320, 1)
        self.branch3x3_1 = Conv(channels, 384, 1)
        self.branch3x3_2a = _row(384, 384, 3)
        self.branch3x3_2b = _column(384, 384, 3)
        self.branch3x3dbl_1 = Conv(channels, 448, 1)
        self.branch3x3dbl_2 = Conv(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = _row(384, 384, 3)
        self.branch3x3dbl_3b = _column(384, 384, 3)
        self.branch_pool = Conv(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, stride=1, padding=1) if self.max_pool else _average(x, self.pooling)
        fanned = (self.branch3x3_2a(three), self.branch3x3_2b(three))
        fanned += (self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double))
        return torch.cat([self.branch1x1(x), *fanned, self.branch_pool(pooled)], 1)


class Inception(nn.Module):
    """The network; inputs [n, 3, H, W] in [-1, 1], H = W = 299 where scores are to be comparable (75 at least).

    Arguments:
        pooling: ``fid`` (the graph of 2015) or ``imagenet`` (see the module's text).
        classes: of the classifier ``fc``; None leaves it out.
    """

    def __init__(self, pooling: Pooling = "fid", classes: int | None = CLASSES) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b = MixedA(192, 32, pooling)
        self.Mixed_5c = MixedA(256, 64, pooling)
        self.Mixed_5d = MixedA(288, 64, pooling)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b = MixedC(768, 128, pooling)
        self.Mixed_6c = MixedC(768, 160, pooling)
        self.Mixed_6d = MixedC(768, 160, pooling)
        self.Mixed_6e = MixedC(768, 192, pooling)
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b = MixedE(1280, pooling, max_pool=False)
        self.Mixed_7c = MixedE(2048, pooling, max_pool=pooling == "fid")
        self.fc = None if classes is None else nn.Linear(FEATURES, classes)

    def taps(self, x: Tensor, last: int = 3) -> list[Tensor]:
        """Taps 0 .. ``last``, [n, C, h, w] each (tap 3: [n, 2048, 1, 1]); what lies behind the last is not computed."""
        found = []
        for tap, names in enumerate(BLOCKS[: last + 1]):
            for name in names:
                x = getattr(self, name)(x)
            if tap < 2:
                x = functional.max_pool2d(x, 3, stride=2)
            elif tap == 3:
                x = x.mean((2, 3), keepdim=True)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """pool_3 [n, 2048]."""
        return self.taps(x)[3].flatten(1)


def resize_bilinear(x: Tensor, size: int = INPUT_SIZE) -> Tensor:
    """R_s: [..., H, W] to [..., size, size], TensorFlow 1's bilinear resize (see the module's text)."""
    if x.shape[-2:] == (size, size):
        return x
    rows, columns = (_interpolation(n, size).to(x) for n in x.shape[-2:])
    return rows @ x @ columns.T


def _interpolation(size: int, new_size: int) -> Tensor:
    """R_s along one axis as a matrix float32 [new_size, size]."""
    # parity: positions are rounded to float32, as there
    position = np.arange(new_size, dtype=np.float32) * (np.float32(size) / np.float32(new_size))
    low = position.astype(np.int64)
    weight = position - low
    matrix = np.zeros((new_size, size), np.float32)
    row = np.arange(new_size)
    matrix[row, low] = 1 - weight
    matrix[row, np.minimum(low + 1, size - 1)] += weight
    return torch.from_numpy(matrix)


def to_input(images: Tensor, scaling: Scaling) -> Tensor:
    """The network's input [n, 3, 299, 299] of images [n, 3, H, W], floating point on the scale 0..255."""
    if scaling == "tfgan":
        return resize_bilinear((images - 127.5) / 127.5)
    if scaling == "torch_fidelity":
        return (resize_bilinear(images) - 128) / 128
    size = (INPUT_SIZE, INPUT_SIZE)
    return 2 * functional.interpolate(images / 255, size, mode="bilinear", align_corners=False) - 1


class InceptionFeatures:
    """Images uint8 [n, H, W, C] -> (pool_3 float32 [n, 2048], logits float32 [n, 1008] or None).

    Arguments:
        state: from :func:`read_state`; without ``fc.*`` there are no logits.
        scaling: how bytes become the input.
        logits: ``unbiased`` W pool_3, ``biased`` W pool_3 + b, or None.
        device: default: the first GPU if there is one, else the CPU.
        batch_size: images computed at a time.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        scaling: Scaling,
        logits: Literal["unbiased", "biased"] | None,
        *,
        device: str | torch.device | None = None,
        batch_size: int = BATCH,
    ) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._scaling: Scaling = scaling
        self._batch_size = batch_size
        network = Inception(classes=CLASSES if "fc.weight" in state else None)
        network.load_state_dict(network.state_dict() | dict(state))
        classifier = network.fc if logits else None
        self._bias = None if classifier is None or logits == "unbiased" else classifier.bias
        self._weight = None if classifier is None else classifier.weight
        network.to(self._device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._network = network.eval()
        self.feature_dim = FEATURES
        self.num_logits = None if classifier is None else classifier.out_features

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features and logits of images uint8 [n, H, W, C], C = 3, or 1 (then repeated)."""
        if not len(images):
            return np.empty((0, FEATURES), np.float32), self._logits(torch.empty(0, FEATURES, device=self._device))
        starts = range(0, len(images), self._batch_size)
        # TensorFloat-32, the default of recent GPUs, would move the third digit of a feature.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            pool_3 = torch.cat([self._features(images[start : start + self._batch_size]) for start in starts])
        return pool_3.cpu().numpy(), self._logits(pool_3)

    def _features(self, images: np.ndarray) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(images)).to(self._device).permute(0, 3, 1, 2).float()
        x = to_input(x.expand(-1, 3, -1, -1), self._scaling)
        return self._network(x.contiguous(memory_format=torch.channels_last))

    def _logits(self, pool_3: Tensor) -> np.ndarray | None:
        if self._weight is None:
            return None
        return functional.linear(pool_3, self._weight, self._bias).cpu().numpy()


def read_state(data: bytes, where: str) -> tuple[dict[str, Tensor], str]:
    """The weights in a file's bytes, checked, and the SHA-256 that identifies them.

    The file holds a plain state dict with the names of the module (or ``blocks.<b>.<i>.``, see :data:`BLOCKS`), with
    or without ``fc.*``; counters of batches are ignored, as is anything else in the identifying hash: it is of names,
    shapes and values.

    Arguments:
        data: what the file holds; nothing but tensors is unpickled.
        where: the file's name, for errors.

    Raises:
        MetricUsageError: not such a file: damaged, something else, other names or shapes, NaN or infinity.
    """
    cure = "fetch the weights of pytorch-fid or torch-fidelity again"
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        reason = str(error).strip().partition("\n")[0][:160]
        raise MetricUsageError(f"{where}: not a readable file of PyTorch weights ({reason}); {cure}") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise MetricUsageError(f"{where}: holds no state dict of tensors; {cure}")
    state = {_own_name(str(name)): value for name, value in loaded.items()}
    state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    with torch.device("meta"):
        expected = Inception().state_dict()
    wanted = {name: value for name, value in expected.items() if not name.endswith("num_batches_tracked")}
    if not state.keys() & {"fc.weight", "fc.bias"}:
        wanted = {name: value for name, value in wanted.items() if not name.startswith("fc.")}
    for what, names in (("lacks", wanted.keys() - state.keys()), ("has the unknown", state.keys() - wanted.keys())):
        if names:
            raise MetricUsageError(
                f"{where}: no weights of the Inception network of 2015: {what} {sorted(names)[0]!r} "
                f"(and {len(names) - 1} more); {cure}"
            )
    digest = hashlib.sha256()
    for name in sorted(wanted):
        value = state[name]
        if value.shape != wanted[name].shape or not value.is_floating_point():
            found = f"{value.dtype} {list(value.shape)}"
            raise MetricUsageError(f"{where}: {name!r} is {found}, expected {list(wanted[name].shape)}; {cure}")
        state[name] = value = value.float()
        if not value.isfinite().all() or (name.endswith("running_var") and bool((value < 0).any())):
            raise MetricUsageError(f"{where}: {name!r} holds NaN, infinity or a negative variance; {cure}")
        digest.update(f"{name}{list(value.shape)}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return state, digest.hexdigest()


def _own_name(name: str) -> str:
    """``Mixed_5b.x`` of ``blocks.2.0.x``; other names as they are."""
    match name.split(".", 3):
        case ["blocks", tap, index, rest] if tap.isdecimal() and index.isdecimal():
            if int(tap) < len(BLOCKS) and int(index) < len(BLOCKS[int(tap)]):
                return f"{BLOCKS[int(tap)][int(index)]}.{rest}"
    return name
