"""The documentation is true: its commands exist and take their flags, its examples run, its links lead somewhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import doc_pages
import goldens
import pytest
import yaml
from doc_pages import BadCommandError, blocks, check

ROOT = goldens.ROOT
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "packages").glob("*/README.md")),
]
# Pages with blocks that are run; a page's blocks see the files of those before.
RUN = [page for page in PAGES if any(block.language in ("bash", "python") for block in blocks(page))]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def run(command, folder):
    """Runs a shell command in ``folder``, with the programs of this environment."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
        check=False,
    )
    assert result.returncode == 0, f"$ {command}\n{result.stdout[-4000:]}"
    return result.stdout


def shortened(command, flags):
    return f"{command} {flags}" if command.startswith("python -m") and flags else command


def work_through(page, folder):
    """Does what a reader of the page does, in ``folder``; yields what was not done, with the reason."""
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            file = re.match(r"# ([\w/]+\.(py|yaml))\n", block.text)
            program = folder / (file[1] if file else f"block_{block.line}.py")
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(block.text + "\n")
            if block.not_run:
                compile(block.text, where, "exec")
                yield f"{where}: Python compiled, not run: {block.not_run}"
            elif not file:
                run(f"python {program.name}", folder)
        elif block.language == "yaml":
            file = re.match(r"# ([\w/]+\.yaml)\n", block.text)
            assert file, f"{where}: the first line of a YAML block names its file"
            (folder / file[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / file[1]).write_text(block.text + "\n")
        for command in block.commands if block.language in ("", "bash") else []:
            if block.language == "bash" and not block.not_run:
                run(shortened(command, re.sub(r"(\S+)", lambda m: f"'{m[1]}'", block.flags)), folder)
                continue
            try:
                unchecked = check(command)
            except BadCommandError as error:
                pytest.fail(f"{where}: {command}\n{error}")
            if unchecked or block.not_run:
                yield f"{where}: {command}\n    not run: {block.not_run or 'not ours'}; {unchecked or 'flags parsed'}"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in RUN], ids=name_of)
def test_commands_are_taken_by_their_programs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in work_through(page, tmp_path):
        print(line)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_examples_run(page, tmp_path, monkeypatch):
    """A fresh folder a page; what is not run is parsed, and said with the reason (pytest -rP)."""
    monkeypatch.chdir(tmp_path)
    for line in work_through(page, tmp_path):
        print(line)


def test_commands_of_the_workflow_engine_are_taken_by_it():
    """All in one process of snakemake's environment; targets must be rules of ci/Snakefile."""
    commands = [c for page in PAGES for block in blocks(page) for c in block.commands if c.startswith("uvx ")]
    assert commands
    uv = shutil.which("uv")
    assert uv, "uv is needed for this test: pip install uv"
    reader = (
        "import json, sys; from snakemake.cli import parse_args; "
        "print(json.dumps([parse_args(a)[1].targets for a in json.load(sys.stdin)]))"
    )
    result = subprocess.run(
        [
            uv,
            "tool",
            "run",
            "--with-requirements",
            "ci/requirements.txt",
            "--from",
            "snakemake",
            "python",
            "-c",
            reader,
        ],
        input=json.dumps([doc_pages.engine_arguments(command) for command in commands]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    from score_core.repro import workflow
    from score_core.repro.tables import load_all

    known = {"embedded", "page", *workflow.graph(load_all(), workflow.Settings())}
    for command, targets in zip(commands, json.loads(result.stdout), strict=True):
        assert set(targets) <= known, f"{command}: no target {set(targets) - known}"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("python -m score_sde --workdri=DIR", "workdri"),
        ("python -m score_sde --config=vp/cifar11", "cifar11"),
        ("python -m score_sde --config.training.n_itres=5", "n_itres"),
        ("python -m score_sde leftover", "leftover"),
        ("python -m score_flow_hdsm --mode=evaluate", "evaluate"),
        ("python -m ncsn --doc a --tset", "--tset"),
        ("python -m ncsn.tyo figure3", "tyo"),
        ("python -m variational_sde sample RUN --lambda=1", "--lambda"),
        ("repro rnu ncsn/figure3", "rnu"),
        ("repro run ncsn/figure33", "ncsn/figure33"),
        ("score-convert RUN x --too pth", "--too"),
        ("torchrun --nproc-per-nod 4 -m score_sde --framework=trch", "trch"),
        ("srun --gpus=1 python -m score_sde --mode=evl", "evl"),
        ("uv run --package ncsn python -m ncsn --docc a", "docc"),
        ("python benchmarks/no_such_file.py", "no_such_file"),
        ("score-convrt RUN", "no program"),
    ],
)
def test_a_wrong_command_is_found(command, message):
    with pytest.raises(BadCommandError, match=re.escape(message)):
        check(command)


def test_a_command_that_fails_and_a_wrong_directive_are_found(tmp_path):
    page = ROOT / "docs" / "wrong.md"
    good = "```bash\necho one\n```\n"
    for text in (
        good.replace("echo one", "false"),
        "<!-- test: dont run -->\n" + good,
        "<!-- test: with -->\ntext\n" + good,
    ):
        copy = tmp_path / page.name
        copy.write_text(text)
        with pytest.raises(AssertionError):
            [run(command, tmp_path) for block in blocks(copy) for command in block.commands]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    """Also to headings of pages, as a reader's browser makes anchors of them."""
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, f"{name_of(page)} links to {target}"


def test_settings_of_the_cluster_page_are_settings():
    from score_core.repro.tables import find_row, load_all

    known = yaml.safe_load((ROOT / "ci" / "config.yaml").read_text())
    (example,) = [block for block in blocks(ROOT / "docs" / "cluster.md") if block.language == "yaml"]
    settings = yaml.safe_load(example.text)
    assert settings.keys() <= known.keys()
    for row_id, row in settings["rows"].items():
        find_row(load_all(), row_id)
        assert row.keys() <= {"checkpoint", "train", *known["resources"]}


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index, f"docs/README.md does not list {page.name}"
