"""``python -m ncsnv2.techniques DATA``: noise levels, steps and average for a dataset, as NCSNv2 chooses them.

1  sigma_begin             the largest distance of two training images (all pairs up to 60,000 images, else those of
                           10,000 images), rounded up to two digits
2  num_classes             from the overlap of neighbouring levels
3  division by sigma       what NCSNv2's networks do; the picture shows why
4  n_steps_each, step_lr   from the variance ratio
5  ema, ema_rate           0.999, or for short trainings an average over the last tenth (ours)
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_core.errors import UsageError, run_main

if TYPE_CHECKING:
    import numpy as np

    from ncsnv2.techniques.schedule import Schedule
    from score_core.data.source import Source

__all__ = ["ema_rate", "main", "round_up"]

EXACT_UP_TO, DRAWN = 60_000, 10_000
_PAIRS = 20_000
_MIXTURE_IMAGES, _MIXTURE_SAMPLES, _NORM_SAMPLES = 2_000, 100, 50
_SIZES = {"cifar10": 32, "celeba": 64, "ffhq": 256, "digits": 16, "photos": 32, "mnist": 28, "svhn": 32}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    args = _parser().parse_args(argv)
    return run_main(lambda: _run(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ncsnv2.techniques",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="CIFAR10, CELEBA, LSUN, FFHQ, digits, photos, a folder, .zip or .npz of images")
    add("--image_size", type=int, help="default: the dataset's own, 32 for own images")
    add("--channels", type=int, help="default: 1 for digits and MNIST, else 3")
    add("--category", help="of LSUN")
    add("--exp", default="exp", help="root of the datasets, <exp>/datasets (default: exp)")
    add(
        "--max_images",
        type=int,
        help="look at so many images, drawn at random (default: all up to 60,000, else 10,000)",
    )
    add("--sigma_begin", type=float, help="leave out technique 1 and take this")
    add("--sigma_end", type=float, default=0.01, help="smallest level (default: 0.01)")
    add("--overlap", type=float, help="technique 2's constant (default: 0.567, that of the published schedules)")
    add("--n_steps_each", type=int, default=5, help="T, steps a level (default: 5)")
    add("--n_iters", type=int, default=300_000, help="training steps planned, for technique 5 (default: 300000)")
    add("--seed", type=int, default=1234)
    add("--mixture", action="store_true", help="sample the exact score of the data with sigma_begin and with 1")
    add("--plot", type=Path, help="the picture (default: <exp>/techniques/DATA.png)")
    add("--write_config", type=Path, metavar="FILE", help="write a configuration with these values")
    add("--base", default="cifar10", help="the configuration that --write_config changes (default: cifar10)")
    return parser


def round_up(value: float) -> float:
    """``value`` rounded up to two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.10g}")


def ema_rate(n_iters: int) -> float:
    """The paper's rate, or one that averages over the last tenth of a training shorter than 10,000 steps."""
    return 0.999 if n_iters >= 10_000 else round(max(0.5, 1 - 10 / n_iters), 4)


def _run(args: argparse.Namespace) -> None:
    import numpy as np

    from ncsnv2.techniques.mixture import score_norms
    from ncsnv2.techniques.plots import draw
    from ncsnv2.techniques.schedule import PUBLISHED_OVERLAP, suggest

    source, keys = _open(args)
    rng = np.random.default_rng(args.seed)
    images, how = _images(source, args.max_images, rng)
    largest, pair = (args.sigma_begin, None) if args.sigma_begin else _largest(images)
    target = PUBLISHED_OVERLAP if args.overlap is None else args.overlap
    schedule = suggest(
        args.sigma_begin or round_up(largest),
        math.prod(source.shape),
        sigma_end=args.sigma_end,
        n_steps=args.n_steps_each,
        target=target,
    )
    rate = ema_rate(args.n_iters)
    print(_report(source, how, largest, pair, schedule, rate))
    data = images[:_MIXTURE_IMAGES].reshape(min(len(images), _MIXTURE_IMAGES), -1) / 255.0
    mixture = _mixture(data, schedule, rng) if args.mixture else None
    if mixture:
        print("mean distance of two samples, by annealed Langevin dynamics on the exact score of the data:")
        print("\n".join(f"  {name:24} {value:.4g}" for name, value in mixture.items()))
    sigmas = np.geomspace(schedule.sigma_begin, schedule.sigma_end, 12)
    pairs = rng.integers(0, len(images), (2, _PAIRS))
    different = pairs[:, pairs[0] != pairs[1]]
    plot = args.plot or Path(args.exp, "techniques", f"{Path(args.data).stem.lower()}.png")
    norms = score_norms(data, sigmas, _NORM_SAMPLES, rng)
    draw(plot, schedule, _distances(images, different), largest, sigmas, norms, mixture)
    print(f"picture: {plot}")
    if args.write_config:
        _write_config(args, keys, schedule, rate)


def _open(args: argparse.Namespace) -> "tuple[Source, dict[str, Any]]":
    """The training images, and the keys of ``data`` that mean them."""
    from score_core.data.torchvision_sources import load_torchvision_source

    place = Path(args.data)
    path, name = None, args.data
    if place.exists():
        path = place
        name = "folder" if place.is_dir() else {".zip": "zip", ".npz": "npz"}.get(place.suffix.lower(), "")
        if not name:
            raise UsageError(f"{place} is neither a folder nor a .zip or .npz file of images.")
    size = args.image_size or _SIZES.get(name.lower(), 32)
    channels = args.channels or (1 if name.lower() in ("digits", "mnist", "fashionmnist") else 3)
    source = load_torchvision_source(
        name,
        "train",
        image_size=size,
        num_channels=channels,
        datasets=Path(args.exp) / "datasets",
        path=path,
        category=args.category,
    )
    keys = {"dataset": name, "image_size": size, "channels": channels}
    keys |= {"path": str(path)} if path else {}
    return source, keys | ({"category": args.category} if args.category else {})


def _images(source: "Source", limit: int | None, rng: "np.random.Generator") -> "tuple[np.ndarray, str]":
    import numpy as np

    count = limit or (len(source) if len(source) <= EXACT_UP_TO else DRAWN)
    if count < 2 or len(source) < 2:
        raise UsageError(f"{min(count, len(source))} image(s) have no distance: at least 2 are needed.")
    if count >= len(source):
        return source.fetch(np.arange(len(source)))[0], f"all pairs of {len(source)} images"
    index = np.sort(rng.choice(len(source), count, replace=False))
    return source.fetch(index)[0], f"pairs of {count} images drawn from {len(source)}"


def _largest(images: "np.ndarray") -> tuple[float, tuple[int, int]]:
    from score_core.data import max_pairwise_distance

    found = max_pairwise_distance(images, progress=True)
    if found.distance == 0:
        raise UsageError("all images are the same: their largest distance is 0.")
    return found.distance, (found.first, found.second)


def _distances(images: "np.ndarray", pairs: "np.ndarray") -> "np.ndarray":
    import numpy as np

    flat = images.reshape(len(images), -1)
    return np.array([np.linalg.norm((flat[i] / 255.0) - flat[j] / 255.0) for i, j in pairs.T])


def _report(
    source: "Source", how: str, largest: float, pair: tuple[int, int] | None, schedule: "Schedule", rate: float
) -> str:
    of = "given" if pair is None else f"the largest distance is {largest:.4f}, {how}"
    return "\n".join(
        [
            f"{source.name}, {len(source)} training images of {source.shape[0]}x{source.shape[1]}x{source.shape[2]}",
            f"1  model.sigma_begin      {schedule.sigma_begin:g}    ({of})",
            f"   model.sigma_end        {schedule.sigma_end:g}",
            f"2  model.num_classes      {schedule.num_classes}    (ratio {schedule.gamma:.5f}, overlap "
            f"{schedule.overlap:.3f})",
            "3  the network divides by sigma (NCSNv2, NCSNv2Deeper, NCSNv2Deepest)",
            f"4  sampling.n_steps_each  {schedule.n_steps_each}",
            f"   sampling.step_lr       {schedule.step_lr:.1e}    (variance ratio {schedule.variance_ratio:.3f})",
            f"5  model.ema_rate         {rate:g}",
        ]
    )


def _mixture(data: "np.ndarray", schedule: "Schedule", rng: "np.random.Generator") -> dict[str, float]:
    """Mean distances of the data and of samples that start at sigma_begin and at 1 (or a tenth)."""
    from ncsnv2.techniques.mixture import mean_pairwise_distance, sample_mixture
    from score_core.noise_scales import langevin_sigmas

    found = {"data": mean_pairwise_distance(data[:1000])}
    small = 1.0 if schedule.sigma_begin > 2 else schedule.sigma_begin / 10
    for begin in (schedule.sigma_begin, small):
        count = max(2, round(1 + math.log(begin / schedule.sigma_end) / math.log(schedule.gamma)))
        sigmas = langevin_sigmas(begin, schedule.sigma_end, count)
        samples = sample_mixture(data, sigmas, schedule.step_lr, schedule.n_steps_each, _MIXTURE_SAMPLES, rng)
        found[f"samples, sigma_begin {begin:g}"] = mean_pairwise_distance(samples)
    return found


def _write_config(args: argparse.Namespace, keys: dict[str, Any], schedule: "Schedule", rate: float) -> None:
    from ncsnv2.config import check_config, load_config
    from score_core.checkpoints.atomic import atomic_write
    from score_core.runs.namespace_config import dump_namespace, to_dict, to_namespace

    config = to_dict(load_config(args.base))
    config["data"] = {k: v for k, v in config["data"].items() if k not in ("category", "path")} | keys
    config["model"] |= {
        "sigma_begin": schedule.sigma_begin,
        "sigma_end": schedule.sigma_end,
        "num_classes": schedule.num_classes,
        "ema": True,
        "ema_rate": rate,
    }
    for section in ("sampling", "fast_fid"):
        if section in config:
            config[section] |= {"step_lr": schedule.step_lr, "n_steps_each": schedule.n_steps_each}
    config["training"]["n_iters"] = args.n_iters + 1
    check_config(to_namespace(json.loads(json.dumps(config))), "train")
    text = f"# {args.base} with what `python -m ncsnv2.techniques {args.data}` suggests.\n{dump_namespace(config)}"
    atomic_write(args.write_config, text.encode())
    print(f"configuration: {args.write_config}")


if __name__ == "__main__":
    sys.exit(main())
