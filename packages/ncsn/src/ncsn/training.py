"""What AnnealRunner, BaselineRunner and ScoreNetRunner train: network, losses, what is logged.

program    network                labels, levels      loss                                        test loss
Anneal     CondRefineNetDilated   yes                 annealed denoising, or sliced (algo: ssm)   annealed denoising
Baseline   RefineNetDilated       none, sigma 0.01    denoising                                   the same
ScoreNet   ResScore               none, noise_std     sliced of noisy data, or denoising          the same
"""

import argparse
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from ncsn import losses
from ncsn.draws import Draws, GeneratorDraws
from ncsn.networks import CondRefineNetDilated, RefineNetDilated, ResScore
from score_core.data.value_transforms import ValueTransform
from score_core.noise_scales import langevin_sigmas
from score_core.torch.optimizers import make_optimizer
from score_core.torch.score_runner import ScoreProgram, data_parallel

__all__ = ["PROGRAMS", "AnnealProgram", "BaselineProgram", "Program", "ScoreNetProgram"]


class Program(ScoreProgram):
    """What a runner trains.

    Arguments:
        config: complete and checked.
        device: where the network lives.
    """

    dequantizes: ClassVar[bool] = True
    test_tag: ClassVar[str] = "test_dsm_loss"
    test_needs_grad: ClassVar[bool] = False
    parallel: ClassVar[bool] = True

    def __init__(self, config: argparse.Namespace, device: torch.device) -> None:
        self.config = config
        self.raw = self.make_network(config).to(device)
        self.network = data_parallel(self.raw, device) if self.parallel else self.raw
        self.optimizer = make_optimizer(config.optim, self.raw.parameters())
        self.transform = ValueTransform(
            uniform_dequantization=self.dequantizes, logit_transform=config.data.logit_transform
        )

    @staticmethod
    @abstractmethod
    def make_network(config: argparse.Namespace) -> nn.Module:
        """A fresh network, initialised from PyTorch's default generator as the original's."""

    @abstractmethod
    def training_loss(self, x: Tensor, draws: Draws) -> Tensor:
        """The scalar that is minimised, of values as the network takes them."""

    def test_loss(self, x: Tensor, draws: Draws) -> Tensor:
        """The scalar that is logged every 100 steps."""
        return self.training_loss(x, draws)

    def values(self, images: Tensor, draws: Draws) -> Tensor:
        """Images in [0, 1] as the network takes them."""
        return self.transform(images, draws.uniform(images) if self.dequantizes else None)

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        draws = GeneratorDraws(generator)
        return self.training_loss(self.values(images, draws), draws)

    def test(self, images: Tensor, generator: torch.Generator, step: int) -> Mapping[str, float]:
        self.network.eval()
        draws = GeneratorDraws(generator)
        with torch.set_grad_enabled(self.test_needs_grad):
            return {self.test_tag: float(self.test_loss(self.values(images, draws), draws).detach())}


class AnnealProgram(Program):
    """NCSN."""

    def __init__(self, config: argparse.Namespace, device: torch.device) -> None:
        super().__init__(config, device)
        model = config.model
        levels = langevin_sigmas(model.sigma_begin, model.sigma_end, model.num_classes)
        self.sigmas = torch.from_numpy(levels).float().to(device)

    @staticmethod
    def make_network(config: argparse.Namespace) -> nn.Module:
        return CondRefineNetDilated.from_config(config)

    def training_loss(self, x: Tensor, draws: Draws) -> Tensor:
        if self.config.training.algo == "dsm":
            return self.test_loss(x, draws)
        n = self.config.training.n_particles
        labels, noise = draws.labels(x, len(self.sigmas)), draws.normal(x)
        vectors = draws.normal(x, n)
        return losses.anneal_sliced_score_estimation_vr(
            self.network, x, labels, self.sigmas, n, noise=noise, vectors=vectors
        )

    def test_loss(self, x: Tensor, draws: Draws) -> Tensor:
        # parity: denoising also where training is sliced.
        labels, noise = draws.labels(x, len(self.sigmas)), draws.normal(x)
        power = self.config.training.anneal_power
        return losses.anneal_dsm_score_estimation(self.network, x, labels, self.sigmas, power, noise=noise)


class BaselineProgram(Program):
    """One noise level."""

    # parity: whatever the configuration says.
    sigma = 0.01

    @staticmethod
    def make_network(config: argparse.Namespace) -> nn.Module:
        return RefineNetDilated.from_config(config)

    def training_loss(self, x: Tensor, draws: Draws) -> Tensor:
        return losses.dsm_score_estimation(self.network, x, self.sigma, noise=draws.normal(x))


class ScoreNetProgram(Program):
    """The experiment of Figure 1: sliced score matching with a little noise, or none."""

    dequantizes = False
    test_tag = "test_loss"
    test_needs_grad = True
    parallel = False
    prefix = ""

    def __init__(self, config: argparse.Namespace, device: torch.device) -> None:
        super().__init__(config, device)
        # parity: CelebA comes normalised to [-1, 1] to a network that takes [0, 1].
        self.normalized = config.data.dataset.lower() == "celeba"

    @staticmethod
    def make_network(config: argparse.Namespace) -> nn.Module:
        return ResScore.from_config(config)

    @property
    def sigma(self) -> float:
        return self.config.training.noise_std

    def values(self, images: Tensor, draws: Draws) -> Tensor:
        return super().values(2 * images - 1.0 if self.normalized else images, draws)

    def training_loss(self, x: Tensor, draws: Draws) -> Tensor:
        if self.config.training.algo == "dsm":
            return losses.dsm_score_estimation(self.network, x, self.sigma, noise=draws.normal(x))
        x = x + draws.normal(x) * self.sigma
        return losses.sliced_score_estimation_vr(self.network, x, vectors=draws.normal(x))[0]

    def scalars(self) -> Mapping[str, float]:
        return {"sigma": self.sigma}

    def line(self, step: int, loss: float) -> str:
        return f"step: {step}, loss: {loss}, sigma: {self.sigma}"


PROGRAMS: dict[str, type[Program]] = {
    "AnnealRunner": AnnealProgram,
    "BaselineRunner": BaselineProgram,
    "ScoreNetRunner": ScoreNetProgram,
}
