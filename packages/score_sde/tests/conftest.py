"""Tiny trained work directories, made once a test process."""

import shutil

import experiments
import pytest

from score_sde.__main__ import main


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert main([f"--workdir={folder}", *experiments.tiny_flags()]) == 0
    return folder


@pytest.fixture
def trained(_trained, tmp_path):
    """A copy of a finished tiny training run, the test's to spoil."""
    return shutil.copytree(_trained, tmp_path / "run")


@pytest.fixture(scope="session")
def _trained_in_torch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained_in_torch") / "run"
    assert main([f"--workdir={folder}", "--framework=torch", *experiments.tiny_flags()]) == 0
    return folder


@pytest.fixture
def trained_in_torch(_trained_in_torch, tmp_path):
    """The same run in PyTorch."""
    return shutil.copytree(_trained_in_torch, tmp_path / "torch")
