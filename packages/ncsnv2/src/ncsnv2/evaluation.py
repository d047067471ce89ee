"""``--test`` and ``--fast_fid``: a number for every checkpoint of a range, kept in ``<exp>/results.json``."""

import argparse
import logging
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ncsnv2.config import architecture
from ncsnv2.data import open_data, pipeline
from ncsnv2.losses import draw_levels, dsm_losses
from ncsnv2.networks import load_network, noise_levels, read_checkpoint, transform_images, value_transform
from ncsnv2.sampling import Sampler
from ncsnv2.statistics import config_extractor, reference_statistics
from ncsnv2.watch import StepLines
from score_core.checkpoints.atomic import atomic_write
from score_core.checkpoints.list_checkpoint import ListCheckpoint, checkpoint_name, list_steps
from score_core.errors import UsageError, UserError
from score_core.metrics import collect_statistics, compute_metrics
from score_core.runs.results import Result, add_results, read_results
from score_core.runs.signals import GracefulStop
from score_core.torch.image_dump import Dump
from score_core.torch.score_runner import Use, step_generator, to_images

__all__ = ["checkpoint_range", "fast_fid", "test_losses"]

_logger = logging.getLogger(__name__)

RESULTS = "results.json"
PUBLISHED_COUNT = 50_000
_MEMBERS = 5


def checkpoint_range(section: argparse.Namespace, log_path: Path) -> list[int]:
    """The steps ``begin_ckpt, begin_ckpt + stride, ... <= end_ckpt``.

    Raises: UserError naming the first that is not there, before anything is computed.
    """
    steps = list(range(section.begin_ckpt, section.end_ckpt + 1, section.stride))
    present = set(list_steps(log_path))
    if missing := [step for step in steps if step not in present]:
        found = ", ".join(map(str, sorted(present))) or "none"
        raise UserError(
            f"no {checkpoint_name(missing[0])} in {log_path} (steps present: {found}). Set begin_ckpt, end_ckpt and "
            f"stride to steps that are there; the range asks for {steps[0]}, ..., {steps[-1]}."
        )
    if not steps:
        _logger.warning(
            "begin_ckpt (%d) lies above end_ckpt (%d): there is nothing to do", section.begin_ckpt, section.end_ckpt
        )
    return steps


@torch.inference_mode()
def test_losses(
    config: argparse.Namespace,
    log_path: Path,
    exp: Path,
    *,
    seed: int,
    device: torch.device,
    config_hash: str,
    stop: GracefulStop,
) -> dict[int, float]:
    """The denoising score matching loss of the test images, by step; every checkpoint gets the same noise."""
    steps = checkpoint_range(config.test, log_path)
    source = open_data(config, exp, "test")
    batch_size = config.test.batch_size
    if len(source) < batch_size:
        raise UsageError(
            f"the {len(source)} test images make no batch of {batch_size} (test.batch_size). Make it smaller."
        )
    count = len(source) // batch_size
    data = pipeline(config, source, batch_size, seed)
    sigmas, transform = torch.from_numpy(noise_levels(config)).to(device), value_transform(config)
    found: dict[int, float] = {}
    for step in steps:
        begin = time.monotonic()
        checkpoint = read_checkpoint(log_path, step)
        network = load_network(config, checkpoint, device, shadow_only=True)
        losses = []
        for number in range(count):
            if stop.requested:
                stop.exit()
            generator = step_generator(seed, Use.EVALUATION, number, device)
            x = transform_images(transform, to_images(data.batch(number).image, device), generator)
            labels, z = draw_levels(x, len(sigmas), generator)
            losses.append(dsm_losses(network, x, labels, z, sigmas, config.training.anneal_power).mean())
        batch_means = torch.stack(losses).double()
        found[step] = float(batch_means.mean())
        _logger.info("ckpt: %d, average test loss: %s", step, found[step])
        result = Result(
            "loss",
            found[step],
            standard_error=float(batch_means.std() / count**0.5) if count > 1 else None,
            sample_count=count * batch_size,
            dataset=f"{source.name}/test",
            checkpoint_step=step,
            checkpoint_sha256=checkpoint.sha256,
            config_hash=config_hash,
            seed=seed,
            ema=bool(config.model.ema),
            seconds=time.monotonic() - begin,
        )
        add_results(exp / RESULTS, [result])
    return found


def fast_fid(
    config: argparse.Namespace,
    log_path: Path,
    folder: Path,
    exp: Path,
    *,
    seed: int,
    device: torch.device,
    config_hash: str,
    stop: GracefulStop,
) -> dict[int, float]:
    """FID of a range of checkpoints; writes ``ckpt_<step>/sample_<k>.png`` and ``fids.pickle`` into ``folder``.

    Raises: UsageError, UserError before the first image is drawn, if a checkpoint, the extractor or the reference is
    missing.
    """
    section = config.fast_fid
    if section.ensemble and config.model.ema:
        raise UsageError("fast_fid.ensemble averages the scores of raw checkpoints: it needs model.ema false.")
    if section.ensemble and config.model.architecture is None:
        config.model.architecture = "NCSN"  # parity: ensembles are of NCSN, whatever the dataset
    steps = checkpoint_range(section, log_path)
    fids: dict[int, float] = {}
    if not steps:
        _write_fids(folder, fids)  # as the original, whose FFHQ configuration has an empty range
        return fids
    extractor = config_extractor(config)
    reference = reference_statistics(config, exp, extractor)
    batch_size = min(section.batch_size, section.num_samples)
    # parity: whole rounds only
    total = section.num_samples // batch_size * batch_size
    if total < PUBLISHED_COUNT:
        _logger.warning(
            "FID of %d samples (fast_fid.num_samples) is biased upwards: compare it within this run, "
            "not with published numbers, which use %d",
            total,
            PUBLISHED_COUNT,
        )
    for step in steps:
        begin = time.monotonic()
        score_fn, checkpoint = _score_fn(config, log_path, step, device)
        identity = {
            "checkpoint": checkpoint.sha256,
            "config": config_hash,
            "seed": seed,
            "denoise": bool(config.sampling.denoise),
        }
        sampler = Sampler(config, section, score_fn, seed, device)
        dump = Dump(folder / f"ckpt_{step}", "sample", total, batch_size, identity)
        with StepLines("annealed") as lines:
            dump.fill(_draw(sampler, lines if section.verbose else None), stop)
        known = _known(exp, extractor.name, reference.digest, total, identity, step)
        if known is None:
            samples = collect_statistics(extractor, dump.batches(), header={})
            results = _results(compute_metrics(samples, reference), config, step, identity, begin)
            add_results(exp / RESULTS, results)
            known = results[0].value
        fids[step] = known
        print(f"ckpt: {step}, fid: {known}", flush=True)
        _write_fids(folder, fids)
    return fids


def _draw(sampler: Sampler, lines: StepLines | None) -> Callable[[int, int], Tensor]:
    return lambda first, count: sampler.images(first, count, lines)


def _write_fids(folder: Path, fids: dict[int, float]) -> None:
    """``fids.pickle``: step to float64, as the original's."""
    data = pickle.dumps({step: np.float64(value) for step, value in fids.items()}, pickle.HIGHEST_PROTOCOL)
    atomic_write(folder / "fids.pickle", data)


def _score_fn(
    config: argparse.Namespace, log_path: Path, step: int, device: torch.device
) -> tuple[nn.Module, ListCheckpoint]:
    checkpoint = read_checkpoint(log_path, step)
    if not config.fast_fid.ensemble:
        return load_network(config, checkpoint, device, shadow_only=True), checkpoint
    return _Ensemble(list(_members(config, log_path, step, device))), checkpoint


def _members(config: argparse.Namespace, log_path: Path, step: int, device: torch.device) -> Iterator[nn.Module]:
    stride = config.fast_fid.stride
    first = max(config.fast_fid.begin_ckpt, step - (_MEMBERS - 1) * stride)
    for member in range(first, step + 1, stride):
        yield load_network(config, read_checkpoint(log_path, member), device)


class _Ensemble(nn.Module):
    """The mean of the scores of several networks."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        total = self.members[0](x, labels)
        for member in self.members[1:]:
            total = total + member(x, labels)
        return total / len(self.members)


def _known(exp: Path, extractor: str, statistics: str, count: int, identity: dict[str, Any], step: int) -> float | None:
    """The FID of this checkpoint if it was measured before under the same conditions."""
    for result in read_results(exp / RESULTS):
        same = (
            result.metric == "fid"
            and result.checkpoint_step == step
            and result.checkpoint_sha256 == identity["checkpoint"]
            and result.config_hash == identity["config"]
            and result.seed == identity["seed"]
            and result.denoise == identity["denoise"]
            and result.sample_count == count
            and result.extractor == extractor
            and result.statistics_sha256 == statistics
        )
        if same:
            _logger.info("ckpt: %d was measured before, at %s", step, result.utc)
            return result.value
    return None


def _results(
    scores: dict[str, Any], config: argparse.Namespace, step: int, identity: dict[str, Any], begin: float
) -> list[Result]:
    common: dict[str, Any] = {
        "sample_count": scores["num_samples"],
        "dataset": f"{config.data.dataset.lower()}/{'test' if config.data.dataset.upper() == 'CELEBA' else 'train'}",
        "checkpoint_step": step,
        "checkpoint_sha256": identity["checkpoint"],
        "config_hash": identity["config"],
        "seed": identity["seed"],
        "ema": bool(config.model.ema),
        "denoise": identity["denoise"],
        "extractor": scores["extractor"],
        "statistics_sha256": scores["reference_sha256"],
        "seconds": time.monotonic() - begin,
        "details": {
            "architecture": architecture(config),
            "ensemble": bool(config.fast_fid.ensemble),
            "nfe": config.model.num_classes * config.fast_fid.n_steps_each + bool(identity["denoise"]),
            "step_lr": config.fast_fid.step_lr,
            "warning": scores["warning"],
        },
    }
    names = {"fid": ("fid", "fid_se"), "inception_score": ("is", "is_std"), "kid": ("kid", "kid_se")}
    return [
        Result(metric, scores[value], standard_error=scores[error], **common)
        for metric, (value, error) in names.items()
        if scores[value] is not None
    ]
