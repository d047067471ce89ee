"""The largest pairwise distance is exact, however the images are cut in blocks."""

import numpy as np
import pytest

from score_core.data import max_pairwise_distance


def brute_force(images: np.ndarray) -> tuple[int, set[frozenset[int]]]:
    """The largest squared distance of bytes in whole numbers, and all pairs that have it."""
    x = images.reshape(len(images), -1).astype(np.int64)
    squared = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    rows, columns = np.nonzero(squared == squared.max())
    return int(squared.max()), {frozenset((int(i), int(j))) for i, j in zip(rows, columns, strict=True)}


def pictures(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    match kind:
        case "noise":
            return rng.integers(0, 256, (90, 20, 20, 3), dtype=np.uint8)  # 1200 dimensions: more than one chunk
        case "extremes":  # the largest partial sums that there can be
            return rng.choice(np.array([0, 255], np.uint8), (80, 2100))
        case "clusters":  # most blocks need not be looked at
            centres = rng.integers(0, 200, (4, 1, 300))
            return (centres + rng.integers(0, 50, (4, 30, 300))).reshape(120, 300).astype(np.uint8)
        case "equal":
            return np.full((7, 5), 9, np.uint8)
        case "two":
            return np.array([[0, 0, 0], [255, 255, 254]], np.uint8)
        case "near-ties":  # one pair is 5 / 2e8 farther apart than the next
            images = np.zeros((40, 3072), np.uint8)
            images[20:] = 255
            images[:20, -1], images[20:, -1] = 1, 2
            images[4, -1], images[33, -1] = 0, 3
            return images
    raise ValueError(kind)


@pytest.mark.parametrize("block", [1, 7, 32, 1024])
@pytest.mark.parametrize("kind", ["noise", "extremes", "clusters", "equal", "two", "near-ties"])
def test_it_is_the_brute_force_maximum_for_every_block_size(kind, block):
    images = pictures(kind)[: 12 if block == 1 else None]
    squared, pairs = brute_force(images)
    found = max_pairwise_distance(images, block=block)
    assert found.distance == np.sqrt(squared) / 255
    assert squared == 0 or frozenset((found.first, found.second)) in pairs


def test_near_ties_need_whole_number_arithmetic():
    """The premise of the case above: a float32 product of all 3072 dimensions does not see the difference."""
    images = pictures("near-ties").astype(np.float32)
    norms = (images**2).sum(axis=1)
    squared = norms[:, None] + norms - 2 * images @ images.T
    assert brute_force(pictures("near-ties"))[1] == {frozenset((4, 33))}
    assert np.count_nonzero(squared == squared.max()) != 2


def test_images_in_a_file_and_the_bounds_of_what_is_accepted(tmp_path):
    images = pictures("noise")
    mapped = np.memmap(tmp_path / "images", np.uint8, "w+", shape=images.shape)
    mapped[:] = images
    assert max_pairwise_distance(mapped, block=16) == max_pairwise_distance(images, block=16)
    for wrong in (images[:1], images / 255.0):
        with pytest.raises(ValueError, match="at least 2 images of uint8"):
            max_pairwise_distance(wrong)


def test_random_images_of_three_thousand_dimensions():
    """Uniform bytes: |x - y|^2 has mean 2 d var, so distances lie near sqrt(2 * 3072 * (256^2 - 1) / 12) / 255."""
    images = np.random.default_rng(1).integers(0, 256, (1500, 32, 32, 3), dtype=np.uint8)
    found = max_pairwise_distance(images)
    x, y = (images[i].astype(np.int64) for i in (found.first, found.second))
    assert found.distance == np.sqrt(((x - y) ** 2).sum()) / 255
    typical = np.sqrt(2 * 3072 * (256**2 - 1) / 12) / 255
    assert typical < found.distance < 1.06 * typical
