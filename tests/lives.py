"""Lives of a program: forks of one process that has imported everything, so that a start costs a fork.

    with Lives("torch") as lives:
        lives.run([...])                                              # to the end; fails if the status is not 0
        lives.run([...], killed_at=("score_sde.train:_write_samples", 1))     # SIGKILL at the first call of it
        lives.run([...], killed_after=("training_loss", 3))           # SIGKILL as soon as the third such line is logged

A fork is as good as a start: nothing has been computed before it, no thread is alive, no device has been touched.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KILLED = 128 + signal.SIGKILL
_MODULES = ("score_sde.__main__", "score_sde.train", "score_sde.evaluate", "score_sde.configs.load")
_OF = {"jax": ("score_sde.jax_experiment",), "torch": ("score_sde.torch_experiment", "torch._dynamo")}


class Lives:
    """One server process and the lives it begins, one at a time.

    Arguments:
        framework: of the runs; passed on.
        environment: variables beside those of this process.
    """

    def __init__(self, framework="jax", environment=None):
        self.framework = framework
        self._alive = None
        self._log = tempfile.NamedTemporaryFile("r", suffix=".log")  # noqa: SIM115
        self._server = subprocess.Popen(
            [sys.executable, __file__, framework, self._log.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (environment or {}),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # After a failure or a test's time limit, a life may still be there.
        for pid in [self._alive] if self._alive else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.kill()
        self._server.wait()
        self._log.close()

    def run(self, arguments, *, killed_at=None, killed_after=None, stopped_after=None, status=None):
        """Runs the program once; returns what it wrote to stderr.

        ``killed_after`` and ``stopped_after`` send SIGKILL and ``status - 128`` once the log has so many lines with a
        text. ``status``: the exit status that is expected; by default 0, or that of a killed process.
        """
        Path(self._log.name).write_text("")
        self._say([f"--framework={self.framework}", *map(str, arguments)], killed_at)
        pid = self._alive = json.loads(self._server.stdout.readline())
        expected = status if status is not None else KILLED if killed_at or killed_after else 0
        if moment := killed_after or stopped_after:
            self._await(*moment)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if killed_after else expected - 128)
        found = json.loads(self._server.stdout.readline())
        self._alive = None
        log = Path(self._log.name).read_text(errors="replace")
        assert found == expected, f"status {found}, expected {expected}:\n{log[-3000:]}"
        return log

    def _say(self, arguments, killed_at):
        print(json.dumps([arguments, killed_at]), file=self._server.stdin, flush=True)

    def _await(self, text, count):
        deadline = time.monotonic() + 300
        while Path(self._log.name).read_text(errors="replace").count(text) < count:
            assert time.monotonic() < deadline, f"{text!r} did not come"
            time.sleep(0.01)


def _kill_at(point, count):
    """Makes this process kill itself at a call of a function, before anything of it has happened."""
    name, _, path = point.partition(":")
    *owners, last = path.split(".")
    owner = importlib.import_module(name)
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, last), []

    def counted(*arguments, **options):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, last, counted)


def _live(arguments, killed_at, log):
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(file, 1)
    if killed_at:
        _kill_at(*killed_at)
    status = 1
    try:
        status = sys.modules["score_sde.__main__"].main(arguments)
    except SystemExit as end:
        status = end.code
    except BaseException:  # noqa: BLE001 (the last thing that this process does)
        import traceback

        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status or 0)


def _serve(framework, log):
    for name in (*_MODULES, *_OF[framework]):
        importlib.import_module(name)
    for line in sys.stdin:
        arguments, killed_at = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(arguments, killed_at, log)
        print(pid, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(status if status >= 0 else 128 - status, flush=True)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
