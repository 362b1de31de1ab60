"""kill -9 of real processes under a running gateway: every call that reached OpenAI has exactly one row."""

import asyncio
import os
import signal

import aiohttp
import pytest

from tests.support.gateway import Stack
from tests.support.hostile import event
from tests.support.patience import until
from tests.support.servers import free_port
from tests.support.whole_gateway import settled_rows

pytestmark = pytest.mark.long
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Tell me a long story"}], "stream": True}


async def read_some(stack: Stack, enough: asyncio.Semaphore, body: dict[str, object], path: str) -> None:
    """Streams until the connection dies, and tells once a chunk has come."""
    timeout = aiohttp.ClientTimeout(total=300)
    headers = {"Authorization": f"Bearer {stack.key}"}
    told = False
    async with aiohttp.ClientSession(timeout=timeout) as session:
        try:
            async with session.post(f"{stack.base_url}{path}", json=body, headers=headers) as response:
                assert response.status == 200, await response.text()
                async for _ in response.content.iter_any():
                    if not told:
                        told = True
                        enough.release()
        except aiohttp.ClientError:
            return
        finally:
            if not told:
                enough.release()


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
async def test_kill_9_of_the_proxy_in_the_middle_of_streams(fresh_stack: Stack, path: str) -> None:
    fresh_stack.start()
    fresh_stack.control("openai", body={"interval_s": 0.2, "chunks": 60})
    body = BODY if path == "/chat/completions" else {"model": "gpt-4o-mini", "input": "A long story", "stream": True}
    begun = asyncio.Semaphore(0)
    calls = [asyncio.create_task(read_some(fresh_stack, begun, body, path)) for _ in range(8)]
    for _ in calls:
        await begun.acquire()
    old = fresh_stack.pid_of("proxy")
    os.kill(old, signal.SIGKILL)
    await asyncio.gather(*calls)
    rows = await settled_rows(fresh_stack.env["DATABASE_URL"], 8)
    truth = {call["client_request_id"] for call in fresh_stack.truth() if call["endpoint"] in ("chat", "responses")}
    assert {str(row["id"]) for row in rows} == truth
    # A response is kept at OpenAI, so its sweeper may learn the exact figures; a chat completion is not.
    allowed = {"estimated"} if path == "/chat/completions" else {"estimated", "drained"}
    assert {row["evidence"] for row in rows} <= allowed
    assert all(row["cost_usd"] > 0 for row in rows)
    # And the gateway is whole again: the parent has started another proxy.
    fresh_stack.control("openai", "DELETE")
    async with aiohttp.ClientSession() as session:
        for _ in range(900):
            try:
                async with session.post(
                    f"{fresh_stack.base_url}/chat/completions",
                    json={**BODY, "stream": False},
                    headers={"Authorization": f"Bearer {fresh_stack.key}"},
                ) as response:
                    assert response.status == 200
                    break
            except aiohttp.ClientError:
                await asyncio.sleep(0.1)
        else:
            raise AssertionError("no proxy answers")
    assert fresh_stack.pid_of("proxy") != old
    rows = await settled_rows(fresh_stack.env["DATABASE_URL"], 9)
    assert rows[-1]["evidence"] == "reported"


async def test_only_output_counts_in_the_estimate_of_a_killed_stream(fresh_stack: Stack) -> None:
    """One token, and then for as long as the client waits only what keeps a connection open."""
    idle = b": keep-alive\n\n" * 1000 + b'event: keepalive\ndata: {"type":"keepalive","sequence_number":1}\n\n' * 300

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            writer.write(event(choices=[{"index": 0, "delta": {"content": "hi"}}]))
            while True:  # a note is written once a second, with the next piece
                writer.write(idle)
                await writer.drain()
                await asyncio.sleep(0.3)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the proxy was killed, or only tried whether somebody listens
        finally:
            writer.close()

    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        fresh_stack.prepare()
        fresh_stack.env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
        fresh_stack.serve = fresh_stack.run("serve")
        fresh_stack.serve.wait_for("serving http")
        begun = asyncio.Semaphore(0)
        call = asyncio.create_task(read_some(fresh_stack, begun, dict(BODY), "/chat/completions"))
        await begun.acquire()
        journal = fresh_stack.folder / "data" / "journal"
        await until(lambda: any(b" N {" in path.read_bytes() for path in journal.glob("*.jnl")))
        os.kill(fresh_stack.pid_of("proxy"), signal.SIGKILL)
        await call
        (row,) = await settled_rows(fresh_stack.env["DATABASE_URL"], 1)
        fresh_stack.stop()
        await asyncio.sleep(0.5)  # the answers notice that the connections are gone
    assert (row["evidence"], row["completion_tokens"]) == ("estimated", 1)


@pytest.mark.parametrize("child", ["keeper", "worker"])
async def test_kill_9_of_the_background_loses_and_doubles_nothing(fresh_stack: Stack, child: str) -> None:
    fresh_stack.start()
    headers = {"Authorization": f"Bearer {fresh_stack.key}"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def call() -> None:
            async with session.post(f"{fresh_stack.base_url}/chat/completions", json={**BODY, "stream": False}) as got:
                assert got.status == 200, await got.text()
                await got.read()

        for round_ in range(4):
            await asyncio.gather(*(call() for _ in range(25)))
            if round_ < 3:
                os.kill(fresh_stack.pid_of(child), signal.SIGKILL)
    rows = await settled_rows(fresh_stack.env["DATABASE_URL"], 100)
    assert {row["evidence"] for row in rows} == {"reported"}
