"""A disk that fails or crawls under a living proxy: strace answers for the kernel on the proxy's journal segment.

Needs strace, and leave to trace a process of one's own; skipped where either is missing.
"""

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.support.gateway import Stack
from tests.support.patience import until
from tests.support.whole_gateway import settled_rows

BODY: Final = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
ATTACH_S: Final = 60.0
STREAMS: Final = 3
CALLS: Final = 20


@contextlib.contextmanager
def disturbed(pid: int, segment: Path, what: str) -> Iterator[None]:
    """Every write to this file by any thread of the process is injected with `what`, until the context ends."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    inject = ["-e", "trace=write", "-e", f"inject=write:{what}"]
    log = segment.parent.parent / "strace.log"
    with log.open("wb") as errors:
        tracer = subprocess.Popen(
            [program, "-f", "-o", "/dev/null", "-P", str(segment), *inject, "-p", str(pid)], stderr=errors
        )
    try:
        deadline = time.monotonic() + ATTACH_S
        while b" attached" not in log.read_bytes():
            if tracer.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"strace may not trace here: {log.read_text()[:200]}")
            time.sleep(0.02)
        yield
    finally:
        tracer.send_signal(signal.SIGTERM)  # lets go of the process; killed, it might leave it stopped
        tracer.wait()


def segment_of(running: Stack) -> Path:
    """Where the only proxy writes now."""
    return max((running.folder / "data" / "journal").glob("proxy-0.*.jnl"))


async def test_a_disk_that_fails_a_write(fresh_stack: Stack) -> None:
    running = fresh_stack
    await asyncio.to_thread(running.start)
    url, ready = f"{running.base_url}/chat/completions", running.base_url.removesuffix("/v1") + "/readyz"
    headers = {"Authorization": f"Bearer {running.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        running.control("openai", body={"times": STREAMS, "interval_s": 0.1, "chunks": 30})
        streams = [await session.post(url, json={**BODY, "stream": True}) for _ in range(STREAMS)]
        bad = segment_of(running)
        with disturbed(running.pid_of("proxy"), bad, "error=EIO"):
            async with session.post(url, json=BODY) as got:
                assert (got.status, (await got.json())["error"]["code"]) == (503, "journal_unavailable")
            # The segment is given up at once, and the next one is on a disk that works.
            for _ in range(CALLS):
                async with session.post(url, json=BODY) as got:
                    assert got.status == 200
            for stream in streams:
                assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        async with session.get(ready) as got:
            assert got.status == 200
    assert segment_of(running) != bad
    truth = {call["client_request_id"] for call in running.truth()}
    assert len(truth) == STREAMS + CALLS  # the refused one never reached OpenAI
    rows = await settled_rows(running.env["DATABASE_URL"], len(truth))
    assert {str(row["id"]) for row in rows} == truth
    assert {row["evidence"] for row in rows} == {"reported"}


async def test_a_disk_that_crawls(fresh_stack: Stack) -> None:
    running = fresh_stack
    await asyncio.to_thread(running.start)
    url = f"{running.base_url}/chat/completions"
    headers = {"Authorization": f"Bearer {running.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def call() -> int:
            async with session.post(url, json=BODY) as got:
                await got.read()
                return got.status

        with disturbed(running.pid_of("proxy"), segment_of(running), "delay_enter=250ms"):
            statuses = await asyncio.gather(*(call() for _ in range(CALLS)))
        await until(lambda: slow_commits(running) >= 2)  # for OPENs, and for SETTLEs; both are shared by many calls
    assert set(statuses) == {200}
    rows = await settled_rows(running.env["DATABASE_URL"], CALLS)
    assert {row["evidence"] for row in rows} == {"reported"}


def slow_commits(running: Stack) -> float:
    """Writes to the journal that took more than a tenth of a second, as the operator sees them."""
    name, told = "gateway_journal_commit_seconds", running.metrics()
    return told[f"{name}_count", frozenset()] - told[f"{name}_bucket", frozenset({("le", "0.1")})]
