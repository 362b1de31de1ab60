"""The gateway fails on a call after its answer has begun, or on its SETTLE: no second head, and always a row."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.config.settings import Settings
from gateway.processes import proxy
from gateway.processes.arguments import ProcessArguments
from gateway.proxy import relay as relay_module
from gateway.proxy.record import Recorder
from gateway.proxy.relay import Relay
from gateway.usage.event import UsageEvent
from pricing.stream import StreamMeter
from tests.support.gateway import Stack
from tests.support.patience import ENDS_S

STREAM = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
WHOLE = {**STREAM, "stream": False}


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[UsageEvent]:
    """Every event that the journal was given."""
    events: list[UsageEvent] = []
    real = Recorder.settle

    async def settle(self: Recorder, event: UsageEvent) -> None:
        await real(self, event)
        events.append(event)

    monkeypatch.setattr(Recorder, "settle", settle)
    return events


@asynccontextmanager
async def serving(stack: Stack) -> AsyncIterator[None]:
    """The proxy of this process, so that a test can break a part of it."""
    ready, stop = asyncio.Event(), asyncio.Event()
    place = ProcessArguments(0, "127.0.0.1", stack.port)
    running = asyncio.create_task(proxy.run(Settings.of(stack.env), place, stop, lambda _: ready.set()))
    await asyncio.wait({running, asyncio.create_task(ready.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield
    finally:
        stop.set()
        await running


async def ask(stack: Stack, body: object, *, path: str = "/v1/chat/completions", method: str = "POST") -> bytes:
    """Everything that comes on the connection until its end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    payload = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {stack.key}\r\n"
    writer.write(f"{head}Content-Length: {len(payload)}\r\n\r\n".encode() + payload)
    got = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(ENDS_S):
            while piece := await reader.read(65536):
                got += piece
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return got


def breaking(times: int) -> Any:
    """A method that works `times` times, then raises."""
    real, left = StreamMeter.feed, [times]

    def feed(self: StreamMeter, chunk: bytes) -> bytes:
        left[0] -= 1
        if left[0] < 0:
            raise ZeroDivisionError("CANARY")
        return real(self, chunk)

    return feed


@pytest.mark.parametrize("after", [0, 3])
async def test_a_stream_ends_with_an_error_event(
    beside_running: Stack, settled: list[UsageEvent], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    async with serving(beside_running):
        beside_running.control("openai", body={"interval_s": 0.05, "chunks": 20})
        monkeypatch.setattr(StreamMeter, "feed", breaking(after))
        got = await ask(beside_running, STREAM)
    assert got.count(b"HTTP/1.1") == 1
    assert got.startswith(b"HTTP/1.1 200")
    assert b'\n\ndata: {"error":{"message":"The gateway failed on this call."' in got
    assert got.endswith(b"0\r\n\r\n")
    assert b"CANARY" not in got
    (event,) = settled
    assert (event.evidence, event.metadata["reason"]) == ("estimated", "gateway_interrupted")
    assert event.prompt_tokens
    assert bool(event.completion_tokens) is bool(after)


async def test_a_free_stream_ends_with_an_error_event(beside_running: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(beside_running):
        made = await ask(beside_running, {"model": "gpt-4o-mini", "input": "Hello"}, path="/v1/responses")
        response_id = json.loads(made.partition(b"\r\n\r\n")[2])["id"]
        monkeypatch.setattr(StreamMeter, "feed", breaking(0))
        got = await ask(beside_running, None, path=f"/v1/responses/{response_id}?stream=true", method="GET")
    assert got.count(b"HTTP/1.1") == 1
    assert b'"code":"gateway_error"' in got


async def test_a_large_body_is_cut(
    beside_running: Stack, settled: list[UsageEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(self: Relay, client: Any, data: bytes) -> None:
        await client.write(data[:-9])
        raise ZeroDivisionError

    monkeypatch.setattr(relay_module, "WHOLE_BYTES_MAX", 10)
    monkeypatch.setattr(Relay, "_write", write)
    async with serving(beside_running):
        got = await ask(beside_running, {"model": "gpt-4o-mini", "input": "Hello"}, path="/v1/responses")
    assert got.count(b"HTTP/1.1") == 1
    assert got.startswith(b"HTTP/1.1 200")
    head, _, body = got.partition(b"\r\n\r\n")
    assert len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert len(settled) == 1


@pytest.mark.parametrize("body", [STREAM, WHOLE])
async def test_a_settle_that_cannot_be_made_is_made_from_the_open(
    beside_running: Stack, settled: list[UsageEvent], monkeypatch: pytest.MonkeyPatch, body: dict[str, Any]
) -> None:
    watched = Recorder.settle

    async def settle(self: Recorder, event: UsageEvent) -> None:
        if event.response_id is not None or event.request_id is not None:
            raise UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed")
        await watched(self, event)

    monkeypatch.setattr(Recorder, "settle", settle)
    async with serving(beside_running):
        got = await ask(beside_running, body)
    assert got.count(b"HTTP/1.1") == 1
    (event,) = settled
    assert (event.evidence, event.metadata["reason"]) == ("estimated", "gateway_interrupted")
    assert event.cost_nano
