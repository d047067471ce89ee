"""The JAX wing: networks, training step, samplers and likelihood. Images are ``[B, H, W, C]``."""
