"""ScoreNetRunner: sliced score matching of images, the experiment of Figure 1."""

from ncsn.runners.images import ImageRunner

__all__ = ["ScoreNetRunner"]


class ScoreNetRunner(ImageRunner):
    """Trains ResScore; nothing is sampled from it."""

    name = "ScoreNetRunner"
