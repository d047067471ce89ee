"""``eval`` and ``sample``: numbers and pictures of a trained model, this program's or the original's."""

import argparse
import io
import logging
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from score_core.checkpoints.atomic import atomic_write
from score_core.data import image_grid, save_png
from score_core.errors import UsageError
from score_core.runs.config_record import config_hash
from score_core.runs.log import RunLog
from score_core.runs.results import Result, add_results
from score_core.runs.signals import GracefulStop
from score_core.torch.noise import PerSampleNoise
from score_core.torch.threefry import prng_key
from variational_sde.experiment import DATASETS, load_data
from variational_sde.logit import LogitTransform
from variational_sde.torch.checkpoint import load_model
from variational_sde.torch.evaluation import Estimate, Protocol, bound_bpd, ode_bpd
from variational_sde.torch.sampling import euler_maruyama, ode_sample
from variational_sde.torch.start import choose_device

__all__ = ["evaluate", "sample"]

_logger = logging.getLogger(__name__)


class _First:
    """The first images of a source."""

    def __init__(self, source: Any, n: int) -> None:
        self.name, self.split, self.shape = source.name, source.split, source.shape
        self.num_classes, self.fingerprint = source.num_classes, f"{source.fingerprint}:{n}"
        self._source, self._n = source, n

    def __len__(self) -> int:
        return self._n

    def fetch(self, indices: np.ndarray) -> Any:
        return self._source.fetch(indices)


def _setting(args: argparse.Namespace, settings: dict[str, Any], name: str) -> Any:
    """What the flag says, else the run.

    Raises:
        UsageError: neither says it.
    """
    value = getattr(args, name) if getattr(args, name, None) is not None else settings.get(name)
    if value is None:
        raise UsageError(f"the checkpoint does not say {name}: give --{name}")
    return value


def evaluate(args: argparse.Namespace) -> None:
    """Prints bits/dim and adds them to ``results.json`` beside the checkpoint.

    Raises:
        UserError: see its message.
        StopRequested: after a signal.
    """
    path, device = Path(args.checkpoint).expanduser(), choose_device(args.device)
    with RunLog(None), GracefulStop() as stop:
        model, content, file = load_model(path, device, ema=bool(args.ema))
        settings = content["settings"]
        dataset, real = _setting(args, settings, "dataset"), bool(_setting(args, settings, "real"))
        options = settings["network"]
        if options["input_channels"] != DATASETS[dataset].channels:
            raise UsageError(f"the network has {options['input_channels']} channels, {dataset} has another number")
        source = load_data(dataset, "test", options["input_height"], args.dataroot, bool(args.download))
        if args.num_images is not None:
            source = _First(source, min(args.num_images, len(source)))
        original = args.protocol == "original"
        flip = original and DATASETS[dataset].flip
        protocol = Protocol(real, args.test_batch_size, args.seed, args.repeats, original, flip)
        begin, digest = time.monotonic(), sha256(file.read_bytes()).hexdigest()
        results: list[Result] = []

        def report(metric: str, estimate: Estimate | None) -> None:
            if estimate is None:
                stop.exit()
            print(f"{metric}: {estimate.mean:.4f} +- {estimate.standard_error:.4f} bits/dim ({len(source)} images)")
            results.append(
                Result(
                    metric,
                    estimate.mean,
                    standard_error=estimate.standard_error,
                    sample_count=len(source),
                    dataset=f"{dataset}/test",
                    checkpoint_step=content["count"],
                    checkpoint_sha256=digest,
                    config_hash=config_hash(settings),
                    seed=args.seed,
                    ema=bool(args.ema and content.get("ema")),
                    protocol=args.protocol,
                    devices={"platform": device.type},
                    seconds=time.monotonic() - begin,
                    details={"repeats": args.repeats} if estimate.nfe is None else {"nfe": estimate.nfe},
                )
            )

        report("bpd", bound_bpd(model, source, protocol, stop=lambda: stop.requested))
        if args.ode:
            report(
                "ode_bpd",
                ode_bpd(model, source, protocol, tolerance=args.tolerance, stop=lambda: stop.requested),
            )
        add_results(file.parent / "results.json", results)


def sample(args: argparse.Namespace) -> None:
    """Writes ``grid.png`` and ``samples.npz`` (float32 ``[n * n, H, W, C]``).

    Raises:
        UserError: see its message.
    """
    path, device = Path(args.checkpoint).expanduser(), choose_device(args.device)
    with RunLog(None):
        model, content, _ = load_model(path, device, ema=bool(args.ema))
        real = bool(_setting(args, content["settings"], "real"))
        options = content["settings"]["network"]
        shape = (options["input_channels"], options["input_height"], options["input_height"])
        noise = PerSampleNoise(prng_key(args.seed, device), torch.arange(args.n**2, device=device), shape)
        if args.adaptive:
            y, nfe = ode_sample(model, noise.prior()[1] * args.std + args.mean)
            _logger.info("the ODE took %d evaluations", nfe)
        else:
            y = euler_maruyama(model, noise, args.num_steps, lmbd=args.lmbd, mean=args.mean, std=args.std)
        images = LogitTransform().inverse(y) if real else y
        images = images.clamp(0, 1) if args.clip else images
        array = images.permute(0, 2, 3, 1).float().cpu().numpy()
        folder = Path(args.output).expanduser()
        buffer = io.BytesIO()
        np.savez(buffer, samples=array)
        atomic_write(folder / "samples.npz", buffer.getvalue())
        save_png(folder / "grid.png", image_grid(array, args.n))
        print(f"{args.n**2} samples are in {folder / 'grid.png'} and {folder / 'samples.npz'}")
