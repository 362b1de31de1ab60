"""What the OpenAI stand-in stores of a response is what its log says was charged, however the stream ended; silence."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from gateway.sandbox import credentials
from gateway.sandbox.openai.calls import ReceivedCall
from gateway.sandbox.server import Sandbox
from tests.support.patience import until
from tests.support.stand_ins import control, sandbox_at

MODEL: Final = "gpt-4o-mini"
STREAM: Final[dict[str, Any]] = {"model": MODEL, "input": "What is a meter?", "stream": True}
HEADERS: Final = {"Authorization": f"Bearer {credentials.OPENAI_API_KEY}"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(time.time) as running:
        yield running


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncOpenAI]:
    made = AsyncOpenAI(base_url=sandbox.openai_base_url, api_key=credentials.OPENAI_API_KEY, max_retries=0)
    async with made as opened:
        yield opened


async def done(sandbox: Sandbox, number: int = -1) -> ReceivedCall:
    """A call, the last unless told, once the stand-in is through with it."""
    log = sandbox.openai.log
    await until(lambda: log.calls() and log.calls()[number].done)
    return log.calls()[number]


async def heard(sandbox: Sandbox, count: int) -> None:
    """Until the stand-in has so many calls."""
    await until(lambda: len(sandbox.openai.log.calls()) == count)


async def stream(sandbox: Sandbox) -> bytes:
    """The body of one stream, as much of it as comes."""
    received = b""
    url = f"{sandbox.openai_base_url}/responses"
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.post(url, json=STREAM) as response:
        try:
            async for piece in response.content.iter_any():
                received += piece
        except aiohttp.ClientPayloadError:
            return received
    return received


@pytest.mark.parametrize("how", ["chunked", "length", "close"])
@pytest.mark.parametrize("events", [0, 2, 9])
async def test_a_cut_response_is_stored_as_it_was_charged(
    client: AsyncOpenAI, sandbox: Sandbox, how: str, events: int
) -> None:
    await control(sandbox, "openai", cut_after=events, cut_how=how, times=1)
    received = await stream(sandbox)
    call = await done(sandbox)
    stored = await client.responses.retrieve(call.response_id or "")
    assert (call.finished, call.chunks_sent) == (False, events)
    assert stored.usage is not None
    assert (stored.status, stored.usage.model_dump(exclude_unset=True)) == ("incomplete", call.usage)
    replayed = [event async for event in await client.responses.retrieve(stored.id, stream=True)]
    assert len(replayed) == received.count(b"\nevent: ") + received.startswith(b"event: ") == events


@pytest.mark.parametrize(("how", "last"), [("fail_after", "response.failed"), ("error_after", "error")])
@pytest.mark.parametrize("usage", [None, "omit"])
async def test_a_failed_response_is_stored_as_it_was_charged(
    client: AsyncOpenAI, sandbox: Sandbox, how: str, last: str, usage: str | None
) -> None:
    told: dict[str, Any] = {how: 8, "usage": usage, "times": 1}
    await control(sandbox, "openai", **told)
    received = await stream(sandbox)
    call = await done(sandbox)
    stored = await client.responses.retrieve(call.response_id or "")
    assert (stored.status, call.finished) == ("failed", False)
    assert stored.error is not None
    assert stored.error.code == "server_error"
    assert (stored.usage and stored.usage.model_dump(exclude_unset=True)) == (None if usage else call.usage)
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        replay = await session.get(f"{sandbox.openai_base_url}/responses/{stored.id}?stream=true")
        assert await replay.read() == received
    assert received.rpartition(b"event: ")[2].startswith(last.encode())


async def test_a_response_is_in_progress_until_its_client_leaves(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    await control(sandbox, "openai", chunks=1000, interval_s=0.05, times=1)
    url = f"{sandbox.openai_base_url}/responses"
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.post(url, json=STREAM) as response:
        await response.content.readany()
        running = sandbox.openai.log.calls()[0].response_id or ""
        early = await client.responses.retrieve(running)
        assert (early.status, early.usage, early.output) == ("in_progress", None, [])
        response.close()
    call = await done(sandbox, 0)
    stored = await client.responses.retrieve(running)
    assert stored.usage is not None
    assert (stored.status, stored.usage.model_dump(exclude_unset=True)) == ("incomplete", call.usage)
    assert stored.usage.output_tokens < 1000


async def test_a_response_deleted_while_it_runs_stays_away(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    await control(sandbox, "openai", chunks=50, interval_s=0.005, times=1)
    events = await client.responses.create(model=MODEL, input="x", stream=True)
    first: Any = await anext(aiter(events))
    await client.responses.delete(first.response.id)
    assert [event async for event in events][-1].type == "response.completed"
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.response.id)


async def test_a_finished_stream_can_be_continued(client: AsyncOpenAI) -> None:
    events: Any = [event async for event in await client.responses.create(**STREAM)]
    stored = await client.responses.retrieve(events[-1].response.id)
    assert stored.model_dump() == events[-1].response.model_dump()
    after = await client.responses.create(model=MODEL, input="And?", previous_response_id=stored.id)
    alone = await client.responses.create(model=MODEL, input="And?")
    assert after.usage is not None
    assert alone.usage is not None
    assert stored.usage is not None
    assert after.usage.input_tokens > alone.usage.input_tokens + stored.usage.output_tokens


async def test_silence_ends_with_the_client_and_costs_nothing(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    await control(sandbox, "openai", hang=True, endpoint="responses")
    for count, streamed in enumerate((False, True), start=1):
        asking = asyncio.create_task(client.responses.create(model=MODEL, input="x", stream=streamed))
        await heard(sandbox, count)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        call = await done(sandbox)
        assert (call.status, call.usage, call.finished, call.stream) == (None, None, False, streamed)
    await control(sandbox, "openai", method="DELETE")
    assert (await client.responses.create(model=MODEL, input="x")).status == "completed"


async def test_silence_does_not_outlive_the_sandbox() -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        async with sandbox_at(time.time) as running:
            await control(running, "openai", hang=True)
            waiting = asyncio.create_task(session.post(f"{running.openai_base_url}/responses", json=STREAM))
            await heard(running, 1)
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(waiting, 60)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"status": 429}, "1"),
        ({"status": 429, "retry_after_s": 0}, "0"),
        ({"status": 429, "code": "insufficient_quota"}, None),
        ({"status": 503}, None),
    ],
)
async def test_retry_after(client: AsyncOpenAI, sandbox: Sandbox, told: dict[str, Any], said: str | None) -> None:
    await control(sandbox, "openai", **told)
    with pytest.raises(openai.APIStatusError) as caught:
        await client.models.list()
    assert caught.value.response.headers.get("retry-after") == said


@pytest.mark.parametrize(
    "told", [{"usage": "missing"}, {"times": 0}, {"status": 200}, {"delay_s": -1}, {"cut_how": "?"}, {"hung": True}]
)
async def test_a_control_call_that_means_nothing_is_refused(sandbox: Sandbox, told: dict[str, Any]) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await session.post(f"{sandbox.origin}/openai/_control", json=told)
        assert (answer.status, next(iter(told)) in await answer.text()) == (400, True)
        assert (await session.get(f"{sandbox.origin}/openai/_control/calls?after=x")).status == 400
    assert sandbox.openai.behaviours.pending() == []
