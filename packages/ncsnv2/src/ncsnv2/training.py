"""Training of NCSNv2: the loss, what is tested, kept and drawn; the loop is :mod:`score_core.torch.score_runner`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ncsnv2.average import Average
from ncsnv2.losses import draw_levels, dsm_losses
from ncsnv2.networks import make_network, noise_levels, transform_images, value_transform
from ncsnv2.watch import StepLines
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.list_checkpoint import ListCheckpoint
from score_core.runs.tensorboard import SummaryWriter
from score_core.torch.langevin import annealed_langevin, annealed_levels, random_noise
from score_core.torch.optimizers import make_optimizer
from score_core.torch.sample_files import save_grid, save_tensor
from score_core.torch.score_runner import ScoreProgram, data_parallel

__all__ = ["NCSNv2Program"]

SNAPSHOT_IMAGES, SNAPSHOT_ROW = 36, 6


class NCSNv2Program(ScoreProgram):
    """What a run of NCSNv2 trains.

    Arguments:
        config: checked for training.
        device: where the network lives.
        log_path: the run's folder; ``samples`` in it gets the pictures.
    """

    def __init__(self, config: argparse.Namespace, device: torch.device, log_path: Path) -> None:
        self.config = config
        self.raw = make_network(config, device)
        self.network = data_parallel(self.raw, device)
        self.optimizer = make_optimizer(config.optim, self.raw.parameters())
        self.average = Average(self.raw, config.model.ema_rate) if config.model.ema else None
        self.levels = noise_levels(config)
        self.sigmas = torch.from_numpy(self.levels).to(device)
        self.transform = value_transform(config)
        self.samples = log_path / "samples"

    def loss(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return self._losses(self.network, images, generator)[0].mean()

    def after_update(self) -> None:
        if self.average is not None:
            self.average.update(self.raw)

    def test(self, images: Tensor, generator: torch.Generator, step: int) -> Mapping[str, float]:
        with torch.no_grad():
            losses, labels = self._losses(self._evaluated(), images, generator)
        values = {"test_loss": losses.mean()}
        if self.config.training.log_all_sigmas:
            # the levels of this batch; the original also repeats old values of the others
            for level in labels.unique().tolist():
                values[f"test_loss_sigma_{level}"] = losses[labels == level].mean()
        return dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))

    def test_line(self, step: int, values: Mapping[str, float]) -> str:
        return f"step: {step}, test_loss: {values['test_loss']}"

    def checkpoint(self, epoch: int, step: int) -> list[Any]:
        shadow = [] if self.average is None else [{k: v.contiguous() for k, v in self.average.shadow.items()}]
        return [*super().checkpoint(epoch, step), epoch, step, *shadow]

    def restore(self, checkpoint: ListCheckpoint) -> None:
        super().restore(checkpoint)
        # parity: the learning rate and the rest come from the file, eps from the configuration
        for group in self.optimizer.param_groups:
            if "eps" in group and self.config.optim.optimizer == "Adam":
                group["eps"] = self.config.optim.eps
        if self.average is not None:
            if checkpoint.average is None:
                raise CheckpointError(f"{checkpoint.path} has no averaged parameters: set model.ema to false.")
            self.average.load(checkpoint.average, checkpoint.path)

    def snapshot(self, step: int, generator: torch.Generator, summaries: SummaryWriter) -> None:
        data, sampling = self.config.data, self.config.sampling
        shape = (SNAPSHOT_IMAGES, data.channels, data.image_size, data.image_size)
        x = transform_images(
            self.transform, torch.rand(shape, generator=generator, device=self.sigmas.device), generator
        )
        with StepLines("annealed") as lines:
            x = annealed_langevin(
                self._evaluated(),
                x,
                annealed_levels(self.levels, sampling.step_lr),
                sampling.n_steps_each,
                noise=random_noise(generator),
                watch=lines,
                denoise=sampling.denoise,
            )
        images = self.transform.inverse(x)
        picture, tensor = self._snapshot_files(step)
        summaries.image("samples", save_grid(picture, images, SNAPSHOT_ROW), step)
        save_tensor(tensor, images)

    def snapshot_done(self, step: int) -> bool:
        return not self.config.training.snapshot_sampling or all(f.exists() for f in self._snapshot_files(step))

    def _snapshot_files(self, step: int) -> tuple[Path, Path]:
        return self.samples / f"image_grid_{step}.png", self.samples / f"samples_{step}.pth"

    def _evaluated(self) -> nn.Module:
        """The averaged network, or the network itself, in evaluation mode."""
        return self.raw.eval() if self.average is None else self.average.network(self.raw)

    def _losses(self, network: nn.Module, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = transform_images(self.transform, images, generator)
        labels, z = draw_levels(x, len(self.levels), generator)
        power = self.config.training.anneal_power
        return dsm_losses(network, x, labels, z, self.sigmas, power), labels
