"""Where a number comes from: versions, command line, time, memory. Everything is asked of the running process."""

import platform
import sys
from datetime import UTC, datetime

__all__ = ["command_line", "peak_memory_bytes", "utc_now", "versions"]

_DISTRIBUTIONS = (
    "score-core",
    "score-sde",
    "ncsn",
    "ncsnv2",
    "score-flow-hdsm",
    "variational-sde",
    "numpy",
    "scipy",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "torch",
)


def versions() -> dict[str, str]:
    """Versions of Python and of those of our distributions and numerical libraries that are installed.

    They are read from the installed packages' metadata: nothing heavy is imported.
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # a JAX-only installation has no torch and the reverse
    return found


def command_line() -> list[str]:
    """The program and its arguments as they were given."""
    return list(sys.argv)


def utc_now() -> str:
    """The time now, ``2024-05-01T12:30:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def peak_memory_bytes() -> int:
    """The largest resident size of this process so far, in bytes (host memory; devices are not in it)."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            # Not getrusage: on Linux its maximum starts at the size of the process that launched this one.
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):  # not Linux
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
