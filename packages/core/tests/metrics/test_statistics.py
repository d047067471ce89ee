"""Statistics files: what is written is read, foreign files are read, damage and mismatches are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from score_core.metrics import MetricError, MetricUsageError, Statistics, check_comparable, load_statistics, moments

HEADER = {
    "dataset": "digits",
    "split": "train",
    "preprocessing": "uint8, 16 x 16",
    "extractor": "digits",
    "extractor_sha256": "ab" * 32,
    "image_size": 16,
}


def activations(n: int = 40, dim: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)


def statistics(**changes: Any) -> Statistics:
    return Statistics.from_activations(activations(), 2 * activations(dim=3), header=HEADER | changes)


def assert_equal(found: Statistics, expected: Statistics) -> None:
    for name in ("mean", "cov", "pool_3", "logits"):
        one, two = getattr(found, name), getattr(expected, name)
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype
    assert found.count == expected.count
    assert dict(found.header) == dict(expected.header)
    assert found.digest == expected.digest


@pytest.mark.parametrize("keep", [True, False])
def test_what_is_written_is_read(tmp_path: Path, keep: bool) -> None:
    written = Statistics.from_activations(activations(), 2 * activations(dim=3), header=HEADER, keep_activations=keep)
    written.save(tmp_path / "stats.npz")
    assert_equal(load_statistics(tmp_path / "stats.npz"), written)
    assert [file.name for file in tmp_path.iterdir()] == ["stats.npz"]


def test_the_file_is_readable_by_the_other_programs(tmp_path: Path) -> None:
    statistics().save(tmp_path / "stats.npz")
    with np.load(tmp_path / "stats.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["pool_3"], activations())
        mean, cov = moments(activations())
        np.testing.assert_array_equal(file["mu"], mean)
        np.testing.assert_array_equal(file["sigma"], cov)
        header = json.loads(str(file["header"]))
    assert header["count"] == 40
    assert {name: header[name] for name in HEADER} == HEADER


@pytest.mark.parametrize("logits", ["none", "pickled None", "array"])
def test_the_originals_file_of_activations_is_read(tmp_path: Path, logits: str) -> None:
    more = {"none": {}, "pickled None": {"logits": None}, "array": {"logits": activations(dim=3)}}[logits]
    np.savez_compressed(tmp_path / "cifar10_stats.npz", pool_3=activations(), **more)
    found = load_statistics(tmp_path / "cifar10_stats.npz")
    np.testing.assert_array_equal(found.pool_3, activations())
    np.testing.assert_array_equal(found.cov, moments(activations())[1])
    assert (found.logits is not None) == (logits == "array")
    assert found.count == 40
    assert set(found.header.values()) == {None}


def test_a_moments_file_is_read(tmp_path: Path) -> None:
    mean, cov = moments(activations())
    np.savez(tmp_path / "fid_stats.npz", mu=mean, sigma=cov)
    found = load_statistics(tmp_path / "fid_stats.npz")
    np.testing.assert_array_equal(found.mean, mean)
    np.testing.assert_array_equal(found.cov, cov)
    assert found.count is None
    assert found.pool_3 is None
    assert set(found.header.values()) == {None}


def test_assumptions_fill_gaps_and_may_not_contradict(tmp_path: Path) -> None:
    np.savez(tmp_path / "foreign.npz", pool_3=activations())
    assumed = {"dataset": "cifar10", "extractor": "tfgan"}
    found = load_statistics(tmp_path / "foreign.npz", assume=assumed)
    assert {name: found.header[name] for name in assumed} == assumed
    statistics().save(tmp_path / "own.npz")
    assert load_statistics(tmp_path / "own.npz", assume={"extractor": "digits"}).header["extractor"] == "digits"
    with pytest.raises(MetricUsageError, match="extractor is 'digits', not 'tfgan' as assumed"):
        load_statistics(tmp_path / "own.npz", assume={"extractor": "tfgan"})


def rewrite(path: Path, **changes: Any) -> None:
    """Replace arrays of a statistics file, or drop those given as None; a callable maps the old to the new."""
    with np.load(path) as file:
        arrays = dict(file)
    for name, value in changes.items():
        old = arrays.pop(name, None)
        new = value(old) if callable(value) else value
        if new is not None:
            arrays[name] = new
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool_3": lambda a: a + 1}, "`pool_3` does not match the file's header"),
        ({"pool_3": lambda a: a[:-1]}, "`pool_3` does not match"),
        ({"sigma": lambda a: 2 * a}, "`sigma` does not match"),
        ({"logits": None}, "`logits` does not match"),
        ({"header": np.array("no JSON")}, "unreadable header"),
        ({"header": np.array("[1]")}, "unreadable header"),
        ({"header": np.array('{"format": "score_core statistics"}')}, "unreadable header .*version"),
        (
            {"header": lambda h: np.array(str(h).replace('"version": 1', '"version": 9'))},
            r"header says \('score_core statistics', 9\)",
        ),
        (
            {"header": lambda h: np.array(str(h).replace('"count": 40', '"count": 41'))},
            "40 rows of pool_3 for a count of 41",
        ),
        ({"pool_3": None, "mu": None}, r"expected `pool_3`, or `mu` and `sigma`"),
        ({"header": None, "sigma": np.full((5, 5), np.nan)}, "covariance: 25 of 25 values"),
        ({"header": None, "sigma": np.eye(4)}, r"shapes \[5\] and \[4, 4\]"),
        ({"header": None, "mu": None, "pool_3": np.array([[1.0, np.inf], [0, 0]])}, "1 of 4 values"),
    ],
)
def test_a_file_that_does_not_fit_its_header_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "stats.npz"
    statistics().save(path)
    rewrite(path, **changes)
    with pytest.raises(MetricUsageError, match=message) as caught:
        load_statistics(path)
    assert str(path) in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MetricUsageError, match="no such statistics file"):
        load_statistics(tmp_path / "missing.npz")
    path = tmp_path / "stats.npz"
    statistics().save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a zip", whole[: len(whole) // 2], whole[:300] + b"\xff" * 8 + whole[308:]):
        path.write_bytes(damaged)
        with pytest.raises(MetricUsageError, match=r"stats\.npz"):
            load_statistics(path)
    np.save(tmp_path / "array.npy", activations())
    with pytest.raises(MetricUsageError, match="not a readable statistics file"):
        load_statistics(tmp_path / "array.npy")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", pool_3=np.array([{"a": 1}], dtype=object))
    with pytest.raises(MetricUsageError, match="not a readable statistics file"):
        load_statistics(tmp_path / "evil.npz")


def test_different_extractors_are_not_compared() -> None:
    assert check_comparable(statistics(), statistics(split="test")) == []
    with pytest.raises(
        MetricUsageError, match=r"measured with extractor 'digits'.*reference with extractor 'inception'"
    ):
        check_comparable(statistics(), statistics(extractor="inception"))
    with pytest.raises(MetricUsageError, match=r"SHA-256 abababababab.*SHA-256 cdcdcdcdcdcd"):
        check_comparable(statistics(), statistics(extractor_sha256="cd" * 32))
    narrow = Statistics.from_activations(activations(dim=4), header={})
    with pytest.raises(
        MetricUsageError, match=r"5 features \(extractor 'digits'.*the reference 4 \(an unknown extractor"
    ):
        check_comparable(statistics(), narrow)


def test_an_unknown_extractor_is_compared_with_a_warning() -> None:
    unknown = statistics(extractor=None, extractor_sha256=None)
    assert check_comparable(statistics(), unknown) == ["the extractor of the reference is unknown"]
    assert len(check_comparable(unknown, unknown)) == 2


def test_inconsistent_statistics_cannot_be_made() -> None:
    mean, cov = moments(activations())
    with pytest.raises(MetricError, match="40 rows of pool_3 for a count of 39"):
        Statistics(mean, cov, 39, {}, activations())
    with pytest.raises(MetricError, match="40 rows of logits for a count of 41"):
        Statistics(mean, cov, 41, {}, None, activations())
    with pytest.raises(MetricError, match=r"header fields \['count', 'format'\] belong to the file format"):
        Statistics(mean, cov, 40, {"format": 1, "count": 40})
    with pytest.raises(MetricError, match="pool_3: 4 columns, expected 5"):
        Statistics(mean, cov, 40, {}, activations(dim=4))


def test_the_digest_is_of_the_activations() -> None:
    assert statistics().digest == statistics(dataset="other").digest
    shifted = Statistics.from_activations(activations() + 1, header=HEADER)
    moments_only = Statistics.from_activations(activations(), header=HEADER, keep_activations=False)
    assert len({statistics().digest, shifted.digest, moments_only.digest}) == 3
