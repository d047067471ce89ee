"""``python -m score_sde``: the original's command line, and the embedded experiment when nothing is asked for.

python -m score_sde --config=vp/cifar10_ddpmpp_continuous --workdir=DIR --mode=train|eval|generate
                    [--eval_folder=NAME] [--part=all|statistics|rounds] [--task=NAME ...] [--framework=jax|torch]
                    [--wait] [--force]
                    [--config.section.key=value ...]
                    [--coordinator=HOST:PORT --num_processes=N --process_id=I | --distributed]
"""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from score_core.errors import UsageError, run_main
from score_sde.generate.options import USAGE as GENERATE_USAGE
from score_sde.generate.options import define_flags, options_of

USAGE = f"""usage: python -m score_sde [--config=NAME_OR_PATH] [--workdir=DIR] [--mode=train|eval|generate] [options]

Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., ICLR 2021).

  --config=NAME_OR_PATH      packaged experiment (vp/cifar10_ddpmpp_continuous, configs/ve/cifar10_ncsnpp_continuous.py,
                             digits, photos) or your own python file with get_config(); default: digits (embedded data)
  --config.section.key=V     change any key, e.g. --config.training.batch_size=64 --config.data.dataset=photos
  --workdir=DIR              where everything is written; default: runs/score_sde/<config>
  --mode=train|eval|generate train (default; resumes by itself), evaluate checkpoints eval.begin_ckpt..end_ckpt, or make
                             pictures on demand (below)
  --framework=jax|torch      what computes; default: jax. Either evaluates the other's checkpoints
  --eval_folder=NAME         folder of results inside the work directory; default: eval
  --part=all|statistics|rounds
                             of an evaluation: the statistics of the training data alone, or this process's rounds
                             without putting them together; default: all that is left
  --wait                     wait for checkpoints that are not there yet (the original always does)
  --force                    go on although the configuration differs from the one the folder was started with
  --list                     list the packaged experiments
  --help                     show this

{GENERATE_USAGE}
Several processes (docs/scale.md); in JAX one process uses all devices of its machine without any of these, in PyTorch
one process a GPU, by torchrun -m score_sde --framework=torch or by:
  --coordinator=HOST:PORT    where process 0 can be reached by all; with --num_processes and --process_id
  --num_processes=N          how many processes there are
  --process_id=I             which one this is, 0 to N-1
  --distributed              take all three from Slurm (srun) or Open MPI (mpirun)
  --start_timeout=SECONDS    how long to wait for all to come; default: 300
Evaluation needs no coordinator: its processes share the rounds and may come and go.

Exit codes: 0 done, 1 failed or wrong flag, 2 wrong configuration or missing data, 130/143 stopped by Ctrl-C/SIGTERM
(everything is saved; the same command goes on).
"""

# Flags that the original documents but does not have, with what they mean.
_ALIASES = {"--config.eval.dataset": "--config.eval.bpd_dataset"}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("--help", "-h", "-help", "--helpfull") for argument in arguments):
        print(USAGE, end="")
        return 0
    return run_main(lambda: _run(arguments))


def _run(arguments: list[str]) -> None:
    from absl import flags

    from score_sde.configs.resolve import list_configs
    from score_sde.experiment import require_framework

    if "--list" in arguments:
        print("\n".join(list_configs()))
        return
    arguments = [_with_alias(argument) for argument in with_default_config(arguments)]
    values = flags.FlagValues()
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=values)
    mode = flags.DEFINE_enum("mode", "train", ["train", "eval", "generate"], "", flag_values=values)
    framework = flags.DEFINE_enum("framework", "jax", ["jax", "torch"], "", flag_values=values)
    eval_folder = flags.DEFINE_string("eval_folder", "eval", "", flag_values=values)
    part = flags.DEFINE_enum("part", "all", ["all", "statistics", "rounds"], "", flag_values=values)
    wait = flags.DEFINE_boolean("wait", False, "", flag_values=values)
    force = flags.DEFINE_boolean("force", False, "", flag_values=values)
    flags.DEFINE_string("coordinator", None, "", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)
    flags.DEFINE_boolean("distributed", False, "", flag_values=values)
    flags.DEFINE_float("start_timeout", 300.0, "", flag_values=values)
    define_flags(values)
    settings = parse_flags(values, arguments, "score_sde")
    _check_process_flags(values, mode.value)
    check_part(values)
    if wait.value:
        settings.eval.wait = float("inf")
    folder = workdir.value or Path("runs", "score_sde", config_name(arguments))
    options: dict[str, Any] = {"framework": framework.value, "force": force.value}
    use_compilation_cache()
    require_framework(framework.value)
    if mode.value == "train":
        with _processes(values):
            from score_sde.train import train

            train(settings, folder, **options)
    elif mode.value == "generate":
        from score_sde.generate.run import generate

        generate(settings, folder, options_of(values), **options)
    else:
        index, count = _worker(values)
        from score_sde.evaluate import evaluate

        options |= {"process_id": index, "num_processes": count, "part": part.value}
        evaluate(settings, folder, eval_folder.value, **options)


class FlagError(UsageError):
    """The command line is wrong."""

    exit_code = 1  # parity: what absl's usage errors exit with


def with_default_config(arguments: Sequence[str]) -> list[str]:
    """``arguments``, with ``--config=digits`` if they name no configuration."""
    if any(argument == "--config" or argument.startswith("--config=") for argument in arguments):
        return list(arguments)
    return ["--config=digits", *arguments]


def parse_flags(values: Any, arguments: Sequence[str], program: str) -> Any:
    """Parses ``arguments`` into ``values`` (``absl.flags.FlagValues``); returns the configuration that they name.

    Raises:
        FlagError: one of them is wrong, or something is left over.
    """
    from absl import flags

    from score_sde.configs.load import define_config_flag
    from score_sde.configs.resolve import ConfigError

    config = define_config_flag(flag_values=values, sys_argv=[program, *arguments])
    try:
        rest = values([program, *arguments])[1:]
    except (flags.Error, ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise FlagError(f"{message_of(error)}\nSee python -m {program} --help") from error
    if rest:
        raise FlagError(f"unexpected arguments: {' '.join(rest)}\nSee python -m {program} --help")
    return config.value


def check_part(values: Any) -> None:
    """Refuses ``--part`` where nothing has parts."""
    if values.part != "all" and values.mode != "eval":
        raise FlagError(f"--part={values.part} is of an evaluation: it needs --mode=eval")


def _check_process_flags(values: Any, mode: str) -> None:
    """Refuses flags that do not say everything, or say it twice."""
    numbers = {"--num_processes": values.num_processes, "--process_id": values.process_id}
    given = [name for name, value in {"--coordinator": values.coordinator, **numbers}.items() if value is not None]
    if values.distributed and given:
        raise FlagError(f"--distributed takes everything from the launcher; leave out {', '.join(given)}")
    wanted = list(numbers) if mode == "eval" else ["--coordinator", *numbers]
    if given and (missing := [name for name in wanted if name not in given]):
        raise FlagError(f"{', '.join(given)} without {', '.join(missing)}: give all of {', '.join(wanted)}, or none")
    if given and not 0 <= values.process_id < values.num_processes:
        raise FlagError(
            f"--process_id={values.process_id} with --num_processes={values.num_processes}: processes are numbered "
            "from 0 to one less than their number"
        )
    if values.start_timeout <= 0:
        raise FlagError(f"--start_timeout={values.start_timeout:g}: it must be positive")


def _processes(values: Any) -> Any:
    """The context in which this process trains: alone, or as one of several."""
    if values.framework == "torch":
        from score_core.torch.distributed import Distributed

        return Distributed(
            values.coordinator, values.num_processes, values.process_id, values.distributed, values.start_timeout
        )
    if not values.distributed and values.coordinator is None:
        return nullcontext()
    from score_core.jax.distributed import Distributed

    return Distributed(values.coordinator, values.num_processes, values.process_id, values.start_timeout)


def _worker(values: Any) -> tuple[int, int]:
    """This process's number among those of an evaluation, and how many there are."""
    if values.process_id is not None:
        return values.process_id, values.num_processes
    if values.framework == "torch":
        from score_core.torch.distributed import use_launcher_rank

        return use_launcher_rank(scheduler=values.distributed)
    if values.distributed:
        from score_core.jax.distributed import use_scheduler_rank

        return use_scheduler_rank()
    return 0, 1


def _with_alias(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if name not in _ALIASES:
        return argument
    print(f"note: {name} is documented by the original but not read; taken as {_ALIASES[name]}", file=sys.stderr)
    return f"{_ALIASES[name]}{equals}{value}"


def message_of(error: BaseException) -> str:
    """What is wrong with a flag: an override of a key that there is not, or what the error says."""
    inner = error.args[0] if isinstance(error, AttributeError) and error.args else error
    if not isinstance(inner, KeyError) or not inner.args:
        return str(error).strip()
    key, _, advice = str(inner.args[0]).strip('"').partition("\n")
    return f"the configuration has no key {key}{f'. {advice}' if advice else ''}"


def config_name(arguments: Sequence[str]) -> str:
    """The configuration's name as a folder: ``vp/cifar10_ddpmpp`` for either spelling of it."""
    for index, argument in enumerate(arguments):
        if argument == "--config":
            value = arguments[index + 1]
        elif argument.startswith("--config="):
            value = argument.partition("=")[2]
        else:
            continue
        name = value.partition(":")[0].removeprefix("./").removeprefix("configs/").removesuffix(".py")
        return name if not Path(name).is_absolute() and ".." not in Path(name).parts else Path(name).name
    raise AssertionError("a configuration is always given")


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs: the first step then takes seconds instead of a minute."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(home, "score_core", "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # parity: leaves the rest of an accelerator's memory to others, as the original does
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


if __name__ == "__main__":
    sys.exit(main())
