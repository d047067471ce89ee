"""Ten steps of training against the original's losses and parameters; evaluation as it is defined."""

import json
import lzma
import math

import goldens
import numpy as np
import pytest
import torch
from variational_golden import PACKAGE, close, filled, golden, net, noise_of_rounding, plugin, tensor

from score_core.torch.threefry import fold_in, prng_key
from variational_sde.logit import LogitTransform, dequantise
from variational_sde.objectives import bound_in_bits
from variational_sde.torch import checkpoint
from variational_sde.torch.evaluation import Protocol, bound_bpd, image_noise, to_tensor
from variational_sde.torch.helpers import EMA, AverageMeter, RunningAverage, infinite
from variational_sde.torch.training import training_step

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["mnist", "tiny_a_debias", "tiny_a_unit_T0.5"])
def test_ten_steps(name):
    arrays = golden(f"train10_{name}.npz")
    sums = json.loads(lzma.decompress(goldens.path(PACKAGE, f"train10_{name}_checksums.json.xz").read_bytes()))
    meta = json.loads(str(arrays["meta"]))
    settings = {
        "network": {"kind": "unet", **meta["config"]},
        "sde": {"T": meta["T0"]},
        "vtype": "rademacher",
        "debias": meta["debias"],
    }
    state = checkpoint.new_state(settings, lr=meta["lr"], seed=meta["seed"], device=CPU)
    filled(state.model.a)
    rounding, logit = noise_of_rounding(state.model.a), LogitTransform()
    named = dict(state.model.a.named_parameters())
    shape = (meta["batch"], meta["config"]["input_channels"], *[meta["config"]["input_height"]] * 2)

    def check(step):
        if str(step) not in sums:
            return
        for key, expected in sums[str(step)]["tensors"].items():
            # what does not influence the output is moved by rounding alone, by lr a step at most, in either program
            atol = 2.01 * meta["lr"] * step if key in rounding else 1e-8
            value = named[key].detach().double()
            np.testing.assert_allclose(
                float(value.abs().sum()), expected["abs_sum"], rtol=1e-4, atol=atol * value.numel()
            )
            np.testing.assert_allclose(
                value.reshape(-1)[:5], expected["first5"], rtol=1e-4, atol=atol + 1e-6, err_msg=key
            )

    check(0)
    for step in range(1, meta["steps"] + 1):
        images = np.random.RandomState(meta["seed"] * 1000 + step).randint(0, 256, shape).astype(np.float32)
        u = state.generators.uniform_like(torch.zeros(shape))
        if "dequant_u" in arrays:
            close(u, arrays["dequant_u"][step - 1], 0)
        x = dequantise(tensor(images), u)
        loss = training_step(state, logit.forward(x) if meta["real"] else x)
        np.testing.assert_allclose(float(loss), arrays["loss"][step - 1], rtol=5e-6)
        norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in named.values()))
        np.testing.assert_allclose(norm, arrays["grad_total_norm"][step - 1], rtol=1e-4)
        check(step)
    for key, value in arrays.items():
        if key.startswith("final/"):
            close(named[key[6:]].reshape(-1)[: value.size], value.reshape(-1), 1e-4, key)


class Images:
    """A source of random images."""

    name, split, num_classes = "random", "test", None

    def __init__(self, n, shape=(8, 8, 3)):
        self.shape = shape
        self.images = np.random.RandomState(0).randint(0, 256, (n, *shape)).astype(np.uint8)
        self.fingerprint = "random"

    def __len__(self):
        return len(self.images)

    def fetch(self, indices):
        return self.images[indices], None


@pytest.mark.parametrize("real", [True, False])
def test_evaluation_is_its_definition_for_every_image_once(real):
    model, source = plugin(net("a")), Images(11)
    found = bound_bpd(model, source, Protocol(real, batch_size=4, seed=7), stream=5)
    key = fold_in(fold_in(prng_key(7), 5), 0)
    images = to_tensor(source.images, CPU)
    u, noise = image_noise(key, torch.arange(11), (3, 8, 8), "rademacher", 1.0)
    x = dequantise(images, u)
    log_det = LogitTransform().log_det(x) if real else 0.0
    elbo = model.elbo(LogitTransform().forward(x) if real else x, noise).detach() + log_det
    expected = bound_in_bits(elbo.double(), 192).numpy()
    np.testing.assert_allclose(found.per_image, expected, rtol=1e-5)
    assert found.mean == pytest.approx(expected.mean())
    assert found.standard_error == pytest.approx(expected.std() / math.sqrt(11))
    # an image's number does not depend on the batch it is in
    whole = bound_bpd(model, source, Protocol(real, batch_size=256, seed=7), stream=5)
    np.testing.assert_allclose(found.per_image, whole.per_image, rtol=1e-5)
    other = bound_bpd(model, source, Protocol(real, batch_size=4, seed=7), stream=6)
    assert not np.allclose(found.per_image, other.per_image)


def test_the_original_protocol_flips_and_counts_every_image():
    model, source = plugin(net("a")), Images(11)
    settings = {"real": True, "batch_size": 4, "seed": 7, "original": True}
    plain = bound_bpd(model, source, Protocol(**settings))
    again = bound_bpd(model, source, Protocol(**settings))
    flipped = bound_bpd(model, source, Protocol(**settings, flip=True))
    assert len(plain.per_image) == 11
    np.testing.assert_array_equal(plain.per_image, again.per_image)
    assert 0 < np.sum(plain.per_image != flipped.per_image) <= 11


def test_evaluation_leaves_the_model_as_it_was_and_stops_when_asked():
    model = plugin(net("a")).train()
    assert bound_bpd(model, Images(3), Protocol(True), stop=lambda: True) is None
    assert model.training and all(p.requires_grad for p in model.a.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_repeats_are_averaged():
    model, source = plugin(net("a")), Images(3)
    once = [bound_bpd(model, source, Protocol(True, repeats=r)).per_image for r in (1, 2)]
    assert len(once[1]) == 3 and not np.allclose(once[0], once[1])


def test_meters_and_averages():
    record = golden("helpers_meters.json")
    meter = AverageMeter()
    for value, n in record["average_meter"]["updates"]:
        meter.update(value, n)
    assert meter.average == pytest.approx(record["average_meter"]["avg"])
    assert (meter.sum, meter.count, meter.value) == (27.0, 7, 5.0)
    running = RunningAverage(record["running_average"]["momentum"])
    for value in record["running_average"]["updates"]:
        running.update(value)
    assert running.average == pytest.approx(record["running_average"]["avg"])
    linear = filled(torch.nn.Linear(3, 2))
    ema, rng = EMA(linear, record["ema"]["decay"]), np.random.RandomState(record["ema"]["seed"])
    for expected in record["ema"]["shadow_after_each_apply"]:
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter += torch.from_numpy(rng.standard_normal(parameter.shape).astype(np.float32))
        ema.apply()
        for key, value in expected.items():
            close(ema.shadow[key].reshape(-1), value, 1e-6)
    own = linear.weight.detach().clone()
    average = ema.shadow["weight"].clone()
    with ema.swapped():
        close(linear.weight, average, 0)
    close(linear.weight, own, 0)
    stream = infinite([1, 2])
    assert [next(stream) for _ in range(5)] == [1, 2, 1, 2, 1]
