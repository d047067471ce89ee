"""Versions, memory and time of the running process."""

import platform
import resource
import subprocess
import sys
from datetime import UTC, datetime

import numpy as np

from score_core.runs.provenance import command_line, peak_memory_bytes, utc_now, versions


def test_versions_are_those_of_the_imported_packages():
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert "score-core" in found


def test_versions_leave_out_what_is_not_installed(monkeypatch):
    monkeypatch.setattr("score_core.runs.provenance._DISTRIBUTIONS", ("numpy", "no-such-distribution"))
    assert versions().keys() == {"python", "numpy"}


def test_versions_import_nothing_heavy():
    code = (
        "import sys; from score_core.runs.provenance import versions; versions()\n"
        "print([name for name in ('jax', 'torch', 'flax', 'numpy', 'scipy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_peak_memory_is_in_bytes_and_grows_with_an_array():
    code = (
        "from score_core.runs.provenance import peak_memory_bytes; before = peak_memory_bytes()\n"
        "filled = bytearray(b'x') * 200_000_000; print(peak_memory_bytes() - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 180_000_000 < int(run.stdout) < 300_000_000


def test_time_and_command():
    then = datetime.strptime(utc_now(), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - then).total_seconds()) < 5
    assert command_line() == sys.argv


def test_peak_memory_without_proc_is_that_of_getrusage(monkeypatch):
    def no_proc(*_arguments, **_options):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_proc)
    expected = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert abs(peak_memory_bytes() - expected) < 2**20
