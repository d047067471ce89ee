"""The original's pickled checkpoints, this program's own, and hostile ones."""

import contextlib
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile

import goldens
import numpy as np
import pytest
import torch
from variational_golden import PACKAGE, close

from score_core.checkpoints.convert import convert, load_formats
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.pth_objects import loads_objects
from score_core.errors import UserError
from variational_sde import original_format
from variational_sde.torch import checkpoint
from variational_sde.torch.original_writer import dumps
from variational_sde.torch.training import training_step

CPU = torch.device("cpu")
NAMES = ["checkpoint_groups4", "checkpoint_flat32"]


def original(name):
    record = json.loads(lzma.decompress(goldens.path(PACKAGE, f"{name}.json.xz").read_bytes()))
    return lzma.decompress(goldens.path(PACKAGE, f"{name}.pt.xz").read_bytes()), record


def state_from(content):
    settings = content["settings"]
    state = checkpoint.new_state(settings, lr=content["optimizer"]["param_groups"][0]["lr"], seed=0, device=CPU)
    checkpoint.restore(state, content, "test")
    return state


def check_sums(tensors, expected, tolerance=1e-6):
    assert expected
    for key, sums in expected.items():
        value = tensors[key].detach().double()
        np.testing.assert_allclose(float(value.abs().sum()), sums["abs_sum"], rtol=tolerance, err_msg=key)
        np.testing.assert_allclose(value.reshape(-1)[:5], sums["first5"], rtol=tolerance, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_of_the_original_goes_on_as_the_original_does(name):
    data, record = original(name)
    assert original_format.recognises(data)
    content = checkpoint.decode(data, name)
    assert [[key, list(value.shape)] for key, value in content["model"].items()] == record["state_dict_keys"]
    settings = content["settings"]
    assert content["count"] == record["count"]
    assert (settings["vtype"], settings["debias"]) == (record["vtype"], record["debias"])
    assert settings["sde"] == {**record["base_sde"], "T": record["T"]}
    assert settings["network"]["groups"] == record["group_norm_groups"]
    state = state_from(content)
    named = dict(state.model.named_parameters())
    check_sums(named, record["checksums"])
    for key, sums in record["adam"].items():
        entry = state.optimizer.state[named[key]]
        assert int(entry["step"]) == sums["step"]
        for moment in ("exp_avg", "exp_avg_sq"):
            total = float(entry[moment].double().sum())
            scale = float(entry[moment].double().abs().sum())
            assert abs(total - sums[f"{moment}_sum"]) <= 1e-6 * scale
    assert named["T"] not in state.optimizer.state

    options, forward = settings["network"], record["forward"]
    shape = (3, options["input_channels"], options["input_height"], options["input_height"])
    step = record["next_step"]
    x = torch.from_numpy(np.random.RandomState(step["seed"]).standard_normal(shape).astype(np.float32))
    y = state.model.a(x, torch.tensor(forward["t"])).detach().reshape(-1)
    np.testing.assert_allclose(float(y.double().abs().sum()), forward["abs_sum"], rtol=2e-6)
    close(y[:5], forward["first5"], 1e-5)
    close(y[-5:], forward["last5"], 1e-5)

    state.generators = type(state.generators).seeded(step["seed"], CPU)
    loss = training_step(state, x)
    np.testing.assert_allclose(float(loss), step["loss"], rtol=1e-6)
    check_sums(named, step["after"], 1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_original_format_is_written_as_it_was_read(name):
    """Same list, same import names, same attributes, same numbers."""
    data, _ = original(name)
    state = state_from(checkpoint.decode(data, name))
    first, second = (loads_objects(one, original_format.CLASSES) for one in (data, dumps(state)))
    compare(first, second, "list")


def compare(one, other, where):
    if hasattr(one, "state") or (hasattr(one, "data") and hasattr(one, "requires_grad")):
        assert type(one).__name__ == type(other).__name__, where
        assert getattr(one, "path", None) == getattr(other, "path", None), where
        if hasattr(one, "state"):
            compare(one.state, other.state, where)
        else:
            assert one.requires_grad == other.requires_grad, where
            np.testing.assert_array_equal(one.data, other.data, err_msg=where)
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, err_msg=where)
    elif isinstance(one, dict):
        if where.endswith("/state") and one and not isinstance(next(iter(one)), str):  # keyed by parameters
            assert len(one) == len(other), where
            for (key, value), (other_key, other_value) in zip(one.items(), other.items(), strict=True):
                compare(key, other_key, where)
                compare(value, other_value, where)
            return
        assert list(one) == list(other), where
        for key in one:
            compare(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert type(one) is type(other) and len(one) == len(other), where
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            compare(a, b, f"{where}/{index}")
    else:
        assert one == other and type(one) is type(other), where


def test_what_we_write_loads_where_the_classes_are(tmp_path):
    """In a process with stand-ins of the original's modules and torch's own unpickler."""
    data, record = original("checkpoint_flat32")
    (tmp_path / "checkpoint.pt").write_bytes(dumps(state_from(checkpoint.decode(data, "golden"))))
    library = tmp_path / "lib"
    (library / "models").mkdir(parents=True)
    for folder in (library, library / "models"):
        (folder / "__init__.py").touch()
    (library / "sdes.py").write_text(
        "from torch import nn\nclass PluginReverseSDE(nn.Module): pass\nclass VariancePreservingSDE(nn.Module): pass\n"
    )
    (library / "models" / "unet.py").write_text(
        "from torch import nn\ndef group_norm(c): return nn.GroupNorm(32, c)\n"
        + "".join(
            f"class {name}(nn.Module): pass\n"
            for name in ("UNet", "ResidualBlock", "SelfAttention", "Swish", "TimestepEmbedding")
        )
    )
    program = textwrap.dedent("""
        import json, torch
        sde, optimizer, not_finished, count = torch.load("checkpoint.pt", weights_only=False)
        assert not_finished is True and sde.T is sde.base_sde.T and sde.a.normalize.__name__ == "group_norm"
        group = optimizer.param_groups[0]["params"]
        assert group[0] is sde.T and all(a is b for a, b in zip(group, sde.parameters(), strict=True))
        for parameter in group[1:]:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()  # Adam itself works on
        print(json.dumps([count, len(optimizer.state), [[k, list(v.shape)] for k, v in sde.state_dict().items()]]))
    """)
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert json.loads(result.stdout) == [2, record["optimizer_state_entries"], record["state_dict_keys"]]


def test_formats_become_one_another(tmp_path):
    load_formats()
    data, _ = original("checkpoint_flat32")
    (tmp_path / "original.pt").write_bytes(data)
    own, report = convert(tmp_path / "original.pt", "variational", None)
    assert len(report.copied) == 54
    (tmp_path / "own.pt").write_bytes(own)
    back, _ = convert(tmp_path / "own.pt", "variational_original", None)
    compare(*(loads_objects(one, original_format.CLASSES) for one in (data, back)), "list")
    torch.load(tmp_path / "own.pt", weights_only=True)  # plain containers only


def hostile_zip(payload):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


@pytest.mark.parametrize("where", ["top", "inside"])
def test_code_in_a_file_is_not_run(tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps(Evil(), protocol=2)
    if where == "inside":  # the class of the reverse SDE, with the call as its state
        evil = b"\x80\x02]clib.sdes\nPluginReverseSDE\n)\x81" + evil[2:-1] + b"ba."
    with pytest.raises(CheckpointError, match="not run"):
        checkpoint.decode(hostile_zip(evil), "evil.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x02]clib.sdes\nPluginReverseSDE\n(K\x01t\x81a.",  # an argument for a constructor
        b"\x80\x02]clib.sdes\nPluginReverseSDE\n)\x81K\x01ba.",  # a state that is no dictionary
        b"\x80\x02]clib.sdes\nPluginReverseSDE\n)\x81}b" + b"a.",  # nothing else in the list
        b"\x80\x02clib.sdes\nPluginReverseSDE\n.",
    ],
)
def test_nonsense_of_allowed_names_is_an_error(payload):
    with pytest.raises(CheckpointError):
        checkpoint.decode(hostile_zip(payload), "odd.pt")


@pytest.mark.parametrize("name", ["own", "original"])
def test_truncated_and_damaged_files_are_errors(tmp_path, name):
    data, _ = original("checkpoint_flat32")
    if name == "own":
        data = checkpoint.encode(state_from(checkpoint.decode(data, "golden")))
    rng = np.random.RandomState(0)
    for cut in (0, 3, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(CheckpointError):
            checkpoint.decode(data[:cut], "cut.pt")
    for _ in range(20):
        damaged = bytearray(data)
        damaged[rng.randint(0, 25_000)] ^= 1 << rng.randint(8)
        with contextlib.suppress(CheckpointError):
            checkpoint.decode(bytes(damaged), "damaged.pt")


def test_another_network_is_refused_and_nothing_changed():
    data, _ = original("checkpoint_flat32")
    content = checkpoint.decode(data, "golden")
    settings = content["settings"] | {"network": content["settings"]["network"] | {"num_res_blocks": 1}}
    state = checkpoint.new_state(settings, lr=1e-3, seed=0, device=CPU)
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    with pytest.raises(CheckpointError, match="does not fit the network"):
        checkpoint.restore(state, content, "golden")
    assert all(torch.equal(before[key], value) for key, value in state.model.state_dict().items())


def test_the_previous_checkpoint_takes_over_from_a_damaged_one(tmp_path, caplog):
    data, _ = original("checkpoint_flat32")
    state = state_from(checkpoint.decode(data, "golden"))
    for count in (1, 2, 3):
        state.count = count
        checkpoint.save_run(tmp_path, state)
    assert checkpoint.read_run(tmp_path)[0]["count"] == 3
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-1000])
    assert checkpoint.read_run(tmp_path)[0]["count"] == 2
    assert "trying the one before" in caplog.text
    (tmp_path / "checkpoint-previous.pt").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        checkpoint.read_run(tmp_path)


def test_parameters_that_are_not_finite_are_not_saved(tmp_path):
    data, _ = original("checkpoint_flat32")
    state = state_from(checkpoint.decode(data, "golden"))
    checkpoint.save_run(tmp_path, state)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        next(iter(state.model.a.parameters()))[0] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        checkpoint.save_run(tmp_path, state)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_everything_comes_back(tmp_path):
    """Parameters, moments, averages, random states: bit for bit."""
    settings = {
        "network": {"kind": "mlp", "input_dim": 2},
        "sde": {"T": 0.5},
        "vtype": "gaussian",
        "debias": True,
        "ema_rate": 0.9,
    }
    state = checkpoint.new_state(settings, lr=1e-3, seed=3, device=CPU)
    state.numpy = np.random.RandomState(5)
    state.numpy.standard_normal(3)  # leaves half a pair behind
    for _ in range(3):
        training_step(state, torch.randn(8, 2, generator=state.generators.host))
    state.count, state.pending, state.loss = 3, True, 1.25
    checkpoint.save_run(tmp_path, state)
    content, file = checkpoint.read_run(tmp_path)
    again = checkpoint.new_state(content["settings"], lr=7.0, seed=0, device=CPU)
    again.numpy = np.random.RandomState(0)
    checkpoint.restore(again, content, file)
    assert (again.count, again.pending, again.loss) == (3, True, 1.25)
    assert again.optimizer.param_groups[0]["lr"] == 1e-3
    assert checkpoint.encode(again) == checkpoint.encode(state)
    for one in (state, again):
        one.loss = float(training_step(one, torch.randn(8, 2, generator=one.generators.host)))
    assert state.loss == again.loss
    assert checkpoint.encode(again) == checkpoint.encode(state)
    np.testing.assert_array_equal(state.numpy.standard_normal(5), again.numpy.standard_normal(5))
