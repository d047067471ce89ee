"""Sampling from a checkpoint and scoring the samples: FID, Inception Score and KID against the training data."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from score_core.data import image_grid, save_png, to_uint8
from score_core.errors import UserError
from score_core.jax.noise import LegacyNoise, PerSampleNoise
from score_core.jax.sampling import Trajectory
from score_core.metrics import Statistics, collect_statistics, compute_metrics, get_extractor, load_statistics
from score_core.metrics.extractors import Extractor
from score_core.runs.progress import Progress
from score_sde.evaluation_files import Session, load_npz, mean, save_npz
from score_sde.experiment import Experiment

__all__ = ["measure_samples", "sampling_rounds"]

_logger = logging.getLogger(__name__)
_GRID = 100  # images in samples_{k}.png
_FRAMES, _CHAINS = 8, 8  # columns and rows of trajectory_{k}.png


def sampling_rounds(experiment: Experiment) -> int:
    """Rounds of ``eval.batch_size`` samples that give ``eval.num_samples``."""
    # The original draws one round more when the batch size divides the number, and drops it.
    return -(-experiment.config.eval.num_samples // experiment.config.eval.batch_size)


def measure_samples(session: Session) -> None:
    """Draws ``eval.num_samples`` images and compares their features with those of the training data."""
    begin = time.monotonic()
    extractor = get_extractor(session.experiment.config.eval.extractor)
    folder = session.folder / f"ckpt_{session.number}_host_0"
    folder.mkdir(parents=True, exist_ok=True)
    rounds = sampling_rounds(session.experiment)
    nfe: list[int] = []
    parts: list[dict[str, np.ndarray]] = []
    with Progress(rounds, description="sampling", unit="round") as progress:
        for round_ in range(rounds):
            samples_file = folder / f"samples_{round_}.npz"
            if not samples_file.exists():
                session.stop_if_requested()
                _logger.info("sampling -- ckpt: %d, round: %d", session.number, round_)
                drawn, evaluations = _draw(session, round_)
                save_npz(samples_file, samples=drawn, nfe=np.int32(evaluations))
            samples = load_npz(samples_file)
            nfe.append(int(samples["nfe"]))
            statistics_file = folder / f"statistics_{round_}.npz"
            if not statistics_file.exists():
                pool_3, logits = extractor(samples["samples"])
                save_npz(statistics_file, pool_3=pool_3, **({} if logits is None else {"logits": logits}))
            parts.append(load_npz(statistics_file))
            progress.update()
    _picture(session, folder)
    _score(session, extractor, parts, mean(nfe), begin)


def _draw(session: Session, round_: int) -> tuple[np.ndarray, int]:
    """One round of samples, uint8 ``[B, H, W, C]``, and the function evaluations.

    Raises:
        UserError: the samples are not finite.
    """
    experiment = session.experiment
    shape = experiment.image_shape
    batch = experiment.config.eval.batch_size
    if experiment.config.sampling.legacy_rng:
        noise: Any = LegacyNoise(session.keys.at(session.position + round_), (batch, *shape))
    else:
        indices = round_ * batch + experiment.parallel.shard_range(batch)
        noise = PerSampleNoise(session.keys.base, indices, shape)
    samples = experiment.sampler(session.params, noise)
    images = np.asarray(samples.images)
    if not np.isfinite(images).all():
        raise UserError(
            f"round {round_} of checkpoint {session.number} holds samples that are not finite: the sampler diverged. "
            "Use more steps (model.num_scales), a smaller sampling.snr, or another checkpoint"
        )
    return to_uint8(images), int(samples.nfe)


def _picture(session: Session, folder: Path) -> None:
    """A grid of samples and, for the predictor-corrector sampler, how some of them came about."""
    experiment = session.experiment
    images = load_npz(folder / "samples_0.npz")["samples"]
    save_png(session.folder / f"samples_{session.number}.png", image_grid(images[:_GRID]))
    file = session.folder / f"trajectory_{session.number}.png"
    config = experiment.config
    if not config.eval.trajectory or config.sampling.method.lower() != "pc" or file.exists():
        return
    noise = PerSampleNoise(session.keys.base, jnp.arange(_CHAINS, dtype=jnp.int32), experiment.image_shape)
    sampler = jax.jit(experiment.pc_sampler(Trajectory(_FRAMES)))
    frames = _stretch(np.asarray(sampler(session.params, noise).trajectory))
    save_png(file, image_grid(np.swapaxes(frames, 0, 1).reshape(-1, *experiment.image_shape), nrow=_FRAMES))


def _stretch(frames: np.ndarray) -> np.ndarray:
    """Frames ``[n, ...]`` in [0, 1], each over its own range where that is wider, as VE's noise is."""
    axes = tuple(range(1, frames.ndim))
    low = np.minimum(frames.min(axis=axes, keepdims=True), 0)
    high = np.maximum(frames.max(axis=axes, keepdims=True), 1)
    return (frames - low) / (high - low)


def _score(
    session: Session, extractor: Extractor, parts: list[dict[str, np.ndarray]], nfe: float | None, begin: float
) -> None:
    """The scores of the first ``eval.num_samples`` samples: report file, log line, results."""
    config = session.experiment.config
    count = config.eval.num_samples
    pool_3 = np.concatenate([part["pool_3"] for part in parts])[:count]
    logits = np.concatenate([part["logits"] for part in parts])[:count] if "logits" in parts[0] else None
    header = {"dataset": "samples", "extractor": extractor.name, "extractor_sha256": extractor.sha256}
    scores = compute_metrics(
        Statistics.from_activations(pool_3, logits, header=header), reference_statistics(session, extractor)
    )
    # parity: -1 where the extractor has no classifier
    inception_score = -1.0 if scores["is"] is None else scores["is"]
    kid = math.nan if scores["kid"] is None else scores["kid"]
    save_npz(
        session.folder / f"report_{session.number}.npz",
        IS=np.float32(inception_score),
        fid=np.float32(scores["fid"]),
        kid=np.float32(kid),
    )
    _logger.info(
        "ckpt-%d --- inception_score: %.6e, FID: %.6e, KID: %.6e", session.number, inception_score, scores["fid"], kid
    )
    if scores["warning"]:
        _logger.warning("%s", scores["warning"])
    for metric, key, error in (("fid", "fid", "fid_se"), ("inception_score", "is", None), ("kid", "kid", "kid_se")):
        if scores[key] is None:
            continue
        session.record(
            metric,
            scores[key],
            scores[error] if error else None,
            seconds=time.monotonic() - begin,
            sample_count=len(pool_3),
            dataset=session.dataset("train"),
            denoise=bool(config.sampling.noise_removal),
            extractor=f"{scores['extractor']}:{scores['extractor_sha256']}",
            statistics_sha256=scores["reference_sha256"],
            details={
                "sampling": config.sampling.to_dict(),
                "nfe": nfe,
                "num_reference": scores["num_reference"],
                "warning": scores["warning"],
            },
        )


def reference_statistics(session: Session, extractor: Extractor) -> Statistics:
    """The statistics of the training data: the configured file, or made here once (every image, as bytes) and kept."""
    config = session.experiment.config
    known = {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
    if config.eval.statistics:
        return load_statistics(config.eval.statistics, assume=known)
    pipeline = session.experiment.pipeline("train", config.eval.batch_size, seed=config.seed)
    fingerprint = pipeline.source.fingerprint
    name = f"{config.data.dataset.lower()}_{config.data.image_size}_{extractor.name}_{fingerprint[:12]}.npz"
    file = session.workdir / "statistics" / name
    if not file.exists():
        header = {"dataset": config.data.dataset, "split": "train", "preprocessing": fingerprint}
        with pipeline.epoch() as epoch:
            images = (batch.image[batch.valid] for batch in epoch)
            statistics = collect_statistics(extractor, images, header=header)
        file.parent.mkdir(parents=True, exist_ok=True)
        statistics.save(file)
    return load_statistics(file, assume=known)
