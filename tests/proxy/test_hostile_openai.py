"""An OpenAI that has turned hostile: what its answer must not make of the row, the client's view or the next call."""

import asyncio
import contextlib
import json
import secrets
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.support.gateway import Stack
from tests.support.hostile import COMPLETION, DONE, STREAM, USAGE, Hostile, answered, chunked, event
from tests.support.patience import until
from tests.support.whole_gateway import row_of


async def test_a_connection_lost_after_the_last_event_loses_nothing(running: Stack, hostile: Hostile) -> None:
    hostile.answer, hostile.close = chunked(*STREAM, DONE, end=False), True
    status, event_id, body, _ = await hostile.call(stream=True)
    row = await row_of(running, event_id)
    assert (status, row["evidence"], row["prompt_tokens"], row["completion_tokens"]) == (200, "reported", 9, 3)
    assert body.endswith(DONE)


async def test_a_stream_that_ends_without_done_has_said_its_usage(running: Stack, hostile: Hostile) -> None:
    hostile.answer = chunked(*STREAM, end=True)
    _, event_id, body, _ = await hostile.call(stream=True)
    row = await row_of(running, event_id)
    assert (row["evidence"], row["prompt_tokens"], row["completion_tokens"]) == ("reported", 9, 3)
    assert json.loads(row["metadata"])["unterminated"] is True
    assert not body.endswith(b"<cut>")


async def test_usage_before_a_cut_is_an_estimate_that_says_why(running: Stack, hostile: Hostile) -> None:
    hostile.answer, hostile.close = chunked(*STREAM, end=False), True
    _, event_id, body, _ = await hostile.call(stream=True)
    row = await row_of(running, event_id)
    assert (row["evidence"], json.loads(row["metadata"])["reason"]) == ("estimated", "upstream_cut")
    assert body.endswith(b"<cut>")


@pytest.mark.parametrize("layout", [None, 2, "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 1_200_000])
async def test_an_answer_over_many_lines_becomes_its_row(
    running: Stack, hostile: Hostile, layout: int | str | None, newline: str, size: int
) -> None:
    """OpenAI indents whole answers by two, usage block and all (recordings of the real API)."""
    said = {**json.loads(COMPLETION), "choices": [{"index": 0, "message": {"content": "x" * size}}]}
    said["usage"] = {**USAGE, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}, "note": "a\n  b"}
    sent = json.dumps(said, indent=layout).replace("\n", newline).encode()
    hostile.answer = answered(sent)
    status, event_id, body, _ = await hostile.call()
    row = await row_of(running, event_id)
    assert (status, len(body), row["evidence"]) == (200, len(sent), "reported")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (9, 3, 12)
    assert json.loads(row["usage"]) == said["usage"]


@pytest.mark.parametrize("name", ["model", "id", "service_tier", "system_fingerprint"])
@pytest.mark.parametrize("value", ["".join(chr(0x4E00 + i % 9999) for i in range(9000)), "a\0b\nc\r\x1b"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_name_that_is_no_name_costs_no_row(
    running: Stack, hostile: Hostile, name: str, value: str, stream: bool
) -> None:
    unique = f"{secrets.token_hex(8)}{value}"
    if stream:
        hostile.answer = chunked(*(event(**{name: unique}, choices=[], usage=USAGE) for _ in range(2)), DONE, end=True)
    else:
        hostile.answer = answered(json.dumps({**json.loads(COMPLETION), name: unique}, indent=2).encode())
    _, event_id, _, _ = await hostile.call(stream=stream)
    row = await row_of(running, event_id)
    assert row["evidence"] == ("unpriced" if name in ("model", "service_tier") else "reported")
    if name != "system_fingerprint":
        assert row["response_id" if name == "id" else name] == unique[:256].replace("\0", "\ufffd")
    assert (row["prompt_tokens"], row["completion_tokens"]) == (9, 3)


@pytest.mark.parametrize("odd", [rb'"a\u0000b"', rb'"\ud800"', b'"\xff"', b'{"x":"' + b"y" * 70_000 + b'"}'])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_usage_block_that_jsonb_refuses_costs_no_row(
    running: Stack, hostile: Hostile, odd: bytes, stream: bool
) -> None:
    block = json.dumps(USAGE).encode()[:-1] + b',"note":' + odd + b"}"
    if stream:
        last = event(choices=[], usage=USAGE).replace(json.dumps(USAGE).encode(), block)
        hostile.answer = chunked(STREAM[0], last, DONE, end=True)
    else:
        hostile.answer = answered(COMPLETION.replace(json.dumps(USAGE).encode(), block))
    _, event_id, _, _ = await hostile.call(stream=stream)
    row = await row_of(running, event_id)
    assert (row["evidence"], row["prompt_tokens"], row["completion_tokens"]) == ("reported", 9, 3)
    assert row["usage"] is None
    assert row["usage_raw"].replace(b" ", b"").startswith(b'{"prompt_tokens":9,"completion_tokens":3,')
    assert row["cost_usd"] > 0


@pytest.mark.parametrize("unknown", [b"5", b"1e999999"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_usage_field_costs_the_price_and_no_count(
    running: Stack, hostile: Hostile, unknown: bytes, stream: bool
) -> None:
    block = json.dumps(USAGE).encode()[:-1] + b',"zz":' + unknown + b"}"
    if stream:
        last = event(choices=[], usage=USAGE).replace(json.dumps(USAGE).encode(), block)
        hostile.answer = chunked(STREAM[0], last, DONE, end=True)
    else:
        hostile.answer = answered(COMPLETION.replace(json.dumps(USAGE).encode(), block))
    _, event_id, _, _ = await hostile.call(stream=stream)
    row = await row_of(running, event_id)
    assert (row["evidence"], row["cost_usd"], row["billed_usd"]) == ("unpriced", None, None)
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (9, 3, 12)
    assert "zz is not a known usage field" in json.loads(row["metadata"])["problems"][0]


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_a_refused_credential_never_shows_whatever_its_size(running: Stack, hostile: Hostile, size: int) -> None:
    said = {"error": {"message": "Incorrect API key provided: CANARY-KEY" + "x" * size}}
    hostile.answer = answered(json.dumps(said).encode(), status=b"401 Unauthorized")
    status, event_id, body, _ = await hostile.call()
    assert status == 502
    assert b"CANARY-KEY" not in body
    assert (await row_of(running, event_id))["evidence"] == "void"


async def test_a_second_answer_is_never_given_to_the_next_call(running: Stack, hostile: Hostile) -> None:
    stolen = COMPLETION.replace(b"chatcmpl-ANSWERID", b"chatcmpl-POISONED")
    hostile.answer = answered(COMPLETION) + answered(stolen)
    for _ in range(3):
        status, _, body, _ = await hostile.call()
        assert (status, b"POISON" in body) == (200, False)


async def test_headers_of_an_answer_that_must_not_pass(running: Stack, hostile: Hostile) -> None:
    more = (b"Set-Cookie: a=CANARY", b"X-Odd: caf\xe9", b"Connection: keep-alive, X-Hop", b"X-Hop: CANARY")
    hostile.answer = answered(COMPLETION, *more, b"X-Gateway-Event-Id: CANARY")
    status, event_id, body, headers = await hostile.call()
    assert (status, len(body)) == (200, len(COMPLETION))
    assert "CANARY" not in str(headers)
    assert (await row_of(running, event_id))["evidence"] == "reported"


def connections(hostile: Hostile) -> float:
    """How many of clients the gateway has, as of a moment ago."""
    return hostile.gateway.metrics()["gateway_connections", frozenset()]


async def test_a_client_that_left_before_a_whole_answer_is_drained(running: Stack, hostile: Hostile) -> None:
    hostile.answer = answered(COMPLETION)
    hostile.wait.clear()
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    await until(lambda: not connections(hostile))  # those of earlier tests
    begun = datetime.now(UTC)
    call = asyncio.create_task(hostile.call())
    await until(lambda: hostile.asked and connections(hostile))
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    await until(lambda: not connections(hostile))  # the gateway has seen that its client has left
    hostile.wait.set()
    # Rows of other tests' calls may still come, but those began earlier.
    async with asyncio.timeout(90):
        while (row := await connection.fetchrow("select * from openai_usage where started_at >= $1", begun)) is None:
            await asyncio.sleep(0.05)
    await connection.close()
    assert (row["evidence"], row["total_tokens"]) == ("drained", 12)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"\x16\x03"]
)
async def test_an_answer_that_is_none_is_an_estimate(running: Stack, hostile: Hostile, answer: bytes) -> None:
    hostile.answer, hostile.close = answer, True
    status, event_id, _, _ = await hostile.call()
    assert status == 502
    assert (await row_of(running, event_id))["evidence"] == "estimated"
