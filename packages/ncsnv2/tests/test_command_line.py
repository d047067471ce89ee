"""The original's 39 command lines, in their order: exit status, questions, files, logged steps.

What differs on purpose is listed in ``OURS``; extra files of ours are hidden, ``results.json``, or statistics.
"""

import json
import pickle
import shlex
import shutil
from pathlib import Path

import goldens
import numpy as np
import pytest
import yaml
from ncsnv2_cases import GOLDEN_CONFIGS, write_cifar10
from PIL import Image

from ncsnv2.__main__ import main, parser
from ncsnv2.nearest_neighbours import parser as neighbours_parser
from score_core.checkpoints.pth_format import load_pth
from score_core.runs.program_start import DEFAULT_SEED
from score_core.runs.results import read_results

GOLDEN = goldens.load("ncsnv2", "cli_runs.json")
RUNS = {run["id"]: run for run in GOLDEN["runs"]}
# id: exit status where it is another than the original's, and why.
OURS = {
    "badcfg": 2,  # a wrong command line
    "badverbose": 2,  # the same, and nothing is written
    "resume_missing": 1,  # no run to resume; nothing is written
    "train_notb": 0,  # a missing TensorBoard folder is no failure
    "t_inpaint_bad": 2,  # said before the sampling
    "sample_nockpt": 1,  # failures of a run are failures of the command
    "ens_ema": 2,
}
NO_FILES = {"badverbose", "resume_missing", "t_inpaint_bad"}
ARCHITECTURES = {"NCSN", "NCSNdeeper", "NCSNv2Deeper", "NCSNv2Deepest"}


def test_the_flags_are_the_originals():
    golden = json.loads(goldens.path("ncsnv2", "cli_help.txt").read_text())
    for made, flags in ((parser(), golden["flags"]), (neighbours_parser(), golden["nearest_neighbour_script"])):
        actions = {name: action for action in made._actions for name in action.option_strings}
        for flag in flags:
            action = actions[flag["flag"]]
            assert set(flag.get("aliases", [])) <= set(action.option_strings)
            assert action.required == flag.get("required", False)
            if flag["flag"] == "--seed":
                assert flag["default"] == DEFAULT_SEED  # filled in when it is known whether a run goes on
            elif "default" in flag and not action.required:
                assert action.default == flag["default"], flag
            if flag["type"] == "store_true":
                assert action.nargs == 0


class World:
    """One ``exp`` folder in which the runs happen one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.exp = folder, folder / "exp"
        self.configs = folder / "configs"
        self.configs.mkdir()
        write_cifar10(self.exp)

    def write_config(self, name: str, forced: str | None) -> Path:
        config = {section: dict(keys) for section, keys in GOLDEN_CONFIGS[name].items()}
        config["fast_fid"]["extractor"] = "digits"
        if forced:
            config["model"]["architecture"] = forced
        file = self.configs / f"{forced or 'own'}_{name}"
        file.write_text(yaml.safe_dump(config))
        return file

    def files(self) -> set[str]:
        found = {p.relative_to(self.exp).as_posix() for p in self.exp.rglob("*") if p.is_file()}
        ours = {f for f in found if Path(f).name.startswith((".", "fid_cifar10_")) or f == "results.json"}
        events = "events.out.tfevents."
        return {
            f.partition(events)[0] + events + "*" if events in f else f for f in found - ours if "-batches-" not in f
        }

    def copy_checkpoints(self, doc: str, steps: list[int]) -> None:
        for step in steps:
            shutil.copy(
                self.exp / "logs" / doc / "checkpoint_4.pth", self.exp / "logs" / doc / f"checkpoint_{step}.pth"
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("cli"))


def arguments(world, run):
    words = shlex.split(run["argv"])
    place = words.index("--config") + 1
    if words[place] in GOLDEN_CONFIGS:
        words[place] = str(world.write_config(words[place], run["network_forced"]))
    else:
        words[place] = str(world.configs / words[place])
    return [*words, "--exp", str(world.exp)]


def prepare(world, run_id):
    if run_id == "train_notb":
        shutil.copytree(world.exp / "logs" / "a", world.exp / "logs" / "notb")
    if run_id == "test":
        world.copy_checkpoints("a", [5000, 10000])
    if run_id == "ens":
        world.copy_checkpoints("n", [5000, 10000, 15000])


@pytest.mark.slow
def test_the_original_command_lines_in_their_order(world, capsys, caplog):
    for run_id, run in RUNS.items():
        before_copies = world.files()
        prepare(world, run_id)
        before = world.files()
        asked = []

        def answer(question, run=run, asked=asked):
            asked.append(question)
            return run["answer_on_prompt"] or ""

        caplog.clear()
        capsys.readouterr()
        try:
            status = main(arguments(world, run), answer)
        except SystemExit as stop:
            status = stop.code
        out = capsys.readouterr().out
        after = world.files()
        assert status == OURS.get(run_id, run["exit_code"]), run_id
        if run_id not in OURS:
            # without a terminal a question about FID samples is answered by keeping them; with one it is asked
            assert bool(asked) == run["asked"] or run_id in ("fast_fid_y", "fast_fid_ni"), run_id
            assert ("halted" in out) == run["halted"], run_id
        check_files(run_id, run, before_copies, before, after)
        logged = [int(r.message.split()[1].rstrip(",")) for r in caplog.records if r.message.startswith("step: ")]
        if run_id == "train_notb":
            continue
        if run["logged_steps"]:
            assert list(dict.fromkeys(logged)) == run["logged_steps"], run_id
        tested = [int(r.message.split()[1].rstrip(",")) for r in caplog.records if "average test loss" in r.message]
        assert tested == run["logged_test_ckpts"], run_id
        printed = [int(line.split()[1].rstrip(",")) for line in out.splitlines() if line.startswith("ckpt: ")]
        assert printed == run["printed_fid_ckpts"], run_id
        assert sum(line.startswith("level: ") for line in out.splitlines()) == run["n_sampler_lines"], run_id
        if run_id != "t_inpaint_bad":
            assert sum(line.startswith("class: ") for line in out.splitlines()) == run["n_inpaint_lines"], run_id
    check_contents(world)


def check_files(run_id, run, before_copies, before, after):
    if run_id in NO_FILES:
        assert after == before, run_id
        return
    if run_id == "train_notb":
        return
    # counted from before the copies, as there
    new = after - before_copies
    expected = {f for f in run["new_files"] if f != "datasets/cifar10_fid.npz"}
    if run_id.startswith(("fast_fid", "ens")) and run_id != "ens_ema":
        # samples are numbered on, where the original overwrites those of the round before
        expected |= {f"{f.rpartition('_')[0]}_{k}.png" for f in expected if "sample_0" in f for k in range(8)}
    assert new == expected, run_id
    assert before - after == set(run["removed_files"]), run_id


def check_contents(world):
    for name, facts in GOLDEN["tensors_saved"].items():
        if "t_inpaint_bad" in name:
            continue
        tensor = load_pth(world.exp / name)
        assert list(tensor.shape) == facts["shape"] and tensor.dtype == np.float32, name
        assert tensor.min() >= 0 and tensor.max() <= 1
    for name, facts in GOLDEN["png_saved"].items():
        if "t_inpaint_bad" in name:
            continue
        with Image.open(world.exp / name) as picture:
            assert list(picture.size) == facts["size_wh"] and picture.mode == facts["mode"], name
    fids = pickle.loads((world.exp / "fid_samples" / "ff" / "fids.pickle").read_bytes())
    assert list(fids) == GOLDEN["fids_pickle"]["keys"]
    assert all(isinstance(value, np.float64) and np.isfinite(value) for value in fids.values())
    written = (world.exp / "logs" / "a" / "config.yml").read_text()
    expected = goldens.path("ncsnv2", "config_yml_written_by_training.yml").read_text()
    assert written.replace("  extractor: digits\n", "") == expected
    results = [r for r in read_results(world.exp / "results.json") if r.metric == "fid"]
    assert {r.sample_count for r in results} == {8} and all("biased" in r.details["warning"] for r in results)
    check_tensorboard(world)


def check_tensorboard(world):
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    for doc, starts in goldens.load("ncsnv2", "tensorboard_tags.json").items():
        files = sorted((world.exp / "tensorboard" / doc).iterdir())
        assert len(files) == len(starts)
        for file, tags in zip(files, starts, strict=True):
            found = {}
            for event in EventFileLoader(str(file)).Load():
                for value in event.summary.value:
                    found.setdefault(value.tag, []).append(event.step)
            found = {tag: steps for tag, steps in found.items() if not tag.startswith("samples")}
            for tag, (*_, last) in tags.items():
                # which levels a test batch has is chance
                assert tag.startswith("test_loss_sigma_") or found[tag][-1] == last, (doc, tag)
            assert {t for t in found if "sigma" not in t} == {t for t in tags if "sigma" not in t}
            assert any("sigma" in t for t in found) == any("sigma" in t for t in tags)
