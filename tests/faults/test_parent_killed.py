"""The parent of a serving gateway is killed, and its supervisor starts another at once."""

import asyncio
import contextlib
import os
import signal

from tests.support.gateway import Stack
from tests.support.hostile import DONE, STREAM, chunked
from tests.support.servers import free_port
from tests.support.whole_gateway import settled_rows


async def test_a_new_parent_does_not_wait_for_the_streams_of_a_killed_one(fresh_stack: Stack) -> None:
    """Its proxies finish their calls in their own slots; the new ones take others."""
    is_replaced, port = asyncio.Event(), free_port()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ends the stream only when the new parent serves, however long that takes."""
        with contextlib.suppress(
            asyncio.IncompleteReadError, ConnectionError
        ):  # who only tries whether anybody listens
            await reader.readuntil(b"\r\n\r\n")
            whole, first = chunked(*STREAM, DONE, end=True), len(chunked(STREAM[0], end=False))
            writer.write(whole[:first])
            await is_replaced.wait()
            writer.write(whole[first:])
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port):
        await asyncio.to_thread(fresh_stack.prepare)
        fresh_stack.env["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
        fresh_stack.serve = fresh_stack.run("serve")
        await asyncio.to_thread(fresh_stack.serve.wait_for, "serving http")
        reader, writer = await asyncio.open_connection("127.0.0.1", fresh_stack.port)
        body = b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
        key = fresh_stack.key.encode()
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (key, len(body), body)
        )
        await reader.readuntil(b"data: ")
        os.kill(fresh_stack.serve.popen.pid, signal.SIGKILL)
        fresh_stack.serve.popen.wait()
        fresh_stack.serve = fresh_stack.run("serve")
        await asyncio.to_thread(fresh_stack.serve.wait_for, "serving http")
        is_replaced.set()
        assert await reader.readuntil(b"data: [DONE]")
        writer.close()
        journal = fresh_stack.folder / "data" / "journal"
        assert {path.name for path in journal.glob("proxy-*.lock")} == {"proxy-0.lock", "proxy-1.lock"}
        (row,) = await settled_rows(fresh_stack.env["DATABASE_URL"], 1)
        fresh_stack.stop()
    assert row["evidence"] == "reported"
