"""The bench measures what it says, also while processes end and with few calls."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from bench import __main__ as bench
from bench import drain, measure, scale
from bench.load import shares

BURN_S = 0.1
MEASURED_S = 2 * BURN_S - 4 * measure.TICK_S
"""The kernel rounds down what a process has used for itself and, apart from that, within the system."""
_FAMILY = f"""
import os, sys, time
def burn():
    while time.process_time() < {BURN_S}:
        pass
ended = os.fork()
if not ended:
    burn()
    os._exit(0)
os.waitpid(ended, 0)
ready, burnt = os.pipe()
running = os.fork()
if not running:
    burn()
    os.write(burnt, b".")
    sys.stdin.read()
    os._exit(0)
os.read(ready, 1)
print(flush=True)
sys.stdin.read()
os.waitpid(running, 0)
"""


@pytest.fixture
def family() -> Iterator[int]:
    """A process with a child that used BURN_S of CPU and has ended, and one that has used it and runs."""
    with subprocess.Popen([sys.executable, "-c", _FAMILY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.stdin.close()


def test_what_runs_and_what_has_ended_below_a_process_counts(family: int) -> None:
    assert measure.cpu_s([family]) >= MEASURED_S


def test_a_process_that_ends_while_it_is_read_is_no_failure(family: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    listed = iter([[family, gone.pid], measure._descendants(family)])
    monkeypatch.setattr(measure, "_descendants", lambda pid: next(listed))
    assert measure.cpu_s([family]) >= MEASURED_S


def test_the_measured_process_itself_must_not_have_ended() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with pytest.raises(ProcessLookupError):
        measure.cpu_s([os.getpid(), gone.pid])


@pytest.mark.parametrize(
    ("calls", "concurrent", "expected"), [(1, 48, [1]), (5, 2, [3, 2]), (96, 48, [2] * 48), (3, 3, [1, 1, 1])]
)
def test_every_call_is_made_whatever_the_number_of_connections(
    calls: int, concurrent: int, expected: list[int]
) -> None:
    assert shares(calls, concurrent) == expected


def test_a_round_that_took_no_tick_has_no_ratio() -> None:
    idle = bench.Sample(1, 0.1, {"forwarder": 0.0}), bench.Sample(1, 0.1, {"proxy": 0.01})
    busy = bench.Sample(1, 0.1, {"forwarder": 0.01}), bench.Sample(1, 0.1, {"proxy": 0.02})
    assert bench.ratio_of([idle], ("proxy",)).strip() == "-"
    assert bench.ratio_of([idle, busy], ("proxy",)).strip() == "2.00"


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (bench.main, ["--streams", "0"], "0 is not 1 or more"),
        (bench.main, ["--rounds", "-1"], "-1 is not 1 or more"),
        (bench.main, ["--concurrent", "many"], "invalid positive value: 'many'"),
        (drain.main, ["--rows", "0"], "0 is not 1 or more"),
        (scale.main, ["--calls", "0"], "0 is not 1 or more"),
        (scale.main, ["--share", "1.5"], "1.5 is not above 0 and at most 1"),
    ],
)
def test_a_wrong_argument_is_named(
    main: Callable[[], None],
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
