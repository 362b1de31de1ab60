"""What the OpenAI stand-in does wrong when told to, and that its log stays true: errors, cuts, untruths, slowness."""

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
CHAT: Final[dict[str, Any]] = {"model": MODEL, "messages": [{"role": "user", "content": "What is a meter?"}]}
STREAM: Final[dict[str, Any]] = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
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


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=HEADERS) as opened:
        yield opened


def last(sandbox: Sandbox) -> ReceivedCall:
    return sandbox.openai.log.calls()[-1]


async def raw(session: aiohttp.ClientSession, sandbox: Sandbox, body: Any, path: str = "/chat/completions") -> Any:
    """The response and its whole body, redirects not followed."""
    async with session.post(sandbox.openai_base_url + path, json=body, allow_redirects=False) as response:
        return response, await response.read()


async def gone(sandbox: Sandbox) -> ReceivedCall:
    """The last call, once the stand-in is through with it."""
    await until(lambda: last(sandbox).done)
    return last(sandbox)


@pytest.mark.parametrize(
    ("changes", "error", "code", "param"),
    [
        ({"model": "gpt-nothing"}, openai.NotFoundError, "model_not_found", None),
        ({"messages": []}, openai.BadRequestError, "empty_array", "messages"),
        ({"messages": [{}]}, openai.BadRequestError, "missing_required_parameter", "messages[0].role"),
        ({"n": 500}, openai.BadRequestError, "invalid_value", "n"),
        ({"max_tokens": 0}, openai.BadRequestError, "integer_below_min_value", "max_tokens"),
        ({"stream_options": {}}, openai.BadRequestError, "invalid_value", "stream_options"),
        ({"model": "text-embedding-3-small"}, openai.NotFoundError, None, "model"),
    ],
)
async def test_refusals_are_openais(
    client: AsyncOpenAI, sandbox: Sandbox, changes: Any, error: type[openai.APIStatusError], code: Any, param: Any
) -> None:
    with pytest.raises(error) as caught:
        await client.chat.completions.create(**CHAT | changes)
    assert (caught.value.code, caught.value.param, caught.value.type) == (code, param, "invalid_request_error")
    assert caught.value.request_id == last(sandbox).request_id
    assert (last(sandbox).usage, last(sandbox).finished) == (None, False)


async def test_a_body_that_cannot_be_read(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    for body in (b"{", b"[]", b"[" * 100_000, b""):
        async with session.post(f"{sandbox.openai_base_url}/chat/completions", data=body) as response:
            assert response.status == 400
            assert (await response.json())["error"]["type"] == "invalid_request_error"
    async with session.get(f"{sandbox.openai_base_url}/nowhere") as response:
        assert response.status == 404
        assert "Invalid URL" in (await response.json())["error"]["message"]


async def test_a_wrong_key(sandbox: Sandbox) -> None:
    async with AsyncOpenAI(base_url=sandbox.openai_base_url, api_key="sk-wrong-key", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(**CHAT)
    assert caught.value.code == "invalid_api_key"
    assert "wrong-key" not in str(caught.value)
    assert last(sandbox).status == 401


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (429, openai.RateLimitError, "rate_limit_exceeded"),
        (500, openai.InternalServerError, None),
        (503, openai.InternalServerError, None),
        (403, openai.PermissionDeniedError, "forbidden"),
    ],
)
async def test_errors_on_request(
    client: AsyncOpenAI, sandbox: Sandbox, status: int, error: type[openai.APIStatusError], code: str | None
) -> None:
    await control(sandbox, "openai", status=status, times=2, retry_after_s=7)
    for _ in range(2):
        with pytest.raises(error) as caught:
            await client.chat.completions.create(**CHAT)
        assert (caught.value.code, caught.value.response.headers["retry-after"]) == (code, "7")
        assert (last(sandbox).status, last(sandbox).usage) == (status, None)
    assert (await client.chat.completions.create(**CHAT)).usage is not None


async def test_behaviours_wait_for_their_calls(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    await control(sandbox, "openai", status=500, endpoint="embeddings")
    await control(sandbox, "openai", status=503, stream=True)
    await client.chat.completions.create(**CHAT)
    with pytest.raises(openai.InternalServerError):
        await client.embeddings.create(model="text-embedding-3-small", input="x")
    with pytest.raises(openai.InternalServerError):
        await client.chat.completions.create(**STREAM)
    assert len((await control(sandbox, "openai", method="GET"))["behaviours"]) == 2
    await control(sandbox, "openai", method="DELETE")
    await client.embeddings.create(model="text-embedding-3-small", input="x")
    await control(sandbox, "openai", "/calls", method="DELETE")
    assert sandbox.openai.log.calls() == []
    async with aiohttp.ClientSession() as session:
        unknown = await session.post(f"{sandbox.origin}/openai/_control", json={"sttaus": 500})
        assert unknown.status == 400


@pytest.mark.parametrize(("how", "broken"), [("chunked", True), ("length", True), ("close", False)])
@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
async def test_a_cut_stream_is_charged_for_what_was_produced(
    session: aiohttp.ClientSession, sandbox: Sandbox, how: str, broken: bool, path: str
) -> None:
    await control(sandbox, "openai", cut_after=6, cut_how=how, times=1)
    body = STREAM if path == "/chat/completions" else {"model": MODEL, "input": "What is a meter?", "stream": True}
    received = b""
    failed = False
    async with session.post(sandbox.openai_base_url + path, json=body) as response:
        try:
            async for piece in response.content.iter_any():
                received += piece
        except aiohttp.ClientPayloadError:
            failed = True
    assert (failed, received.count(b"data: ")) == (broken, 6)
    call = await gone(sandbox)
    assert (call.finished, call.chunks_sent) == (False, 6)
    usage = call.usage or {}
    assert received.count(b"delta" if path == "/responses" else b'"delta":{"content":') > 0
    produced = 5 if path == "/chat/completions" else 2  # the rest of the six events carry no token
    assert usage.get("completion_tokens", usage.get("output_tokens")) == produced


@pytest.mark.parametrize(("how", "broken"), [("chunked", True), ("length", True), ("close", False)])
async def test_a_cut_body_is_charged_in_full(
    session: aiohttp.ClientSession, sandbox: Sandbox, how: str, broken: bool
) -> None:
    await control(sandbox, "openai", cut_after=40, cut_how=how, times=1)
    try:
        _, body = await raw(session, sandbox, CHAT)
        assert (broken, len(body)) == (False, 40)
    except aiohttp.ClientPayloadError:
        assert broken
    call = await gone(sandbox)
    assert not call.finished
    assert call.usage is not None


async def test_dropped_before_costs_nothing_and_after_everything(
    session: aiohttp.ClientSession, sandbox: Sandbox
) -> None:
    for drop in ("before", "after"):
        await control(sandbox, "openai", drop=drop, times=1)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await raw(session, sandbox, CHAT)
        call = await gone(sandbox)
        assert (call.status, call.finished, call.usage is None) == (None, False, drop == "before")


async def test_a_client_that_leaves_pays_until_then(sandbox: Sandbox) -> None:
    await control(sandbox, "openai", chunks=1000, interval_s=0.05)
    url = f"{sandbox.openai_base_url}/chat/completions"
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.post(url, json=STREAM) as response:
        await response.content.readany()
        response.close()
    call = await gone(sandbox)
    assert not call.finished
    assert 0 < (call.usage or {})["completion_tokens"] < 1000


@pytest.mark.parametrize(
    ("untruth", "shown"),
    [
        ("omit", None),
        ("negative", -8),
        ("malformed", "many"),
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, 1),
    ],
)
async def test_untrue_usage(
    session: aiohttp.ClientSession, sandbox: Sandbox, untruth: Any, shown: int | str | None
) -> None:
    short = [{"role": "user", "content": "hi"}]
    await control(sandbox, "openai", usage=untruth)
    response, _ = await raw(session, sandbox, CHAT | {"messages": short})
    said = (await response.json()).get("usage")
    assert (said and said["prompt_tokens"]) == shown
    assert (last(sandbox).usage or {})["prompt_tokens"] == 8
    _, body = await raw(session, sandbox, STREAM | {"messages": short})
    assert (b'"usage":{' in body) == (untruth != "omit")
    assert (last(sandbox).usage or {})["prompt_tokens"] == 8
    answer = await (await raw(session, sandbox, {"model": MODEL, "input": "hi"}, "/responses"))[0].json()
    assert (answer["usage"] is None) == (untruth == "omit")


async def test_untrue_model_and_tier(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    await control(sandbox, "openai", response_model="gpt-internal", response_tier="scale")
    chat = await client.chat.completions.create(**CHAT)
    response = await client.responses.create(model=MODEL, input="x")
    assert (chat.model, chat.service_tier) == (response.model, response.service_tier) == ("gpt-internal", "scale")
    assert (last(sandbox).response_model, last(sandbox).service_tier) == ("gpt-4o-mini-2024-07-18", "default")


async def test_failures_inside_a_stream(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    await control(sandbox, "openai", fail_after=7, endpoint="responses", times=1)
    events = [event async for event in await client.responses.create(model=MODEL, input="x", stream=True)]
    failed: Any = events[-1]
    assert (failed.type, failed.sequence_number, failed.response.status) == ("response.failed", 7, "failed")
    assert failed.response.error.code == "server_error"
    assert failed.response.usage.model_dump(exclude_unset=True) == last(sandbox).usage
    assert last(sandbox).usage is not None
    await control(sandbox, "openai", error_after=3)
    events = [event async for event in await client.responses.create(model=MODEL, input="x", stream=True)]
    assert [(event.type, event.sequence_number) for event in events[-1:]] == [("error", 3)]
    with pytest.raises(openai.APIError):
        async for _ in await client.chat.completions.create(**STREAM):
            pass
    assert not last(sandbox).finished


async def test_lengths_and_huge_pieces(client: AsyncOpenAI, sandbox: Sandbox) -> None:
    answer = await client.chat.completions.create(
        **CHAT, metadata={"sandbox_chunks": "100", "sandbox_interval_ms": "1"}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 100
    await control(sandbox, "openai", chunks=10, chunk_bytes=3_000_000)
    stream = await client.chat.completions.create(**STREAM)
    sizes = [len(chunk.choices[0].delta.content or "") async for chunk in stream if chunk.choices]
    assert max(sizes) == 3_000_000
    assert (last(sandbox).usage or {})["completion_tokens"] == 11


async def test_slow_answers_redirects_and_pages(session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
    await control(sandbox, "openai", delay_s=600, times=1)
    slow = asyncio.create_task(raw(session, sandbox, CHAT))
    await until(sandbox.openai.log.calls)
    await raw(session, sandbox, CHAT)
    assert [call.done for call in sandbox.openai.log.calls()] == [False, True]
    slow.cancel()
    await control(sandbox, "openai", delay_s=0.2, times=1)
    began_s = time.monotonic()
    assert (await raw(session, sandbox, CHAT))[0].status == 200
    assert time.monotonic() - began_s >= 0.2
    assert (await control(sandbox, "openai", "/pace", first_s=0.1, interval_s=0.001))["first_s"] == 0.1
    await control(sandbox, "openai", redirect="http://127.0.0.1:9/v1/chat/completions", times=1)
    response, _ = await raw(session, sandbox, CHAT)
    assert (response.status, response.headers["Location"][:18]) == (307, "http://127.0.0.1:9")
    await control(sandbox, "openai", status=502, plain=True, times=1)
    response, body = await raw(session, sandbox, CHAT)
    assert (response.status, response.content_type, body[:6]) == (502, "text/html", b"<html>")
