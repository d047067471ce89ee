"""Every network against the numbers of both original programs: outputs, gradients, inner values, parameter names."""

import functools
import math

import goldens
import numpy as np
import pytest
import torch

from score_core.torch import networks
from score_core.torch.networks.flax_tree import flax_leaves

JAX_CASES = goldens.load("score_sde", "networks.json")
TORCH_CASES = {
    name: (file, case)
    for file in ("networks", "networks_repaired")
    for name, case in goldens.load("score_sde", f"torch/{file}_meta.json").items()
}


@functools.cache
def arrays(file):
    return goldens.load("score_sde", f"{file}")


def golden_of(file, name):
    return {key.removeprefix(f"{name}/"): value for key, value in arrays(file).items() if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", JAX_CASES)
def test_jax_program(name, official_config):
    """Parameter tree; outputs to 1e-5, gradients to 1e-4 of the largest value."""
    case, keys, golden = JAX_CASES[name], arrays("networks_keys.json")[name], golden_of("networks.npz", name)
    model = networks.create_model(official_config(case["config"], case["overrides"]), flavor="jax").eval()
    leaves = flax_leaves(model)
    assert {leaf.path: list(leaf.shape) for leaf in leaves.values()} == dict(keys)
    networks.load_flax_tree(model, goldens.unflatten({key: goldens.fill(key, tuple(shape)) for key, shape in keys}))

    x = torch.tensor(golden["x"]).permute(0, 3, 1, 2).requires_grad_()
    out = model(x, torch.tensor(golden["t"]))
    assert out.dtype == torch.float32
    (out * torch.tensor(golden["probe"]).permute(0, 3, 1, 2)).sum().backward()

    def close(found, key, tolerance):
        expected = golden[key].transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=tolerance * np.abs(expected).max())

    close(out, "out", 1e-5)
    close(x.grad, "grad_x", 1e-4)

    grads = {leaves[key].path: parameter.grad for key, parameter in model.named_parameters()}
    sums = {}
    for path, grad in grads.items():
        grad = torch.zeros(1, dtype=torch.float64) if grad is None else grad.double()
        sums[path] = np.asarray([grad.sum(), grad.abs().sum(), grad.square().sum()])
    norm = golden["grad_norm"]
    np.testing.assert_allclose(math.sqrt(sum(value[2] for value in sums.values())), norm, rtol=1e-4)
    for (path, _), expected in zip(keys, golden["grad_sums"], strict=True):
        # A gradient that vanishes analytically is stored as its rounding.
        vanishes = max(sums[path][1], expected[1]) < 1e-5 * norm
        np.testing.assert_allclose(
            sums[path][:2], expected, rtol=0, atol=1e-5 * norm if vanishes else 1e-4 * expected[1], err_msg=path
        )


def filled(model, keys):
    """``model`` with every parameter at the golden rule's value for its name in the PyTorch program."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(goldens.fill(keys[name], tuple(parameter.shape))))
    return model.eval()


@pytest.mark.parametrize("name", TORCH_CASES)
def test_pytorch_program(name, official_config, original_key, original_modules):
    """Outputs, and what every module on the way gave, in the order of the calls."""
    file, case = TORCH_CASES[name]
    golden = golden_of(f"torch/{file}.npz", name)
    model = networks.create_model(official_config(case["base"], case["overrides"]))
    assert sum(parameter.numel() for parameter in model.parameters()) == case["parameters"]
    # The buffer of noise levels is theirs alone; NCSN has none there either.
    assert len(list(model.parameters())) == case["n_tensors"] - (case["base"] != "ve/ncsn/cifar10")
    filled(model, original_key(model))

    calls = []
    theirs = original_modules(model)
    for ours, module in model.named_modules():
        if ours in theirs:
            module.register_forward_hook(lambda _, __, out, ours=ours: calls.append((theirs[ours], out.detach())))
    with torch.inference_mode():
        out = model(torch.tensor(golden["x"]), torch.tensor(golden["labels"]))

    # repaired: their output is float64 where the float64 noise levels divide.
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out, golden["out"], rtol=0, atol=1e-5 * np.abs(golden["out"]).max())

    trace = [row for row in arrays(f"torch/{file}_trace.json")[name] if row[0] in set(theirs.values())]
    if not getattr(model, "conditional", True):  # they compute the embedding nevertheless
        trace = [row for row in trace if row[1] != "GaussianFourierProjection"]
    traced = {row[0] for row in trace}
    calls = [call for call in calls if call[0] in traced]
    assert [call[0] for call in calls] == [row[0] for row in trace]
    for (module, found), (_, _, shape, total, absolute, first) in zip(calls, trace, strict=True):
        assert list(found.shape) == shape, module
        sums = [found.double().sum(), found.double().abs().sum()]
        np.testing.assert_allclose(sums, [total, absolute], rtol=0, atol=1e-5 * absolute, err_msg=module)
        scale = max(found.abs().max().item(), 1e-6)
        np.testing.assert_allclose(found.flatten()[:3], first, rtol=0, atol=1e-5 * scale, err_msg=module)
