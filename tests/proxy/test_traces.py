"""Traces: a client's `traceparent` is honoured and passed on, and a collector gets one span per metered call."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.gateway import Stack

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "A canary sings"}]}


class Collector:
    """An OTLP collector over HTTP, on loopback."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.bytes = b""
        self.url = ""

    async def take(self, request: web.BaseRequest) -> web.Response:
        data = await request.read()
        self.bytes += data
        for resource in ExportTraceServiceRequest.FromString(data).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return web.Response()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    made = Collector()
    runner = web.ServerRunner(web.Server(made.take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    yield made
    await runner.cleanup()


async def call(stack: Stack, headers: dict[str, str], **more: Any) -> str:
    """One call's event id."""
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {stack.key}"}) as session:
        url = f"{stack.base_url}/chat/completions"
        async with session.post(url, json={**BODY, **more}, headers=headers) as got:
            await got.read()
            return got.headers["x-gateway-event-id"]


def told(span: Any) -> dict[str, Any]:
    """A span's attributes."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.long
async def test_a_span_per_call(fresh_stack: Stack, collector: Collector) -> None:
    fresh_stack.env["TRACES__OTLP_ENDPOINT"] = collector.url
    await asyncio.to_thread(fresh_stack.start)
    below = await call(fresh_stack, {"traceparent": PARENT, "tracestate": "vendor=1"})
    alone = await call(fresh_stack, {}, stream=True)
    await call(fresh_stack, {"traceparent": PARENT.removesuffix("1") + "0"})  # its owner does not want it recorded
    fresh_stack.control("openai", body={"times": 1, "status": 503})
    failed = await call(fresh_stack, {})
    truth = fresh_stack.truth()
    assert await asyncio.to_thread(fresh_stack.serve.stop) == 0  # sends what is left
    spans = {told(span)["gateway.event_id"]: span for span in collector.spans}
    assert set(spans) == {below, alone, failed}
    assert (spans[below].trace_id.hex(), spans[below].parent_span_id.hex()) == (TRACE, "b7ad6b7169203331")
    assert (spans[alone].parent_span_id, spans[alone].name) == (b"", "chat gpt-4o-mini")
    assert [spans[name].status.code for name in (alone, failed)] == [0, 2]
    for event_id, seen in zip((below, alone), truth, strict=False):
        span, attributes = spans[event_id], told(spans[event_id])
        # OpenAI is told of our span, which is below the client's.
        sent, _, flags = seen["traceparent"].rpartition("-")
        assert (sent, int(flags, 16) & 1) == (f"00-{span.trace_id.hex()}-{span.span_id.hex()}", 1)
        assert attributes["gen_ai.usage.output_tokens"] == seen["usage"]["completion_tokens"]
        assert attributes["gateway.cost_usd"] > "0.000000000"
        assert span.end_time_unix_nano > span.start_time_unix_nano
    assert b"canary" not in collector.bytes
    assert fresh_stack.key.encode() not in collector.bytes


async def test_without_traces_the_clients_context_passes_as_it_is(running: Stack) -> None:
    event_id = await call(running, {"traceparent": PARENT})
    assert running.truth()[-1]["traceparent"] == PARENT
    said = await asyncio.to_thread(running.serve.wait_for, event_id)
    lines = [json.loads(line) for line in said.splitlines() if event_id in line]
    assert [line["trace"] for line in lines] == [TRACE]
