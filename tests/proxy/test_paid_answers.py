"""An answer that was paid for becomes its row, whatever its headers, its text or its usage block look like."""

import json

import pytest

from tests.support.gateway import Stack
from tests.support.hostile import CHAT, COMPLETION, ENVELOPE, Hostile, answered, chunked, event
from tests.support.whole_gateway import row_of

RUN = " " * 1_000_001
"""tiktoken's pattern fails on such a run: "Max stack size exceeded"."""


@pytest.mark.parametrize("odd", [b"req_caf\xe9", b"req_\xff\xfe" * 400, "req_é\u2028".encode(), b"req_" + b"x" * 5000])
async def test_a_request_id_that_is_no_text_costs_no_row(running: Stack, hostile: Hostile, odd: bytes) -> None:
    hostile.answer = answered(COMPLETION, b"X-Request-Id: " + odd)
    status, event_id, body, _ = await hostile.call()
    row = await row_of(running, event_id)
    assert (status, len(body), row["evidence"], row["total_tokens"]) == (200, len(COMPLETION), "reported", 12)
    assert row["request_id"] == odd.decode("utf-8", "replace")[:512]


async def test_a_name_that_is_no_text_costs_no_row(running: Stack, hostile: Hostile) -> None:
    odd = json.loads(COMPLETION) | {"model": "gpt-\0" + "x" * 5000, "service_tier": "\0"}
    hostile.answer = answered(json.dumps(odd).encode())
    row = await row_of(running, (await hostile.call())[1])
    assert (row["evidence"], row["total_tokens"], row["service_tier"]) == ("unpriced", 12, "\ufffd")


@pytest.mark.parametrize("where", ["prompt", "stream", "whole"])
async def test_text_that_the_tokenizer_fails_on_is_estimated(running: Stack, hostile: Hostile, where: str) -> None:
    asked = CHAT
    if where == "prompt":
        hostile.answer = answered(b"<html>bad gateway</html>", status=b"502 Bad Gateway")
        asked = {**CHAT, "messages": [{"role": "user", "content": RUN}]}
    elif where == "stream":
        hostile.answer, hostile.close = chunked(event(choices=[{"delta": {"content": RUN}}]), end=False), True
    else:
        hostile.answer = answered(json.dumps({**ENVELOPE, "choices": [{"message": {"content": RUN}}]}).encode())
    _, event_id, _, _ = await hostile.call(stream=where == "stream", body=asked)
    row = await row_of(running, event_id)
    assert row["evidence"] == "estimated"
    assert (row["prompt_tokens"] if where == "prompt" else row["completion_tokens"]) > 1000


@pytest.mark.parametrize("whole", [True, False])
async def test_a_whole_body_without_usage_counts_its_text(running: Stack, hostile: Hostile, whole: bool) -> None:
    text = {"content": "The quick brown fox jumps over the lazy dog.", "refusal": None}
    body = json.dumps({**ENVELOPE, "choices": [{"message": text}], "end": 1}, indent=2).encode()
    hostile.answer = answered(body if whole else body[:-3] + b"   ")  # the latter is not JSON
    status, event_id, got, _ = await hostile.call()
    row = await row_of(running, event_id)
    assert (status, len(got)) == (200, len(body))
    assert (row["evidence"], json.loads(row["metadata"])["reason"]) == ("estimated", "usage_missing")
    assert row["completion_tokens"] == 10


async def test_embeddings_without_usage_have_no_output(running: Stack, hostile: Hostile) -> None:
    hostile.answer = answered(b'{"object":"list","model":"text-embedding-3-small","data":[{"text":"x"}]}')
    asked = {"model": "text-embedding-3-small", "input": "hello"}
    row = await row_of(running, (await hostile.call(path="embeddings", body=asked))[1])
    assert (row["evidence"], row["completion_tokens"]) == ("estimated", 0)
    assert row["prompt_tokens"] > 0
