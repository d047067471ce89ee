"""The Inception network: four programs' golden numbers, both layouts of weights, and what is no weights file."""

import io
import pickle
from collections.abc import Callable

import goldens
import numpy as np
import pytest
import torch
from torch.nn import functional

from score_core.metrics import MetricUsageError, moments
from score_core.torch.inception import (
    BLOCKS,
    Inception,
    InceptionFeatures,
    Pooling,
    read_state,
    resize_bilinear,
    to_input,
)

State = dict[str, torch.Tensor]


def block_name(name: str) -> str:
    """``blocks.2.0.x`` of ``Mixed_5b.x``."""
    module, _, rest = name.partition(".")
    places = {own: f"blocks.{b}.{i}" for b, names in enumerate(BLOCKS) for i, own in enumerate(names)}
    return f"{places.get(module, module)}.{rest}"


def filled(pooling: Pooling, classes: int | None, rename: Callable[[str], str] = str) -> Inception:
    with torch.device("meta"):
        network = Inception(pooling, classes)
    values = {name: goldens.fill(rename(name), tuple(p.shape)) for name, p in network.named_parameters()}
    buffers = {
        name: torch.ones(b.shape) if name.endswith("_var") else torch.zeros(b.shape, dtype=b.dtype)
        for name, b in network.named_buffers()
    }
    state = {name: torch.from_numpy(value) for name, value in values.items()} | buffers
    network.load_state_dict(state, assign=True)
    return network.eval()


def save(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def network() -> Inception:
    return filled("fid", 1008)


@pytest.fixture(scope="module")
def state(network: Inception) -> State:
    return dict(network.state_dict())


@torch.inference_mode()
def test_golden_taps_of_ncsnv2(network: Inception) -> None:
    golden = goldens.load("core", "inception_ncsnv2.npz")
    taps = network.taps(to_input(255 * torch.from_numpy(golden["x"]), "pytorch_fid"))
    for number, tap in enumerate(taps):
        assert list(tap.shape) == golden[f"block{number}/shape"].tolist()
        mean = tap.mean((2, 3)).numpy()
        np.testing.assert_allclose(mean, golden[f"block{number}/global_avg"], rtol=1e-5, atol=1e-5)
        assert tap.double().sum() == pytest.approx(golden[f"block{number}/sum"], rel=1e-6)
    np.testing.assert_allclose(taps[0][:, 0], golden["block0/channel0"], rtol=1e-5, atol=1e-5)
    assert len(network.taps(torch.zeros(1, 3, 75, 75), last=0)) == 1


def test_golden_fid_of_ncsnv2(state: State) -> None:
    golden = goldens.load("core", "inception_fid_folder.npz")
    pool_3, logits = InceptionFeatures(state, "pytorch_fid", None, batch_size=3)(golden["images"])
    assert logits is None
    np.testing.assert_allclose(pool_3, golden["activations"], rtol=1e-5, atol=1e-5)
    mean, cov = moments(pool_3)
    np.testing.assert_allclose(mean, golden["mu"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cov[:40, :40], golden["sigma_block"], rtol=1e-4, atol=1e-8)
    assert np.trace(cov) == pytest.approx(golden["sigma_trace"], rel=1e-5)
    assert np.linalg.norm(cov) == pytest.approx(golden["sigma_fro"], rel=1e-5)
    # The FID of seven images from the 7 x 7 matrix that has the nonzero eigenvalues of the product of covariances.
    centred = (pool_3 - mean) / np.sqrt(len(pool_3) - 1)
    roots = np.sqrt(np.linalg.eigvalsh(centred * golden["stat_sigma_diag"] @ centred.T).clip(0)).sum()
    distance = ((mean - golden["stat_mu"]) ** 2).sum()
    fid = distance + np.trace(cov) + golden["stat_sigma_diag"].sum() - 2 * roots
    assert fid == pytest.approx(golden["fid_folder_vs_stat"], rel=1e-6)


@torch.inference_mode()
def test_golden_taps_of_ncsn() -> None:
    golden = goldens.load("core", "inception_ncsn.npz")
    network = filled("imagenet", None, block_name)
    assert sum(p.numel() for p in network.parameters()) == 21_785_568
    enlarged = functional.interpolate(torch.from_numpy(golden["in"]), (299, 299), mode="bilinear")
    small = torch.from_numpy(golden["no_resize/in"])
    cases = (("", 2 * enlarged - 1, 3), ("no_normalize/", enlarged, 0), ("no_resize/", 2 * small - 1, 0))
    for prefix, x, last in cases:
        for number, tap in enumerate(network.taps(x, last)):
            expected = golden[f"{prefix}block{number}_channel_mean"]
            np.testing.assert_allclose(tap.mean((0, 2, 3)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "key"), [("biased", "logits"), ("unbiased", "logits_unbiased")])
def test_golden_features_of_torch_fidelity(state: State, kind, key: str) -> None:
    golden = goldens.load("core", "inception_torch_fidelity.npz")
    pool_3, logits = InceptionFeatures(state, "torch_fidelity", kind)(golden["images"])
    assert logits is not None
    assert pool_3.dtype == logits.dtype == np.float32
    np.testing.assert_allclose(pool_3, golden["pool_3"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits, golden[key], rtol=1e-5, atol=1e-5)


def test_scalings_differ_as_they_should() -> None:
    images = torch.arange(0.0, 256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    tfgan, fidelity, fid = (to_input(images, name) for name in ("tfgan", "torch_fidelity", "pytorch_fid"))
    np.testing.assert_allclose(tfgan * 127.5 + 127.5, fidelity * 128 + 128, rtol=1e-5, atol=1e-4)
    assert tfgan.shape == fid.shape == (1, 3, 299, 299)
    # no half-pixel centres: the first pixel is the image's, the last row repeats past the last sample
    assert fidelity[0, 0, 0, 0] == -1
    np.testing.assert_array_equal(tfgan[..., -10:, :1], tfgan[..., -1:, :1].expand(1, 3, 10, 1))
    assert (fid - tfgan).abs().max() > 0.01


def test_resize_against_its_formula() -> None:
    x = np.random.default_rng(0).uniform(0, 255, (7, 11))
    found = resize_bilinear(torch.from_numpy(x), 13).numpy()
    for i, j in np.ndindex(13, 13):
        (top, dy), (left, dx) = (divmod(k * n / 13, 1) for k, n in ((i, 7), (j, 11)))
        rows, columns = ([int(a), min(int(a) + 1, n - 1)] for a, n in ((top, 7), (left, 11)))
        weights = np.outer([1 - dy, dy], [1 - dx, dx])
        assert found[i, j] == pytest.approx((weights * x[np.ix_(rows, columns)]).sum(), rel=1e-5)


def test_grey_images_no_images_and_batches(state: State) -> None:
    features = InceptionFeatures(state, "tfgan", "unbiased", batch_size=2)
    grey = np.random.default_rng(0).integers(0, 256, (3, 9, 12, 1), dtype=np.uint8)
    pool_3, logits = features(grey)
    colour, _ = features(np.repeat(grey[2:], 3, axis=3))
    np.testing.assert_allclose(colour, pool_3[2:], rtol=1e-5, atol=1e-5)
    assert [array.shape for array in (*features(grey[:0]), logits) if array is not None] == [
        (0, 2048),
        (0, 1008),
        (3, 1008),
    ]


def test_both_layouts_are_the_same_weights_with_or_without_a_classifier(state: State) -> None:
    found, digest = read_state(save(state), "x.pth")
    assert found.keys() == {name for name in state if not name.endswith("num_batches_tracked")}
    in_blocks, same = read_state(save({block_name(name): value for name, value in state.items()}), "x.pth")
    assert same == digest
    assert in_blocks.keys() == found.keys()
    assert all(torch.equal(in_blocks[name], value) for name, value in found.items())
    headless, other = read_state(save({n: v for n, v in state.items() if not n.startswith("fc.")}), "x.pth")
    assert other != digest
    assert InceptionFeatures(headless, "tfgan", "unbiased").num_logits is None


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_what_is_no_weights_file_is_refused(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    whole = save(state)
    kernel = "Mixed_6b.branch7x7_1.conv.weight"
    broken = {
        "not a readable file": [b"", b"text", whole[: len(whole) // 2], pickle.dumps(Evil()), save({"a": Evil()})],
        "no state dict of tensors": [save([1]), save({"a": 1})],
        "lacks 'Mixed_6b": [save({name: value for name, value in state.items() if name != kernel})],
        "has the unknown 'extra'": [save(state | {"extra": torch.zeros(1)})],
        r"is torch.float32 \[1\], expected \[128, 768, 1, 1\]": [save(state | {kernel: torch.zeros(1)})],
        "is torch.int64": [save(state | {kernel: torch.zeros(128, 768, 1, 1, dtype=torch.int64)})],
        "NaN": [save(state | {"fc.bias": torch.full((1008,), torch.nan)})],
        "negative variance": [save(state | {"Mixed_7c.branch1x1.bn.running_var": -torch.ones(320)})],
    }
    for message, files in broken.items():
        for data in files:
            with pytest.raises(MetricUsageError, match=rf"w\.pth: .*{message}"):
                read_state(data, "w.pth")
    assert "executed" not in capsys.readouterr().out
