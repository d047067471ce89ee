"""FIR resampling against both programs' numbers and against its definition with zeros written out."""

import goldens
import numpy as np
import pytest
import torch

from score_core.torch.networks import resampling

JAX = goldens.load("core", "resample_embed.npz")
TORCH = goldens.load("score_sde", "torch/ops.npz")
X = torch.tensor(JAX["x_nhwc"]).permute(0, 3, 1, 2)
W = torch.tensor(JAX["w_hwio"]).permute(3, 2, 0, 1)
KERNELS = {"none": None, "k1331": [1, 3, 3, 1], "k121": [1, 2, 1], "k11": [1, 1], "k14641": [1, 4, 6, 4, 1]}
FIR = [1, 3, 3, 1]


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("function", ["upsample_2d", "downsample_2d", "upsample_conv_2d", "conv_downsample_2d"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_jax_program(function, kernel, layout):
    weight = (W,) if "conv" in function else ()
    found = getattr(resampling, function)(X.contiguous(memory_format=layout), *weight, KERNELS[kernel])
    assert_close(found.permute(0, 2, 3, 1), JAX[f"{function}/{kernel}"])


@pytest.mark.parametrize(
    ("name", "function"),
    {
        "naive_upsample_2d": resampling.naive_upsample_2d,
        "naive_downsample_2d": resampling.naive_downsample_2d,
        "upsample_2d_factor3": lambda x: resampling.upsample_2d(x, FIR, factor=3),
        "downsample_2d_factor4": lambda x: resampling.downsample_2d(x, FIR, factor=4),
        "upsample_2d_gain2.5": lambda x: resampling.upsample_2d(x, FIR, gain=2.5),
        "downsample_2d_gain2.5": lambda x: resampling.downsample_2d(x, FIR, gain=2.5),
        "upfirdn_asym": lambda x: resampling.upfirdn_2d(
            x, torch.arange(12.0).reshape(3, 4), up=(3, 2), down=(2, 1), pad=((0, 3), (1, 2))
        ),
    }.items(),
)
def test_other_forms_of_the_jax_program(name, function):
    assert_close(function(X).permute(0, 2, 3, 1), JAX[name])


def upfirdn(x, up, down, pad):
    kernel = torch.tensor(TORCH["upfirdn_kernel"])
    return resampling.upfirdn_2d(x, kernel, up=(up, up), down=(down, down), pad=(pad, pad))


@pytest.mark.parametrize(
    ("name", "function"),
    {
        **{f"up_{key}": lambda x, _, k=key: resampling.upsample_2d(x, fir(k)) for key in ("1331", "121", "14641")},
        **{
            f"down_{key}": lambda _, xe, k=key: resampling.downsample_2d(xe, fir(k)) for key in ("1331", "121", "14641")
        },
        "up_none": lambda x, _: resampling.upsample_2d(x),
        "down_none": lambda _, xe: resampling.downsample_2d(xe),
        "up_gain3_1331": lambda x, _: resampling.upsample_2d(x, FIR, gain=3),
        "up4_1331": lambda x, _: resampling.upsample_2d(x, FIR, factor=4),
        "naive_up": lambda x, _: resampling.naive_upsample_2d(x),
        "naive_down": lambda _, xe: resampling.naive_downsample_2d(xe),
        "conv_down_1331": lambda _, xe: resampling.conv_downsample_2d(xe, torch.tensor(TORCH["conv_w"]), FIR),
        "conv_down_none": lambda _, xe: resampling.conv_downsample_2d(xe, torch.tensor(TORCH["conv_w"])),
        "upfirdn_u2d1_p21": lambda x, _: upfirdn(x, 2, 1, (2, 1)),
        "upfirdn_u1d2_p11": lambda x, _: upfirdn(x, 1, 2, (1, 1)),
        "upfirdn_u3d2_pm12": lambda x, _: upfirdn(x, 3, 2, (-1, 2)),
        "down4_none": lambda *_: resampling.downsample_2d(
            torch.arange(64.0).reshape(1, 1, 8, 8).expand(1, 2, 8, 8), factor=4
        ),
    }.items(),
)
def test_pytorch_program(name, function):
    assert_close(function(torch.tensor(TORCH["x"]), torch.tensor(TORCH["xe"])), TORCH[name])


def fir(digits):
    return [int(digit) for digit in digits]


def literally(x, kernel, up, down, pad):
    """The definition: zeros inserted, padded or cropped, convolved, subsampled."""
    batch, channels, height, width = x.shape
    z = np.zeros((batch, channels, height * up[0], width * up[1]))
    z[:, :, :: up[0], :: up[1]] = x
    z = np.pad(z, ((0, 0), (0, 0), *(tuple(max(p, 0) for p in axis) for axis in pad)))
    for axis, (before, after) in enumerate(pad, start=2):
        z = z.take(range(max(-before, 0), z.shape[axis] - max(-after, 0)), axis=axis)
    rows, columns = z.shape[2] - kernel.shape[0] + 1, z.shape[3] - kernel.shape[1] + 1
    out = np.zeros((batch, channels, rows, columns))
    for i, j in np.ndindex(*kernel.shape):
        out += kernel[::-1, ::-1][i, j] * z[:, :, i : i + rows, j : j + columns]
    return out[:, :, :: down[0], :: down[1]]


@pytest.mark.parametrize("pad", [((0, 3), (1, 2)), ((-1, 2), (2, -2)), ((4, 5), (0, 0))])
@pytest.mark.parametrize("down", [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("up", [(1, 1), (1, 2), (3, 1), (2, 2)])
def test_upfirdn_is_its_definition(up, down, pad):
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 2, 7, 6))
    for shape in ((1, 2), (3, 4)):
        kernel = random.standard_normal(shape)
        found = resampling.upfirdn_2d(torch.tensor(x), torch.tensor(kernel), up=up, down=down, pad=pad)
        np.testing.assert_allclose(found, literally(x, kernel, up, down, pad), rtol=0, atol=1e-12)


def test_gradients_of_both_directions_agree_with_finite_differences():
    x = X[:1, :, :4, :4].double().requires_grad_()
    w = W.double().requires_grad_()
    check = {"check_forward_ad": True, "fast_mode": True}
    assert torch.autograd.gradcheck(lambda x: resampling.upsample_2d(x, FIR), (x,), **check)
    assert torch.autograd.gradcheck(lambda x: resampling.downsample_2d(x, FIR), (x,), **check)
    assert torch.autograd.gradcheck(lambda x, w: resampling.upsample_conv_2d(x, w, FIR), (x, w), **check)
    assert torch.autograd.gradcheck(lambda x, w: resampling.conv_downsample_2d(x, w, FIR), (x, w), **check)


def test_bfloat16_sums_in_float32_under_autocast_too():
    x = X.bfloat16()
    exact = resampling.upsample_2d(x.float(), FIR)
    with torch.autocast("cpu", torch.bfloat16):
        found = resampling.upsample_2d(x, FIR)
        assert resampling.upsample_2d(x.float(), FIR).dtype == torch.float32
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


def test_a_kernel_of_three_dimensions_is_refused():
    with pytest.raises(ValueError, match="one or two dimensions"):
        resampling.fir_kernel_2d(np.ones((2, 2, 2)))
