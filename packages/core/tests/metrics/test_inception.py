"""Inception score: golden numbers, closed forms, splits."""

import math

import goldens
import numpy as np
import pytest

from score_core.metrics import MetricError, inception_score


@pytest.mark.parametrize("case", ["c0", "c1", "c2", "c3"])
def test_golden_inception_score(case: str) -> None:
    logits = goldens.load("core", "metrics.npz")[f"{case}/logits"]
    expected = goldens.load("core", "metrics.json")[case]["IS"]
    assert inception_score(logits)[0] == pytest.approx(expected, rel=1e-7)


def test_uniform_logits_score_one() -> None:
    assert inception_score(np.full((50, 12), 3.7))[0] == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("height", [50.0, 1e5])
def test_certain_and_balanced_classes_score_their_number(height: float) -> None:
    logits = height * np.tile(np.eye(10), (7, 1))
    assert inception_score(logits)[0] == pytest.approx(10, rel=1e-12)


def test_certain_classes_score_the_exponential_of_their_entropy() -> None:
    classes = np.repeat([0, 1, 2], [10, 20, 70])
    entropy = -sum(p * math.log(p) for p in (0.1, 0.2, 0.7))
    assert inception_score(1e3 * np.eye(5)[classes])[0] == pytest.approx(math.exp(entropy), rel=1e-12)


def test_adding_a_constant_to_a_row_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((5000, 6))
    shifted = logits + 1e3 * generator.standard_normal((5000, 1))
    assert inception_score(shifted)[0] == pytest.approx(inception_score(logits)[0], rel=1e-10)


def test_definition_by_the_kullback_leibler_divergence() -> None:
    logits = 2 * np.random.default_rng(1).standard_normal((5000, 6))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.exp(np.mean(np.sum(p * np.log(p / p.mean(axis=0)), axis=1)))
    assert inception_score(logits)[0] == pytest.approx(expected, rel=1e-12)


def test_one_split_has_no_deviation() -> None:
    assert math.isnan(inception_score(np.eye(4))[1])


def test_splits_are_consecutive_and_cover_everything() -> None:
    logits = np.random.default_rng(2).standard_normal((103, 4))
    parts = [inception_score(part)[0] for part in (logits[:25], logits[25:51], logits[51:77], logits[77:])]
    mean, deviation = inception_score(logits, splits=4)
    assert mean == pytest.approx(np.mean(parts), rel=1e-14)
    assert deviation == pytest.approx(np.std(parts), rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "splits", "message"),
    [
        (np.full((3, 2), np.nan), 1, "6 of 6 values"),
        (np.zeros((1, 2)), 1, "at least 2"),
        (np.zeros((7, 2)), 4, "7 rows in 4 splits"),
        (np.zeros((7, 2)), 0, "7 rows in 0 splits"),
        (np.zeros((7, 2), int), 1, "dtype int64"),
        (np.zeros(7), 1, "shape"),
    ],
)
def test_what_has_no_score_is_refused(logits: np.ndarray, splits: int, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        inception_score(logits, splits)
