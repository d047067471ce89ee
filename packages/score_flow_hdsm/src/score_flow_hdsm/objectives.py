r"""High-order denoising score matching (Lu et al. 2022, sections 4 and 5), one loss value a sample.

With :math:`x_t = \mathrm{mean} + \sigma z`, the score model :math:`s(x_t, t)`, its Jacobian :math:`J`, a probe
:math:`v` of random signs, and :math:`r = z + \sigma \bar s`, where :math:`\bar{\cdot}` receives no gradient:

    order 1   the objective of score_sde
    order 2   |sigma^2 J v + v - <r, v> r|^2 / D          an estimate of  |sigma^2 J + I - r r^T|_F^2
              + ((sigma^2 <J v, v> + |v|^2 - <r, v>^2) / D)^2             (sigma^2 tr J + D - |r|^2)^2
    order 3   |h / D|^2,  h = sigma^3 grad <v, J v> + <r, v>^2 r - (sigma^2 <Jv, v> + |v|^2) r
                              - 2 <r, v> (sigma^2 Jv + v)       with J v and <J v, v> held constant

|.|^2 is the mean over the D dimensions of a sample (``reduce_mean``). All three are added with coefficient 1. The
derivatives are the drivers' (:mod:`score_flow_hdsm.losses`, :mod:`score_flow_hdsm.losses_torch`).
"""

from score_core.arrays import Array, batch_mul, dims_per_sample, per_sample, sum_dims

__all__ = ["first_order", "reduce_dims", "residual", "second_order", "third_order"]


def reduce_dims(x: Array, reduce_mean: bool) -> Array:
    """Mean over the dimensions of a sample, or half their sum; ``[B]``."""
    # parity: the factor 1/2 belongs to the sum only
    return sum_dims(x) / dims_per_sample(x) if reduce_mean else 0.5 * sum_dims(x)


def first_order(std: Array, score: Array, z: Array, diffusion: Array | None, reduce_mean: bool) -> Array:
    """Denoising score matching (Song et al. 2021b, section 3), ``[B]``.

    Arguments:
        std: ``[B]``. score, z: ``[B, ...]``.
        diffusion: g(t) ``[B]`` for likelihood weighting with uniform times; None for the weight std^2.
        reduce_mean: see :func:`reduce_dims`.
    """
    if diffusion is None:
        return reduce_dims((batch_mul(std, score) + z) ** 2, reduce_mean)
    return reduce_dims((score + z / per_sample(std, z)) ** 2, reduce_mean) * diffusion**2


def residual(std: Array, score: Array, z: Array) -> Array:
    """r = z + std score ``[B, ...]``, of a score that receives no gradient."""
    return z + batch_mul(std, score)


def second_order(std: Array, jvp: Array, r: Array, v: Array) -> Array:
    """The second-order loss (Lu et al. 2022, section 5), ``[B]``.

    Arguments:
        std: ``[B]``.
        jvp: J v ``[B, ...]``, which carries the gradient.
        r: :func:`residual`. v: random signs, of the same shape.
    """
    dims = dims_per_sample(v)
    along = sum_dims(r * v)
    frobenius = reduce_dims((batch_mul(std**2, jvp) + v - batch_mul(along, r)) ** 2 / dims, True)
    trace = ((std**2 * sum_dims(jvp * v) + sum_dims(v * v) - along**2) / dims) ** 2
    return frobenius + trace


def third_order(std: Array, gradient: Array, jvp: Array, r: Array, v: Array) -> Array:
    """The third-order loss (Lu et al. 2022, section 5), ``[B]``.

    Arguments:
        std: ``[B]``.
        gradient: the gradient of <v, J v> with respect to x ``[B, ...]``, which carries the gradient.
        jvp: J v, which carries none.
        r: :func:`residual`. v: random signs, of the same shape.
    """
    along = sum_dims(r * v)
    trace = std**2 * sum_dims(jvp * v) + sum_dims(v * v)
    h = (
        batch_mul(std**3, gradient)
        + batch_mul(along**2 - trace, r)
        - batch_mul(2.0 * along, batch_mul(std**2, jvp) + v)
    )
    return reduce_dims((h / dims_per_sample(v)) ** 2, True)
