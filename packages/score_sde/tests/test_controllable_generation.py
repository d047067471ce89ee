"""The original's ``controllable_generation`` by name: from its key to its images, its classifier, wrong masks."""

import functools
from types import SimpleNamespace

import flax.linen as nn
import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError, MissingCheckpointError
from score_core.data.scalers import get_data_inverse_scaler, get_data_scaler
from score_core.errors import UsageError
from score_core.jax.networks import WideResnet
from score_core.jax.networks.wideresnet import get_logit_fn
from score_sde import controllable_generation
from score_sde.sampling import get_corrector, get_predictor
from score_sde.sde_lib import VESDE, VPSDE

GOLDEN = goldens.load("core", "controllable.npz")
FACTS = goldens.load("core", "controllable.json")
STATE = SimpleNamespace(params_ema={})


class Network(nn.Module):
    """The analytic model of the golden files."""

    ve: bool

    @nn.compact
    def __call__(self, x, labels, train=False):
        label = labels.reshape(-1, 1, 1, 1)
        return -(x - 0.3) / (1 + 0.1 * label) if self.ve else (x - 0.3) / (1 + 0.002 * label)


class Classifier(nn.Module):
    """The analytic classifier of the golden files; the library takes CIFAR-10's mean and deviation out."""

    @nn.compact
    def __call__(self, x, sigmas, train=False):
        matrix = self.param("matrix", nn.initializers.zeros, (3, 4))
        return x.mean((1, 2)) @ matrix / (1 + sigmas[:, None])


def arguments(sde):
    """What all three functions take, up to ``snr``, and after it."""
    ve = sde == "ve"
    rules = get_predictor("reverse_diffusion"), get_corrector("langevin")
    forward = VESDE(0.01, 5.0, 8) if ve else VPSDE(0.1, 4.0, 8)
    scalers = get_data_scaler(centered=not ve), get_data_inverse_scaler(centered=not ve)
    return (forward, Network(ve)), rules, scalers, {"continuous": True, "eps": FACTS["eps"][sde]}


@pytest.mark.parametrize("kind", ["inpaint", "colorize", "conditional"])
@pytest.mark.parametrize("sde", ["ve", "vp"])
def test_from_the_key_to_the_images_of_the_original(sde, kind):
    head, rules, (scaler, inverse_scaler), options = arguments(sde)
    tail = (*rules, inverse_scaler, FACTS["snr"])
    with jax.threefry_partitionable(False):
        key = jax.random.PRNGKey(FACTS["seed"])
        if kind == "inpaint":
            inpainter = controllable_generation.get_pc_inpainter(*head, *tail, **options)
            images = inpainter(key, STATE, scaler(GOLDEN["data"]), GOLDEN["mask"])
        elif kind == "colorize":
            images = controllable_generation.get_pc_colorizer(*head, *tail, **options)(
                key, STATE, scaler(GOLDEN["gray"])
            )
        else:
            params = {"matrix": np.arange(12, dtype=np.float32).reshape(3, 4) * 0.1 - 0.5}
            sampler = controllable_generation.get_pc_conditional_sampler(
                *head, Classifier(), params, GOLDEN["data"].shape, *tail, **options
            )
            images = sampler(key, STATE, GOLDEN["labels"])
    expected = GOLDEN[f"{kind}/{sde}-reverse_diffusion-langevin-denoise1"]
    np.testing.assert_allclose(images, expected, rtol=0, atol=3e-4 * np.abs(expected).max())


@pytest.mark.parametrize("consistent", [False, True])
def test_no_rules_leave_the_start(consistent):
    """None and None: known pixels as given, unknown ones the prior, at any mask that broadcasts."""
    head, _, (scaler, inverse_scaler), options = arguments("ve")
    inpainter = controllable_generation.get_pc_inpainter(
        *head, None, None, inverse_scaler, 0.1, **options, noise_consistent=consistent
    )
    mask = np.array([True, False, True])
    key = jax.random.PRNGKey(0)
    images = inpainter(key, STATE, scaler(GOLDEN["data"]), mask)
    np.testing.assert_allclose(images[..., mask], GOLDEN["data"][..., mask], rtol=1e-6)
    prior = 5.0 * jax.random.normal(jax.random.split(key)[1], images.shape)
    np.testing.assert_allclose(images[..., ~mask], prior[..., ~mask], rtol=1e-6)


def test_a_mask_in_bytes_is_refused():
    head, rules, (_, inverse_scaler), options = arguments("ve")
    inpainter = controllable_generation.get_pc_inpainter(*head, *rules, inverse_scaler, 0.1, **options)
    with pytest.raises(UsageError, match=r"values from 0 to 255.*> 127 for bytes"):
        inpainter(jax.random.PRNGKey(0), STATE, GOLDEN["data"], np.array([0, 255, 255], np.uint8))


@pytest.mark.parametrize("labels", [[10, 0], [-1, 0]])
def test_a_class_that_the_classifier_does_not_know_is_refused(labels):
    """An index out of bounds would silently become another class inside a compiled program."""
    head, rules, (_, inverse_scaler), options = arguments("ve")
    sampler = controllable_generation.get_pc_conditional_sampler(
        *head, WideResnet(), {}, (2, 4, 4, 3), *rules, inverse_scaler, 0.1, **options
    )
    with pytest.raises(UsageError, match="knows the classes 0 to 9"):
        sampler(jax.random.PRNGKey(0), STATE, np.array(labels))


def test_the_classifier_of_a_checkpoint(tmp_path, monkeypatch):
    """File or folder; the logits are the original's."""
    golden = goldens.load("score_sde", "wideresnet.npz")
    tiny = functools.partial(WideResnet, blocks_per_group=1, channel_multiplier=1)
    monkeypatch.setattr(controllable_generation, "WideResnet", tiny)
    x = jnp.asarray(golden["b1/x"])
    shapes = jax.eval_shape(lambda: tiny().init(jax.random.key(0), x, jnp.ones(len(x)), train=False))
    (tmp_path / "checkpoint_7").write_bytes(msgpack_format.dumps(goldens.fill_tree(shapes["params"])))
    for path in (tmp_path, tmp_path / "checkpoint_7"):
        classifier, params = controllable_generation.create_classifier(jax.random.key(0), 1, path)
    logits = get_logit_fn(classifier, params)(x, jnp.asarray(golden["b1/sigma"]))
    expected = golden["b1/logits_preprocessed"]
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_classifier_that_is_not_there_or_another_network(tmp_path):
    with pytest.raises(MissingCheckpointError, match="give the classifier's file or folder"):
        controllable_generation.create_classifier(jax.random.key(0), 1, tmp_path)
    (tmp_path / "other").write_bytes(msgpack_format.dumps({"Dense_0": {"bias": np.zeros(512, np.float32)}}))
    with pytest.raises(CheckpointError, match=r"does not fit.*missing"):
        controllable_generation.create_classifier(jax.random.key(0), 1, tmp_path / "other")
