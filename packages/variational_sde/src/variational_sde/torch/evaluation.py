"""Bits/dim of a test set: the bound for every image once (or ``repeats`` times), and the ODE's likelihood.

An image's bits/dim are -ELBO / (D ln 2) + 8 with one dequantisation, one time and one probe; the mean over the images
comes with its standard error, the population's standard deviation over the root of the number of images.

Noise of the ``complete`` protocol: one stream an image, a function of (seed, stream, repeat, index) alone, the same in
both wings. ``original``: whole batches from a generator, test images flipped at random where training images are.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from score_core.data import Pipeline
from score_core.random import Role
from score_core.torch import threefry
from score_core.torch.noise import PerSampleNoise, uniform_per_sample
from score_core.torch.noise import probe as per_sample_probe
from variational_sde.logit import LogitTransform, dequantise
from variational_sde.objectives import ElboNoise, bound_in_bits
from variational_sde.torch.likelihood import ode_log_likelihood
from variational_sde.torch.reverse_sde import Generators, PluginReverseSDE

__all__ = ["Estimate", "Protocol", "bound_bpd", "image_noise", "ode_bpd", "to_tensor"]

Interrupted = Callable[[], bool]
"""Asked between batches; true ends an evaluation without a result."""


@dataclass(frozen=True)
class Estimate:
    """Bits/dim of each image ``[n]`` (float64, the mean over its repeats)."""

    per_image: np.ndarray
    nfe: int | None = None

    @property
    def mean(self) -> float:
        """The mean over the images."""
        return float(self.per_image.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return float(self.per_image.std() / math.sqrt(len(self.per_image)))


@dataclass(frozen=True)
class Protocol:
    """How a test set is evaluated.

    Attributes:
        real: the model lives in logit space.
        batch_size: of an evaluation batch.
        seed: of the noise.
        repeats: draws an image.
        original: the original's protocol.
        flip: whether the original's protocol flips.
    """

    real: bool
    batch_size: int = 256
    seed: int = 0
    repeats: int = 1
    original: bool = False
    flip: bool = False

    def to_model(self, images: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """What the network models of 8-bit ``images``, and the log-determinant ``[B]`` of the way there."""
        x = dequantise(images, u)
        if not self.real:
            return x, x.new_zeros(len(x))
        logit = LogitTransform()
        return logit.forward(x), logit.log_det(x)


def to_tensor(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 ``[B, H, W, C]`` as float32 ``[B, C, H, W]`` on the device."""
    return torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2).float().contiguous()


@torch.no_grad()
def image_noise(key: Tensor, indices: Tensor, shape: tuple[int, ...], vtype: str, T: float) -> tuple[Tensor, ElboNoise]:
    """The dequantisation and the noise of the bound of images with these numbers, one stream an image.

    Arguments:
        key: int32 ``[2]`` (:func:`score_core.torch.threefry.prng_key`).
        indices: ``[B]``. shape: of one image (C, H, W).
    """
    normal = PerSampleNoise(key, indices, shape)
    u = uniform_per_sample(key, indices, Role.DEQUANTIZATION, shape)
    t = uniform_per_sample(threefry.fold_in(key, 1), indices, Role.DEQUANTIZATION, ())
    v = per_sample_probe(key, indices, (len(indices), *shape), vtype)
    return u, ElboNoise(t * T, normal.predictor((), 0)[1], v, normal.prior()[1])


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, its parameters asking for no gradient: only the data's are computed and kept."""
    training, trained = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        model.train(training)


def bound_bpd(
    model: PluginReverseSDE, source: Any, protocol: Protocol, *, stream: int = 0, stop: Interrupted = lambda: False
) -> Estimate | None:
    """The bound in bits/dim of every image of ``source``.

    Arguments:
        source: :class:`score_core.data.Source`.
        stream: which of the seed's streams; training takes the iteration's number.
        stop: asked between batches; None is returned when it says so.
    """
    device = model.T.device
    data = Pipeline(source, protocol.batch_size, seed=protocol.seed + stream, random_flip=protocol.flip)
    bits: list[Tensor] = []
    with evaluating(model):
        for repeat in range(protocol.repeats):
            draw = _draw(model, protocol, stream, repeat, device)
            for images, indices in _batches(data, protocol):
                if stop():
                    return None
                images = to_tensor(images, device)
                u: Any
                noise: Any
                u, noise = draw(images, torch.from_numpy(indices).to(device))
                u = u(images) if callable(u) else u
                x, log_det = protocol.to_model(images, u)
                noise = noise(x) if callable(noise) else noise
                elbo = model.elbo(x, noise).detach() + log_det
                bits.append(bound_in_bits(elbo, x[0].numel()))
    per_draw = torch.cat(bits).double().cpu().numpy().reshape(protocol.repeats, len(source))
    return Estimate(per_draw.mean(axis=0))


def _draw(model: PluginReverseSDE, protocol: Protocol, stream: int, repeat: int, device: torch.device) -> Any:
    """``draw(images, indices)``: dequantisation and noise, or functions that draw them in turn."""
    if protocol.original:
        generators = Generators.seeded((protocol.seed * 1_000_003 + stream) * 1009 + repeat, device)
        return lambda images, _: (generators.uniform_like, lambda x: model.draw_elbo_noise(x, generators))
    key = threefry.prng_key(protocol.seed, device)
    for number in (stream, repeat):
        key = threefry.fold_in(key, number)
    return lambda images, indices: image_noise(key, indices, tuple(images.shape[1:]), model.vtype, model.law.T)


def _batches(data: Pipeline, protocol: Protocol) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every image once: images and their numbers. The original's protocol flips them at random."""
    count = len(data.source)
    if not protocol.original:
        with data.epoch() as batches:
            for batch in batches:
                yield batch.image[batch.valid], batch.index[batch.valid]
        return
    # parity: the test set goes through the training set's transform, flips included
    whole = Pipeline(
        data.source, protocol.batch_size, seed=protocol.seed, random_flip=protocol.flip, drop_remainder=False
    )
    for step in range(-(-count // protocol.batch_size)):
        batch = whole.batch(step)
        left = count - step * protocol.batch_size
        yield batch.image[:left], batch.index[:left]


def ode_bpd(
    model: PluginReverseSDE,
    source: Any,
    protocol: Protocol,
    *,
    tolerance: float = 1e-5,
    stop: Interrupted = lambda: False,
) -> Estimate | None:
    """The ODE's bits/dim (lambda = 1) of every image, with the dequantisation and the probes of :func:`bound_bpd`."""
    device = model.T.device
    data = Pipeline(source, protocol.batch_size, seed=protocol.seed)
    key = threefry.fold_in(threefry.fold_in(threefry.prng_key(protocol.seed, device), 0), 0)
    bits: list[np.ndarray] = []
    nfe = 0
    with evaluating(model), data.epoch() as batches:
        for batch in batches:
            if stop():
                return None
            images = to_tensor(batch.image[batch.valid], device)
            indices = torch.from_numpy(batch.index[batch.valid]).to(device)
            u, noise = image_noise(key, indices, tuple(images.shape[1:]), model.vtype, model.law.T)
            x, log_det = protocol.to_model(images, u)
            result = ode_log_likelihood(model, x, noise.v, rtol=tolerance, atol=tolerance)
            bits.append(bound_in_bits((result.nats + log_det).double(), x[0].numel()).cpu().numpy())
            nfe += result.nfe
    return Estimate(np.concatenate(bits), nfe)
