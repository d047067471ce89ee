"""What a documentation page holds that can be checked: its commands, its Python, its links; and checking commands.

A fenced block is

    ```bash     commands, which are run in order in the page's own folder, unless a line before it says
                <!-- test: not run, REASON -->  then they are parsed, and REASON is printed
                <!-- test: with FLAGS -->       then FLAGS are put behind every `python -m`, to make it short
    ```python   run; written into FILE if it begins with the comment `# FILE.py`; the same `not run` applies
    ```         a listing; lines that begin with `$ ` or with the name of a program are commands, and are parsed

A command is parsed by the command line of the program itself, up to where it would begin to work.
"""

import argparse
import contextlib
import importlib.metadata
import io
import re
import runpy
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import goldens

ROOT = goldens.ROOT
# What stands for something of the reader's own, and what the parser is given for it.
_PLACEHOLDERS = {"--config=NAME": "--config=digits", "[--mode eval]": "--mode eval", " | interpolate | sample": ""}
# Programs that are not ours. What they start is parsed; they themselves only where a parser is at hand.
_OTHERS = {
    "cd": "moves about",
    "git": "not part of this project",
    "pip": "installs",
    "sbatch": "needs a cluster",
    "scancel": "needs a cluster",
    "source": "not a program",
    "squeue": "needs a cluster",
}
_SCRIPTS = {e.name: e for e in importlib.metadata.entry_points(group="console_scripts") if e.value.startswith("score_")}
_PROGRAMS = {*_SCRIPTS, *_OTHERS, "python", "srun", "torchrun", "uv", "uvx"}


class BadCommandError(Exception):
    """A command that the program would refuse; the message is the program's own."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str = ""  # why
    flags: str = ""  # what makes its commands short

    @property
    def commands(self) -> list[str]:
        """Its commands, one a line, without comments."""
        text = re.sub(r"\\\n *", "", self.text)
        lines = [line.strip() for line in text.splitlines()]
        if self.language != "bash":
            dollars = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            lines = dollars or [line for line in lines if line.split(" ")[0] in _PROGRAMS]
        lines = [re.sub(r"(^| +)#.*$", "", line) for line in lines]
        return [part for line in lines if line for part in line.split(" && ")]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found, directive, opened = [], "", None
    for number, line in enumerate(page.read_text("utf-8").splitlines(), start=1):
        fence = re.match(r"( *)```(\w*)$", line)
        if fence and opened is None:
            opened = (number, fence[2], len(fence[1]), [])
        elif fence and opened:
            start, language, indent, lines = opened
            text = "\n".join(line[indent:] for line in lines)
            not_run, flags = (
                directive.removeprefix(p) if directive.startswith(p) else "" for p in ("not run, ", "with ")
            )
            assert not directive or not_run or flags, f"{page.name}:{start}: cannot read {directive!r}"
            found.append(Block(page, start, language, text, not_run, flags))
            opened, directive = None, ""
        elif opened:
            opened[3].append(line)
        elif comment := re.fullmatch(r" *<!-- test: (.*) -->", line):
            directive = comment[1]
        elif line.strip():
            assert not directive, f"{page.name}:{number}: no block follows <!-- test: {directive} -->"
    assert opened is None, f"{page.name}: a block is not closed"
    return found


def check(command: str) -> str:
    """Parses a command; returns what was not checked of it, and why, or nothing.

    Raises:
        BadCommandError: no such program, or it refuses the command.
    """
    for placeholder, value in _PLACEHOLDERS.items():
        command = command.replace(placeholder, value)
    words = [word for word in shlex.split(command) if word not in ("...", "|")]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):  # NAME=VALUE python ...
        words.pop(0)
    return _check_words(words)


def _check_words(words: list[str]) -> str:
    program, arguments = words[0], words[1:]
    if program in _OTHERS:
        return _OTHERS[program]
    if program == "uv":
        return _check_uv(arguments)
    if program == "uvx":
        return "read by the engine's own parser"  # engine_arguments
    if program == "srun":
        while arguments and arguments[0].startswith("-"):
            arguments.pop(0)
        return _check_words(arguments)
    if program == "torchrun":
        return _check_torchrun(arguments)
    if program == "python" and arguments[0] == "-m":
        _parse_only(lambda: runpy.run_module(arguments[1], run_name="__main__", alter_sys=True), arguments[1:])
    elif program == "python":
        if not (ROOT / arguments[0]).is_file():
            raise BadCommandError(f"there is no file {arguments[0]}")
    elif program in _SCRIPTS:
        _parse_only(_SCRIPTS[program].load(), words)
        if program == "repro" and arguments[0] in ("cite", "plan", "run", "show"):
            _check_row(next(word for word in arguments[1:] if "/" in word))
    else:
        raise BadCommandError(f"{program} is no program of this project")
    return ""


def _check_row(row_id: str) -> None:
    from score_core.errors import UsageError
    from score_core.repro.tables import find_row, load_all

    try:
        find_row(load_all(), row_id)
    except UsageError as error:
        raise BadCommandError(str(error)) from error


def engine_arguments(command: str) -> list[str] | None:
    """What a command hands to snakemake; None if it is of another program.

    Raises:
        BadCommandError: a file that it names is not there.
    """
    words = shlex.split(command)
    if words[0] != "uvx":
        return None
    if words[1:4] != ["--with-requirements", "ci/requirements.txt", "snakemake"]:
        raise BadCommandError("snakemake is started as `uvx --with-requirements ci/requirements.txt snakemake`")
    profile = words[words.index("--profile") + 1]
    if not (ROOT / profile / "config.yaml").is_file():
        raise BadCommandError(f"there is no profile {profile}")
    return words[4:]


def _check_uv(arguments: list[str]) -> str:
    if arguments[0] != "run":
        return "installs"
    rest = arguments[1:]
    while rest[0].startswith("-"):
        if rest.pop(0) in ("--package", "--group", "--extra"):
            rest.pop(0)
    return "every test and check" if rest[0] in ("pytest", "ruff") else _check_words(rest)


def _check_torchrun(arguments: list[str]) -> str:
    from torch.distributed.run import get_args_parser

    try:
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            options = get_args_parser().parse_args(arguments)
    except SystemExit:
        raise BadCommandError(errors.getvalue()) from None
    assert options.module, "torchrun is documented with -m only"
    return _check_words(["python", "-m", options.training_script, *options.training_script_args])


class _ParsedError(BaseException):
    """The command line was read to its end."""


def _parse_only(main, words: list[str]) -> None:
    """Lets a program read its command line, and stops it where argparse or absl hand over what they read."""
    from absl import flags

    parse_args, call = argparse.ArgumentParser.parse_args, flags.FlagValues.__call__

    def parse_args_only(self, *arguments, **options):
        parse_args(self, *arguments, **options)
        raise _ParsedError

    def call_only(self, *arguments, **options):
        rest = call(self, *arguments, **options)[1:]
        if rest:
            raise BadCommandError(f"unexpected arguments: {' '.join(rest)}")
        raise _ParsedError

    argv, output = sys.argv, io.StringIO()
    try:
        argparse.ArgumentParser.parse_args, flags.FlagValues.__call__ = parse_args_only, call_only
        sys.argv = list(words)
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a second command of a program that is loaded already
            status = main()
    except _ParsedError:
        return
    except SystemExit as end:
        status = end.code
    except ImportError as error:
        raise BadCommandError(str(error)) from error
    finally:
        argparse.ArgumentParser.parse_args, flags.FlagValues.__call__ = parse_args, call
        sys.argv = argv
    if status:
        raise BadCommandError(output.getvalue() or f"exit status {status}")
