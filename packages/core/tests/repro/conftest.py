"""A small experiment and a finished run of it."""

from pathlib import Path
from typing import Any

import pytest

from score_core.repro.runner import Attempt, RunRecord
from score_core.repro.schema import Experiment, parse_rows
from score_core.runs.results import Result, add_results

EXTRACTOR = "digits:0123abcd"


@pytest.fixture
def raw() -> dict[str, Any]:
    """An experiment as a table file has it."""
    common = {"direction": "band", "source": "ten seeds"}
    return {
        "id": "score_sde/tiny",
        "kind": "experiment",
        "title": "Tiny & <quick>",
        "description": "Trains for a moment.",
        "paper": "Score-Based Generative Modeling through Stochastic Differential Equations (ICLR 2021)",
        "dataset": "digits 16x16",
        "config": "digits",
        "stages": {
            "train": "python -m stub_stage --workdir {workdir} --mode train",
            "eval": "python -m stub_stage --workdir {workdir} --mode eval",
        },
        "smoke": "--small --note 'two words'",
        "metrics": [
            {"metric": "fid", "reference": 3.0, "tolerance": 0.5, "count": 100, "extractor": "digits", **common},
            {"metric": "bits_per_dim", "reference": 2, "tolerance": 0.1, "unit": "bits/dim", **common},
        ],
    }


@pytest.fixture
def experiment(raw: dict[str, Any]) -> Experiment:
    (row,) = parse_rows([raw], package="score_sde", source="tables.yaml")
    assert isinstance(row, Experiment)
    return row


@pytest.fixture
def fid() -> Result:
    return Result("fid", 3.2, sample_count=100, extractor=EXTRACTOR, seed=7, ema=True, checkpoint_step=12345)


@pytest.fixture
def bpd() -> Result:
    return Result("bpd", 2.05, standard_error=0.0123, sample_count=180, dataset="digits/test")


@pytest.fixture
def run(tmp_path: Path, experiment: Experiment, fid: Result, bpd: Result) -> tuple[Path, RunRecord]:
    """A finished run: its work folder and its record, with results that reproduce everything."""
    workdir = tmp_path / "run"
    workdir.mkdir()
    attempts = [Attempt("train", ["/usr/bin/python", "-m", "stub_stage"], "2026-01-01T00:00:00Z", 75.0, 0)]
    record = RunRecord(experiment.id, "full", attempts)
    record.write(workdir)
    add_results(workdir / "results.json", [fid, bpd])
    return workdir, record
