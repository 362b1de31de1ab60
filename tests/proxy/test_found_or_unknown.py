"""What an answer says of its cost is found wherever it stands and however it comes, and nothing is made up."""

import gzip
import json
import secrets
from typing import Any

import pytest

from tests.support.gateway import Stack
from tests.support.hostile import COMPLETION, DONE, ENVELOPE, STREAM, Hostile, answered, chunked
from tests.support.whole_gateway import row_of

TOOL = {"type": "function", "name": "f", "description": "x" * 900, "parameters": {"service_tier": "default"}}
RESPONSE: dict[str, Any] = {
    "id": "resp_ANSWERID",
    "object": "response",
    "status": "completed",
    "model": "gpt-5-mini-2025-08-07",
    "output": [{"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "x" * 1_200_000}]}],
    "service_tier": "priority",
    "tools": [TOOL] * 100,
    "usage": {"input_tokens": 1000, "output_tokens": 200, "total_tokens": 1200},
    "metadata": {},
}
ASKED = {"model": "gpt-5-mini", "input": "hello"}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("tier", ["priority", "flex"])
async def test_the_tier_of_a_large_answer(running: Stack, hostile: Hostile, tier: str, indent: int | None) -> None:
    made = {**RESPONSE, "id": f"resp_{tier}_{indent}", "service_tier": tier}
    hostile.answer = answered(json.dumps(made, indent=indent).encode())
    status, event_id, body, _ = await hostile.call(path="responses", body=ASKED)
    row = await row_of(running, event_id)
    assert (status, json.loads(body)["service_tier"]) == (200, tier)
    assert (row["evidence"], row["service_tier"], row["response_id"]) == ("reported", tier, made["id"])
    assert row["cost_usd"] > 0
    assert "problems" not in json.loads(row["metadata"])


@pytest.mark.parametrize("kind", ["whole", "large", "stream"])
async def test_a_coded_answer_is_metered(running: Stack, hostile: Hostile, kind: str) -> None:
    if kind == "stream":
        coded = gzip.compress(b"".join((*STREAM, DONE)).replace(b"ANSWERID", kind.encode()))
        hostile.answer = chunked(coded[:90], coded[90:], end=True, more=b"Content-Encoding: gzip\r\n")
    else:
        filling = json.loads(COMPLETION) | (
            {"x": [secrets.token_hex(8) for _ in range(150_000)]} if kind == "large" else {}
        )
        coded = gzip.compress(json.dumps(filling | {"id": f"chatcmpl-{kind}"}).encode())
        hostile.answer = answered(coded, b"Content-Encoding: gzip")
    status, event_id, body, headers = await hostile.call(stream=kind == "stream")
    row = await row_of(running, event_id)
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert body == coded
    assert (row["evidence"], row["prompt_tokens"], row["completion_tokens"]) == ("reported", 9, 3)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_coding_that_is_not_read_is_named(running: Stack, hostile: Hostile, stream: bool) -> None:
    coded = b"\x8b\x02\x80" * 30
    more = b"Content-Encoding: zstd"
    hostile.answer = chunked(coded, end=True, more=more + b"\r\n") if stream else answered(coded, more)
    _, event_id, _, _ = await hostile.call(stream=stream)
    row = await row_of(running, event_id)
    assert (row["evidence"], json.loads(row["metadata"])["reason"]) == ("estimated", "coded_zstd")


@pytest.mark.parametrize("media_type", [b"Text/Event-Stream; charset=UTF-8", b"TEXT/EVENT-STREAM", b""])
async def test_a_stream_whatever_its_media_type_s_case(running: Stack, hostile: Hostile, media_type: bytes) -> None:
    line = b"Content-Type: text/event-stream\r\n"
    answer = chunked(*STREAM, DONE, end=True)
    hostile.answer = answer.replace(line, b"Content-Type: " + media_type + b"\r\n" if media_type else b"")
    _, event_id, body, _ = await hostile.call(stream=True)
    row = await row_of(running, event_id)
    assert (row["evidence"], row["prompt_tokens"], row["completion_tokens"]) == ("reported", 9, 3)
    assert body.endswith(DONE)
    assert b'"usage": {' not in body  # nobody asked for it


async def test_an_error_of_openai_s_that_is_large_is_void(running: Stack, hostile: Hostile) -> None:
    body = json.dumps({"error": {"message": "x"}, "more": "y" * 1_200_000}).encode()
    hostile.answer = answered(body, status=b"500 Internal Server Error")
    row = await row_of(running, (await hostile.call())[1])
    assert row["evidence"] == "void"


async def test_a_large_answer_without_usage_counts_its_beginning(running: Stack, hostile: Hostile) -> None:
    made = {**ENVELOPE, "choices": [{"message": {"content": "The quick brown fox. " * 70_000}}]}
    hostile.answer = answered(json.dumps(made).encode())
    row = await row_of(running, (await hostile.call())[1])
    assert row["evidence"] == "estimated"
    assert row["completion_tokens"] > 100_000


@pytest.mark.parametrize("cut", [True, False])
async def test_members_that_came_whole_before_a_cut_are_used(running: Stack, hostile: Hostile, cut: bool) -> None:
    """A body that breaks off behind its usage, and one that ends there although its JSON goes on."""
    made = {**RESPONSE, "id": f"resp_cut_{cut}", "output": [], "service_tier": "flex"}
    body = json.dumps(made).encode()[:-3]
    hostile.answer, hostile.close = answered(body, length=len(body) + 3 * cut), cut
    row = await row_of(running, (await hostile.call(path="responses", body=ASKED))[1])
    assert (row["service_tier"], row["response_id"], row["total_tokens"]) == ("flex", made["id"], 1200)
    assert row["evidence"] == ("estimated" if cut else "reported")
