"""The moving average of both original programs."""

import numpy as np
import pytest
import torch

from score_core.torch.ema import ema_update, warmed_rate


def tensors(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((3, 2), (4,), ())]


def test_constant_rate_is_the_recurrence_and_works_in_place():
    ema = tensors(0)
    before, storage = [value.clone() for value in ema], [value.data_ptr() for value in ema]
    params = [value.requires_grad_() for value in tensors(1)]
    ema_update(ema, params, 0.9)
    for found, old, new in zip(ema, before, params, strict=True):
        torch.testing.assert_close(found, 0.9 * old + 0.1 * new.detach(), rtol=1e-12, atol=1e-15)
        assert not found.requires_grad
    assert [value.data_ptr() for value in ema] == storage


def test_rate_zero_copies_exactly_and_rate_one_keeps():
    ema, params = tensors(0, torch.float32), tensors(1, torch.float32)
    kept = [value.clone() for value in ema]
    ema_update(ema, params, 1.0)
    assert all(map(torch.equal, ema, kept))
    ema_update(ema, params, 0.0)
    assert all(map(torch.equal, ema, params))


def test_the_pytorch_programs_rate_grows_from_two_elevenths_to_the_configured_one():
    rates = [warmed_rate(0.999, n) for n in range(1, 20_000)]
    np.testing.assert_allclose(rates[:3], [2 / 11, 3 / 12, 4 / 13], rtol=1e-15)
    assert rates == sorted(rates)
    assert rates[-1] == 0.999


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_outside_the_interval_is_refused(rate):
    with pytest.raises(ValueError, match=r"between 0 and 1.*model\.ema_rate"):
        ema_update(tensors(0), tensors(1), rate)


def test_another_number_of_tensors_is_refused():
    with pytest.raises(ValueError, match="3 averaged tensors for 2"):
        ema_update(tensors(0), tensors(1)[:2], 0.9)
