"""The original's ``models`` package; the networks are in :mod:`score_core.jax.networks`."""
