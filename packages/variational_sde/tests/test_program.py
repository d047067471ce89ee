"""The command line and what a run leaves behind, against the original's; resuming, stopping, wrong input."""

import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys

import goldens
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
from variational_golden import PACKAGE, golden

from score_core.runs.history import read_history
from score_core.runs.results import read_results
from variational_sde import flags
from variational_sde.__main__ import main
from variational_sde.experiment import network_options, run_folder
from variational_sde.torch import checkpoint
from variational_sde.torch.unet import UNet

RECORD = json.loads(goldens.path(PACKAGE, "cli_help.txt").read_text())
TINY = ["--dataset=digits", "--image_size=8", "--ch_mult=1", "--num_res_blocks=0", "--num_steps=2"]


def parse(*arguments):
    return flags.training_parser().parse_args(arguments)


def run(folder, *arguments, **overrides):
    """A tiny run; the folder it went to."""
    values = {"num_iterations": 5, "print_every": 2, "sample_every": 3, "checkpoint_every": 2, "batch_size": 16}
    given = [f"--{name}={value}" for name, value in (values | overrides).items()]
    assert main([*TINY, f"--saveroot={folder}", *given, *arguments]) == 0
    (path,) = (folder / "sde-flow").glob("*/*")
    return path


def test_flags_are_the_originals():
    parsed = vars(parse())
    for flag in RECORD["flags"]:
        assert parsed[flag["flag"][2:]] == flag["default"], flag
    assert [flag["flag"][2:] for flag in RECORD["flags"]] == list(flags.ORIGINAL)
    assert parse("--datas", "cifar", "--lr=1e-5").dataset == "cifar"  # prefixes and both ways of giving a value


@pytest.mark.parametrize("name", ["mnist", "cifar"])
def test_defaults_and_folders(name):
    record = golden("configs.json")[f"train_img/{name}"]
    args = parse("--dataset", name)
    assert {key: getattr(args, key) for key in flags.ORIGINAL} == record["args"]
    assert str(run_folder(args)) == os.path.expanduser(record["folder"])  # the original makes a folder called ~
    options = network_options(args)
    expected = {k: tuple(v) if isinstance(v, list) else v for k, v in record["model"].items() if k != "name"}
    assert options | {"resamp_with_conv": True} == expected


def test_the_readmes_command():
    command = (
        "--dataset=cifar --print_every=2000 --sample_every=2000 --checkpoint_every=2000 --num_steps=1000 "
        "--batch_size=128 --lr=0.0001 --num_iterations=100000 --real=True --debias=True"
    )
    args = parse(*command.split(), "--saveroot=out", "--expname=e")
    assert str(run_folder(args)) == "out/sde-flow/e/cifar-True-True-128-0.0001-100000"
    assert run_folder(parse("--lr=1e-5", "--real=1", "--saveroot=o")).name == "mnist-1-False-64-1e-05-10000"


@pytest.mark.parametrize("word", ["yes", "None", "2", "'True'", "TRUE", "", "__import__('os')"])
def test_a_boolean_that_is_none_is_refused(word, capsys):
    with pytest.raises(SystemExit) as error:
        parse(f"--debias={word}")
    assert error.value.code == 2
    assert "is neither True nor False" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dataset=svhn"],
        ["--vtype=cauchy"],
        ["--batch_size=0"],
        ["--lr=-1"],
        ["--T0=nan"],
        ["--lmbd=1.5"],
        ["--nosuchflag=1"],
        ["--num_steps=3.5"],
    ],
)
def test_wrong_values_end_with_status_2(arguments):
    with pytest.raises(SystemExit) as error:
        parse(*arguments)
    assert error.value.code == 2


@pytest.mark.parametrize(("dataset", "words"), [("mnist", "t10k-images-idx3-ubyte"), ("cifar", "cifar-10-python")])
def test_a_missing_data_set_says_what_to_do(tmp_path, capsys, dataset, words):
    status = main([f"--dataset={dataset}", f"--dataroot={tmp_path}", f"--saveroot={tmp_path / 'out'}"])
    message = capsys.readouterr().err
    assert status == 2
    assert words in message and "--download=True" in message and "--dataset=digits" in message
    assert "config.data" not in message
    assert not (tmp_path / "out").exists()


def write_mnist(root, n=24):
    """Files of MNIST's format with random images, below ``root/MNIST/raw``."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.RandomState(0)
    for split in ("train", "t10k"):
        images = rng.randint(0, 256, (n, 28, 28)).astype(np.uint8)
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, n, 28, 28) + images.tobytes())
        )
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, n) + bytes(n))


@pytest.mark.slow
def test_debias_on_mnist_verbatim(tmp_path, monkeypatch):
    """``python -m variational_sde --debias True`` in a home that has MNIST; stopped in its first sample grid."""
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mnist(tmp_path / ".datasets")
    line = [sys.executable, "-m", "variational_sde", "--debias", "True"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert re.search(r"^\S+ \S+\tfolder path: ", process.stdout.readline())
    assert "debias=True" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 143, errors[-2000:]
    folder = tmp_path / ".saved/sde-flow/default/mnist-True-True-64-0.0001-10000"
    assert json.loads((folder / "args.txt").read_text())["debias"] is True


def test_training_on_mnist(tmp_path, capsys):
    """Its own network on files of its format, with one update."""
    write_mnist(tmp_path)
    arguments = ["--num_iterations=1", "--num_steps=1", "--batch_size=4", f"--dataroot={tmp_path}"]
    assert main(["--debias", "True", f"--saveroot={tmp_path}", *arguments]) == 0
    assert "Iteration 1 \tBPD" in capsys.readouterr().out
    content, _ = checkpoint.read_run(tmp_path / "sde-flow/default/mnist-True-True-4-0.0001-1")
    assert content["settings"]["debias"] is True and content["settings"]["network"]["input_height"] == 28


def events(file):
    found = []
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            kind = "image" if value.metadata.plugin_data.plugin_name == "images" else "scalar"
            found.append((value.tag, event.step, kind, tensor_util.make_ndarray(value.tensor)))
    return found


def test_the_layout_of_a_run_and_of_its_second_start(tmp_path):
    """The recorded run of the original: same flags, and everything it wrote."""
    record = golden("run_layout.json")["mnist"]
    folder = run(tmp_path, expname="first", test_batch_size=16)
    again = run(tmp_path, expname="first", test_batch_size=16)
    assert folder == again == tmp_path / "sde-flow/first/digits-True-False-16-0.0001-5"
    names = {re.sub(r"tfevents\..*", "tfevents.<unix time>.<host>", file.name) for file in folder.iterdir()}
    assert set(record["files"]) <= names
    expected = record["args_txt_raw"].replace('"mnist"', '"digits"').replace('"num_steps": 3', '"num_steps": 2')
    assert (folder / "args.txt").read_text() == expected.replace('"out"', json.dumps(str(tmp_path)))
    lines = [line.split("\t", 1) for line in (folder / "log.txt").read_text().splitlines()]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{6})?", time) for time, _ in lines)

    def kind(message):
        return re.sub(r"(BPD|folder path:|Namespace).*", r"\1", message)

    assert [kind(m) for _, m in lines] == [kind(m) for m in record["log_lines_after_timestamp_and_tab"]]
    starts = sorted(folder.glob("events.out.tfevents.*"))
    assert len(starts) == 2
    first, second = (events(file) for file in starts)
    wanted = [(e["tag"], e["step"], "image" if "image" in e else "scalar") for e in record["events_per_start"][0]]
    assert [event[:3] for event in first] == wanted
    assert second == []
    image = next(value for tag, _, _, value in first if tag == "samples")
    assert [int(number) for number in image[:2]] == [32, 32]  # 4 x 4 images of 8 pixels
    values = {(tag, step): float(value) for tag, step, kind, value in first if kind == "scalar"}
    printed = {int(m.split()[1]): float(m.split()[-1]) for _, m in lines if m.startswith("Iteration")}
    rows = read_history(folder / "history.csv")
    assert [row.step for row in rows] == [1, 2, 4]
    results = [r for r in read_results(folder / "results.json") if r.metric == "bpd"]
    for row, result in zip(rows, results, strict=True):
        assert values["bpd", row.step] == pytest.approx(printed[row.step]) == pytest.approx(result.value)
        assert values["bpd_std_err", row.step] == pytest.approx(result.standard_error)
        assert values["loss", row.step] == pytest.approx(row.training_loss)
        assert (result.sample_count, result.checkpoint_step) == (180, row.step)


def test_the_last_iteration_without_a_checkpoint_as_in_the_original(tmp_path):
    folder = run(tmp_path, final_checkpoint=False)
    assert checkpoint.read_run(folder)[0]["count"] == 4


def test_flags_that_the_folder_does_not_name_are_compared(tmp_path, capsys):
    run(tmp_path)
    arguments = [*TINY, f"--saveroot={tmp_path}", "--num_iterations=5", "--batch_size=16"]
    assert main([*arguments, "--T0=0.5"]) == 2
    assert "T0: 1.0 -> 0.5" in capsys.readouterr().err
    assert main([*arguments, "--print_every=3", "--num_steps=4"]) == 0


def same_states(one, other):
    return (one / "checkpoint.pt").read_bytes() == (other / "checkpoint.pt").read_bytes()


OPTIONS = {"num_iterations": 14, "print_every": 3, "checkpoint_every": 2, "debias": True, "ema_rate": 0.9}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that was never stopped."""
    return run(tmp_path_factory.mktemp("straight"), **OPTIONS)


def command(folder):
    values = {"sample_every": 3, "batch_size": 16} | OPTIONS
    flags_given = [f"--{name}={value}" for name, value in values.items()]
    return [sys.executable, "-m", "variational_sde", *TINY, f"--saveroot={folder}", *flags_given]


def life(folder, marker, number, signal_number):
    """One start that is ended once ``number`` lines with ``marker`` came."""
    process = subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    seen = 0
    for line in process.stdout:
        seen += marker in line
        if seen == number:
            process.send_signal(signal_number)
            break
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_runs_end_with_the_numbers_of_one_that_was_not(tmp_path, straight):
    for number in (1, 2, 1):
        status, errors = life(tmp_path, "BPD", number, signal.SIGKILL)
        assert status in (0, -signal.SIGKILL), errors
    folder = run(tmp_path, **OPTIONS)
    assert same_states(straight, folder)
    one, other = (read_history(path / "history.csv") for path in (straight, folder))
    assert [row[:3] for row in one] == [row[:3] for row in other]
    values = [{r.checkpoint_step: r.value for r in read_results(path / "results.json")} for path in (straight, folder)]
    assert values[0] == values[1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_saves_and_resumes_to_the_same_numbers(tmp_path, straight, number, status):
    found, errors = life(tmp_path, "BPD", 1, number)
    assert found == status, errors
    assert "finishing the step and saving" in errors
    (folder,) = (tmp_path / "sde-flow").glob("*/*")
    assert checkpoint.read_run(folder)[0]["count"] < 14
    assert same_states(straight, run(tmp_path, **OPTIONS))


def test_a_run_stopped_inside_an_evaluation_finishes_it_first(tmp_path, straight, monkeypatch):
    from variational_sde.torch import training

    whole, calls = training.bound_bpd, []

    def stopped(*args, **options):
        calls.append(options["stream"])
        if options["stream"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return whole(*args, **options)

    monkeypatch.setattr(training, "bound_bpd", stopped)
    with pytest.raises(SystemExit) as error:
        run(tmp_path, **OPTIONS)
    assert error.value.code == 143
    (folder,) = (tmp_path / "sde-flow").glob("*/*")
    content, _ = checkpoint.read_run(folder)
    assert (content["count"], content["pending"]) == (6, True)
    monkeypatch.setattr(training, "bound_bpd", whole)
    assert same_states(straight, run(tmp_path, **OPTIONS))
    assert [row[:3] for row in read_history(folder / "history.csv")] == [
        row[:3] for row in read_history(straight / "history.csv")
    ]


def test_the_cadences_do_not_change_the_numbers(tmp_path, straight):
    other = run(tmp_path, **OPTIONS | {"print_every": 100, "sample_every": 1, "checkpoint_every": 5})
    one, two = (checkpoint.read_run(path)[0] for path in (straight, other))
    for key, value in one["model"].items():
        np.testing.assert_array_equal(value, two["model"][key])


def test_a_checkpoint_of_the_original_is_continued_and_kept(tmp_path, capsys, caplog):
    """The original's form in the folder of a run, with other betas, T and probe than the flags ask for."""
    source = run(tmp_path / "source", original_checkpoint=True, T0=0.5, vtype="gaussian")
    original = (source / "checkpoint_original.pt").read_bytes()
    folder = tmp_path / "out/sde-flow/default/digits-True-False-16-0.0001-9"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(original)
    args = json.loads((source / "args.txt").read_text())
    (folder / "args.txt").write_text(json.dumps(args))
    run(tmp_path / "out", num_iterations=9)
    assert (folder / "checkpoint_original.pt").read_bytes() == original
    content, _ = checkpoint.read_run(folder)
    assert content["count"] == 9
    assert (content["settings"]["sde"]["T"], content["settings"]["vtype"]) == (0.5, "gaussian")
    messages = capsys.readouterr().err
    assert "its checkpoint decides" in messages and "the checkpoint's is used" in messages


def test_evaluation_and_samples_of_a_checkpoint(tmp_path, straight, capsys):
    assert main(["eval", str(straight), "--repeats=2", "--num_images=6", "--ode=True", "--tolerance=0.01"]) == 0
    output = capsys.readouterr().out
    assert "ode_bpd: " in output and "(6 images)" in output
    results = {r.metric: r for r in read_results(straight / "results.json") if r.sample_count == 6}
    assert set(results) == {"bpd", "ode_bpd"} and all(r.standard_error > 0 and r.ema for r in results.values())
    # the bound is below the likelihood, so its bits are above
    error = np.hypot(results["bpd"].standard_error, results["ode_bpd"].standard_error)
    assert results["bpd"].value + 4 * error > results["ode_bpd"].value

    arguments = ["--n=2", "--num_steps=3", f"--output={tmp_path}"]
    assert main(["sample", str(straight), *arguments, "--lmbd=-0.5"]) == 0
    images = np.load(tmp_path / "samples.npz")["samples"]
    assert images.shape == (4, 8, 8, 1) and images.min() >= 0 and images.max() <= 1
    assert (tmp_path / "grid.png").exists()
    assert main(["sample", str(straight / "checkpoint.pt"), *arguments, "--adaptive=True"]) == 0
    assert main(["eval", str(tmp_path)]) == 1
    assert "there is no checkpoint.pt" in capsys.readouterr().err
    (tmp_path / "checkpoint.pt").write_bytes((straight / "checkpoint.pt").read_bytes()[:5000])
    assert main(["sample", str(tmp_path), *arguments]) == 1
    assert "damaged" in capsys.readouterr().err


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, capsys):
    folder = run(tmp_path)
    before = (folder / "checkpoint.pt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("score_core.checkpoints.atomic._replace", full)
    status = main([*TINY, f"--saveroot={tmp_path}", "--num_iterations=5", "--batch_size=16", "--expname=other"])
    assert status == 1
    assert "No space left on device" in capsys.readouterr().err
    assert (folder / "checkpoint.pt").read_bytes() == before


def test_divergence_is_said_and_nothing_spoilt(tmp_path, capsys):
    arguments = [*TINY, f"--saveroot={tmp_path}", "--num_iterations=9", "--batch_size=16", "--print_every=1"]
    assert main([*arguments, "--lr=1e30"]) == 1
    assert "diverged" in capsys.readouterr().err


def test_a_network_that_does_not_fit_is_refused(tmp_path, capsys):
    assert main([*TINY, f"--saveroot={tmp_path}", "--ch=48"]) == 1
    assert "multiples of 32" in capsys.readouterr().err
    assert main(["--dataset=mnist", "--image_size=32", f"--saveroot={tmp_path}"]) == 2
    assert "mnist has 28 pixels" in capsys.readouterr().err
    assert main([*TINY, f"--saveroot={tmp_path}", "--device=nosuch"]) == 2


def test_the_demonstration_network_runs():
    """256 pixels: the third network of the original, one image at time 0, on the meta device (shapes only)."""
    with torch.device("meta"):
        network = UNet(3, 256, 128, ch_mult=(1, 1, 2, 2, 4, 4))
        out = network(torch.zeros(1, 3, 256, 256), torch.zeros(1))
    assert out.shape == (1, 3, 256, 256)
    assert sum(p.numel() for p in network.parameters()) == 113_673_219


@pytest.mark.parametrize("dataset", ["photos", "digits"])
def test_embedded_data_sets_have_networks(dataset):
    with torch.device("meta"):
        network = UNet(**network_options(parse(f"--dataset={dataset}")))
        shape = (2, network.input_channels, network.input_height, network.input_height)
        assert network(torch.zeros(shape), torch.zeros(2)).shape == shape
