"""All sixteen data transforms, their inverses, and the image mean, with the original's random numbers."""

import itertools

import goldens
import numpy as np
import pytest
import torch
import torch_goldens
from ncsnv2_cases import golden_config

from ncsnv2.networks import transform_images, value_transform
from score_core.data.value_transforms import ValueTransform

ARRAYS = goldens.load("ncsnv2", "transforms.npz")


def near(found, expected):
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("flags", itertools.product((0, 1), repeat=4), ids=str)
def test_transform_and_inverse(flags):
    uniform, gauss, rescaled, logit = flags
    case = torch_goldens.case_of(ARRAYS, f"uniform{uniform}_gauss{gauss}_rescaled{rescaled}_logit{logit}")
    transform = ValueTransform(*map(bool, flags))
    draws = [torch.from_numpy(case[name]) for name in sorted(case) if name.startswith("draw")]
    u = draws.pop(0) if uniform else None
    z = draws.pop(0) if gauss else None
    near(transform(torch.from_numpy(ARRAYS["x"]), u, z), case["out"])  # NaN where the original has it
    near(transform.inverse(torch.from_numpy(case["out"])), case["inverse_of_out"])
    near(transform.inverse(torch.from_numpy(case["inv_in"])), case["inv_out"])


def test_image_mean():
    case = torch_goldens.case_of(ARRAYS, "image_mean")
    transform = ValueTransform(image_mean=torch.from_numpy(case["mean"]))
    near(transform(torch.from_numpy(ARRAYS["x"])), case["out"])
    near(transform.inverse(torch.from_numpy(case["inverse_in"])), case["inverse"])


def test_draws_are_made_only_where_they_are_needed_and_in_order():
    x = torch.rand(2, 3, 4, 4)
    config = golden_config(data__uniform_dequantization=True, data__gaussian_dequantization=True)
    generator = torch.Generator().manual_seed(3)
    found = transform_images(value_transform(config), x, generator)
    again = torch.Generator().manual_seed(3)
    u, z = torch.rand(x.shape, generator=again), torch.randn(x.shape, generator=again)
    near(found, (u + 255 * x) / 256 + 0.01 * z)
    untouched = torch.Generator().manual_seed(3)
    assert torch.equal(transform_images(value_transform(golden_config()), x, untouched), x)
    assert torch.equal(untouched.get_state(), torch.Generator().manual_seed(3).get_state())
