"""Frechet distance, nearest neighbours, FID commands: the original's numbers, and pictures."""

import goldens
import numpy as np
import pytest
import torch
from PIL import Image

from ncsnv2 import fid_score, nearest_neighbours
from score_core.data import to_uint8
from score_core.metrics import frechet_distance
from score_core.torch.inception import Inception, to_input
from score_core.torch.pth import dumps

FRECHET = goldens.load("ncsnv2", "frechet.npz")
NEIGHBOURS = goldens.load("ncsnv2", "nearest_neighbours.npz")


@pytest.mark.parametrize("name", sorted({key.split("/")[0] for key in FRECHET}))
def test_frechet_distance(name):
    mu1, sigma1, mu2, sigma2 = (np.atleast_1d(FRECHET[f"{name}/{key}"]) for key in ("mu1", "sigma1", "mu2", "sigma2"))
    found = frechet_distance(mu1, np.atleast_2d(sigma1), mu2, np.atleast_2d(sigma2))
    # of singular matrices the original's root is that of a disturbed product
    tolerance = 2e-5 if FRECHET[f"{name}/offset_used"] or "deficient" in name else 1e-9
    assert found == pytest.approx(float(FRECHET[f"{name}/fid"]), abs=tolerance, rel=1e-9)


@pytest.fixture(scope="module")
def features():
    """Inception features of images in [0, 1] ``[n, C, H, W]``, filled by the rule."""
    network = Inception("fid", None).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(goldens.fill(name, tuple(parameter.shape))))

    @torch.inference_mode()
    def extract(images):
        return network(to_input(255 * torch.from_numpy(np.ascontiguousarray(images)), "pytorch_fid")).numpy()

    return extract


@pytest.mark.slow
def test_nearest_neighbours(features):
    data, samples = NEIGHBOURS["data"], NEIGHBOURS["samples"]
    # the original measures samples as they are, and mirror images after a round trip through bytes
    rounded = to_uint8(samples).astype(np.float32) / 255
    ours, mirrored = features(samples), features(rounded[..., ::-1])
    training = features(data)

    class Source:
        def fetch(self, index):
            return np.round(255 * data[index]).astype(np.uint8).transpose(0, 2, 3, 1), None

    for n, k, name in ((2, 4, "n2_k4"), (3, 9, "n10_k9")):
        found = nearest_neighbours.find_neighbours(ours[:n], mirrored[:n], np.split(training, 3), k)
        np.testing.assert_array_equal(found.index, NEIGHBOURS[f"{name}/indices"])
        both = np.minimum(NEIGHBOURS[f"{name}/dist"], NEIGHBOURS[f"{name}/dist_flipped"])
        expected = np.sort(both, axis=1)[:, :k]
        np.testing.assert_allclose(found.distance, expected, rtol=1e-4)
        picture = nearest_neighbours.neighbour_rows(
            np.round(255 * samples[:n]).astype(np.uint8).transpose(0, 2, 3, 1), Source(), found
        )
        plotted = NEIGHBOURS[f"{name}/plot"].transpose(0, 2, 3, 1)
        assert int(NEIGHBOURS[f"{name}/nrow"]) == k + 1
        own = np.arange(len(plotted)) % (k + 1) == 0
        np.testing.assert_array_equal(picture[~own], plotted[~own])
        # the original plots the sample as it is
        np.testing.assert_array_equal(picture[own], plotted[own])


def test_the_neighbours_of_training_digits_are_themselves(tmp_path, capsys):
    from score_core.data import load_source

    digits = load_source("digits", "train", image_size=16).fetch(np.array([3, 700]))[0]
    samples = torch.from_numpy(digits.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    file = tmp_path / "samples_1.pth"
    file.write_bytes(dumps(samples))
    command = ["--path", str(file), "--dataset", "digits", "-i", str(tmp_path / "nn"), "--k", "3", "--n_samples", "2"]
    assert nearest_neighbours.main(command) == 0
    with Image.open(tmp_path / "nn.png") as picture:
        grid = np.asarray(picture)
    assert grid.shape == (2 * 18 + 2, 4 * 18 + 2, 3)
    for row in range(2):
        first, second = (grid[18 * row + 2 : 18 * row + 18, 18 * c + 2 : 18 * c + 18] for c in (0, 1))
        np.testing.assert_array_equal(first, second)
    assert "2 samples" in capsys.readouterr().out
    assert nearest_neighbours.main([*command, "--k", "5000"]) == 2
    assert nearest_neighbours.main([*command, "--path", str(tmp_path / "none.pth")]) != 0


def test_fid_between_folders_of_images(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(12):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / name / f"{k}.png")
    assert fid_score.main([str(tmp_path / "a"), str(tmp_path / "b"), "--extractor", "digits"]) == 0
    out = capsys.readouterr().out
    assert "FID" in out and "12" in out and "biased" in out
    assert fid_score.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "weights" in capsys.readouterr().err
