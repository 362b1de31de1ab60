"""The parent of a serving gateway is killed, and its supervisor starts another at once."""

import asyncio
import os
import signal

import asyncpg

from tests.support.gateway import Stack


async def test_a_new_parent_does_not_wait_for_the_streams_of_a_killed_one(fresh_stack: Stack) -> None:
    """Its proxies finish their calls in their own slots; the new ones take others."""
    await asyncio.to_thread(fresh_stack.start)
    fresh_stack.control("openai", body={"interval_s": 0.1, "chunks": 70, "stream": True})
    reader, writer = await asyncio.open_connection("127.0.0.1", fresh_stack.port)
    body = b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Hello"}]}'
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (fresh_stack.key.encode(), len(body), body)
    )
    await reader.readuntil(b"data: ")
    os.kill(fresh_stack.serve.popen.pid, signal.SIGKILL)
    fresh_stack.serve.popen.wait()
    fresh_stack.serve = fresh_stack.run("serve")
    await asyncio.to_thread(fresh_stack.serve.wait_for, "serving http")
    rest = await reader.readuntil(b"data: [DONE]")
    assert rest
    writer.close()
    journal = fresh_stack.folder / "data" / "journal"
    assert {path.name for path in journal.glob("proxy-*.lock")} == {"proxy-0.lock", "proxy-1.lock"}
    connection = await asyncpg.connect(fresh_stack.env["DATABASE_URL"])
    try:
        for _ in range(200):
            rows = await connection.fetch("select evidence from openai_usage")
            if rows:
                break
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    assert [row["evidence"] for row in rows] == ["reported"]
