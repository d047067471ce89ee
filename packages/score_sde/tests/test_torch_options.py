"""Options of PyTorch's training that make it smaller or faster, on the network of the package: what they change."""

import experiments
import numpy as np
import pytest
import torch

from score_core.torch.networks import higher_derivatives
from score_sde.configs.load import load_config
from score_sde.torch_experiment import TorchExperiment

LR = 1e-3


def experiment_of(**more):
    config = load_config("digits")
    settings = experiments.TINY | {"optim.warmup": 0, "optim.lr": LR, "model.init_scale": 1.0}
    with config.unlocked(), config.ignore_type():
        for key, value in (settings | {k.replace("__", "."): v for k, v in more.items()}).items():
            section, name = key.split(".")
            config[section][name] = value
    return TorchExperiment(config)


def train(updates=4, **more):
    """Losses and parameters after some updates."""
    experiment = experiment_of(**more)
    state, pipeline = experiment.initial_state(), experiment.pipeline("train", 8, seed=0)
    images = np.stack([pipeline.batch(step).image for step in range(updates)])
    state, losses = experiment.train_call(state, experiment.to_device(images))
    return losses.numpy(), {name: p.detach().clone() for name, p in state.model.named_parameters()}, experiment


def distances(one, other):
    return torch.cat([(one[name] - other[name]).abs().flatten() for name in one])


@pytest.fixture(scope="module")
def plain():
    return train()[:2]


def test_accumulated_parts_are_the_whole_batch(plain):
    """Without dropout, whose masks are drawn a part at a time. Adam magnifies rounding where a gradient vanishes."""
    whole, parts = train(model__dropout=0.0)[:2], train(model__dropout=0.0, training__accumulate=4)[:2]
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-5)
    assert distances(parts[1], whole[1]).mean() < 1e-3 * LR
    assert distances(plain[1], whole[1]).mean() > 1e-2 * LR, "another stream of masks is told apart"


def test_checkpointed_activations_change_no_bit(plain):
    losses, params, experiment = train(training__checkpoint_activations=True)
    np.testing.assert_array_equal(losses, plain[0])
    assert distances(params, plain[1]).max() == 0
    wrapped = [child for child in experiment.model.modules() if "forward" in vars(child)]
    assert len(wrapped) > 5, "no block was checkpointed"


def test_fewer_values_are_kept_with_checkpointed_activations():
    """Counted by the tensors that autograd saves for the backward pass."""

    def saved(**more):
        experiment, total = experiment_of(**more), []
        x, labels = torch.zeros(8, 1, 8, 8), torch.ones(8)
        with torch.autograd.graph.saved_tensors_hooks(lambda t: total.append(t.numel()) or t, lambda t: t):
            experiment.apply_fn(None, x, labels, train=True).sum()
        return sum(total)

    assert saved(training__checkpoint_activations=True) < 0.3 * saved()


def test_bfloat16_keeps_float32_parameters_and_nearly_the_loss(plain):
    """Measured: losses within 1 per cent over four updates; bfloat16 has eight bits."""
    losses, params, experiment = train(training__dtype="bfloat16")
    assert all(value.dtype == torch.float32 for value in params.values())
    assert all(moment["exp_avg"].dtype == torch.float32 for moment in _optimizer(experiment).values())
    assert (losses != plain[0]).all()
    np.testing.assert_allclose(losses, plain[0], rtol=0.02)


def _optimizer(experiment):
    images = experiment.to_device(np.zeros((1, 8, 8, 8, 1), np.uint8))
    state, _ = experiment.train_call(experiment.initial_state(), images)
    return state.optimizer.state


def test_memory_is_in_the_layout_of_images():
    """Weights, gradients, moments and averages alike: the optimiser's fused kernel relies on it."""
    experiment = experiment_of()
    images = experiment.to_device(np.zeros((1, 8, 8, 8, 1), np.uint8))
    state, _ = experiment.train_call(experiment.initial_state(), images)
    layout = {"memory_format": torch.channels_last}
    name = "ResnetBlockBigGANpp_0.Conv_0.weight"
    weight = dict(experiment.model.named_parameters())[name]
    for tensor in (weight, weight.grad, state.shadow[name], *list(state.optimizer.state[weight].values())[1:]):
        assert tensor.shape[1] > 1 and tensor.is_contiguous(**layout)


def test_fused_attention_is_the_plain_one():
    """Values and gradients of the network with PyTorch's fused kernel and with its formula."""
    experiment = experiment_of()
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def run():
        y = x.clone().requires_grad_()
        out = experiment.model.eval()(y, torch.tensor([3.0, 700.0]))
        return out.detach(), torch.autograd.grad(out.square().sum(), y)[0]

    fused = run()
    with higher_derivatives():
        formula = run()
    # what two versions of PyTorch differ by in the golden runs: outputs 2e-6 of the largest, gradients 2e-5
    for a, b, tolerance in zip(fused, formula, (2e-6, 2e-5), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * b.abs().max())
