"""Sampling from a checkpoint and scoring the samples: FID, Inception Score and KID against the training data."""

import logging
import math
import time
from pathlib import Path

import numpy as np

from score_core.data import image_grid, save_png, to_uint8
from score_core.errors import UserError
from score_core.metrics import (
    Statistics,
    collect_statistics,
    compute_metrics,
    get_extractor,
    load_statistics,
    original_statistics_path,
)
from score_core.metrics.extractors import Extractor
from score_core.runs.progress import Progress
from score_sde.evaluation_files import Session, load_npz, mean, save_npz
from score_sde.experiment import Experiment
from score_sde.rounds import is_complete_protocol, sampling_rounds

__all__ = ["SampleQuality"]

_logger = logging.getLogger(__name__)
_GRID = 100  # images in samples_{k}.png
_FRAMES, _CHAINS = 8, 8  # columns and rows of trajectory_{k}.png


class SampleQuality:
    """``eval.num_samples`` images, and their features compared with those of the training data."""

    def __init__(self, experiment: Experiment) -> None:
        # An unknown rule or extractor is said now, not after hours of bits/dim.
        experiment.check_sampler()
        self.experiment = experiment
        settings = experiment.config.eval
        self.extractor = get_extractor(
            settings.extractor, weights=settings.extractor_weights or None, download=settings.extractor_download
        )
        self.rounds = sampling_rounds(experiment)

    def compute(self, session: Session, position: int) -> None:
        """Writes this process's rounds."""
        todo = [
            r
            for r in range(self.rounds)
            if session.worker.owns(r) and not all(map(session.find, (f"samples_{r}.npz", f"statistics_{r}.npz")))
        ]
        folder = session.host_folder()
        with Progress(len(todo), description="sampling", unit="round") as progress:
            for round_ in todo:
                session.stop_if_requested()
                file = session.find(f"samples_{round_}.npz")
                if file is None:
                    file = folder / f"samples_{round_}.npz"
                    _logger.info("sampling -- ckpt: %d, round: %d", session.number, round_)
                    samples, nfe = _draw(session, round_, position)
                    save_npz(file, samples=samples, nfe=np.int32(nfe))
                if session.find(f"statistics_{round_}.npz") is None:
                    pool_3, logits = self.extractor(load_npz(file, "samples")["samples"])
                    more = {} if logits is None else {"logits": logits}
                    save_npz(folder / f"statistics_{round_}.npz", pool_3=pool_3, **more)
                progress.update()

    def prepare(self, workdir: Path) -> None:
        """Makes the statistics of the training data, unless they are there already; needs no checkpoint."""
        reference_statistics(self.experiment, workdir, self.extractor)

    def report(self, session: Session, since: float) -> None:
        """Puts all rounds together: pictures, scores, results."""
        reference = reference_statistics(session.experiment, session.workdir, self.extractor)
        files = session.await_rounds(lambda r: session.find(f"statistics_{r}.npz"), self.rounds, "statistics")
        samples = session.await_rounds(lambda r: session.find(f"samples_{r}.npz"), self.rounds, "samples")
        _picture(session, samples[0])
        nfe = mean([int(load_npz(file, "nfe")["nfe"]) for file in samples])
        if not is_complete_protocol(self.experiment):
            # parity: the original reads the files in the order of their names, then drops the surplus
            files = [files[r] for r in sorted(range(self.rounds), key=str)]
        _score(
            session, self.extractor, _activations(files, self.experiment.config.eval.num_samples), reference, nfe, since
        )


def _activations(files: list[Path], count: int) -> tuple[np.ndarray, np.ndarray | None]:
    """pool_3 ``[count, D]`` and logits ``[count, K]`` (or None) of the first ``count`` samples, read file by file."""
    arrays: dict[str, np.ndarray] = {}
    filled = 0
    for file in files:
        part = load_npz(file)
        rows = min(len(part["pool_3"]), count - filled)
        for name, values in part.items():
            if name not in arrays:
                arrays[name] = np.empty((count, *values.shape[1:]), values.dtype)
            arrays[name][filled : filled + rows] = values[:rows]
        filled += rows
    return arrays["pool_3"], arrays.get("logits")


def _draw(session: Session, round_: int, position: int) -> tuple[np.ndarray, int]:
    """One round of samples, uint8 ``[B, H, W, C]``, and the function evaluations.

    Raises:
        UserError: the samples are not finite.
    """
    images, nfe = session.experiment.draw(session.params, position + round_, round_)
    if not np.isfinite(images).all():
        raise UserError(
            f"round {round_} of checkpoint {session.number} holds samples that are not finite: the sampler diverged. "
            "Use more steps (model.num_scales), a smaller sampling.snr, or another checkpoint"
        )
    return to_uint8(images), nfe


def _picture(session: Session, first: Path) -> None:
    """A grid of samples and, for the predictor-corrector sampler, how some of them came about."""
    experiment = session.experiment
    images = load_npz(first, "samples")["samples"]
    save_png(session.folder / f"samples_{session.number}.png", image_grid(images[:_GRID]))
    file = session.folder / f"trajectory_{session.number}.png"
    config = experiment.config
    if not config.eval.trajectory or config.sampling.method.lower() != "pc" or file.exists():
        return
    frames = _stretch(experiment.draw_trajectory(session.params, _CHAINS, _FRAMES))
    save_png(file, image_grid(np.swapaxes(frames, 0, 1).reshape(-1, *experiment.image_shape), nrow=_FRAMES))


def _stretch(frames: np.ndarray) -> np.ndarray:
    """Frames ``[n, ...]`` in [0, 1], each over its own range where that is wider, as VE's noise is."""
    axes = tuple(range(1, frames.ndim))
    low = np.minimum(frames.min(axis=axes, keepdims=True), 0)
    high = np.maximum(frames.max(axis=axes, keepdims=True), 1)
    return (frames - low) / (high - low)


def _score(
    session: Session,
    extractor: Extractor,
    activations: tuple[np.ndarray, np.ndarray | None],
    reference: Statistics,
    nfe: float | None,
    since: float,
) -> None:
    """The scores: report file, log line, results."""
    config = session.experiment.config
    header = {"dataset": "samples", "extractor": extractor.name, "extractor_sha256": extractor.sha256}
    scores = compute_metrics(Statistics.from_activations(*activations, header=header), reference)
    # parity: -1 where the extractor has no classifier
    inception_score = -1.0 if scores["is"] is None else scores["is"]
    kid = math.nan if scores["kid"] is None else scores["kid"]
    real = session.experiment.real
    save_npz(
        session.folder / f"report_{session.number}.npz",
        IS=real(inception_score),
        fid=real(scores["fid"]),
        kid=real(kid),
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
            sample_count=len(activations[0]),
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
            seconds=time.monotonic() - since,
        )


def reference_statistics(experiment: Experiment, workdir: Path, extractor: Extractor) -> Statistics:
    """The statistics of the training data: of a file, or made here once (every image, as bytes) and kept."""
    config = experiment.config
    known = {"extractor": extractor.name, "extractor_sha256": extractor.sha256}
    if config.eval.statistics:
        return load_statistics(config.eval.statistics, assume=known)
    original = original_statistics_path(config.data.dataset, config.data.category, config.data.image_size)
    if extractor.name != "digits" and original is not None and original.exists():
        # Its extractor stays unknown, as the file does not name it, and a warning goes with the score.
        return load_statistics(original, assume={"dataset": config.data.dataset, "split": "train"})
    pipeline = experiment.pipeline("train", config.eval.batch_size, seed=config.seed)
    fingerprint = pipeline.source.fingerprint
    name = f"{config.data.dataset.lower()}_{config.data.image_size}_{extractor.name}_{fingerprint[:12]}.npz"
    file = workdir / "statistics" / name
    if not file.exists():
        header = {"dataset": config.data.dataset, "split": "train", "preprocessing": fingerprint}
        with pipeline.epoch() as epoch:
            images = (batch.image[batch.valid] for batch in epoch)
            statistics = collect_statistics(extractor, images, header=header)
        file.parent.mkdir(parents=True, exist_ok=True)
        statistics.save(file)
    return load_statistics(file, assume=known)
