"""``train`` and ``evaluate`` under the name the original has them."""

from score_sde.evaluate import evaluate
from score_sde.train import train

__all__ = ["evaluate", "train"]
