"""Runs of ci/Snakefile for tests: the engine in its pinned environment, everything in a folder of the test's own."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import goldens

# One thread a job: with more, sums of floats might be taken in another order from run to run. Compiled as for users,
# and not as fast as can be, since an evaluation is more than compilation.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}


def command(profile: str, folder: Path, *arguments: str, config: tuple[str, ...] = ()) -> list[str]:
    """The command line of a run in ``folder``, as docs/cluster.md has it, with this process's Python for the rules."""
    uv = shutil.which("uv")
    assert uv, "uv is needed for this test: pip install uv"
    return [
        *(uv, "tool", "run", "--with-requirements", "ci/requirements.txt", "snakemake"),
        *("--profile", f"ci/profiles/{profile}", "--directory", str(folder), *arguments),
        *("--config", f"python={sys.executable}", *config),
    ]


def run(*arguments, environment=None, status=0, **options) -> str:
    """Runs it to its end; returns what it printed."""
    result = subprocess.run(
        command(*arguments, **options),
        cwd=goldens.ROOT,
        env=(environment or os.environ) | _ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=850,
        check=False,
    )
    assert result.returncode == status, result.stdout[-6000:]
    return result.stdout


@contextlib.contextmanager
def started(*arguments, environment, log: Path, **options):
    """Starts it, what it prints goes into ``log``; at the end of the block it is gone, with all its children."""
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command(*arguments, **options),
            cwd=goldens.ROOT,
            env=environment | _ENVIRONMENT,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def planned(output: str) -> dict[str, int]:
    """Rule by rule, how many jobs a dry run announces."""
    return {name: int(count) for name, count in re.findall(r"^(\S+) +(\d+)$", output, re.MULTILINE)}
