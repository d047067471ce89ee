"""The SavedModel extractors, with stand-ins that TensorFlow writes here."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from score_core.metrics import MetricUsageError, collect_statistics, compute_metrics, get_extractor, tfgan
from score_core.metrics.tfgan import TfganExtractor

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="tensorflow (extra tfgan) is not installed"
)
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


def mean_colour(centre: float, scale: float) -> np.ndarray:
    return ((IMAGES.astype(np.float32) - centre) / scale).mean((1, 2))


def save_model(folder: Path, outputs: Callable[[Any], Any], *, signature: bool = False) -> Path:
    """A SavedModel of ``outputs`` of the mean colour [n, 3]."""
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
        def __call__(self, images):
            return outputs(tf.reduce_mean(images, [1, 2]))

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
        def apply(self, images):
            return outputs(tf.reduce_mean(images, [1, 2]))

    model = Model()
    if signature:
        holder = tf.Module()
        holder.model = model.apply
        tf.saved_model.save(holder, str(folder), signatures={"default": model.apply})
    else:
        tf.saved_model.save(model, str(folder))
    return folder


def both(mean: Any) -> dict[str, Any]:
    return {"pool_3": mean[:, None, None, :], "logits": 2 * mean[:, :2]}


@needs_tensorflow
@pytest.mark.parametrize("signature", [False, True])
def test_features_and_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signature: bool) -> None:
    folder = save_model(tmp_path / "model", both, signature=signature)
    monkeypatch.setenv("SCORE_TFGAN_INCEPTION", str(folder))
    extractor = get_extractor("tfgan")
    assert (extractor.name, extractor.feature_dim, extractor.num_logits) == ("tfgan", 3, 2)
    for of_batch in (extractor, TfganExtractor("tfgan", folder, batch_size=2)):
        pool_3, logits = of_batch(IMAGES)
        assert logits is not None
        assert pool_3.dtype == logits.dtype == np.float32
        np.testing.assert_allclose(pool_3, mean_colour(127.5, 127.5), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(logits, 2 * pool_3[:, :2], rtol=1e-6)
    grey = extractor(IMAGES[..., :1])[0]
    np.testing.assert_allclose(grey, np.repeat(pool_3[:, :1], 3, axis=1), rtol=1e-5, atol=1e-6)
    statistics = collect_statistics(extractor, [IMAGES], header={})
    assert compute_metrics(statistics, statistics)["extractor_sha256"] == extractor.sha256
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "x").write_text("another file")
    assert TfganExtractor("tfgan", folder).sha256 != extractor.sha256


@needs_tensorflow
def test_the_other_network_returns_one_tensor_and_no_logits(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", lambda mean: mean)
    extractor = get_extractor("tfgan_v3", weights=folder)
    pool_3, logits = extractor(IMAGES)
    assert logits is None
    assert extractor.num_logits is None
    np.testing.assert_allclose(pool_3, mean_colour(0, 255), rtol=1e-5)
    with pytest.raises(MetricUsageError, match=r"returns one tensor, expected pool_3 and logits"):
        get_extractor("tfgan", weights=folder)
    (folder / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(MetricUsageError, match="not a usable SavedModel"):
        get_extractor("tfgan_v3", weights=folder)


@needs_tensorflow
def test_no_gpu_is_visible_to_tensorflow(tmp_path: Path) -> None:
    import tensorflow as tf

    folder = save_model(tmp_path / "model", both)
    get_extractor("tfgan", weights=folder)
    assert tf.config.get_visible_devices("GPU") == []


def test_a_missing_model_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, model in tfgan.MODELS.items():
        monkeypatch.delenv(model.variable, raising=False)
        with pytest.raises(MetricUsageError) as caught:
            get_extractor(name)
        for part in (model.variable, model.address, str(tmp_path / "score_core" / model.folder), "digits"):
            assert part in str(caught.value)


def test_without_tensorflow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    (tmp_path / "saved_model.pb").write_bytes(b"")
    monkeypatch.setattr(tfgan.importlib, "import_module", missing)
    with pytest.raises(MetricUsageError, match=r"TensorFlow, which is not installed: install score-core\[tfgan\]"):
        get_extractor("tfgan", weights=tmp_path)
