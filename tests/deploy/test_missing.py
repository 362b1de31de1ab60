"""What a missing program does to `make check-deploy`: said and skipped, but in CI a failure where it could be had."""

import sys

import pytest

from tests.deploy import __main__ as command
from tests.deploy.tools import Missing


def passes() -> str:
    return "seen"


def fails() -> str:
    raise AssertionError("promtool: it is wrong")


def cannot_be_had() -> str:
    raise Missing("systemd-analyze is not on this machine", could=False)


def could_be_had() -> str:
    raise Missing("npm pack: no network", could=True)


@pytest.mark.parametrize(
    ("checks", "ci", "status", "line"),
    [
        ([passes], "true", 0, "passed   0: seen"),
        ([passes, fails], "", 1, "FAILED   1: promtool: it is wrong"),
        ([passes, cannot_be_had], "true", 0, "skipped  1: systemd-analyze is not on this machine"),
        ([passes, could_be_had], "", 0, "skipped  1: npm pack: no network"),
        ([passes, could_be_had], "true", 1, "FAILED   1: npm pack: no network"),
    ],
)
def test_a_missing_program(
    checks: list[object],
    ci: str,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(command, "CHECKS", {str(number): check for number, check in enumerate(checks)})
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(sys, "argv", ["check-deploy"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    told = capsys.readouterr().out.splitlines()
    assert bool(ended.value.code) is bool(status)
    assert line in told
    assert len(told) == len(checks) + 1
