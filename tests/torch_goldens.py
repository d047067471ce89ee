"""Golden numbers of PyTorch programs: modules filled by the rule, gradients against the stored probe."""

from typing import Any

import goldens
import numpy as np
import torch
from torch import Tensor, nn


def fill(module: nn.Module) -> nn.Module:
    """``module`` with every parameter at the golden value for its name."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.tensor(goldens.fill(name, tuple(parameter.shape))))
    return module


def close(found: Any, expected: Any, tolerance: float = 1e-4) -> None:
    """``max |found - expected| <= tolerance * max |expected|``."""
    found = found.detach().numpy() if isinstance(found, Tensor) else np.asarray(found)
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def case_of(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays of one case, by the rest of their names."""
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


def check_forward_and_gradients(
    module: nn.Module, case: dict[str, Any], golden: dict[str, np.ndarray], inputs: list[Any], **options: Any
) -> None:
    """Names, output, and gradients of ``sum_k out_k cos(0.37 k)`` with respect to the input and every parameter."""
    assert [[name, list(value.shape)] for name, value in module.named_parameters()] == case["parameters"]
    first = inputs[0].requires_grad_() if isinstance(inputs[0], Tensor) else inputs[0]
    out = module(first, *inputs[1:], **options)
    close(out, golden["out"])
    probe = torch.cos(0.37 * torch.arange(out.numel(), dtype=torch.float64)).to(out.dtype).reshape(out.shape)
    (out * probe).sum().backward()
    if "grad_in0" in golden:
        close(first.grad, golden["grad_in0"])
    norms = case["grad"]["per_parameter_norm"]
    total = case["grad"]["total_norm"]
    for name, parameter in module.named_parameters():
        norm = 0.0 if parameter.grad is None else parameter.grad.double().norm().item()
        # A gradient that vanishes analytically is stored as its rounding.
        np.testing.assert_allclose(norm, norms[name], rtol=1e-4, atol=1e-6 * total, err_msg=name)
