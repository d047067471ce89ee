"""How a command ends."""

import pytest

from score_core.errors import UsageError, UserError, run_main


class Custom(UserError):
    exit_code = 7


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status"), [(UserError("it broke"), 1), (UsageError("it broke"), 2), (Custom("it broke"), 7)]
)
def test_a_user_error_is_one_line_on_stderr_and_its_exit_code(error, status, capsys):
    assert run_main(raising(error)) == status
    assert capsys.readouterr() == ("", "error: it broke\n")


def test_an_interrupt_is_130(capsys):
    assert run_main(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_status_of_the_command_is_passed_on():
    assert run_main(lambda: None) == 0
    assert run_main(lambda: 3) == 3


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), SystemExit(143)])
def test_bugs_keep_their_traceback_and_exits_their_status(error):
    with pytest.raises(type(error)):
        run_main(raising(error))
