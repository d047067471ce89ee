"""Importing these modules costs nothing: heavy packages are imported by what needs them."""

import subprocess
import sys

import pytest

HEAVY = [
    "jax",
    "flax",
    "torch",
    "tensorflow",
    "tensorboard",
    "google.protobuf",
    "tqdm",
    "filelock",
    "PIL",
    "absl",
    "ml_dtypes",
    "sklearn",
    "scipy",
    "matplotlib",
    "ml_collections",
    "importlib.metadata",
    "asyncio",
]
MODULES = {
    "score_core.errors": True,
    "score_core.checkpoints.store": True,
    "score_core.checkpoints.msgpack_format": False,
    "score_core.checkpoints.tree": False,
    "score_core.runs.config_record": True,
    "score_core.runs.log": True,
    "score_core.runs.progress": True,
    "score_core.runs.provenance": True,
    "score_core.runs.results": True,
    "score_core.runs.signals": True,
    "score_core.runs.tensorboard": False,
    "score_core.runs.workdir": True,
}


@pytest.mark.parametrize(("module", "without_numpy"), MODULES.items())
def test_import_is_light(module, without_numpy):
    heavy = [*HEAVY, "numpy"] if without_numpy else HEAVY
    code = f"import {module}, sys; print(*[name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
