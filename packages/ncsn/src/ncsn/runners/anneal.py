"""AnnealRunner: NCSN, its samples by annealed Langevin dynamics, and inpainting."""

from pathlib import Path

import torch

from ncsn.data import open_data, pipeline
from ncsn.runners.images import ImageRunner
from ncsn.sampling import anneal_langevin_inpainting, config_levels
from score_core.data.masks import known_pixels
from score_core.torch.langevin import annealed_langevin, random_noise
from score_core.torch.score_runner import to_images

__all__ = ["AnnealRunner"]

NROW = 5


class AnnealRunner(ImageRunner):
    """NCSN. ``test()`` draws samples, or completes images if ``--mask`` is given."""

    name = "AnnealRunner"

    def test(self) -> None:
        """Draw samples, or complete images."""
        if self.args.mask is None:
            self.draw()
        else:
            self.test_inpainting(self.args.mask)

    def draw(self) -> None:
        """Samples from uniform noise (:mod:`ncsn.sampling` says what is written)."""
        network = self.network(self.checkpoint())
        levels, each = config_levels(self.config), self.config.sampling.n_steps_each
        x = torch.rand(self.count(), *self.shape, device=self.device)
        recorder = self.recorder("image_{}.png", "image_raw_{}.pth", NROW)
        total = len(levels) * each
        with self.progress(total, "annealed Langevin dynamics sampling") as progress:
            watch = self.watcher(progress, recorder)
            x = annealed_langevin(network, x, levels, each, noise=random_noise(), watch=watch)
        if recorder is not None:
            recorder.film(total)
        self.write_final(x, NROW)

    def test_inpainting(self, mask: str = "right") -> None:
        """Complete images of the dataset of which ``mask`` (:mod:`score_core.data.masks`) is hidden.

        parity: of CelebA the test images are completed, of the other datasets the training images. The original knew
        32 pixels and the left half only.
        """
        sampling, size = self.config.sampling, self.config.data.image_size
        known = torch.from_numpy(known_pixels(mask, size)).to(self.device)
        split = "test" if self.config.data.dataset.lower() == "celeba" else "train"
        source = open_data(self.config, self.name, Path(self.args.run), split)
        data = pipeline(self.config, self.name, source, sampling.num_images, self.args.seed)
        network = self.network(self.checkpoint())
        refer = to_images(data.batch(0).image, self.device)
        copies = sampling.num_completions
        x = torch.rand(len(refer) * copies, *self.shape, device=self.device)
        levels, each = config_levels(self.config), sampling.n_steps_each
        recorder = self.recorder("image_completion_{}.png", "image_completion_raw_{}.pth", copies)
        total = len(levels) * each
        values = refer
        if self.config.data.logit_transform:
            from score_core.data.value_transforms import logit

            values = logit(refer)
        self.write_reference(refer)
        with self.progress(total, "annealed Langevin dynamics sampling") as progress:
            watch = self.watcher(progress, recorder)
            x = anneal_langevin_inpainting(
                network, x, values.repeat_interleave(copies, 0), known, levels, each, watch=watch
            )
        if recorder is not None:
            recorder.film(total)
        self.write_final(x, copies, "image_completion")

    def write_reference(self, refer: torch.Tensor) -> None:
        """``refer_image.pth``, the whole images."""
        from score_core.torch.sample_files import save_tensor

        save_tensor(self.folder / "refer_image.pth", refer)
