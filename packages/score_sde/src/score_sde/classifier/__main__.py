"""``python -m score_sde.classifier``: trains and measures the classifier of class-conditional sampling."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from score_core.errors import run_main
from score_sde.__main__ import config_name, parse_flags, use_compilation_cache, with_default_config

USAGE = """usage: python -m score_sde.classifier [--config=NAME_OR_PATH] [--workdir=DIR] [options]

Trains a noise-conditional wide ResNet on the images and the noise of an experiment, and measures its accuracy at every
noise level. It leads class-conditional sampling: python -m score_sde --mode=generate --task=class.

  --config=NAME_OR_PATH      the experiment whose SDE and images are meant; default: digits (embedded data)
  --config.section.key=V     change any key of it; use the same changes as for the score network
  --workdir=DIR              where everything is written; default: runs/score_sde/<config>_classifier
  --framework=jax|torch      what computes; both write the same files; default: jax
  --mode=train|eval          train (default; resumes by itself) and measure, or measure what is there
  --force                    go on although the settings differ from those the folder was started with
  --help                     show this

Network and training; defaults depend on the size of the images (small up to 16 pixels, the published network above):
  --blocks_per_group=N  --channel_multiplier=N      depth and width; published: 4 and 10
  --n_iters=N  --batch_size=N  --lr=X  --warmup=N  --grad_clip=X  --ema_rate=X  --seed=N
  --log_freq=N  --snapshot_freq=N                   updates between log lines, and between checkpoints

Exit codes: 0 done, 1 failed or wrong flag, 2 wrong configuration or missing data, 130/143 stopped by Ctrl-C/SIGTERM
(everything is saved; the same command goes on).
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("--help", "-h", "-help", "--helpfull") for argument in arguments):
        print(USAGE, end="")
        return 0
    return run_main(lambda: _run(with_default_config(arguments)))


def _run(arguments: list[str]) -> None:
    from absl import flags

    from score_sde.classifier.settings import PUBLISHED, default_settings

    values = flags.FlagValues()
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
    framework = flags.DEFINE_enum("framework", "jax", ["jax", "torch"], "", flag_values=values)
    mode = flags.DEFINE_enum("mode", "train", ["train", "eval"], "", flag_values=values)
    force = flags.DEFINE_boolean("force", False, "", flag_values=values)
    names = {field.name: type(getattr(PUBLISHED, field.name)) for field in dataclasses.fields(PUBLISHED)}
    for name, kind in names.items():
        if kind is int:
            lower_bound = 0 if name in ("seed", "warmup") else 1
            flags.DEFINE_integer(name, None, "", lower_bound=lower_bound, flag_values=values)
        else:
            flags.DEFINE_float(name, None, "", lower_bound=0.0, flag_values=values)
    config = parse_flags(values, arguments, "score_sde.classifier")
    given = {name: values[name].value for name in names if values[name].value is not None}
    settings = dataclasses.replace(default_settings(config.data.image_size), **given)
    use_compilation_cache()

    from score_sde.classifier.train import run
    from score_sde.experiment import require_framework

    require_framework(framework.value)
    folder = workdir.value or Path("runs", "score_sde", f"{config_name(arguments)}_classifier")
    run(config, settings, framework.value, folder, train=mode.value == "train", force=force.value)


if __name__ == "__main__":
    sys.exit(main())
