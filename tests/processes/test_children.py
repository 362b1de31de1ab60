"""A parent goes on hearing of its children, and starting them, whatever goes wrong once."""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
import structlog

from gateway.kit.metrics import Sample, Status
from gateway.processes.supervisor import Child
from gateway.processes.vitals import Reporter
from tests.support.environment import clean_environment
from tests.support.servers import free_port

ENDS_S: Final = 120.0
"""Only ever waited for in full when something is broken."""
ODD: Final = "tests.support.odd_child"


class Heard:
    """What a parent hears of a child, over all its lives."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []
        self.starts = 0

    def mark_started(self, _name: str, _pid: int) -> None:
        self.starts += 1

    def heard(self, _name: str, status: Status) -> None:
        self.statuses.append(status)

    def mark_ended(self, _name: str) -> None:
        """Seen by the next start."""


async def until(seen: Callable[[], bool]) -> None:
    async with asyncio.timeout(ENDS_S):
        while not seen():
            await asyncio.sleep(0.02)


async def test_what_does_not_read_is_skipped() -> None:
    heard = Heard()
    child = Child("odd", (), clean_environment(), watcher=heard, entry=ODD)
    with structlog.testing.capture_logs() as lines:
        await asyncio.wait_for(child.start(), ENDS_S)
        await until(lambda: len(heard.statuses) > 2)
        await child.stop()
    assert {status.samples[0].value for status in heard.statuses} == {7}
    events = [line["event"] for line in lines]
    assert events[:2] == ["status does not read"] * 2
    assert set(events[2:]) >= {"a child's status is too long"}


async def test_a_start_that_fails_is_tried_again_and_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, spawn, refused = Heard(), asyncio.create_subprocess_exec, 0
    child = Child("odd", (), clean_environment(), watcher=heard, entry=ODD)
    await asyncio.wait_for(child.start(), ENDS_S)
    await until(lambda: bool(heard.statuses))
    before = open_pipes()

    async def no_process_left(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        nonlocal refused
        if refused < 2:
            refused += 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return await spawn(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process_left)
    assert child.pid is not None
    with structlog.testing.capture_logs() as lines:
        os.kill(child.pid, signal.SIGKILL)
        await until(lambda: heard.starts == 2)
        count = len(heard.statuses)
        await until(lambda: len(heard.statuses) > count)
    assert [line["error"] for line in lines if line["event"] == "child not started"] == ["BlockingIOError"] * 2
    assert open_pipes() == before
    await child.stop()


def open_pipes() -> int:
    """How many pipe ends this process holds, without those of objects that nobody holds any more."""
    gc.collect()
    return sum(
        os.readlink(entry).startswith("pipe:") for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()
    )


async def test_a_process_at_its_limit_of_open_files_says_how_it_is(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    env = clean_environment() | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
        "OPENAI_API_KEY": "sk-none",
        "UNKEY_ROOT_KEY": "none",
    }
    heard = Heard()
    child = Child("proxy", ("proxy", "--port", str(free_port())), env, watcher=heard)
    try:
        await asyncio.wait_for(child.start(), ENDS_S)
        await until(lambda: bool(heard.statuses))
        assert child.pid is not None
        was = resource.prlimit(child.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (3, was[1]))
        heard.statuses.clear()
        await until(lambda: len(heard.statuses) > 2)
        assert {status.failure for status in heard.statuses} == {None}
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, was)
        assert heard.starts == 1
    finally:
        await child.stop()


async def test_a_reporter_outlives_every_error_and_keeps_its_counts() -> None:
    good = Status(None, "redis", (Sample("gateway_swept_total", (), 7),))
    answers: list[Status | Exception] = [good, OSError(24, "secret"), OSError(24, "secret"), good, ValueError(), good]
    told: list[Status] = []

    def status_of() -> Status:
        answer = answers.pop(0) if answers else good
        if isinstance(answer, Exception):
            raise answer
        return answer

    def tell(status: Status) -> None:
        told.append(status)
        if len(told) == 4:
            raise OSError(28, "the pipe")

    loop, errors = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    reporter = Reporter(status_of, tell, every_s=0.001)
    with structlog.testing.capture_logs() as lines:
        reporter.start()
        await until(lambda: len(told) >= 7)
        reporter.close()
    failed = [status.failure for status in told[:6]]
    oserror, bug = (f"its status cannot be read ({kind})" for kind in ("OSError", "ValueError"))
    assert failed == [None, oserror, oserror, None, bug, None]
    assert {(status.waiting, status.samples) for status in told} == {(good.waiting, good.samples)}
    assert len(errors) == 1  # what `tell` raised is the event loop's to log, and the timer goes on
    assert [line["error"] for line in lines] == ["OSError", "ValueError"]
    count = len(told)
    await asyncio.sleep(0.02)
    assert len(told) == count
