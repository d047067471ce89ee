"""Folders of Hugging Face diffusers: the real library computes what our network computes, and samples from them."""

import json
import subprocess
import sys

import checkpoint_cases
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.__main__ import main
from score_core.checkpoints.convert import FORMATS
from score_core.checkpoints.diffusers_names import diffusers_names
from score_core.checkpoints.torch_names import torch_leaves
from score_core.checkpoints.tree import flatten
from score_sde.configs.load import load_config

# The architecture of the 256-pixel models; attention needs 128 channels there.
TINY = {
    "data.image_size": 16,
    "model.nf": 32,
    "model.ch_mult": [1, 4],
    "model.num_res_blocks": 1,
    "model.attn_resolutions": [8],
    "model.num_scales": 4,
}
BASE = "ve/church_ncsnpp_continuous"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def config():
    return checkpoint_cases.config_of(BASE, TINY)


@pytest.fixture
def case(config, tmp_path):
    """Command-line arguments of a file of weights and its configuration."""
    tree = {"params": checkpoint_cases.params(config, "jax"), "meta": {"flavor": "jax"}}
    source = checkpoint_cases.write(tmp_path / "weights", "flax", config, tree)
    return source, f"--config={checkpoint_cases.config_file(tmp_path, BASE, TINY)}"


FULL_SIZE = {
    "ve/bedroom_ncsnpp_continuous": 65_574_549,
    "ve/church_ncsnpp_continuous": 65_574_549,
    "ve/celebahq_256_ncsnpp_continuous": 65_574_549,
    "ve/ffhq_256_ncsnpp_continuous": 65_574_549,
    "ve/ffhq_ncsnpp_continuous": 105_785_896,
    "ve/celebahq_ncsnpp_continuous": 105_785_896,
}

# The library takes long to import, so one process does everything it is needed for; no network is reachable there.
CHECK = """
import json, socket, sys

def refuse(*_, **__):
    raise AssertionError("the network was asked for")

socket.socket.connect = refuse
socket.getaddrinfo = refuse
import numpy as np
import torch
from score_core.checkpoints.__main__ import main
from score_core.checkpoints.diffusers_names import unet_config
from score_sde.configs.load import load_config

source, config, folder, back, *names = sys.argv[1:]
options = [config, "--verify", "--tolerance=1e-5"]
assert main([source, folder, "--to=diffusers", *options, "--report", folder + ".json"]) == 0
assert main([folder, back, "--to=flax", "--weights=raw", *options]) == 0
assert main([source, folder + "-both", "--to=diffusers", "--weights=both", *options]) == 0

from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler, UNet2DModel

pipeline = ScoreSdeVePipeline.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
pipeline.set_progress_bar_config(disable=True)
scheduler = pipeline.scheduler
assert isinstance(scheduler, ScoreSdeVeScheduler) and isinstance(pipeline.unet, UNet2DModel)
assert scheduler.config.num_train_timesteps == 4 and scheduler.config.sigma_max == 380.0, scheduler.config
assert (scheduler.config.snr, scheduler.config.correct_steps, scheduler.config.sampling_eps) == (0.075, 1, 1e-5)
images = pipeline(batch_size=2, num_inference_steps=4, generator=torch.manual_seed(0), output_type="np").images
assert np.isfinite(images).all() and np.shape(images) == (2, 16, 16, 3) and np.std(images) > 0

found = {}
for name in names:
    with torch.device("meta"):
        model = UNet2DModel.from_config(unet_config(load_config(name)))
    found[name] = {key: list(value.shape) for key, value in model.state_dict().items()}
loaded = [name for name in ("transformers", "accelerate") if name in sys.modules]
assert not loaded, loaded
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def library(config, tmp_path_factory):
    """What the library's process left: its folder of files, its output, shapes by name of full-size models."""
    folder = tmp_path_factory.mktemp("library")
    source = checkpoint_cases.write(folder / "checkpoint_1", "flax", config, checkpoint_cases.state(config))
    option = f"--config={checkpoint_cases.config_file(folder, BASE, TINY)}"
    run = subprocess.run(
        [sys.executable, "-c", CHECK, str(source), option, str(folder / "hf"), str(folder / "back"), *FULL_SIZE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    *lines, shapes = run.stdout.splitlines()
    return folder, "\n".join(lines), json.loads(shapes)


@pytest.mark.slow
def test_the_library_computes_and_samples(library, config):
    """The process of the fixture ran the pipeline; here: the comparison of outputs and the way back."""
    folder, output, _ = library
    assert output.count("verified ema") == 2 and output.count("verified raw") == 2 and "TOO LARGE" not in output
    report = json.loads((folder / "hf.json").read_text())
    assert len(report["matched"]) + len(report["reshaped"]) == len(diffusers_names(config))
    assert report["missing"] == report["unused"] == []
    assert report["verified"]["ema"]["largest_difference"] <= 1e-5 * report["verified"]["ema"]["largest_output"]
    # the averages, to the bit
    averages = msgpack_format.loads((folder / "checkpoint_1").read_bytes())["params_ema"]
    assert msgpack_format.dumps(averages) == (folder / "back").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_models_have_the_keys_and_shapes_of_the_library(name, library):
    """All official models of this architecture, against the library's own state dict, without allocating one."""
    config = load_config(name)
    shapes = {leaf.key: leaf.shape for leaf in torch_leaves(config)}
    ours = {
        n.diffusers_key: list(shapes[n.torch_key][::-1] if n.transposed else shapes[n.torch_key])
        for n in diffusers_names(config)
    }
    assert ours == library[2][name]
    assert sum(int(np.prod(shape)) for shape in ours.values()) == FULL_SIZE[name]


def test_there_and_back_of_both_sets(config, tmp_path, capsys):
    source = checkpoint_cases.write(tmp_path / "checkpoint_1", "flax", config, checkpoint_cases.state(config))
    option = f"--config={checkpoint_cases.config_file(tmp_path, BASE, TINY)}"
    assert main([str(source), str(tmp_path / "hf"), "--to=diffusers", "--weights=both", option]) == 0
    assert main([str(tmp_path / "hf"), str(tmp_path / "no"), "--to=flax", option]) == 1  # of two networks, which?
    capsys.readouterr()
    state = msgpack_format.loads(source.read_bytes())
    for which, params in (("raw", state["optimizer"]["target"]), ("ema", state["params_ema"])):
        back = tmp_path / which
        assert main([str(tmp_path / "hf" / which), str(back), "--to=flax", option]) == 0
        made = msgpack_format.loads(back.read_bytes())
        assert msgpack_format.dumps(made["params_ema"]) == msgpack_format.dumps(params)
        assert made["step"] == 0 and "step 0, no moments" in capsys.readouterr().out
    # both folders give one training state each; from a folder, not both sets
    assert main([str(tmp_path / "hf" / "raw"), str(tmp_path / "x"), "--to=diffusers", "--weights=both", option]) == 2


@pytest.fixture
def folder(case, tmp_path):
    source, option = case
    assert main([str(source), str(tmp_path / "hf"), "--to=diffusers", option]) == 0
    return tmp_path / "hf"


def test_the_unet_folder_alone_old_names_and_pickled_weights_are_read(folder, case, tmp_path):
    import torch

    arrays = load_file(folder / WEIGHTS)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in arrays.items():
        for new, before in old.items():
            name = name.replace(f".{new}.", f".{before}.")
        renamed[name] = value
    assert renamed.keys() != arrays.keys()
    save_file(renamed, folder / WEIGHTS)
    assert main([str(folder), str(tmp_path / "a"), "--to=flax", "--weights=raw", case[1]]) == 0
    (folder / WEIGHTS).unlink()
    torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, folder / "unet" / "diffusion_pytorch_model.bin")
    assert main([str(folder / "unet"), str(tmp_path / "b"), "--to=flax", "--weights=raw", case[1]]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_folder_of_another_network_is_refused_by_name(folder, case, tmp_path, capsys):
    target = tmp_path / "out"
    arguments = [str(target), "--to=flax", "--weights=raw"]
    file = folder / "unet" / "config.json"
    good = file.read_text()
    file.write_text(json.dumps(json.loads(good) | {"layers_per_block": 3, "norm_eps": 1e-5}))
    assert main([str(folder), *arguments, case[1]]) == 1
    error = capsys.readouterr().err
    assert "layers_per_block is 3, the configuration means 1" in error and "norm_eps" in error
    file.write_text(good)
    arrays = load_file(folder / WEIGHTS)
    arrays["extra.weight"] = arrays.pop("conv_in.weight")
    save_file(arrays, folder / WEIGHTS)
    assert main([str(folder), *arguments, case[1], f"--report={tmp_path / 'r.json'}"]) == 1
    assert "1 missing: conv_in.weight; 1 unused: extra.weight" in capsys.readouterr().err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["missing"] == ["conv_in.weight"] and report["unused"] == ["extra.weight"] and "error" in report
    (folder / WEIGHTS).unlink()
    assert main([str(folder), *arguments, case[1]]) == 1
    assert "Fetch the whole folder" in capsys.readouterr().err
    file.write_text("{" * 99999)
    assert main([str(folder), *arguments, case[1]]) == 1
    assert not target.exists()


@pytest.mark.parametrize(
    "name, message",
    [
        ("ve/cifar10_ncsnpp_continuous", "model.progressive is 'none', it has 'output_skip' only"),
        ("vp/cifar10_ddpmpp_continuous", "model.embedding_type is 'positional', it has 'fourier' only"),
        ("vp/ddpm/church", "model.name is 'ddpm', it has 'ncsnpp' only"),
        ("ve/ncsnv2/celeba", "model.name is 'ncsnv2_64'"),
        ({"model.fir_kernel": [1, 2, 1]}, "model.fir_kernel is [1, 2, 1], it has [1, 3, 3, 1] only"),
        ({"model.ch_mult": [2, 4]}, "model.ch_mult begins with 2, it has 1 only"),
        ({"model.nf": 16}, "attention at level 1 has 64 channels, it has at least 128"),
        ({"model.progressive_combine": "cat"}, "model.progressive_combine is 'cat'"),
        ({"data.num_channels": 1}, "data.num_channels is 1, it has 3 only"),
    ],
)
def test_what_the_class_cannot_express_is_refused_naming_the_key(name, message, tmp_path, capsys):
    base, more = (BASE, TINY | name) if isinstance(name, dict) else (name, {})
    config = checkpoint_cases.config_file(tmp_path, base, more)
    source = tmp_path / "checkpoint_1"
    if more:
        tree = {"params": checkpoint_cases.params(load_config(str(config)), "jax"), "meta": {"flavor": "jax"}}
        checkpoint_cases.write(source, "flax", None, tree)
        assert main([str(source), str(tmp_path / "hf"), "--to=diffusers", f"--config={config}"]) == 2
        error = capsys.readouterr().err
    else:
        with pytest.raises(Exception, match="cannot express") as caught:
            diffusers_names(load_config(str(config)))
        error = str(caught.value)
    assert message in error and "Convert to pth or safetensors instead" in error
    assert not (tmp_path / "hf").exists()


def test_a_folder_is_identified(folder, config, tmp_path, capsys):
    fits = FORMATS["diffusers"].fits(folder, folder)
    assert fits(config) and not fits(load_config(BASE))
    assert main([str(folder), "--identify"]) == 1
    captured = capsys.readouterr()
    assert "no packaged configuration" in captured.out and "not compared" not in captured.err
    assert main([str(folder), "--inspect", f"--config={checkpoint_cases.config_file(tmp_path, BASE, TINY)}"]) == 0
    out = capsys.readouterr().out
    assert (
        "format       diffusers" in out and f"in {len(flatten(checkpoint_cases.params(config, 'jax')))} arrays" in out
    )
