"""Fixtures of the neutral maths: every formula is checked with arrays of all three libraries, eager and traced."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Framework:
    """How a test makes, reads and traces arrays of one library."""

    name: str
    asarray: Callable[[Any], Any]
    to_numpy: Callable[[Any], np.ndarray]
    trace: Callable[[Callable], Callable] = lambda function: function
    """``jax.jit`` or ``torch.compile(fullgraph=True)``; nothing in the eager variants."""

    def run(self, function: Callable, *arrays: Any) -> Any:
        """``function`` of the host ``arrays``, called in this library; its (nested) results on the host."""
        return self._to_host(self.trace(function)(*map(self.asarray, arrays)))

    def _to_host(self, result: Any) -> Any:
        if isinstance(result, dict):
            return {key: self._to_host(value) for key, value in result.items()}
        if isinstance(result, tuple):
            return tuple(map(self._to_host, result))
        return self.to_numpy(result)


def _numpy() -> Framework:
    return Framework("numpy", np.asarray, np.asarray)


def _jax() -> Framework:
    import jax

    return Framework("jax", jax.numpy.asarray, np.asarray)


def _jax_jit() -> Framework:
    import jax

    return Framework("jax-jit", jax.numpy.asarray, np.asarray, jax.jit)


def _torch() -> Framework:
    import torch

    return Framework("torch", lambda array: torch.tensor(np.asarray(array)), lambda tensor: tensor.detach().numpy())


def _torch_compile() -> Framework:
    import torch

    def trace(function: Callable) -> Callable:
        # The "eager" back end shows that the whole function is captured without waiting for a C++ compiler.
        torch.compiler.reset()
        # The cached function is array_api_compat's choice of a namespace, which depends on the type alone.
        warnings.filterwarnings("ignore", message="Dynamo detected a call to a `functools.lru_cache`")
        return torch.compile(function, fullgraph=True, backend="eager")

    eager = _torch()
    return Framework("torch-compile", eager.asarray, eager.to_numpy, trace)


EAGER = {"numpy": _numpy, "jax": _jax, "torch": _torch}
FRAMEWORKS = EAGER | {"jax-jit": _jax_jit, "torch-compile": _torch_compile}


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> Framework:
    """NumPy, JAX, PyTorch, JAX inside ``jax.jit``, PyTorch inside ``torch.compile(fullgraph=True)``."""
    return FRAMEWORKS[request.param]()


@pytest.fixture(params=EAGER)
def eager_framework(request: pytest.FixtureRequest) -> Framework:
    """NumPy, JAX, PyTorch."""
    return FRAMEWORKS[request.param]()
