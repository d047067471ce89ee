"""The Inception extractors: where weights are looked for, what is said when they are missing, what identifies them."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from score_core.metrics import Extractor, MetricError, MetricUsageError, get_extractor, inception_network
from score_core.metrics import inception_weights as weights
from score_core.torch.inception import Inception


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty caches; returns the folder of the package's own."""
    for name in (weights.VARIABLE, "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "score_core"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random network's weights."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.manual_seed(0)
    network = Inception()
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)  # so that differences of the input reach the output
    torch.save(network.state_dict(), path)
    return path


def test_variants_share_weights_and_differ_in_what_identifies_them(file: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    found: dict[str, tuple[Extractor, np.ndarray, np.ndarray | None]] = {}
    for name in inception_network.VARIANTS:
        extractor = get_extractor(name, weights=file)
        found[name] = (extractor, *extractor(images))
        assert (extractor.name, extractor.feature_dim) == (name, 2048)
    assert len({extractor.sha256 for extractor, _, _ in found.values()}) == len(found)
    assert get_extractor("inception", weights=file).sha256 == found["inception"][0].sha256
    np.testing.assert_array_equal(found["inception"][1], found["inception_bias"][1])
    largest = np.abs(found["inception"][1]).max()
    assert np.abs(found["inception"][1] - found["inception_ncsnv2"][1]).max() > 1e-3 * largest
    assert [logits is None for _, _, logits in found.values()] == [False, False, False, True]
    with pytest.raises(MetricError, match=r"inception extractor: images of shape \[8, 8, 4\]"):
        found["inception"][0](np.zeros((1, 8, 8, 4), np.uint8))


def test_missing_weights_are_explained(nowhere: Path) -> None:
    with pytest.raises(MetricUsageError) as caught:
        get_extractor("inception")
    for part in (weights.URL, str(nowhere / weights.NAMES[0]), weights.VARIABLE, "--weights", "--download", "digits"):
        assert part in str(caught.value)
    with pytest.raises(MetricUsageError, match=r"nosuch\.pth does not exist"):
        get_extractor("inception", weights="nosuch.pth")


def test_places_are_searched_in_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "SHA256_PREFIX", hashlib.sha256(b"cached").hexdigest()[:8])
    names = [f"a-{weights.SHA256_PREFIX}.pth", f"b-{weights.SHA256_PREFIX}.pth"]
    monkeypatch.setattr(weights, "NAMES", names)
    hub = tmp_path / "cache" / "torch" / "hub" / "checkpoints"
    for folder, name in ((hub, names[0]), (nowhere, names[1])):
        folder.mkdir(parents=True)
        (folder / name).write_bytes(b"cached")
        assert weights.read_weights() == (b"cached", str(folder / name))
    for name in ("variable", "argument"):
        (tmp_path / name).write_bytes(name.encode())
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "variable"))
    assert weights.read_weights()[0] == b"variable"
    assert weights.read_weights(tmp_path / "argument")[0] == b"argument"


def test_a_file_named_after_its_hash_must_have_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    damaged = tmp_path / weights.NAMES[0]
    damaged.write_bytes(b"half")
    with pytest.raises(MetricUsageError, match=r"damaged: SHA-256 .*its name says 6726825d; delete it"):
        weights.read_weights(damaged)
    other = tmp_path / "mine.pth"
    other.write_bytes(b"mine")
    weights.read_weights(other)
    assert "not the published file of weights" in caplog.text


def test_downloading_is_allowed_checked_and_atomic(nowhere: Path, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    source = tmp_path / "published.pth"
    source.write_bytes(b"published")
    monkeypatch.setattr(weights, "URL", source.as_uri())
    with pytest.raises(MetricUsageError, match=r"could not fetch .*invalid hash"):
        weights.read_weights(download=True)
    assert list(nowhere.iterdir()) == []
    prefix = hashlib.sha256(b"published").hexdigest()[:8]
    monkeypatch.setattr(weights, "SHA256_PREFIX", prefix)
    monkeypatch.setattr(weights, "NAMES", (f"pt-{prefix}.pth",))
    assert weights.read_weights(download=True)[0] == b"published"
    source.unlink()
    assert weights.read_weights(download=True)[0] == b"published"  # from the cache


def test_without_torch_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(inception_network.importlib, "import_module", missing)
    with pytest.raises(MetricUsageError, match=r"PyTorch, which is not installed: install score-core\[torch\]"):
        get_extractor("inception")
