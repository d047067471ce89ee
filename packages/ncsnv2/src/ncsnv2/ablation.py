"""``python -m ncsnv2.ablation``: what averaging (technique 5) and the denoising step do to FID, over several seeds.

For every seed one training; for every checkpoint of it samples from the averaged and from the raw parameters, and of
each chain the last state and the denoised one. Denoised or not, averaged or not, the chains start from the same numbers
and get the same noise, so differences are those of the method.

    <workdir>/logs/seed_<s>/         the trainings
    <workdir>/ablation.json          every FID
    <workdir>/results.json           mean over seeds at the last checkpoint, with its standard error
    <workdir>/figures/ablation.png   FID by checkpoint
    <workdir>/eval/samples_<k>.png   the same chains under the four settings, a row each
"""

import argparse
import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_core.errors import UsageError, run_main

__all__ = ["main"]

_CONFIG = "ablation.yml"
SETTINGS = {
    "ema_denoise": "averaged, denoised",
    "ema": "averaged",
    "denoise": "raw, denoised",
    "plain": "raw",
}
"""Names of the settings in ``results.json`` (``fid_<name>``), and in pictures."""
_SHOWN = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m ncsnv2.ablation", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--workdir", required=True, help="everything is written here; a stopped run goes on")
    parser.add_argument("--config", default=_CONFIG, help=f"a configuration with embedded data (default: {_CONFIG})")
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings (default: 3)")
    parser.add_argument("--n_iters", type=int, help="steps of a training, instead of the configuration's")
    parser.add_argument("--num_samples", type=int, help="images a FID, instead of fast_fid.num_samples")
    args = parser.parse_args(argv)
    return run_main(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from ncsnv2.config import check_config, load_config
    from score_core.checkpoints.atomic import atomic_write

    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds}: at least 1.")
    written = load_config(args.config)
    if args.n_iters is not None:
        stride = max(1, (args.n_iters - 1) // 3)
        written.training.n_iters, written.training.snapshot_freq = args.n_iters, stride
        written.fast_fid.begin_ckpt, written.fast_fid.stride = stride, stride
        written.fast_fid.end_ckpt = (args.n_iters - 1) // stride * stride
    if args.num_samples is not None:
        written.fast_fid.num_samples = args.num_samples
        written.fast_fid.batch_size = min(written.fast_fid.batch_size, args.num_samples)
    config = copy.deepcopy(written)
    for mode in ("train", "fast_fid"):
        check_config(config, mode)
    workdir = Path(args.workdir)
    file = workdir / "ablation.json"
    found: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    for seed in range(1, args.seeds + 1):
        _train(written, workdir, seed)
        for step in range(config.fast_fid.begin_ckpt, config.fast_fid.end_ckpt + 1, config.fast_fid.stride):
            key = f"{seed}/{step}"
            if key not in found:
                found[key] = _fids(config, workdir, seed, step)
                atomic_write(file, (json.dumps(found, indent=1) + "\n").encode())
    _record(config, workdir, found)
    _draw_curves(workdir, found)


def _train(written: argparse.Namespace, workdir: Path, seed: int) -> None:
    from ncsnv2.__main__ import parser
    from ncsnv2.start import run
    from score_core.checkpoints.atomic import atomic_write
    from score_core.checkpoints.list_checkpoint import LATEST
    from score_core.runs.namespace_config import dump_namespace

    config = workdir / "config.yml"
    atomic_write(config, dump_namespace(written).encode())
    doc = f"seed_{seed}"
    words = ["--config", str(config), "--exp", str(workdir), "--doc", doc, "--seed", str(seed)]
    if (workdir / "logs" / doc / LATEST).exists():
        words.append("--resume_training")
    run(parser().parse_args([*words, "--ni"]))


def _fids(config: argparse.Namespace, workdir: Path, seed: int, step: int) -> dict[str, float]:
    """FID of the four settings for one checkpoint."""
    import numpy as np
    import torch

    from ncsnv2.networks import load_network, noise_levels, read_checkpoint, value_transform
    from ncsnv2.sampling import Sampler
    from ncsnv2.statistics import config_extractor, reference_statistics
    from score_core.data import image_grid, save_png
    from score_core.metrics import collect_statistics, compute_metrics
    from score_core.runs.progress import Progress
    from score_core.torch.sample_files import to_pictures
    from score_core.torch.score_runner import pick_device

    device, section = pick_device(), config.fast_fid
    checkpoint = read_checkpoint(workdir / "logs" / f"seed_{seed}", step)
    extractor = config_extractor(config)
    reference = reference_statistics(config, workdir, extractor)
    inverse, last = value_transform(config).inverse, float(noise_levels(config)[-1]) ** 2
    images: dict[str, list[Any]] = {name: [] for name in SETTINGS}
    for averaged, names in ((True, ("ema", "ema_denoise")), (False, ("plain", "denoise"))):
        own = copy.deepcopy(config)
        own.model.ema = averaged
        network = load_network(own, checkpoint, device)
        sampler = Sampler(own, section, network, seed, device)
        with Progress(section.num_samples, description=f"seed {seed}, step {step}, {names[0]}", unit="image") as bar:
            for first in range(0, section.num_samples, section.batch_size):
                draws = sampler.draws(first, min(section.batch_size, section.num_samples - first))
                x = sampler.run(sampler.start(draws), draws.noise(), denoise=False)
                labels = torch.full((len(x),), own.model.num_classes - 1, device=device)
                with torch.inference_mode():
                    denoised = x + last * network(x, labels)
                for name, state in zip(names, (x, denoised), strict=True):
                    images[name].append(_image_bytes(to_pictures(inverse(state))))
                bar.update(len(x))
    if step == section.end_ckpt and seed == 1:
        rows = np.concatenate([images[name][0][:_SHOWN] for name in SETTINGS])
        (workdir / "eval").mkdir(exist_ok=True)
        save_png(workdir / "eval" / f"samples_{step}.png", image_grid(rows, _SHOWN))
    return {
        name: float(compute_metrics(collect_statistics(extractor, parts, header={}), reference)["fid"])
        for name, parts in images.items()
    }


def _image_bytes(pictures: Any) -> Any:
    """Images in [0, 1] as the bytes of a PNG."""
    import numpy as np

    from score_core.data import image_grid

    return np.stack([image_grid(picture[None], 1, 0) for picture in pictures])


def _record(config: argparse.Namespace, workdir: Path, found: dict[str, Any]) -> None:
    import numpy as np

    from ncsnv2.evaluation import RESULTS
    from score_core.runs.config_record import config_hash
    from score_core.runs.namespace_config import to_dict
    from score_core.runs.results import Result, add_results

    last = config.fast_fid.end_ckpt
    results = []
    for name in SETTINGS:
        fids = np.array([values[name] for key, values in found.items() if key.endswith(f"/{last}")])
        error = float(fids.std(ddof=1) / len(fids) ** 0.5) if len(fids) > 1 else None
        results.append(
            Result(
                f"fid_{name}",
                float(fids.mean()),
                standard_error=error,
                sample_count=config.fast_fid.num_samples,
                dataset=f"{config.data.dataset}/train",
                checkpoint_step=last,
                config_hash=config_hash(to_dict(config)),
                ema="ema" in name,
                denoise="denoise" in name,
                extractor=config.fast_fid.extractor,
                details={"seeds": len(fids), "fids": fids.tolist(), "spread": "standard error over trainings"},
            )
        )
        print(f"fid_{name}: {fids.mean():.3f} +- {error or 0:.3f} ({SETTINGS[name]}, {len(fids)} trainings)")
    add_results(workdir / RESULTS, results)


def _draw_curves(workdir: Path, found: dict[str, Any]) -> None:
    import numpy as np
    from matplotlib.figure import Figure

    from score_core.runs.figures import png_of, save_figure

    steps = sorted({int(key.partition("/")[2]) for key in found})
    figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained")
    axes = figure.subplots()
    styles = {"ema_denoise": ("C0", "-"), "ema": ("C0", ":"), "denoise": ("C1", "-"), "plain": ("C1", ":")}
    for name, (colour, line) in styles.items():
        table = np.array([[v[name] for k, v in found.items() if k.endswith(f"/{step}")] for step in steps])
        axes.plot(steps, table.mean(axis=1), line, color=colour, label=SETTINGS[name])
        axes.fill_between(steps, table.min(axis=1), table.max(axis=1), color=colour, alpha=0.12, linewidth=0)
    axes.set(xlabel="training step", ylabel="FID", yscale="log", title="mean and range over trainings")
    axes.set_xticks(steps)
    axes.legend(frameon=False)
    save_figure(
        workdir / "figures" / "ablation.png",
        png_of(figure),
        "FID against the training step, with and without averaged parameters and with and without the denoising step.",
        "FID during training under the four settings: mean and range over the trainings.",
    )


if __name__ == "__main__":
    sys.exit(main())
