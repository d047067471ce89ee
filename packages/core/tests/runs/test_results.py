"""results.json: complete records, merged by what was measured, checked when read."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from score_core.runs import results
from score_core.runs.results import Result, ResultsError, add_results, read_results

FID = Result(
    metric="fid",
    value=2.41,
    standard_error=0.02,
    sample_count=50_000,
    dataset="cifar10/train",
    checkpoint_step=1_300_000,
    framework="jax",
    config_hash="ab" * 32,
    seed=1,
    ema=True,
    denoise=True,
    extractor="inception-v3-2015-12-05:cd",
    statistics_sha256="ef" * 32,
    seconds=12.5,
    details={"nfe": 2000, "sampler": "pc"},
)


def test_a_record_has_everything_needed_to_repeat_it(tmp_path):
    add_results(tmp_path / "eval" / "results.json", [FID])
    contents = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert contents["schema"] == 1
    (record,) = contents["results"]
    assert record["value"] == 2.41
    assert record["details"] == {"nfe": 2000, "sampler": "pc"}
    assert {"python", "numpy", "score-core"} <= record["versions"].keys()
    assert record["command"] == sys.argv
    assert record["peak_memory_bytes"] > 10**7
    assert record["utc"].endswith("Z")
    assert read_results(tmp_path / "eval" / "results.json") == [FID]


def test_no_file_has_no_results(tmp_path):
    assert read_results(tmp_path / "results.json") == []


def test_the_same_measurement_replaces_and_another_is_appended(tmp_path):
    file = tmp_path / "results.json"
    inception = replace(FID, metric="inception_score", value=9.8)
    add_results(file, [FID, inception])
    better = replace(FID, value=2.40, seconds=1.0, command=["again"])
    other_seed = replace(FID, value=2.44, seed=2)
    add_results(file, [better, other_seed])
    assert read_results(file) == [better, inception, other_seed]


@pytest.mark.parametrize("name", results.IDENTITY)
def test_every_part_of_the_identity_tells_measurements_apart(tmp_path, name):
    other = {"metric": "kid", "ema": False, "denoise": False}.get(name)
    add_results(tmp_path / "results.json", [FID, replace(FID, **{name: other})])
    assert len(read_results(tmp_path / "results.json")) == 2


def test_numbers_that_are_not_finite_survive_in_valid_json(tmp_path):
    file = tmp_path / "results.json"
    values = {"a": math.nan, "b": math.inf, "c": -math.inf}
    add_results(file, [Result(metric=name, value=value) for name, value in values.items()])
    json.loads(file.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    back = {result.metric: result.value for result in read_results(file)}
    assert math.isnan(back.pop("a"))
    assert back == {"b": math.inf, "c": -math.inf}


def test_numpy_numbers_are_taken(tmp_path):
    given = Result("fid", np.float32(2.5), sample_count=np.int64(3), seed=np.uint32(7), ema=np.bool_(True))  # type: ignore
    add_results(tmp_path / "results.json", [given])
    (back,) = read_results(tmp_path / "results.json")
    assert (back.value, back.sample_count, back.seed, back.ema) == (2.5, 3, 7, True)
    assert type(back.ema) is bool


def test_details_are_stored_in_plain_form(tmp_path):
    details = {"nfe": np.int64(12), "per_scale": np.array([1.5, np.nan]), "shape": (2, 3), "inner": {"x": -np.inf}}
    add_results(tmp_path / "results.json", [replace(FID, details=details)])
    (back,) = read_results(tmp_path / "results.json")
    assert back.details == {"nfe": 12, "per_scale": [1.5, "nan"], "shape": [2, 3], "inner": {"x": "-inf"}}


def valid_record():
    return json.loads(json.dumps(results._record(FID)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "2.4"}, "field 'value' holds '2.4', expected float"),
        ({"value": None}, "field 'value' holds None"),
        ({"value": True}, "field 'value' holds True"),
        ({"sample_count": 2.5}, "field 'sample_count'"),
        ({"ema": 1}, "field 'ema' holds 1, expected bool"),
        ({"versions": []}, "field 'versions'"),
        ({"fid": 1}, "unknown fields fid"),
        ({"metric": ...}, "lacks metric"),
        ({"config_hash": ..., "seed": ...}, "lacks config_hash, seed"),
    ],
)
def test_a_record_outside_the_schema_is_named_and_the_file_left(tmp_path, change, message):
    record = {key: value for key, value in (valid_record() | change).items() if value is not ...}
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"schema": 1, "results": [valid_record(), record]}))
    before = file.read_bytes()
    with pytest.raises(ResultsError, match=f"result 1.* {message}"):
        read_results(file)
    with pytest.raises(ResultsError):
        add_results(file, [FID])
    assert file.read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2, "results": []}', '{"schema": 1, "results": {}}', "\0"])
def test_other_files_are_no_results_files(tmp_path, text):
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(ResultsError, match=r"results\.json"):
        read_results(file)


@pytest.mark.parametrize("result", [replace(FID, seed="1"), replace(FID, details={"x": object()})])  # type: ignore
def test_a_result_outside_the_schema_is_not_written(tmp_path, result):
    with pytest.raises(ResultsError):
        add_results(tmp_path / "results.json", [result])
    assert not (tmp_path / "results.json").exists()


def test_processes_that_add_at_the_same_time_lose_nothing(tmp_path):
    code = (
        "import sys; from score_core.runs.results import Result, add_results\n"
        "for seed in range(15): add_results(sys.argv[1], [Result(sys.argv[2], 1.0, seed=seed)])"
    )
    commands = [[sys.executable, "-c", code, tmp_path / "results.json", metric] for metric in ("fid", "kid", "bpd")]
    for process in [subprocess.Popen(command) for command in commands]:
        assert process.wait(timeout=60) == 0
    found = read_results(tmp_path / "results.json")
    assert sorted((result.metric, result.seed) for result in found) == [
        (metric, seed) for metric in ("bpd", "fid", "kid") for seed in range(15)
    ]
