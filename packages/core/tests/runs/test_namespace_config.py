"""YAML with namespaces: read safely, written as the originals wrote it."""

from argparse import Namespace

import pytest

from score_core.errors import UsageError
from score_core.runs.namespace_config import (
    dump_namespace,
    find_config,
    load_namespace,
    missing_keys,
    parse_namespace,
    to_dict,
    to_namespace,
)

TAGGED = """\
!!python/object:argparse.Namespace
data: !!python/object:argparse.Namespace
  dataset: MNIST
  sizes:
  - 1
  - 2
optim: !!python/object:argparse.Namespace
  amsgrad: false
  eps: 1.0e-08
  lr: 0.001
"""


def test_tagged_text_there_and_back():
    config = parse_namespace(TAGGED)
    assert config.optim.eps == 1e-8 and config.optim.amsgrad is False and config.data.sizes == [1, 2]
    assert dump_namespace(config) == TAGGED


def test_a_mapping_at_the_top_has_no_tag_but_its_sections_do():
    text = dump_namespace({"device": "cpu", "data": Namespace(size=3)})
    assert text == "data: !!python/object:argparse.Namespace\n  size: 3\ndevice: cpu\n"


def test_plain_text_and_numbers_without_a_point():
    config = parse_namespace("optim:\n  lr: 1e-3\n  eps: 1E-8\n  name: 1e\ntraining: {n: 10, p: 2.0}\n")
    assert config.optim.lr == 1e-3 and config.optim.eps == 1e-8 and config.optim.name == "1e"
    assert config.training.n == 10 and isinstance(config.training.p, float)
    assert to_namespace(to_dict(config)) == config


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['echo hello']",
        "a: !!python/object:os.system {}",
        "a: !!python/name:os.system",
        "- 1\n- 2",
        "a: [1",
        "just words",
        "",
        "a: !!python/object:argparse.Namespace [1]",
    ],
)
def test_anything_else_is_refused(tmp_path, text):
    file = tmp_path / "config.yml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"config\.yml"):
        load_namespace(file)


def test_finding_a_configuration(tmp_path, monkeypatch):
    packaged, here = tmp_path / "packaged", tmp_path / "here"
    (here / "configs").mkdir(parents=True)
    packaged.mkdir()
    for folder in (packaged, here / "configs"):
        (folder / "both.yml").write_text("a: {}")
    (packaged / "one.yml").write_text("a: {}")
    monkeypatch.chdir(here)
    assert find_config("one", packaged) == packaged / "one.yml"
    assert find_config("both.yml", packaged).parts[0] == "configs"
    assert find_config(str(packaged / "one.yml"), packaged) == packaged / "one.yml"
    with pytest.raises(UsageError, match=r"both\.yml, one\.yml"):
        find_config("two.yml", packaged)


def test_missing_keys():
    config = parse_namespace(TAGGED)
    assert missing_keys(config, ["optim.lr", "optim.beta1", "model.ngf", "optim.lr.x"]) == [
        "optim.beta1",
        "model.ngf",
        "optim.lr.x",
    ]
