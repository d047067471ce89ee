"""Packages add formats, families and configurations through entry points, and the command finds them."""

import sys

import pytest

from score_core.checkpoints import convert, formats
from score_core.checkpoints.__main__ import main
from score_core.checkpoints.providers import list_configs, load_config
from score_core.errors import UsageError

PACKAGE = """
from score_core.checkpoints.convert import Format, register_bridge, register_format
from score_core.errors import UsageError

CALLS = []

def read(data, config, report, where):
    report.notes.append(f"read with {config}")
    return {"whisper": data.decode()[8:]}

def register():
    CALLS.append("registered")
    speaks = lambda word: lambda tree, config, report: f"{word}{tree['whisper']}".encode()
    recognises = lambda word: lambda data: data.startswith(word)
    register_format("whisper", Format("quiet", recognises(b"whisper:"), read, speaks("whisper:"), True, "whispers"))
    register_format("murmur", Format("low", recognises(b"murmur:"), read, speaks("murmur:"), True, "whispers"))
    register_format("shout", Format("loud", recognises(b"SHOUT:"), read, speaks("SHOUT:"), True, "shouts"))
    register_format("cry", Format("sharp", recognises(b"CRY:"), read, speaks("CRY:"), True, "cries"))
    register_bridge("whispers", "shouts", lambda tree, config, report: {"whisper": tree["whisper"].upper()})

def load(name):
    if name not in names():
        raise UsageError(f"no {name}.")
    return f"configuration {name}"

def names():
    return ["soft", "softer"]
"""

ENTRIES = """
[score_core.checkpoint_formats]
whispering = whispering:register
absent = whispering_without_its_framework:register

[score_core.configs]
whispering = whispering:load

[score_core.config_names]
whispering = whispering:names
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with formats and configurations of its own."""
    site = tmp_path / "site"
    info = site / "whispering-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "whispering.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: whispering\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(formats, "_loaded", set())
    before, bridges = dict(formats.FORMATS), dict(formats._BRIDGES)
    yield site
    for table, old in ((formats.FORMATS, before), (formats._BRIDGES, bridges)):
        table.clear()
        table.update(old)
    monkeypatch.delitem(sys.modules, "whispering", raising=False)


def test_the_command_knows_the_formats_and_configurations_of_every_package(package, tmp_path, capsys):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"whisper: hello")
    for _ in range(2):  # a package registers once
        assert main([str(source), str(target), "--to=murmur", "--config=whispering:soft", "--force"]) == 0
    assert target.read_bytes() == b"murmur: hello"
    out = capsys.readouterr()
    assert "read with configuration soft" in out.out
    assert "the formats of absent are left out (No module named 'whispering_without_its_framework')" in out.err


def test_families_convert_through_bridges_only(package, tmp_path, capsys):
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"whisper: hello")
    assert main([str(source), str(target), "--to=shout", "--config=whispering:soft"]) == 0
    assert target.read_bytes() == b"SHOUT: HELLO"
    for format_ in ("cry", "flax"):
        other = tmp_path / format_
        assert main([str(source), str(other), f"--to={format_}", "--config=whispering:soft"]) == 2
        assert "Formats it can become: whisper, murmur" in capsys.readouterr().err
        assert not other.exists()


def test_configurations_of_other_packages_have_a_prefix(package):
    assert load_config("whispering:softer") == "configuration softer"
    assert load_config("vp/cifar10_ddpmpp").model.name == load_config("score_sde:vp/cifar10_ddpmpp").model.name
    names = list_configs()
    assert names.index("vp/cifar10_ddpmpp") < names.index("whispering:soft")
    with pytest.raises(UsageError, match="Other packages: whispering:soft"):
        load_config("soft")
    with pytest.raises(UsageError, match=r"^no loud\.$"):
        load_config("whispering:loud")


def test_a_name_is_registered_once(package):
    with pytest.raises(ValueError, match="already registered"):
        formats.register_format("pth", convert.FORMATS["pth"])
    formats.register_bridge("one", "other", lambda tree, config, report: tree)
    with pytest.raises(ValueError, match="already registered"):
        formats.register_bridge("one", "other", lambda tree, config, report: tree)
