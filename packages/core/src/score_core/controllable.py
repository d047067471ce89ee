r"""Controllable generation: samples that agree with what is known of them (Song et al. 2021, section 5 and appendix I).

Measurement     c = x M over the channels (M invertible), and of c the coordinates y where the mask m is 1
                inpainting: M = 1, m marks the known pixels;  colourisation: c_0 is the grey value, m = (1, 0, 0)
Known at t      y_t = mean(y, t) + std(t) z,  z ~ N(0, I)
Replacement     c <- c (1 - m) + y_t m,  x = c M^-1           after every update of corrector and predictor
Class           score(x, t) + grad_x log p(label | x, std(t))
Classifier      trained on -log p(label | mean(x_0, t) + std(t) z, std(t))

The published algorithm and, with ``noise_consistent``, ours, differ in the start and in the mean that is returned:

                published                                      noise_consistent
x_T             (y m + (prior (1 - m)) M) M^-1                 (y_T m + (prior M) (1 - m)) M^-1
x_mean          from x, whose unknown part has noise           from x_mean of the update, which has none

Nothing here draws, and values under a mask of 0 are never read, not even multiplied by it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from score_core.arrays import Array, ScoreFn, as_like, batch_mul, namespace, sum_dims
from score_core.errors import UsageError
from score_core.predictors import Predictor
from score_core.sdes import SDE

__all__ = [
    "GRAY_MATRIX",
    "ChannelCoupling",
    "GradientFn",
    "LogitFn",
    "Measurement",
    "Replacement",
    "class_conditional_score",
    "classification_loss",
    "gray_measurement",
    "measure",
    "require_binary",
    "require_every_level",
    "spherical_interpolation",
]

GradientFn = Callable[[Array, Array, Array], Array]
"""``gradient_fn(x[B, ...], std[B], labels[B])``: grad_x log p(labels | x) of a classifier of noisy images."""

LogitFn = Callable[[Array, Array], Array]
"""``logit_fn(x[B, ...], std[B]) -> [B, K]``: a classifier of images with noise of standard deviation ``std``."""

# parity: to these digits, in float32.
GRAY_MATRIX = np.array(
    [
        [5.7735014e-01, -8.1649649e-01, 4.7008697e-08],
        [5.7735026e-01, 4.0824834e-01, 7.0710671e-01],
        [5.7735026e-01, 4.0824822e-01, -7.0710683e-01],
    ],
    np.float32,
)
"""An orthogonal M whose first column makes the sum of the three channels over sqrt 3, the grey value."""


class ChannelCoupling:
    """The coordinates c = x M of every pixel's channels.

    Arguments:
        matrix: M ``[C, C]``, invertible; orthogonal unless there is a reason.
        axis: the axis of the channels: -1, or 1 for ``[B, C, H, W]``.

    Raises:
        ValueError: M is not square or not invertible in float32.
    """

    def __init__(self, matrix: Any, axis: int = -1) -> None:
        matrix = np.asarray(matrix, np.float32)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"A channel coupling is a square matrix, one row a channel; got shape {matrix.shape}.")
        condition = np.linalg.cond(matrix)
        if not condition < 1e5:
            raise ValueError(
                f"The channel coupling cannot be inverted in float32 (condition number {condition:.3g}); "
                "take linearly independent columns, best orthonormal ones."
            )
        self.matrix = matrix
        self.inverse = np.linalg.inv(matrix)
        self.axis = axis
        self.orthogonal = bool(np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-5))

    def decouple(self, x: Array) -> Array:
        """c = x M, of the shape of ``x``."""
        return self._times(x, self.matrix)

    def couple(self, c: Array) -> Array:
        """x = c M^-1, of the shape of ``c``."""
        return self._times(c, self.inverse)

    def _times(self, x: Array, matrix: np.ndarray) -> Array:
        if x.shape[self.axis] != len(matrix):
            raise ValueError(
                f"The channel coupling is {len(matrix)} by {len(matrix)}, but axis {self.axis} of the images "
                f"{tuple(x.shape)} has {x.shape[self.axis]} channels."
            )
        xp = namespace(x)
        # A sum of products in the images' own precision: accelerators round the factors of a matrix product.
        last = xp.moveaxis(x, self.axis, -1)
        return xp.moveaxis(xp.sum(last[..., None] * as_like(matrix, x), axis=-2), -1, self.axis)


@dataclass(frozen=True)
class Measurement:
    """What is known of a batch; make it with :func:`measure`.

    Attributes:
        values: y ``[B, ...]``, 0 where nothing is known.
        mask: m, 1 where the coordinate is known, of a shape that broadcasts to that of the batch.
        coupling: from pixels to coordinates; None: the pixels themselves.
    """

    values: Array
    mask: Array
    coupling: ChannelCoupling | None = None

    def decouple(self, x: Array) -> Array:
        """The coordinates of ``x``."""
        return x if self.coupling is None else self.coupling.decouple(x)

    def couple(self, c: Array) -> Array:
        """The image with coordinates ``c``."""
        return c if self.coupling is None else self.coupling.couple(c)

    def noise(self, z: Array) -> Array:
        """Standard normal noise ``z`` as noise of the coordinates."""
        # An orthogonal M leaves N(0, I) as it is, another one does not.
        if self.coupling is None or self.coupling.orthogonal:
            return z
        return self.coupling.decouple(z)


def measure(image: Array, mask: Array, coupling: ChannelCoupling | None = None) -> Measurement:
    """What is known of ``image``.

    Arguments:
        image: ``[B, ...]`` in the network's range; its unknown part may hold anything, NaN included.
        mask: 1 where known, 0 where not (of the coordinates, if there is a coupling); bool or number, of any shape that
            broadcasts to the image's: one for all ``[H, W, 1]``, per image ``[B, 1, 1, 1]``, per channel ``[C]``, ...
        coupling: from pixels to the coordinates that the mask speaks of.

    Raises:
        ValueError: the mask does not broadcast to the image.
    """
    shape = tuple(image.shape)
    try:
        broadcast = np.broadcast_shapes(tuple(mask.shape), shape)
    except ValueError:
        broadcast = ()
    if broadcast != shape:
        raise ValueError(
            f"A mask of shape {tuple(mask.shape)} does not fit images of shape {shape}; give it one entry a pixel and "
            "channel, or length 1 along the axes where it is constant."
        )
    xp = namespace(image)
    values = image if coupling is None else coupling.decouple(image)
    return Measurement(xp.where(mask > 0, values, xp.zeros_like(values)), xp.astype(mask, image.dtype), coupling)


def require_binary(mask: np.ndarray) -> None:
    """Refuses a mask that holds anything but 0 and 1 (or False and True).

    Raises:
        UsageError: it does; says how to make one of it.
    """
    found = np.unique(mask)
    if not np.isin(found, (0, 1)).all():
        raise UsageError(
            f"a mask is 1 where a pixel is known and 0 where not; this one has values from {found[0]} to {found[-1]}. "
            "Compare it with a threshold first: mask > 0.5 (or > 127 for bytes)."
        )


def require_every_level(predictor: type) -> None:
    """Refuses a predictor that does not visit every noise level of the SDE, where the known part is put in.

    Raises:
        ValueError: it is a few-step rule.
    """
    if not issubclass(predictor, Predictor):
        raise ValueError(
            f"{predictor.__name__} cannot inpaint or colourise: the known part is put in at every noise level of the "
            "SDE, and few-step rules skip most of them. Take reverse_diffusion, euler_maruyama or ancestral_sampling."
        )


def gray_measurement(gray: Array, axis: int = -1) -> Measurement:
    """The grey value of ``gray`` ``[B, H, W, 3]`` (``axis=1``: ``[B, 3, H, W]``), whose channels are equal."""
    xp = namespace(gray)
    mask = np.zeros([3 if k == axis % gray.ndim else 1 for k in range(gray.ndim)], np.float32)
    mask.flat[0] = 1.0
    return measure(gray, xp.astype(as_like(mask, gray), gray.dtype), ChannelCoupling(GRAY_MATRIX, axis))


class Replacement:
    """Puts the known part into the state of a sampler, at the noise level the state has (see the module's formulas).

    Arguments:
        sde: the forward SDE.
        measurement: what is known.
        noise_consistent: start and mean of the right column of the module's table. Off, the published algorithm.
    """

    def __init__(self, sde: SDE, measurement: Measurement, noise_consistent: bool = False) -> None:
        self.sde = sde
        self.measurement = measurement
        self.noise_consistent = noise_consistent

    def start(self, prior: Array, noise: Array | None) -> Array:
        """x_T ``[B, ...]``.

        Arguments:
            prior: a sample of the SDE's prior, of the shape of the batch.
            noise: standard normal, of the same shape; read with ``noise_consistent`` only.
        """
        known = self.measurement
        if self.noise_consistent:
            xp = namespace(prior)
            T = xp.full_like(xp.reshape(prior, (prior.shape[0], -1))[:, 0], self.sde.T)
            return self._replaced(prior, self._known_at(T, noise)[0])
        # parity: the known part starts without noise, and the mask meets the prior before it is decoupled.
        return known.couple(known.values * known.mask + known.decouple(prior * (1 - known.mask)))

    def update(self, x: Array, x_mean: Array, t: Array, noise: Array) -> tuple[Array, Array]:
        """The state and its mean with the known part put in.

        Arguments:
            x, x_mean: what a predictor or corrector returned, ``[B, ...]``.
            t: the time ``[B]`` it was given.
            noise: standard normal, of the shape of ``x``.
        """
        y_t, mean = self._known_at(t, noise)
        x = self._replaced(x, y_t)
        # parity: the published mean takes its unknown part from x, noise included, so denoising acts on y alone.
        return x, self._replaced(x_mean if self.noise_consistent else x, mean)

    def _known_at(self, t: Array, noise: Array | None) -> tuple[Array, Array]:
        """y_t and its mean, each ``[B, ...]``."""
        mean, std = self.sde.marginal_prob(self.measurement.values, t)
        return mean + batch_mul(std, self.measurement.noise(noise)), mean

    def _replaced(self, x: Array, y: Array) -> Array:
        known = self.measurement
        return known.couple(known.decouple(x) * (1 - known.mask) + y * known.mask)


def class_conditional_score(score_fn: ScoreFn, sde: SDE, gradient_fn: GradientFn, labels: Array) -> ScoreFn:
    """The score of p_t(x | label) by Bayes' rule (eq. 14): the unconditional score plus a classifier's gradient.

    Arguments:
        score_fn: the unconditional score.
        sde: the forward SDE, whose std(t) tells the classifier how noisy its input is.
        gradient_fn: the classifier's gradient.
        labels: the wanted classes, integers ``[B]``.
    """

    def conditional(x: Array, t: Array) -> Array:
        # parity: x is in the network's range, although the published classifier was trained on [0, 1].
        return score_fn(x, t) + gradient_fn(x, sde.marginal_prob(x, t)[1], labels)

    return conditional


def classification_loss(
    sde: SDE, logit_fn: LogitFn, x0: Array, labels: Array, t: Array, noise: Array
) -> tuple[Array, Array]:
    """How well a classifier does on noisy images (appendix I.1).

    Arguments:
        sde: the forward SDE.
        logit_fn: the classifier.
        x0: data in the network's range, ``[B, ...]``.
        labels: their classes, integers ``[B]``.
        t: times in (0, T], ``[B]``.
        noise: standard normal, of the shape of ``x0``.

    Returns:
        The cross-entropy -log p(label | x_t) of each image in nats, ``[B]``, and whether the likeliest class is the
        label, bool ``[B]``.
    """
    xp = namespace(x0)
    mean, std = sde.marginal_prob(x0, t)
    logits = logit_fn(mean + batch_mul(std, noise), std)
    # The largest logit first: exp cannot overflow then.
    shifted = logits - xp.max(logits, axis=-1)[:, None]
    is_label = labels[:, None] == as_like(np.arange(logits.shape[-1]), labels)
    of_label = xp.sum(xp.where(is_label, shifted, xp.zeros_like(shifted)), axis=-1)
    return xp.log(xp.sum(xp.exp(shifted), axis=-1)) - of_label, xp.argmax(logits, axis=-1) == labels


def spherical_interpolation(start: Array, end: Array, weights: Array) -> Array:
    """Points on the great arc between latent codes: (sin((1 - w) a) start + sin(w a) end) / sin a, a their angle.

    Arguments:
        start, end: ``[B, ...]``, each sample with the other's of the same number.
        weights: w ``[n]``, 0 at ``start`` and 1 at ``end``.

    Returns:
        ``[n, B, ...]``. Where start and end are parallel, the arc is the straight line.
    """
    xp = namespace(start)
    cosine = sum_dims(start * end) / xp.sqrt(sum_dims(start**2) * sum_dims(end**2))
    angle = xp.acos(xp.clip(cosine, -1.0, 1.0))[None, :]
    sine = xp.sin(angle)
    parallel = sine < 1e-4
    divisor = xp.where(parallel, xp.ones_like(sine), sine)
    w = weights[:, None]
    of_start = xp.where(parallel, 1 - w, xp.sin((1 - w) * angle) / divisor)
    of_end = xp.where(parallel, w, xp.sin(w * angle) / divisor)
    factor_shape = (weights.shape[0], start.shape[0]) + (1,) * (start.ndim - 1)
    return xp.reshape(of_start, factor_shape) * start + xp.reshape(of_end, factor_shape) * end
