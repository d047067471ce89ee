"""``--fid``: the paper's protocol (appendix B.2). FID of 1,000 samples chooses a checkpoint, 50,000 evaluate it.

    evaluation.begin_ckpt, end_ckpt     the checkpoints to choose from; absent: all
    evaluation.select_samples           samples that choose (1000)
    evaluation.num_samples              samples of the final numbers (50000)
    evaluation.batch_size               drawn together (100); the numbers do not depend on it
    evaluation.statistics               reference statistics; absent: those of the training images, measured once
    evaluation.extractor, extractor_weights    absent: inception_ncsnv2, for embedded data digits

With ``--ckpt_id`` nothing is chosen. Samples lie in ``<image_folder>/ckpt_<step>/sample_<k>.png``; sample k of a seed
is the same in any batch, so what was drawn to choose is a part of the final set, and a stopped command goes on where it
was. Every number goes to ``<run>/results.json`` with its circumstances.
"""

import logging
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ncsn.config import EMBEDDED
from ncsn.data import open_data
from ncsn.runners.images import ImageRunner
from ncsn.sampling import config_levels, to_pixels
from score_core.checkpoints.list_checkpoint import ListCheckpoint, list_steps
from score_core.errors import UsageError
from score_core.metrics import (
    Extractor,
    Statistics,
    collect_statistics,
    compute_metrics,
    get_extractor,
    load_statistics,
)
from score_core.metrics.dataset_statistics import dataset_statistics
from score_core.runs.config_record import config_hash
from score_core.runs.namespace_config import to_dict
from score_core.runs.results import Result, add_results
from score_core.torch.image_dump import Dump
from score_core.torch.langevin import annealed_langevin, langevin
from score_core.torch.sample_draws import SampleDraws

__all__ = ["evaluate"]

_logger = logging.getLogger(__name__)

RESULTS = "results.json"
INCEPTION = "inception_ncsnv2"
IS_SPLITS = 10
_SELECTION = "selection"


def evaluate(runner: ImageRunner) -> dict[str, Any]:
    """Choose a checkpoint, draw from it, and measure; the final scores.

    Raises: UserError before the first sample is drawn, if a checkpoint, the extractor or the reference is missing.
    """
    section = runner.config.evaluation
    steps = _steps(runner)
    extractor = _extractor(runner)
    reference = _reference(runner, extractor)
    if runner.args.ckpt_id is None and len(steps) > 1:
        found = {
            step: _scores(runner, step, section.select_samples, extractor, reference, _SELECTION) for step in steps
        }
        for step, scores in found.items():
            print(f"ckpt: {step}, fid: {scores['fid']}", flush=True)
        best = min(steps, key=lambda step: found[step]["fid"])
        _logger.info("checkpoint %s has the lowest FID of %d samples", best, section.select_samples)
    else:
        best = steps[0]
    final = _scores(runner, best, runner.args.num_samples or section.num_samples, extractor, reference, "final")
    print(f"ckpt: {best}, fid: {final['fid']}, inception score: {final['is']}, kid: {final['kid']}", flush=True)
    return final


def _steps(runner: ImageRunner) -> list[int]:
    """The checkpoints to choose from."""
    section, log = runner.config.evaluation, Path(runner.args.log)
    present = list_steps(log)
    if runner.args.ckpt_id is not None:
        runner.checkpoint()  # says which are there if it is not
        return [runner.args.ckpt_id]
    low = section.begin_ckpt if section.begin_ckpt is not None else 0
    high = section.end_ckpt if section.end_ckpt is not None else float("inf")
    steps = [step for step in present if low <= step <= high]
    if not steps:
        found = ", ".join(map(str, present)) or "none"
        raise UsageError(f"no checkpoint_<step>.pth from {low} to {high} in {log}; steps present: {found}.")
    return steps


def _extractor(runner: ImageRunner) -> Extractor:
    section = runner.config.evaluation
    default = "digits" if runner.config.data.dataset.lower() in EMBEDDED else INCEPTION
    return get_extractor(section.extractor or default, weights=section.extractor_weights)


def _reference(runner: ImageRunner, extractor: Extractor) -> Statistics:
    section, run = runner.config.evaluation, Path(runner.args.run)
    if section.statistics is not None:
        return load_statistics(section.statistics)
    return dataset_statistics(open_data(runner.config, runner.name, run, "train"), extractor, run / "datasets")


def _scores(
    runner: ImageRunner, step: int, count: int, extractor: Extractor, reference: Statistics, purpose: str
) -> dict[str, Any]:
    """Samples of a checkpoint against the reference; recorded."""
    begin = time.monotonic()
    checkpoint = runner.checkpoint(step)
    network = runner.network(checkpoint)
    identity = {"checkpoint": checkpoint.sha256, "config": _sampled_hash(runner), "seed": runner.args.seed}
    dump = Dump(runner.folder / f"ckpt_{step}", "sample", count, runner.config.evaluation.batch_size, identity)
    dump.fill(lambda first, number: _draw(runner, network, first, number), runner.stop)
    samples = collect_statistics(extractor, dump.batches(), header={})
    scores = compute_metrics(samples, reference, splits=IS_SPLITS if purpose == "final" else 1)
    results = _results(runner, scores, step, checkpoint, identity, purpose, time.monotonic() - begin)
    add_results(Path(runner.args.run) / RESULTS, results)
    return scores


def _draw(runner: ImageRunner, network: nn.Module, first: int, count: int) -> Tensor:
    """Samples ``first .. first + count - 1`` in [0, 1]."""
    config, draws = runner.config, SampleDraws(runner.args.seed, first, count, runner.shape, runner.device)
    sampling = config.sampling
    if runner.name == "AnnealRunner":
        levels = config_levels(config)
        x = annealed_langevin(network, draws.uniform(), levels, sampling.n_steps_each, noise=draws.noise())
    else:
        x = langevin(network, draws.uniform(), sampling.step_lr, sampling.n_steps, noise=draws.noise())
    return to_pixels(x, logit=config.data.logit_transform)


def _nfe(runner: ImageRunner) -> int:
    config = runner.config
    if runner.name == "AnnealRunner":
        return config.model.num_classes * config.sampling.n_steps_each
    return config.sampling.n_steps


def _sampled_hash(runner: ImageRunner) -> str:
    """Hash of what samples depend on besides checkpoint and seed."""
    keys = to_dict(runner.config)
    data = {name: keys["data"][name] for name in ("dataset", "image_size", "channels", "logit_transform")}
    sampling = {name: keys["sampling"][name] for name in ("step_lr", "n_steps_each", "n_steps")}
    return config_hash({"model": keys["model"], "data": data, "sampling": sampling, "runner": runner.name})


def _results(
    runner: ImageRunner,
    scores: dict[str, Any],
    step: int,
    checkpoint: ListCheckpoint,
    identity: dict[str, Any],
    purpose: str,
    seconds: float,
) -> list[Result]:
    common: dict[str, Any] = {
        "sample_count": scores["num_samples"],
        "dataset": f"{runner.config.data.dataset.lower()}/train",
        "checkpoint_step": step,
        "checkpoint_sha256": checkpoint.sha256,
        "config_hash": identity["config"],
        "seed": identity["seed"],
        "ema": False,
        "denoise": False,
        "extractor": scores["extractor"],
        "statistics_sha256": scores["reference_sha256"],
        "protocol": purpose,
        "seconds": seconds,
        "details": {
            "nfe": _nfe(runner),
            "step_lr": runner.config.sampling.step_lr,
            "is_splits": IS_SPLITS if purpose == "final" else 1,
            "warning": scores["warning"],
        },
    }
    names = {"fid": ("fid", "fid_se"), "inception_score": ("is", "is_std"), "kid": ("kid", "kid_se")}
    return [
        Result(metric, scores[value], standard_error=scores[error], **common)
        for metric, (value, error) in names.items()
        if scores[value] is not None
    ]
