"""`gateway serve` and `gateway worker` as an operator runs them: separate processes over real servers."""

import asyncio
import json
import os
import signal
import time
from collections import Counter

import aiohttp
import pytest

from tests.support.gateway import Stack, children
from tests.support.patience import ENDS_S
from tests.support.signals import interrupts_ignored
from tests.support.whole_gateway import settled_rows

BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
CALLS = 120


@pytest.mark.long
async def test_two_proxies_and_two_writers(fresh_stack: Stack) -> None:
    writers = [fresh_stack.run("worker") for _ in range(2)]
    fresh_stack.start(workers=2, background=False)
    other = fresh_stack.make_key("second@example.com")
    keys = [fresh_stack.key, other["key"]]
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(number: int) -> None:
            headers = {"Authorization": f"Bearer {keys[number % 2]}"}
            async with session.post(f"{fresh_stack.base_url}/chat/completions", json=BODY, headers=headers) as got:
                assert got.status == 200, await got.text()
                await got.read()

        await asyncio.gather(*map(call, range(CALLS)))
    rows = await settled_rows(fresh_stack.env["DATABASE_URL"], CALLS)
    assert Counter(str(row["user_id"]) for row in rows) == {
        fresh_stack.user_id: CALLS // 2,
        other["user_id"]: CALLS // 2,
    }
    journal = fresh_stack.folder / "data" / "journal"
    for slot in ("proxy-0", "proxy-1"):
        assert any(b" S {" in path.read_bytes() for path in journal.glob(f"{slot}.*.jnl")), f"{slot} served nothing"
    assert [writer.stop() for writer in writers] == [0, 0]


@pytest.mark.long
async def test_a_stop_lets_streams_finish(fresh_stack: Stack) -> None:
    fresh_stack.start()
    fresh_stack.control("openai", body={"interval_s": 0.05, "chunks": 30})
    headers = {"Authorization": f"Bearer {fresh_stack.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        url = f"{fresh_stack.base_url}/chat/completions"
        response = await session.post(url, json={**BODY, "stream": True})
        await response.content.readany()
        fresh_stack.serve.popen.send_signal(signal.SIGTERM)
        rest = await response.read()
    assert rest.endswith(b"data: [DONE]\n\n")
    assert await asyncio.to_thread(fresh_stack.serve.stop) == 0
    (row,) = await settled_rows(fresh_stack.env["DATABASE_URL"], 1)
    assert (row["evidence"], row["completion_tokens"]) == ("reported", 30)


@pytest.mark.long
async def test_a_gateway_in_the_background_stops_on_sigterm(fresh_stack: Stack) -> None:
    with interrupts_ignored():  # as `nohup … &` starts it
        fresh_stack.start()
        worker = fresh_stack.run("worker")
    below = children(fresh_stack.serve.popen.pid)
    worker.wait_for("metrics and readiness")
    for process in (worker, fresh_stack.serve, fresh_stack.processes[0]):
        assert await asyncio.to_thread(process.stop) == 0, process.output()
    assert [pid for pid in below if os.path.exists(f"/proc/{pid}")] == []


@pytest.mark.long
async def test_children_end_with_their_parent(fresh_stack: Stack) -> None:
    fresh_stack.start()
    below = children(fresh_stack.serve.popen.pid)
    assert len(below) == 3
    os.kill(fresh_stack.serve.popen.pid, signal.SIGKILL)
    deadline = time.monotonic() + ENDS_S
    while any(os.path.exists(f"/proc/{pid}") for pid in below):
        assert time.monotonic() < deadline, "a child outlived its parent"
        await asyncio.sleep(0.05)


async def test_health(running: Stack) -> None:
    root = running.base_url.removesuffix("/v1")
    async with aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz"):
            async with session.get(root + path) as got:
                assert (got.status, json.loads(await got.read())) == (200, {"status": "ok"})
