"""An OpenAI that answers whatever a test wants, byte for byte, behind a real gateway (the fixture `hostile`)."""

import asyncio
import contextlib
import json
import secrets
from typing import Any

import aiohttp

from tests.support.gateway import Stack
from tests.support.patience import ENDS_S

EVENT_ID = "x-gateway-event-id"
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
ENVELOPE = {"id": "chatcmpl-ANSWERID", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}


class Hostile:
    """A gateway whose OpenAI answers every request with `answer`, then does with the connection what `close` says."""

    def __init__(self, gateway: Stack) -> None:
        self.gateway = gateway
        self.answer = b""
        self.close = False
        self.wait = asyncio.Event()
        self.wait.set()
        self.asked = 0
        self.heads: list[bytes] = []
        """The head of every request that came."""
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                length = request.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                self.asked += 1
                self.heads.append(request)
                await self.wait.wait()
                # Each answer has an id of its own: the ledger holds no upstream object twice.
                writer.write(self.answer.replace(b"chatcmpl-ANSWERID", b"chatcmpl-" + secrets.token_hex(4).encode()))
                await writer.drain()
                if self.close:
                    break
        writer.close()

    async def call(
        self, *, stream: bool = False, path: str = "chat/completions", body: dict[str, Any] = CHAT
    ) -> tuple[int, str, bytes, dict[str, str]]:
        """(status, event id, body, headers)."""
        url = f"{self.gateway.base_url}/{path}"
        headers = {"Authorization": f"Bearer {self.gateway.key}"}
        async with (
            aiohttp.ClientSession(
                headers=headers, timeout=aiohttp.ClientTimeout(total=ENDS_S), auto_decompress=False
            ) as session,
            session.post(url, json={**body, "stream": stream}, allow_redirects=False) as response,
        ):
            got = b""
            try:
                async for piece in response.content.iter_any():
                    got += piece
            except aiohttp.ClientError:
                got += b"<cut>"
            return response.status, response.headers[EVENT_ID], got, dict(response.headers)


def chunked(*pieces: bytes, end: bool, more: bytes = b"") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    start = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n%b\r\n" % more
    return start + body + (b"0\r\n\r\n" if end else b"")


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps({**ENVELOPE, **fields}).encode() + b"\n\n"


def answered(body: bytes, *more: bytes, status: bytes = b"200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % size, *more]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


STREAM = (event(choices=[{"index": 0, "delta": {"content": "hi"}}]), event(choices=[], usage=USAGE))
DONE = b"data: [DONE]\n\n"
COMPLETION = json.dumps({**ENVELOPE, "object": "chat.completion", "choices": [], "usage": USAGE}).encode()
