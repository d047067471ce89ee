"""Test-wide settings: one thread per test process, CPU only, a compilation cache shared between runs."""

import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tiny networks: compile time dominates, so the back end does not optimise.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0",
)
_cache = Path(__file__).parent / ".cache" / "jax-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def pytest_collection_modifyitems(items):
    """Long tests first, so that no process works alone on one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Frees what a module's tests compiled; a test process would otherwise grow to several gigabytes."""
    yield
    for library, name in (("jax", "clear_caches"), ("torch._dynamo", "reset")):
        if library in sys.modules:
            getattr(sys.modules[library], name)()
