"""The load: keep-alive connections that call as fast as they are answered. Prints `calls seconds`."""

import asyncio
import sys
import time

import uvloop

BODY = (
    b'{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are a terse assistant."},'
    b'{"role":"user","content":"%b"}],"temperature":0.2,"max_tokens":200%b}'
)
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: OpenAI/Python 3.54.0\r\n"
    b"X-Stainless-Lang: python\r\nX-Stainless-Retry-Count: 0\r\nContent-Length: %d\r\n\r\n"
)


async def one(port: int, request: bytes, calls: int) -> None:
    """`calls` requests one after the other on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    for _ in range(calls):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{head!r} {await reader.read(500)!r}")
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            await reader.readexactly(int(lower[at + 15 :].split(b"\r\n", 1)[0]))
        else:
            await reader.readuntil(b"0\r\n\r\n")
    writer.close()


def shares(calls: int, concurrent: int) -> list[int]:
    """Calls per connection: `calls` in all, on `concurrent` connections at most."""
    each, more = divmod(calls, concurrent)
    return [each + (at < more) for at in range(min(calls, concurrent))]


async def main(port: int, key: str, calls: int, concurrent: int, stream: bool) -> None:
    """Spreads `calls` over `concurrent` connections."""
    body = BODY % (b"word " * 100, b',"stream":true,"stream_options":{"include_usage":true}' if stream else b"")
    request = HEAD % (key.encode(), len(body)) + body
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for share in shares(calls, concurrent):
            tasks.create_task(one(port, request, share))
    print(calls, f"{time.perf_counter() - begun:.3f}", flush=True)


if __name__ == "__main__":
    port, key, calls, concurrent, stream = sys.argv[1:6]
    uvloop.run(main(int(port), key, int(calls), int(concurrent), stream == "stream"))
