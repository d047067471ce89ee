"""A damaged checkpoint never does anything but say so: no other exception, no hang, no memory."""

import io
import os
import resource
import signal
import subprocess
import sys
import time

import checkpoint_cases
import goldens
import numpy as np
import pytest
import torch

from score_core.checkpoints import msgpack_format
from score_core.checkpoints.__main__ import main
from score_core.checkpoints.convert import FORMATS, detect_format
from score_core.checkpoints.errors import CheckpointError
from score_core.checkpoints.formats import Report
from score_core.checkpoints.store import read_checkpoint, save_checkpoint
from score_core.checkpoints.tree import flatten
from score_core.errors import UsageError

GOOD = goldens.path("score_sde", "checkpoint_real/checkpoint_1").read_bytes()


def truncations(count):
    rng = np.random.default_rng(1)
    return [GOOD[:size] for size in (*range(64), *rng.integers(64, len(GOOD), count))]


def flips(count):
    """One to eight bytes changed; half of the positions in the structure-rich beginning of the file."""
    rng = np.random.default_rng(2)
    for _ in range(count):
        damaged = bytearray(GOOD)
        end = len(GOOD) if rng.random() < 0.5 else 3000
        for position in rng.integers(0, end, rng.integers(1, 9)):
            damaged[position] ^= int(rng.integers(1, 256))
        yield bytes(damaged)


def test_every_truncation_is_refused():
    for data in truncations(300):
        with pytest.raises(CheckpointError):
            msgpack_format.loads(data)


def test_changed_bytes_give_a_tree_or_a_checkpoint_error():
    refused = 0
    for data in flips(600):
        try:
            tree = msgpack_format.loads(data)
        except CheckpointError:
            refused += 1
        else:
            assert isinstance(tree, dict)
    # Changes inside array bytes cannot show in the format: that is what the checksum is for.
    assert 100 < refused < 600


def test_random_bytes_give_a_tree_or_a_checkpoint_error():
    rng = np.random.default_rng(3)
    for _ in range(2000):
        data = b"\x81\xa1a" + rng.bytes(int(rng.integers(1, 40)))
        try:
            msgpack_format.loads(data)
        except CheckpointError:
            continue


def test_with_a_checksum_every_damage_is_found(tmp_path):
    path = save_checkpoint(tmp_path, GOOD, 1)
    assert read_checkpoint(path) == GOOD
    for data in [*truncations(60), *flips(60), GOOD + b"\0", GOOD[:-1] + bytes([GOOD[-1] ^ 1])]:
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="checkpoint_1 is damaged"):
            read_checkpoint(path)


BOMB = """
import resource, sys
from score_core.checkpoints import msgpack_format
from score_core.checkpoints.errors import CheckpointError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
filler = b"\\xc0" * 3_000_000
for header in (b"\\xdc\\x04\\x00", b"\\xde\\x40\\x00\\xa1a"):
    try:
        msgpack_format.loads(b"\\x81\\xa1a" + header * 1000 + filler)
    except CheckpointError:
        pass
    else:
        raise SystemExit("accepted")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_nested_declarations_of_long_lists_and_maps_take_no_memory():
    run = subprocess.run([sys.executable, "-c", BOMB], capture_output=True, text=True, timeout=60, check=True)
    assert int(run.stdout) < 60 * 1024  # KiB; the declared entries would take gigabytes


SMALLEST = {
    "data.image_size": 8,
    "model.nf": 4,
    "model.ch_mult": (1,),
    "model.num_res_blocks": 1,
    "model.attn_resolutions": (),
    "model.num_scales": 3,
}


@pytest.fixture(scope="module")
def smallest():
    """A configuration, its training state, and one file of it in every form: tag -> bytes."""
    config = checkpoint_cases.config_of("vp/cifar10_ddpmpp_continuous", SMALLEST)
    tree = checkpoint_cases.state(config)
    files = {name: FORMATS[name].write(tree, config, Report()) for name in ("flax", "safetensors", "pth")}
    old = io.BytesIO()
    torch.save(torch.load(io.BytesIO(files["pth"]), weights_only=True), old, _use_new_zipfile_serialization=False)
    files["pth, old"] = old.getvalue()
    weights = {"params": tree["params_ema"], "meta": {"flavor": "jax"}}
    files["weights"] = FORMATS["safetensors"].write(weights, config, Report())
    files["pth weights"] = FORMATS["pth"].write(weights, config, Report())
    return config, tree, files


def mutations(data, count, seed):
    """Flipped bytes, cut and moved pieces, extreme lengths; half of the places in the structure-rich beginning."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        damaged = bytearray(data)
        end = len(data) if rng.random() < 0.5 else min(len(data), 3000)
        place = int(rng.integers(0, end))
        match rng.integers(0, 6):
            case 0 | 1:
                for position in rng.integers(0, end, rng.integers(1, 9)):
                    damaged[position] ^= int(rng.integers(1, 256))
            case 2:
                del damaged[place:]
            case 3:
                del damaged[place : place + int(rng.integers(1, 64))]
            case 4:
                damaged[place:place] = damaged[: int(rng.integers(1, 64))]
            case _:
                damaged[place : place + 4] = bytes([(0, 255, 127, 128)[int(rng.integers(0, 4))]] * 4)
        yield bytes(damaged)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_refused_or_read_correctly(smallest):
    """Every loader, names and numbers checked: one of two errors or a whole state; no hang, no memory."""
    config, tree, files = smallest
    names = {name: np.shape(value) for name, value in flatten(tree).items()}
    alone = {f"params/{name}": np.shape(value) for name, value in flatten(tree["params_ema"]).items()}
    counts = {"flax": 3500, "weights": 3500, "pth weights": 1500, "safetensors": 800, "pth": 350, "pth, old": 350}
    assert sum(counts.values()) == 10_000
    outcomes = {tag: [0, 0] for tag in counts}
    longest, before = 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def too_long(*_):
        raise AssertionError("a mutated file took more than five seconds")

    previous = signal.signal(signal.SIGALRM, too_long)
    try:
        for seed, (tag, count) in enumerate(counts.items()):
            for data in mutations(files[tag], count, seed):
                signal.setitimer(signal.ITIMER_REAL, 5.0)
                begin = time.process_time()
                try:
                    name = detect_format(data)
                    read = FORMATS[name].read(data, config, Report(), "the file")
                except (CheckpointError, UsageError) as error:
                    assert str(error).isprintable()
                    outcomes[tag][0] += 1
                else:
                    found = {key: np.shape(value) for key, value in flatten(read).items()}
                    found.pop("meta/flavor")
                    whole = {key: shape for key, shape in names.items() if key != "meta/flavor"}
                    assert found in (whole, alone)
                    outcomes[tag][1] += 1
                longest = max(longest, time.process_time() - begin)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert longest < 2.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB
    for tag, (refused, accepted) in outcomes.items():
        assert refused > 0.2 * counts[tag], tag
        # damage inside an array's numbers cannot show, except that archives of PyTorch have checksums
        assert accepted > (0 if tag.startswith("pth") else 0.05 * counts[tag]), tag


def test_every_file_itself_is_read(smallest):
    config, tree, files = smallest
    for data in files.values():
        read = FORMATS[detect_format(data)].read(data, config, Report(), "the file")
        one_set = read["params"] if "params" in read else read["params_ema"]
        for name, value in flatten(one_set).items():
            np.testing.assert_array_equal(value, flatten(tree["params_ema"])[name])


class Attack:
    """What a pickle would run."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["root", "model", "optimizer", "step"])
def test_code_in_a_pickle_is_refused_and_not_run(place, zipped, smallest, tmp_path, capsys):
    marker, file = tmp_path / "executed", tmp_path / "checkpoint_1.pth"
    content = {"optimizer": {}, "model": {}, "ema": {}, "step": 0}
    hostile = Attack(marker) if place == "root" else content | {place: Attack(marker)}
    torch.save(hostile, file, _use_new_zipfile_serialization=zipped)
    config = checkpoint_cases.config_file(tmp_path, "vp/cifar10_ddpmpp_continuous", SMALLEST)
    actions = [["--inspect"], ["--identify"], [str(tmp_path / "out"), "--to=flax"]]
    for action in actions:
        assert main([str(file), *action, f"--config={config}"]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("error:") == 1
        assert "which is code and was not run" in error
    assert not marker.exists() and not (tmp_path / "out").exists()


def test_code_in_a_diffusers_folder_is_refused_and_not_run(tmp_path, capsys):
    marker, folder = tmp_path / "executed", tmp_path / "hf"
    (folder / "unet").mkdir(parents=True)
    torch.save({"conv_in.weight": Attack(marker)}, folder / "unet" / "diffusion_pytorch_model.bin")
    (folder / "unet" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    assert main([str(folder), "--identify"]) == 1
    assert "which is code and was not run" in capsys.readouterr().err
    arguments = [str(folder), str(tmp_path / "out"), "--to=flax", "--config=ve/church_ncsnpp_continuous"]
    assert main([*arguments, "--weights=raw"]) == 1
    assert "which is code and was not run" in capsys.readouterr().err
    assert not marker.exists() and not (tmp_path / "out").exists()


def test_nested_and_oversized_headers_are_errors(smallest, tmp_path, capsys):
    _, _, files = smallest
    deep = b"[" * 200_000
    header = b'{"a":' + deep
    cases = {
        "deep": len(header).to_bytes(8, "little") + header + b"0" * 10,
        "long": (2**62).to_bytes(8, "little") + files["safetensors"][8:],
        "negative": files["safetensors"][:8] + files["safetensors"][8:].replace(b'"shape":[4', b'"shape":[-4', 1),
        "empty": b"",
        "zip without a pickle": b"PK\x05\x06" + bytes(18),
    }
    for name, data in cases.items():
        file = tmp_path / name
        file.write_bytes(data)
        for action in ("--inspect", "--identify"):
            assert main([str(file), action]) in (1, 2), name
            assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "[1]", '{"model": 3}', '{"model": {"name": 3}}', "\udc80"])
def test_a_damaged_configuration_beside_a_file_is_an_error(text, smallest, tmp_path, capsys):
    _, tree, _ = smallest
    file = tmp_path / "a.safetensors"
    file.write_bytes(FORMATS["safetensors"].write(tree, None, Report()))
    file.with_suffix(".json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main([str(file), str(tmp_path / "out"), "--to=pth"]) in (1, 2)
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()
