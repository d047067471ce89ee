"""BaselineRunner: the score of one noise level, its samples by Langevin dynamics."""

import torch

from ncsn.runners.images import ImageRunner
from ncsn.sampling import ModulusLines
from score_core.torch.langevin import langevin, random_noise

__all__ = ["BaselineRunner"]

NROW = 10


class BaselineRunner(ImageRunner):
    """The baseline of the paper, which shows what annealing is for."""

    name = "BaselineRunner"
    samples = 100

    def test(self) -> None:
        """Samples from uniform noise (:mod:`ncsn.sampling` says what is written); a line is printed at every step.

        The original read a batch of data for its shape only, on a GPU; here none is needed.
        """
        network = self.network(self.checkpoint())
        sampling = self.config.sampling
        x = torch.rand(self.count(), *self.shape, device=self.device)
        recorder = self.recorder(None, "samples_{}.pth", NROW)
        with self.progress(sampling.n_steps, "Langevin dynamics sampling") as progress, ModulusLines() as lines:
            watch = self.watcher(progress, lines, recorder)
            x = langevin(network, x, sampling.step_lr, sampling.n_steps, noise=random_noise(), watch=watch)
        if recorder is not None:
            recorder.film(sampling.n_steps)
        self.write_final(x, NROW)
