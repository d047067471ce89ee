"""The JAX wing: networks, loss, bound, sampling; the numbers of the PyTorch wing at the same noise."""
