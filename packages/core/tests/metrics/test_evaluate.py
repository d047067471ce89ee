"""From images to a line of results: collecting statistics, all scores together, warnings."""

import json
from dataclasses import replace

import numpy as np
import pytest

from score_core.data import load_source
from score_core.metrics import (
    FrechetReference,
    MetricError,
    MetricUsageError,
    Statistics,
    collect_statistics,
    compute_metrics,
    frechet_standard_error,
    get_extractor,
    inception_score,
    kernel_distance,
)

HEADER = {"dataset": "digits", "split": "train", "preprocessing": "uint8, 16 x 16"}


def images(split: str) -> np.ndarray:
    source = load_source("digits", split, image_size=16)
    return source.fetch(np.arange(len(source)))[0]


@pytest.fixture(scope="module")
def reference() -> Statistics:
    return collect_statistics(get_extractor("digits"), [images("train")], header=HEADER)


@pytest.fixture(scope="module")
def samples() -> Statistics:
    return collect_statistics(get_extractor("digits"), [images("test")], header=HEADER | {"split": "test"})


def test_statistics_do_not_depend_on_the_batches(reference: Statistics) -> None:
    parts = np.split(images("train"), [1, 70, 1000])
    found = collect_statistics(get_extractor("digits"), iter(parts), header=HEADER)
    assert found.digest == reference.digest
    assert found.count == len(images("train"))
    np.testing.assert_allclose(found.cov, reference.cov, rtol=1e-10, atol=1e-12 * np.abs(reference.cov).max())


def test_statistics_name_their_extractor(reference: Statistics) -> None:
    extractor = get_extractor("digits")
    assert dict(reference.header) == HEADER | {"extractor": "digits", "extractor_sha256": extractor.sha256}
    assert reference.pool_3 is not None
    np.testing.assert_array_equal(reference.pool_3, extractor(images("train"))[0])


def test_moments_alone_can_be_collected(reference: Statistics) -> None:
    found = collect_statistics(get_extractor("digits"), [images("train")], header=HEADER, keep_activations=False)
    assert (found.pool_3, found.logits) == (None, None)
    np.testing.assert_array_equal(found.mean, reference.mean)
    np.testing.assert_array_equal(found.cov, reference.cov)


def test_an_extractor_without_logits() -> None:
    class Features:
        name, sha256, feature_dim, num_logits = "features", "00", 3, None

        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, None]:
            return images.mean(axis=(1, 2), dtype=np.float32), None

    noise = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    found = collect_statistics(Features(), [noise], header={})
    result = compute_metrics(found, found)
    assert (result["is"], result["is_std"]) == (None, None)
    assert result["extractor"] == "features"


@pytest.mark.parametrize("batches", [[], [np.zeros((1, 16, 16, 1), np.uint8)]])
def test_too_few_images_have_no_statistics(batches: list[np.ndarray]) -> None:
    with pytest.raises(MetricError, match="image"):
        collect_statistics(get_extractor("digits"), batches, header={})


def test_all_scores_at_once(samples: Statistics, reference: Statistics) -> None:
    result = compute_metrics(samples, reference, splits=4, max_block_size=256)
    gaussian = FrechetReference(reference.mean, reference.cov)
    assert samples.pool_3 is not None
    assert result["fid"] == gaussian.distance(samples.mean, samples.cov)
    assert result["fid_se"] == frechet_standard_error(gaussian, samples.pool_3)
    assert (result["is"], result["is_std"]) == inception_score(samples.logits, 4)
    assert (result["kid"], result["kid_se"]) == kernel_distance(reference.pool_3, samples.pool_3, 256)
    assert (result["num_samples"], result["num_reference"]) == (samples.count, reference.count)
    assert result["extractor_sha256"] == get_extractor("digits").sha256
    assert result["reference_sha256"] == reference.digest
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_held_out_digits_are_closer_than_noise(samples: Statistics, reference: Statistics) -> None:
    noise = np.random.default_rng(1).integers(0, 256, images("test").shape, dtype=np.uint8)
    far = compute_metrics(collect_statistics(get_extractor("digits"), [noise], header={}), reference)
    near = compute_metrics(samples, reference)
    assert near["fid"] + 10 * near["fid_se"] < far["fid"]
    assert near["kid"] < far["kid"]
    assert near["is"] > 9 > 3 > far["is"]


def test_what_has_no_estimate_is_none(samples: Statistics, reference: Statistics) -> None:
    one_block = compute_metrics(samples, reference, max_block_size=4096)
    assert (one_block["is_std"], one_block["kid_se"]) == (None, None)
    assert one_block["kid"] is not None
    moments_only = replace(samples, pool_3=None, logits=None)
    result = compute_metrics(moments_only, reference)
    assert [result[key] for key in ("is", "is_std", "kid", "kid_se", "fid_se")] == [None] * 5
    assert compute_metrics(samples, replace(reference, pool_3=None))["kid"] is None
    uneven = compute_metrics(samples, reference, max_block_size=10)
    assert (uneven["kid"], uneven["kid_se"]) == (None, None)
    assert "differ too much in size" in uneven["warning"]
    assert compute_metrics(samples, reference, jackknife_groups=0)["fid_se"] is None
    assert compute_metrics(samples, reference, jackknife_groups=100)["fid_se"] is None


def test_few_samples_are_labelled(samples: Statistics, reference: Statistics) -> None:
    assert f"FID of {samples.count} samples is biased upwards" in compute_metrics(samples, reference)["warning"]
    many = replace(samples, pool_3=None, logits=None, count=50_000)
    assert compute_metrics(many, reference)["warning"] is None
    assert "50000" in compute_metrics(replace(many, count=49_999), reference)["warning"]
    assert "the number of samples is unknown" in compute_metrics(replace(many, count=None), reference)["warning"]


def test_another_extractor_is_refused_and_an_unknown_one_labelled(samples: Statistics, reference: Statistics) -> None:
    with pytest.raises(MetricUsageError, match=r"'digits'.*'inception'"):
        compute_metrics(samples, replace(reference, header={"extractor": "inception"}))
    result = compute_metrics(replace(samples, header={}), reference)
    assert "the extractor of the samples is unknown" in result["warning"]
    assert result["extractor"] == "digits"
