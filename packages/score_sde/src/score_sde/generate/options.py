"""What ``--mode=generate`` is asked for: flags, their meaning, their defaults."""

from dataclasses import dataclass
from typing import Any

from score_core.errors import UsageError

__all__ = ["TASKS", "USAGE", "Options", "define_flags", "options_of"]

TASKS = ("sample", "inpaint", "colorize", "class", "encode", "interpolate")

USAGE = """Pictures on demand (--mode=generate), from the newest checkpoint; docs/controllable.md:
  --task=sample|inpaint|colorize|class|encode|interpolate
  --checkpoint=N|FILE        another checkpoint of the work directory, or any file of either framework
  --images=WHAT              what to start from: a file, a folder, or images of the data set such as
                             train:3,7-9; default: test:0-7
  --mask=WHAT                inpaint: left, right, top, bottom or center is hidden; random:P hides each pixel with
                             probability P; or a file (picture or .npy) of 1 (white) where pixels are known and 0
                             (black) where they are hidden; default: right
  --class=N,N,...|all        classes to draw; default: all
  --classifier_workdir=DIR   the classifier that python -m score_sde.classifier trained; default: WORKDIR_classifier
  --guidance=X               class: the classifier's gradient is taken X times; 1 (default) is Bayes' rule, the paper's
  --num=N                    sample: images (16); inpaint, colorize: results an image (3); class: images a class (8);
                             interpolate: images on the way, ends included (8)
  --noise_consistent         inpaint, colorize: our variant, in which hidden parts are denoised, too
  --seed=N                   of the images; default: 0
  --out=DIR                  where the picture and the arrays go; default: WORKDIR/generate/<task>
"""

_NUMBERS = {"sample": 16, "inpaint": 3, "colorize": 3, "class": 8, "encode": 1, "interpolate": 8}
_LEAST = {"interpolate": 2}


@dataclass(frozen=True)
class Options:
    """One request; empty strings stand for the defaults of :data:`USAGE`."""

    task: str
    checkpoint: str = ""
    images: str = "test:0-7"
    mask: str = "right"
    classes: str = "all"
    classifier_workdir: str = ""
    guidance: float = 1.0
    num: int = 0
    noise_consistent: bool = False
    seed: int = 0
    out: str = ""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise UsageError(f"--task={self.task}: it must be one of {', '.join(TASKS)}")
        least = _LEAST.get(self.task, 1)
        if self.num and self.num < least:
            raise UsageError(f"--num={self.num}: {self.task} needs at least {least}")
        if not 0 <= self.guidance < float("inf"):
            raise UsageError(f"--guidance={self.guidance}: it must be 0 or a positive number")
        if not 0 <= self.seed < 2**31:
            raise UsageError(f"--seed={self.seed}: it must be between 0 and {2**31 - 1}")

    @property
    def count(self) -> int:
        """``num`` or the task's default."""
        return self.num or _NUMBERS[self.task]

    def chosen_classes(self, num_classes: int) -> list[int]:
        """The classes asked for.

        Raises:
            UsageError: one of them does not exist.
        """
        if self.classes == "all":
            return list(range(num_classes))
        try:
            chosen = [int(word) for word in self.classes.split(",")]
        except ValueError as error:
            raise UsageError(f"--class={self.classes}: give numbers with commas between them, or all") from error
        if wrong := [label for label in chosen if not 0 <= label < num_classes]:
            raise UsageError(f"--class={wrong[0]}: the classifier knows the classes 0 to {num_classes - 1}")
        return chosen


def define_flags(values: Any) -> None:
    """Defines the flags of :data:`USAGE` in an ``absl.flags.FlagValues``."""
    from absl import flags

    default = Options("sample")
    flags.DEFINE_string("task", None, "", flag_values=values)
    for name in ("checkpoint", "images", "mask", "classifier_workdir", "out"):
        flags.DEFINE_string(name, getattr(default, name), "", flag_values=values)
    flags.DEFINE_string("class", default.classes, "", flag_values=values)
    flags.DEFINE_integer("num", default.num, "", flag_values=values)
    flags.DEFINE_integer("seed", default.seed, "", flag_values=values)
    flags.DEFINE_float("guidance", default.guidance, "", flag_values=values)
    flags.DEFINE_boolean("noise_consistent", default.noise_consistent, "", flag_values=values)


def options_of(values: Any) -> Options:
    """The request that parsed flags make.

    Raises:
        UsageError: it makes no sense.
    """
    if values.task is None:
        raise UsageError(f"--mode=generate needs --task, one of {', '.join(TASKS)}")
    return Options(
        task=values.task,
        checkpoint=values.checkpoint,
        images=values.images,
        mask=values.mask,
        classes=values["class"].value,
        classifier_workdir=values.classifier_workdir,
        guidance=values.guidance,
        num=values.num,
        noise_consistent=values.noise_consistent,
        seed=values.seed,
        out=values.out,
    )
