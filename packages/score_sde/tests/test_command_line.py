"""The original's command line, flag by flag."""

import goldens
import pytest

from score_sde.__main__ import main


@pytest.fixture(scope="module")
def facts():
    return goldens.load("score_sde", "cli_help.json")


def test_every_flag_of_the_original_is_documented_with_its_choices(facts, capsys):
    assert main(["--help"]) == facts["exit_codes"]["ok"]
    text = capsys.readouterr().out
    for flag in facts["flags"]:
        line = next(line for line in text.splitlines() if line.strip().startswith(f"--{flag['name']}="))
        assert all(choice in line for choice in flag.get("choices", []))
        if flag["default"]:
            at = text.index(line)
            assert f"default: {flag['default']}" in text[at : text.index("\n  --", at + 3)]


def test_every_flag_of_the_original_is_taken_and_wrong_ones_end_with_its_status(facts, tmp_path, capsys):
    values = {"config": "digits", "workdir": tmp_path / "none", "mode": "eval", "eval_folder": "other"}
    arguments = [f"--{flag['name']}={values[flag['name']]}" for flag in facts["flags"]]
    assert main(arguments) == 2  # understood: what is missing is the work directory
    assert "no work directory" in capsys.readouterr().err
    assert main([*arguments, "--mode=dream"]) == facts["exit_codes"]["usage_error"]
    assert main([*arguments, "--config.model.wings=2"]) == facts["exit_codes"]["usage_error"]
