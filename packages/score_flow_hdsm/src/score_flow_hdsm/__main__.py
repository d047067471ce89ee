"""``python -m score_flow_hdsm``: the original's command line, on score_sde's programs.

python -m score_flow_hdsm --config=vp/cifar10_ddpmpp_continuous --workdir=DIR --mode=train|eval|train_deq|eval_scorenet
                          [--eval_folder=NAME] [--deq_folder=NAME] [--init_checkpoint=FILE] [--framework=jax|torch]
                          [--config.section.key=value ...] [--wait] [--force] [--num_processes=N --process_id=I ...]
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from score_core.errors import UsageError, run_main

USAGE = """usage: python -m score_flow_hdsm [--config=NAME_OR_PATH] [--workdir=DIR] [--mode=MODE] [options]

Maximum Likelihood Training of Score-Based Diffusion Models (Song et al., NeurIPS 2021), and of Score-Based Diffusion
ODEs by High-Order Denoising Score Matching (Lu et al., ICML 2022).

  --config=NAME_OR_PATH      packaged experiment (vp/cifar10_ddpmpp_continuous, score_flow/subvp/..., digits) or your
                             own python file with get_config(); default: digits (embedded data)
  --config.section.key=V     change any key, e.g. --config.training.score_matching_order=3
  --workdir=DIR              where everything is written; default: runs/score_flow_hdsm/<config>
  --mode=train               train the score model (default; resumes by itself)
  --mode=eval                evaluate checkpoints eval.begin_ckpt..end_ckpt: eval.enable_loss, enable_*
  --mode=train_deq           train a variational dequantiser for checkpoint eval.ckpt_id
  --mode=eval_scorenet       compare the network with the score of its own ODE, at all times
  --eval_folder=NAME         folder of results in the work directory; default: eval_test_bpd (or eval_scorenet)
  --part=all|statistics|rounds
                             of an evaluation: the statistics of the training data alone, or this process's rounds
                             without putting them together; default: all that is left
  --deq_folder=NAME          folder of the dequantiser inside the work directory; default: flowpp_dequantizer
  --init_checkpoint=FILE     train: go on from this checkpoint (of this program, score_flow, mle_score_ode or score_sde,
                             or a .pth file) if the work directory has none of its own
  --framework=jax|torch      what computes; default: jax. train_deq, eval.bound and eval.dequantizer need jax
  --wait                     wait for checkpoints that are not there yet
  --force                    go on although the configuration differs from the one the folder was started with
  --list                     list the packaged experiments
  --help                     show this

Several processes: --coordinator, --num_processes, --process_id, --distributed, --start_timeout as for score_sde.
The toy study: python -m score_flow_hdsm.toy --help. Orders 1, 2 and 3 compared: python -m score_flow_hdsm.orders --help

Exit codes: 0 done, 1 failed or wrong flag, 2 wrong configuration or missing data, 130/143 stopped by Ctrl-C/SIGTERM
(everything is saved; the same command goes on).
"""

_MODES = ["train", "eval", "train_deq", "eval_scorenet"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("--help", "-h", "-help", "--helpfull") for argument in arguments):
        print(USAGE, end="")
        return 0
    return run_main(lambda: _run(arguments))


def _run(arguments: list[str]) -> None:
    from absl import flags

    from score_flow_hdsm.configs._house import list_packaged, load_config
    from score_sde import __main__ as base
    from score_sde.configs.load import define_config_flag
    from score_sde.configs.resolve import ConfigError

    if "--list" in arguments:
        print("\n".join(list_packaged()))
        return
    arguments = [base._with_alias(argument) for argument in arguments]
    if not any(argument == "--config" or argument.startswith("--config=") for argument in arguments):
        arguments = ["--config=digits", *arguments]
    values: Any = flags.FlagValues()
    program = ["score_flow_hdsm", *arguments]
    config = define_config_flag(flag_values=values, sys_argv=program, load=load_config)
    for name in ("workdir", "eval_folder", "init_checkpoint", "coordinator"):
        flags.DEFINE_string(name, None, "", flag_values=values)
    flags.DEFINE_string("deq_folder", "flowpp_dequantizer", "", flag_values=values)
    flags.DEFINE_enum("mode", "train", _MODES, "", flag_values=values)
    flags.DEFINE_enum("part", "all", ["all", "statistics", "rounds"], "", flag_values=values)
    flags.DEFINE_enum("framework", "jax", ["jax", "torch"], "", flag_values=values)
    for name in ("wait", "force", "distributed"):
        flags.DEFINE_boolean(name, False, "", flag_values=values)
    for name in ("num_processes", "process_id"):
        flags.DEFINE_integer(name, None, "", flag_values=values)
    flags.DEFINE_float("start_timeout", 300.0, "", flag_values=values)
    see = "See python -m score_flow_hdsm --help"
    try:
        rest = values(program)[1:]
    except (flags.Error, ConfigError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise base.FlagError(f"{base.message_of(error)}\n{see}") from error
    if rest:
        raise base.FlagError(f"unexpected arguments: {' '.join(rest)}\n{see}")
    base.check_part(values)
    evaluating = values.mode in ("eval", "eval_scorenet")
    base._check_process_flags(values, "eval" if evaluating else "train")
    folder = Path(values.workdir or Path("runs", "score_flow_hdsm", base.config_name(arguments)))
    base.use_compilation_cache()
    if values.wait:
        config.value.eval.wait = float("inf")
    if evaluating:
        _evaluate(config.value, folder, values, base._worker(values))
        return
    with base._processes(values):
        _train(config.value, folder, values)


def _train(config: Any, folder: Path, values: Any) -> None:
    from score_flow_hdsm.experiment import experiment_maker
    from score_sde.train import train

    if values.mode == "train_deq":
        from score_flow_hdsm.dequantizer_experiment import train_deq

        if values.framework != "jax":
            raise UsageError("--mode=train_deq is there with --framework=jax only")
        train_deq(config, folder, values.deq_folder, force=values.force)
        return
    make = experiment_maker(folder, values.deq_folder)
    if values.init_checkpoint:
        from score_flow_hdsm.continuation import start_from

        start_from(make(config, values.framework), Path(values.init_checkpoint), folder)
    train(config, folder, framework=values.framework, force=values.force, make_experiment=make)


def _evaluate(config: Any, folder: Path, values: Any, worker: tuple[int, int]) -> None:
    from score_flow_hdsm.experiment import experiment_maker
    from score_sde.evaluate import enabled_stages, evaluate

    stages: Any = enabled_stages
    eval_folder = "eval_test_bpd"
    if values.mode == "eval_scorenet":
        from score_flow_hdsm.diagnostics_stage import Diagnostics

        if values.framework != "jax":
            raise UsageError("--mode=eval_scorenet is there with --framework=jax only")
        stages, eval_folder = (lambda experiment: [Diagnostics(experiment)]), "eval_scorenet"
    evaluate(
        config,
        folder,
        values.eval_folder or eval_folder,
        framework=values.framework,
        force=values.force,
        process_id=worker[0],
        num_processes=worker[1],
        part=values.part,
        make_experiment=experiment_maker(folder, values.deq_folder),
        stages=stages,
    )


if __name__ == "__main__":
    sys.exit(main())
