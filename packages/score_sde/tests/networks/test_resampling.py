"""FIR resampling against the original's numbers and against its definition with zeros written out."""

import itertools

import goldens
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from score_core.jax.networks import resampling

GOLDEN = goldens.load("core", "resample_embed.npz")
X = GOLDEN["x_nhwc"]
KERNELS = {"none": None, "k1331": [1, 3, 3, 1], "k121": [1, 2, 1], "k11": [1, 1], "k14641": [1, 4, 6, 4, 1]}


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("function", ["upsample_2d", "downsample_2d"])
def test_fir_resampling(function, kernel):
    found = getattr(resampling, function)(jnp.asarray(X), KERNELS[kernel])
    assert_close(found, GOLDEN[f"{function}/{kernel}"])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("function", ["upsample_conv_2d", "conv_downsample_2d"])
def test_fir_resampling_with_convolution(function, kernel):
    found = getattr(resampling, function)(jnp.asarray(X), jnp.asarray(GOLDEN["w_hwio"]), KERNELS[kernel])
    assert_close(found, GOLDEN[f"{function}/{kernel}"])


@pytest.mark.parametrize(
    ("name", "function"),
    {
        "naive_upsample_2d": resampling.naive_upsample_2d,
        "naive_downsample_2d": resampling.naive_downsample_2d,
        "upsample_2d_factor3": lambda x: resampling.upsample_2d(x, [1, 3, 3, 1], factor=3),
        "downsample_2d_factor4": lambda x: resampling.downsample_2d(x, [1, 3, 3, 1], factor=4),
        "upsample_2d_gain2.5": lambda x: resampling.upsample_2d(x, [1, 3, 3, 1], gain=2.5),
        "downsample_2d_gain2.5": lambda x: resampling.downsample_2d(x, [1, 3, 3, 1], gain=2.5),
        "upsample_nchw": lambda x: resampling.upsample_2d(x, [1, 3, 3, 1]).transpose(0, 3, 1, 2),
        "upfirdn_asym": lambda x: resampling.upfirdn_2d(
            x, np.arange(12).reshape(3, 4), up=(3, 2), down=(2, 1), pad=((0, 3), (1, 2))
        ),
    }.items(),
)
def test_other_forms(name, function):
    assert_close(function(jnp.asarray(X)), GOLDEN[name])


def literally(x, kernel, up, down, pad):
    """The definition: zeros inserted, padded or cropped, convolved, subsampled."""
    batch, height, width, channels = x.shape
    z = np.zeros((batch, height * up[0], width * up[1], channels))
    z[:, :: up[0], :: up[1]] = x
    z = np.pad(z, ((0, 0), *(tuple(max(p, 0) for p in axis) for axis in pad), (0, 0)))
    for axis, (before, after) in enumerate(pad, start=1):
        z = z.take(range(max(-before, 0), z.shape[axis] - max(-after, 0)), axis=axis)
    rows, columns = z.shape[1] - kernel.shape[0] + 1, z.shape[2] - kernel.shape[1] + 1
    out = np.zeros((batch, rows, columns, channels))
    for i, j in np.ndindex(*kernel.shape):
        out += kernel[::-1, ::-1][i, j] * z[:, i : i + rows, j : j + columns]
    return out[:, :: down[0], :: down[1]]


@pytest.mark.parametrize("pad", [((0, 3), (1, 2)), ((-1, 2), (2, -2)), ((4, 5), (0, 0))])
@pytest.mark.parametrize("down", [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize("up", [(1, 2), (3, 1), (2, 2)])
def test_upfirdn_is_its_definition(up, down, pad):
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 7, 6, 2)).astype(np.float32)
    for shape in itertools.product([1, 3], [2, 4]):
        kernel = random.standard_normal(shape).astype(np.float32)
        found = resampling.upfirdn_2d(jnp.asarray(x), kernel, up=up, down=down, pad=pad)
        expected = literally(x, kernel, up, down, pad)
        assert found.shape == expected.shape
        assert_close(found, expected)


def test_gradients_agree_with_finite_differences():
    w = jnp.asarray(GOLDEN["w_hwio"])
    x = jnp.asarray(X[:1, :4, :4])
    check_grads(lambda x: resampling.upsample_2d(x, [1, 3, 3, 1]), (x,), order=1, rtol=1e-2)
    check_grads(lambda x: resampling.downsample_2d(x, [1, 3, 3, 1]), (x,), order=1, rtol=1e-2)
    check_grads(lambda x, w: resampling.upsample_conv_2d(x, w, [1, 3, 3, 1]), (x, w), order=1, rtol=1e-2)


def test_bfloat16_sums_in_float32():
    x = jnp.asarray(X, jnp.bfloat16)
    found = resampling.upsample_2d(x, [1, 3, 3, 1])
    assert found.dtype == jnp.bfloat16
    exact = resampling.upsample_2d(x.astype(jnp.float32), [1, 3, 3, 1])
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_a_kernel_of_three_dimensions_is_refused():
    with pytest.raises(ValueError, match="one or two dimensions"):
        resampling.fir_kernel_2d(np.ones((2, 2, 2)))
