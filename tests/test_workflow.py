"""ci/Snakefile on this machine: which jobs it plans, and a row that it runs, fails at, and takes up again."""

import json
import re

import doc_pages
import goldens
import pytest
import snakemake_runs
import yaml

from score_core.errors import UsageError
from score_core.repro import workflow
from score_core.repro.schema import Experiment
from score_core.repro.tables import PACKAGES, find_row, load_all

CELL = "score_sde/table1/ve/ancestral_sampling/P1000/fid"


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
    graph = workflow.graph(rows, workflow.Settings(shards=3))
    assert len(graph) >= 100
    assert {row_id.split("/")[0] for row_id, row in graph.items() if row["embedded"]} == set(PACKAGES)
    assert len({row["folder"] for row in graph.values()}) == len(graph)
    cell = graph["score_flow_hdsm/score_flow_table2/cifar10/vp/baseline/nll"]
    assert "eval-shard-2" in cell["jobs"]["eval"]["needs"]
    for row in graph.values():
        seen = []
        for name, job in row["jobs"].items():
            assert set(job["needs"]) <= {*seen, *row["jobs"]}
            seen.append(name)
        assert seen[-1] == "verdict"


def test_rows_of_one_framework():
    graph = workflow.graph(load_all(), workflow.Settings(framework="torch"))
    assert "ncsnv2/table1/ncsnv2/cifar10_fid" in graph
    assert CELL in graph
    assert "score_flow_hdsm/score_flow_table2/cifar10/vp/baseline/nll" not in graph


def test_wrong_requests_are_refused(capsys):
    with pytest.raises(UsageError, match="0 shards"):
        workflow.jobs_of(experiment("score_sde/digits"), shards=0)
    run = ["run", "score_sde/digits", "eval-shard-7", "--workdir", "nowhere", "--shards", "2"]
    assert workflow.main(run) == 2
    assert "no job 'eval-shard-7'; it has inputs" in capsys.readouterr().err
    assert workflow.main(["graph", "--checkpoint", "score_sde/digits"]) == 2
    assert "expected ID=FILE" in capsys.readouterr().err


def test_missing_inputs_are_the_verdict_and_a_checkpoint_takes_the_place_of_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCORE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SCORE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    run = tmp_path / "run"
    assert workflow.main(["run", CELL, "inputs", "--workdir", str(run)]) == 2
    assert "cifar10" in capsys.readouterr().err
    assert json.loads((run / "verdict.json").read_text())["verdict"] == "missing input"

    rows = load_all()
    assert "train" in workflow.graph(rows, workflow.Settings())[CELL]["jobs"]
    file = tmp_path / "checkpoint_26.pth"
    file.touch()
    settings = workflow.Settings(checkpoints={CELL: file})
    jobs = workflow.graph(rows, settings)[CELL]["jobs"]
    assert "train" not in jobs
    assert jobs["eval-shard-0"]["needs"] == ("checkpoint",)
    assert str(file) in settings.plan(CELL, rows).experiment.stages["checkpoint"]


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
        job["kind"] for row in workflow.graph(load_all(), workflow.Settings()).values() for job in row["jobs"].values()
    }
    assert kinds <= set(settings["resources"])
    for values in (*settings["resources"].values(), settings["smoke_resources"]):
        assert set(values) == {"minutes", "memory", "gpus", "cpus"}


def test_hosted_integration_runs_the_readme_test_command_then_the_smoke_set_and_publishes_the_page():
    workflow_file = yaml.safe_load((goldens.ROOT / ".github/workflows/tests-and-report.yml").read_text())
    jobs = workflow_file["jobs"]
    steps = {name: [step.get("run", step.get("uses", "")) for step in job["steps"]] for name, job in jobs.items()}
    readme = (goldens.ROOT / "README.md").read_text()
    (command,) = [step for step in steps["tests"] if step.endswith("pytest")]
    assert command in readme
    targets = [
        doc_pages.engine_arguments(line)
        for run in steps["smoke"]
        for line in run.splitlines()
        if line.startswith("uvx --with-requirements")
    ]
    assert [arguments[2] for arguments in targets] == ["embedded", "page"]
    assert all("scale=smoke" in arguments for arguments in targets)
    assert set(jobs["publish"]["needs"]) == {"tests", "smoke"}
    assert steps["publish"][-1].startswith("actions/deploy-pages@")
