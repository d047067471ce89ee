"""The shared core of five papers on score-based generative models: SDEs, samplers, losses, likelihoods, data, metrics.

Modules outside ``score_core.jax`` and ``score_core.torch`` import neither framework.
"""

__version__ = "0.1.0"
