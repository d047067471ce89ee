"""Lists of NCSNv2 as checkpoints of score_sde and back, proved by what the networks compute."""

import goldens
import numpy as np
import pytest
import torch
import torch_goldens
from ncsnv2_cases import GOLDEN_CONFIGS, golden_config

from ncsnv2.checkpoint_formats import config_names, load_score_sde_config, register, score_sde_config
from score_core.checkpoints.convert import FORMATS, Report, detect_format
from score_core.checkpoints.list_checkpoint import parse_list
from score_core.checkpoints.pth_format import loads_pth
from score_core.errors import UsageError
from score_core.runs.namespace_config import to_namespace

ARRAYS = goldens.load("ncsnv2", "checkpoints.npz")
CASES = goldens.load("ncsnv2", "checkpoints.json")


@pytest.fixture(autouse=True, scope="module")
def _registered():
    known = dict(FORMATS)
    if "ncsnv2" not in FORMATS:
        register()
    yield
    FORMATS.clear()
    FORMATS.update(known)


def converted_config(case):
    keys = ("ngf", "num_classes", "sigma_begin", "sigma_end", "normalization", "ema")
    settings = {f"model__{key}": case[key] for key in keys}
    config = golden_config(model__architecture=case["model"], data__image_size=case["image_size"], **settings)
    return score_sde_config(config)


def state_dict_of(data, name, config):
    """The port's state dict of a converted file, raw and averaged."""
    from score_core.checkpoints.torch_conversion import ema_state_dict, strip_module

    content = loads_pth(data)
    raw = strip_module(content["model"])
    return raw, ema_state_dict(content["ema"]["shadow_params"], raw, config, "pytorch")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["model"])
def test_the_port_computes_the_golden_outputs(case, tmp_path):
    from score_core.torch.networks import create_model
    from score_core.torch.train_state import original_keys

    data = goldens.path("ncsnv2", case["file"]).read_bytes()
    assert detect_format(data) == "ncsnv2"
    config = converted_config(case)
    tree = FORMATS["ncsnv2"].read(data, config, Report(), "golden")
    written = FORMATS["pth"].write(tree, config, Report())
    arrays = torch_goldens.case_of(ARRAYS, case["file"].removeprefix("checkpoints/checkpoint_").removesuffix(".pth"))
    model = create_model(config, "pytorch").eval()
    keys = original_keys(model, config)
    for state, name in zip(state_dict_of(written, "pth", config), ("out_raw", "out_ema"), strict=True):
        if name in arrays:
            with torch.no_grad():
                for own, parameter in model.named_parameters():
                    parameter.copy_(torch.from_numpy(np.array(state[keys[own]])))
                out = model(torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"]))
            torch_goldens.close(out, arrays[name], 1e-5)


@pytest.mark.parametrize("target", ["pth", "flax"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["model"])
def test_there_and_back_is_the_same(case, target):
    data = goldens.path("ncsnv2", case["file"]).read_bytes()
    config = converted_config(case)
    first = FORMATS["ncsnv2"].read(data, config, Report(), "golden")
    middle = FORMATS[target].write(first, config, Report())
    assert detect_format(middle) == target
    report = Report()
    back = FORMATS["ncsnv2"].write(FORMATS[target].read(middle, config, report, target), config, report)
    before, after = parse_list(loads_pth(data), "before"), parse_list(loads_pth(back), "after")
    assert list(after.network) == list(before.network) and after.step == before.step
    for key, value in before.network.items():
        np.testing.assert_allclose(after.network[key], value, rtol=1e-7 if key == "sigmas" else 0, err_msg=key)
    expected = before.average or {key: before.network[key] for key in after.average}
    for key, value in expected.items():
        np.testing.assert_array_equal(after.average[key], value, err_msg=key)
    for number, state in before.optimizer["state"].items():
        for key in ("exp_avg", "exp_avg_sq"):
            np.testing.assert_array_equal(after.optimizer["state"][number][key], state[key])
        assert int(after.optimizer["state"][number]["step"]) == int(np.asarray(state["step"]))


def test_a_network_of_the_jax_program_is_refused():
    case = CASES[0]
    config = converted_config(case)
    tree = FORMATS["ncsnv2"].read(goldens.path("ncsnv2", case["file"]).read_bytes(), config, Report(), "golden")
    with pytest.raises(UsageError, match="JAX"):
        FORMATS["ncsnv2"].write({**tree, "meta": {"flavor": "jax"}}, config, Report())


def test_a_list_of_another_network_is_refused():
    config = converted_config({**CASES[0], "model": "NCSNv2Deeper"})
    data = goldens.path("ncsnv2", CASES[0]["file"]).read_bytes()
    from score_core.checkpoints.errors import CheckpointError

    with pytest.raises(CheckpointError, match="configured network"):
        FORMATS["ncsnv2"].read(data, config, Report(), "golden")


def test_identification():
    data = goldens.path("ncsnv2", CASES[0]["file"]).read_bytes()
    fits = FORMATS["ncsnv2"].fits(data, "golden")
    assert fits(converted_config(CASES[0])) and not fits(converted_config(CASES[1]))


def test_packaged_configurations_are_translated():
    names = config_names()
    assert {"cifar10", "celeba", "church", "bedroom", "tower", "ffhq", "ncsn_original", "digits"} <= set(names)
    config = load_score_sde_config("ffhq")
    assert config.model.name == "ncsnv2_256" and config.model.num_scales == 2311 and config.data.num_channels == 3
    deeper = {
        **GOLDEN_CONFIGS["tiny.yml"],
        "model": {**GOLDEN_CONFIGS["tiny.yml"]["model"], "architecture": "NCSNdeeper"},
    }
    with pytest.raises(UsageError, match="score_sde has no NCSNdeeper"):
        score_sde_config(to_namespace(deeper))
