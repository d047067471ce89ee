"""ci/Snakefile on this machine: which jobs it plans, and a row that it runs, fails at, and takes up again."""

import json
import re

import goldens
import pytest
import snakemake_runs
import yaml

from score_core.errors import UsageError
from score_core.repro import workflow
from score_core.repro.schema import Experiment
from score_core.repro.tables import PACKAGES, find_row, load_all


def experiment(row_id):
    row = find_row(load_all(), row_id)
    assert isinstance(row, Experiment)
    return row


def test_jobs_of_a_row_whose_evaluation_splits():
    jobs = workflow.jobs_of(experiment("score_sde/digits"), shards=2)
    assert {name: (job.kind, job.needs) for name, job in jobs.items()} == {
        "inputs": ("inputs", ()),
        "train": ("stage", ("inputs",)),
        "eval-shard-0": ("shard", ("train",)),
        "eval-shard-1": ("shard", ("train",)),
        "eval-statistics": ("statistics", ("inputs",)),
        "eval": ("metrics", ("eval-shard-0", "eval-shard-1", "eval-statistics")),
        "verdict": ("verdict", ("eval",)),
    }


def test_every_row_that_can_run_ends_with_a_verdict_after_all_else():
    rows = load_all()
    graph = workflow.graph(rows, "full", None, 3, {})
    assert len(graph) >= 100
    assert {row_id.split("/")[0] for row_id, row in graph.items() if row["embedded"]} == set(PACKAGES)
    assert len({row["folder"] for row in graph.values()}) == len(graph)
    for row in graph.values():
        seen = []
        for name, job in row["jobs"].items():
            assert set(job["needs"]) <= {*seen, *row["jobs"]}
            seen.append(name)
        assert seen[-1] == "verdict"


def test_wrong_requests_are_refused():
    digits = experiment("score_sde/digits")
    with pytest.raises(UsageError, match="0 shards"):
        workflow.jobs_of(digits, shards=0)
    with pytest.raises(UsageError, match=r"no job 'eval-shard-7'; it has inputs"):
        workflow.run_job(digits, "eval-shard-7", goldens.ROOT / "nowhere", "smoke", shards=2)


def test_a_metric_that_was_not_measured_fails_the_job(tmp_path, capsys):
    """At smoke scale nothing is compared, but everything must have been measured."""
    run = ["--workdir", str(tmp_path), "--scale", "smoke"]
    assert workflow.main(["run", "ncsn/figure3", "figure", *run]) == 0
    assert workflow.main(["run", "ncsn/figure3", "verdict", *run]) == 0
    results = tmp_path / "results.json"
    contents = json.loads(results.read_text())
    contents["results"] = [r for r in contents["results"] if r["metric"] != "weight_annealed"]
    results.write_text(json.dumps(contents))
    assert workflow.main(["run", "ncsn/figure3", "verdict", *run]) == 4
    assert "weight_annealed" in capsys.readouterr().out


def test_dry_run_plans_the_jobs_of_the_rows_asked_for(tmp_path):
    output = snakemake_runs.run(
        "local", tmp_path, "score_sde/digits", "ncsn/figure3", "--dry-run", "--quiet", "rules", config=("shards=5",)
    )
    assert snakemake_runs.planned(output) == {
        "inputs": 2,
        "stage": 2,  # training, and the figure
        "statistics": 1,
        "shard": 5,
        "metrics": 1,
        "verdict": 2,
        "score_sde/digits": 1,
        "ncsn/figure3": 1,
        "total": 15,
    }


@pytest.mark.slow
def test_a_row_is_run_and_what_is_done_is_not_done_again(tmp_path):
    arguments = ("local", tmp_path, "ncsn/figure3")
    options = {"config": ("scale=smoke",)}
    run = tmp_path / "runs" / "ncsn" / "figure3-smoke"
    results = run / "results.json"
    run.mkdir(parents=True)
    results.write_text("{")  # damaged: the stage cannot add to it, at neither attempt
    output = snakemake_runs.run(*arguments, status=1, **options)
    assert "Error in rule stage" in output
    log = run / "jobs" / "stage" / "figure.log"
    assert len(re.findall("^repro: figure: ", log.read_text(), re.MULTILINE)) == 2, "a failed job is tried again"
    assert "results.json" in log.read_text()
    assert not list(run.glob("jobs/stage/*.done"))
    results.unlink()

    snakemake_runs.run(*arguments, **options)
    assert sorted(str(f.relative_to(run / "jobs")) for f in run.glob("jobs/*/*.done")) == [
        "inputs/inputs.done",
        "stage/figure.done",
        "verdict/verdict.done",
    ]
    assert json.loads((run / "verdict.json").read_text())["id"] == "ncsn/figure3"
    assert (run / "report.html").exists()
    assert "Nothing to be done" in snakemake_runs.run(*arguments, **options)


def test_settings_of_the_jobs_are_complete():
    settings = yaml.safe_load((goldens.ROOT / "ci" / "config.yaml").read_text())
    kinds = {
        job["kind"] for row in workflow.graph(load_all(), "full", None, 1, {}).values() for job in row["jobs"].values()
    }
    assert kinds <= set(settings["resources"])
    for values in (*settings["resources"].values(), settings["smoke_resources"]):
        assert set(values) == {"minutes", "memory", "gpus", "cpus"}
