"""What a classifier is and how it is trained, apart from the experiment whose noise it learns."""

from dataclasses import dataclass

__all__ = ["PUBLISHED", "SMALL", "Settings", "default_settings"]


@dataclass(frozen=True)
class Settings:
    """One training run; the network is :class:`score_core.jax.networks.WideResnet` (or its counterpart in PyTorch)."""

    blocks_per_group: int
    channel_multiplier: int
    n_iters: int
    """Updates."""
    batch_size: int
    lr: float
    """Adam's learning rate after warm-up."""
    warmup: int
    """Updates during which it grows."""
    grad_clip: float
    """Largest norm of the gradient."""
    ema_rate: float
    """Of the averaged parameters, which are the ones that are used."""
    seed: int
    """Of parameters, order of the images, times and noise."""
    log_freq: int
    snapshot_freq: int
    """Updates between two checkpoints."""


PUBLISHED = Settings(
    blocks_per_group=4,
    channel_multiplier=10,
    n_iters=100_000,
    batch_size=128,
    lr=2e-4,
    warmup=1000,
    grad_clip=1.0,
    ema_rate=0.999,
    seed=0,
    log_freq=50,
    snapshot_freq=1000,
)
"""The published network. How it was trained is not published in full; the rest are our values."""

SMALL = Settings(
    blocks_per_group=1,
    channel_multiplier=2,
    n_iters=1000,
    batch_size=64,
    lr=2e-3,
    warmup=50,
    grad_clip=1.0,
    ema_rate=0.99,
    seed=0,
    log_freq=20,
    snapshot_freq=250,
)
"""For images of up to 16 pixels: minutes on one core."""


def default_settings(image_size: int) -> Settings:
    """What is taken where the command line says nothing."""
    return SMALL if image_size <= 16 else PUBLISHED
