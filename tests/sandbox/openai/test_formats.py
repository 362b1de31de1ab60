"""The OpenAI stand-in's bytes, framing and headers: what recordings of the real API (2023 to 2026) show, by endpoint.

No recording is copied here: only how they are written.
"""

import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import aiohttp
import pytest

from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from tests.support.stand_ins import control, sandbox_at

HELLO: Final = [{"role": "user", "content": "Hello"}]
CHAT: Final[dict[str, Any]] = {"model": "gpt-4o-mini", "messages": HELLO}
RESPONSE: Final[dict[str, Any]] = {"model": "gpt-5-mini", "input": "Hello"}
EMBED: Final[dict[str, Any]] = {"model": "text-embedding-3-small", "input": "Hello", "dimensions": 4}
BASE64: Final = {**EMBED, "encoding_format": "base64"}
LEGACY: Final[dict[str, Any]] = {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello"}
USAGE: Final = {"stream": True, "stream_options": {"include_usage": True}}
RESPONSE_ORDER: Final = (
    "id object created_at status background billing completed_at error frequency_penalty incomplete_details "
    "instructions max_output_tokens max_tool_calls model moderation output parallel_tool_calls "
    "presence_penalty previous_response_id prompt_cache_key prompt_cache_retention reasoning safety_identifier "
    "service_tier store temperature text tool_choice tool_usage tools top_logprobs top_p truncation usage user metadata"
)
DOOR: Final = {
    "server": "cloudflare",
    "cf-cache-status": "DYNAMIC",
    "strict-transport-security": "max-age=31536000; includeSubDomains; preload",
    "x-content-type-options": "nosniff",
    "alt-svc": 'h3=":443"; ma=86400',
}
ACCOUNT: Final = {"openai-organization", "openai-project", "openai-version", "openai-processing-ms"}
LIMITS: Final = {
    f"x-ratelimit-{part}-{unit}" for part in ("limit", "remaining", "reset") for unit in ("requests", "tokens")
}


class Got(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def media(self) -> str:
        return str(self.headers["Content-Type"])

    @property
    def names(self) -> set[str]:
        return {name.lower() for name in self.headers}

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        lines = [line.removeprefix(b"data: ") for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(time.time) as running:
        yield running


async def ask(sandbox: Sandbox, path: str, body: Any = None, key: str = credentials.OPENAI_API_KEY) -> Got:
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
    url = f"{sandbox.openai_base_url}/{path}"
    method = "GET" if body is None else "POST"
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body, headers=headers) as answer:
        return Got(answer.status, answer.headers, await answer.read())


def indented(body: Any, columns: int, end: bytes) -> bytes:
    return json.dumps(body, indent=columns, ensure_ascii=False).encode() + end


@pytest.mark.parametrize(
    ("path", "body", "end", "chunked"),
    [
        ("chat/completions", CHAT, b"\n", True),
        ("completions", LEGACY, b"\n", True),
        ("embeddings", BASE64, b"\n", True),
        ("models", None, b"", True),
        ("responses", RESPONSE, b"", False),
        ("responses/compact", RESPONSE, b"", False),
        ("responses/input_tokens", RESPONSE, b"", False),
        ("models/gpt-4o-mini", None, b"", False),
    ],
)
async def test_whole_answers_are_printed_over_many_lines(
    sandbox: Sandbox, path: str, body: Any, end: bytes, chunked: bool
) -> None:
    got = await ask(sandbox, path, body)
    assert (got.status, got.media) == (200, "application/json")
    assert got.body == indented(got.json(), 2, end)
    assert ("content-length" in got.names) != chunked
    assert (got.headers.get("Transfer-Encoding") == "chunked") == chunked


async def test_moderations_are_printed_so_too(sandbox: Sandbox) -> None:
    got = await ask(sandbox, "moderations", {"input": "Hello"})
    assert got.body.startswith(b'{\n  "id": "modr-')
    assert got.body.endswith(b"\n  ]\n}")
    assert b"1e-6" in got.body


async def test_vectors_of_numbers_are_compact(sandbox: Sandbox) -> None:
    got = await ask(sandbox, "embeddings", EMBED)
    assert got.body == json.dumps(got.json(), separators=(",", ":")).encode() + b"\n"
    assert [list(item) for item in got.json()["data"]] == [["object", "embedding", "index"]]
    base64 = (await ask(sandbox, "embeddings", BASE64)).json()
    assert [list(item) for item in base64["data"]] == [["object", "index", "embedding"]]


async def test_members_come_in_openais_order(sandbox: Sandbox) -> None:
    chat = (await ask(sandbox, "chat/completions", CHAT)).json()
    assert " ".join(chat) == "id object created model choices usage service_tier system_fingerprint"
    assert " ".join(chat["choices"][0]) == "index message logprobs finish_reason"
    assert " ".join(chat["choices"][0]["message"]) == "role content refusal annotations"
    reasoned = (await ask(sandbox, "chat/completions", {**CHAT, "model": "gpt-5-mini"})).json()
    assert " ".join(reasoned["choices"][0]) == "index message finish_reason"
    response = (await ask(sandbox, "responses", RESPONSE)).json()
    assert " ".join(response) == RESPONSE_ORDER
    message = response["output"][-1]
    assert " ".join(message) == "id type status content role"
    assert " ".join(message["content"][0]) == "type annotations logprobs text"
    assert (response["billing"], response["service_tier"]) == ({"payer": "developer"}, "default")
    legacy = (await ask(sandbox, "completions", LEGACY)).json()
    assert " ".join(legacy) == "id object created model choices usage"
    assert legacy["model"] == "gpt-3.5-turbo-instruct:20230824-v2"
    models = (await ask(sandbox, "models")).json()["data"]
    assert {tuple(entry) for entry in models} == {("id", "object", "created", "owned_by")}
    assert not [entry["id"] for entry in models if ":" in entry["id"] or "*" in entry["id"]]


async def test_details_of_usage_are_those_that_most_answers_have(sandbox: Sandbox) -> None:
    chat = (await ask(sandbox, "chat/completions", CHAT)).json()["usage"]
    assert list(chat["prompt_tokens_details"]) == ["cached_tokens", "audio_tokens"]
    assert len(chat["completion_tokens_details"]) == 4
    response = (await ask(sandbox, "responses", RESPONSE)).json()["usage"]
    assert list(response["input_tokens_details"]) == ["cached_tokens"]
    newer = (await ask(sandbox, "responses", {**RESPONSE, "model": "gpt-5.6"})).json()["usage"]
    assert list(newer["input_tokens_details"]) == ["cache_write_tokens", "cached_tokens"]
    legacy = (await ask(sandbox, "completions", LEGACY)).json()["usage"]
    assert list(legacy) == ["prompt_tokens", "completion_tokens", "total_tokens"]
    empty = (await ask(sandbox, "completions", {**LEGACY, "max_tokens": 0})).json()["usage"]
    assert list(empty) == ["prompt_tokens", "total_tokens"]


async def test_headers_speak_of_the_host_and_the_account(sandbox: Sandbox) -> None:
    for path, body, more in (
        ("chat/completions", CHAT, LIMITS | {"x-openai-proxy-wasm"}),
        ("chat/completions", CHAT | USAGE, LIMITS | {"x-openai-proxy-wasm"}),
        ("responses", RESPONSE, LIMITS),
        ("embeddings", EMBED, LIMITS | {"via", "openai-model", "access-control-allow-origin"}),
        ("completions", LEGACY, LIMITS | {"via", "openai-model", "cache-control"}),
        ("models", None, set()),
    ):
        got = await ask(sandbox, path, body)
        assert {name: got.headers[name] for name in DOOR} == DOOR
        assert got.headers.getall("access-control-expose-headers") == ["X-Request-ID", "CF-Ray", "CF-Ray"]
        assert [cookie.partition("=")[0] for cookie in got.headers.getall("Set-Cookie")] == ["__cf_bm", "_cfuvid"]
        assert got.names >= ACCOUNT | {"cf-ray", "x-request-id"} | more
        assert bool(got.names & LIMITS) == bool(more)


async def test_streams_of_chat(sandbox: Sandbox) -> None:
    got = await ask(sandbox, "chat/completions", CHAT | USAGE)
    assert (got.media, got.headers.get("Transfer-Encoding")) == ("text/event-stream; charset=utf-8", "chunked")
    *chunks, last = got.events()
    order = "id object created model service_tier system_fingerprint choices usage obfuscation"
    assert {" ".join(chunk) for chunk in [*chunks, last]} == {order}
    assert (last["choices"], last["usage"]["total_tokens"] > 0) == ([], True)
    assert {len(chunk["obfuscation"]) for chunk in chunks} <= set(range(16))
    assert got.body.endswith(b"\n\ndata: [DONE]\n\n")


async def test_streams_of_completions(sandbox: Sandbox) -> None:
    got = await ask(sandbox, "completions", LEGACY | USAGE | {"max_tokens": 3})
    assert got.media == "text/event-stream"
    *chunks, last = got.events()
    assert {tuple(chunk) for chunk in chunks} == {("id", "object", "created", "choices", "model", "usage")}
    assert " ".join(last) == "id object created model usage choices"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "length"]


async def test_streams_of_responses(sandbox: Sandbox) -> None:
    await control(sandbox, "openai", times=1, keepalives=2)
    for asked, first in ((None, "auto"), ("priority", "priority")):
        got = await ask(sandbox, "responses", {**RESPONSE, "stream": True, "service_tier": asked})
        assert got.media == "text/event-stream; charset=utf-8"
        events = got.events()
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        for event in events:
            kind, *others = event
            assert (kind, others) == ("type", sorted(others))
        tiers = [event["response"]["service_tier"] for event in events if "response" in event]
        assert tiers == [first, first, "default" if asked is None else asked]
        assert "billing" not in events[-1]["response"]
        kept = [event for event in events if event["type"] == "keepalive"]
        assert kept == ([{"type": "keepalive", "sequence_number": number} for number in (2, 3)] if not asked else [])
        assert got.body.count(b"event: keepalive\ndata: {") == len(kept)


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "at_door"),
    [
        ("chat/completions", {**CHAT, "model": "gpt-nothing"}, 404, None, True),
        ("embeddings", {**EMBED, "model": "gpt-nothing"}, 404, None, True),
        ("embeddings", {**EMBED, "model": "gpt-4o-mini"}, 403, None, True),
        ("chat/completions", {**CHAT, "messages": []}, 400, "messages", False),
        ("chat/completions", {**CHAT, "model": "text-embedding-3-small"}, 404, "model", False),
        ("responses", {**RESPONSE, "model": "gpt-nothing"}, 400, "model", False),
        ("responses/resp_nothing", None, 404, None, False),
        ("models/gpt-nothing", None, 404, "model", False),
    ],
)
async def test_errors_look_different_where_no_model_was_asked(
    sandbox: Sandbox, path: str, body: Any, status: int, param: Any, at_door: bool
) -> None:
    got = await ask(sandbox, path, body)
    error = got.json()["error"]
    assert (got.status, error["param"], list(error)) == (status, param, ["message", "type", "param", "code"])
    assert got.body == indented(got.json(), 4, b"\n") if at_door else indented(got.json(), 2, b"")
    assert got.media == ("application/json; charset=utf-8" if at_door else "application/json")
    assert "content-length" in got.names
    assert bool(got.names & ACCOUNT) != at_door
    assert {name: got.headers[name] for name in DOOR} == DOOR


async def test_a_wrong_key_is_told_how_to_authenticate(sandbox: Sandbox) -> None:
    for path, body, columns in (("chat/completions", CHAT, 4), ("responses", RESPONSE, 2)):
        got = await ask(sandbox, path, body, key="sk-wrong")
        assert got.headers["www-authenticate"] == 'Bearer realm="OpenAI API"'
        assert got.body == indented(got.json(), columns, b"\n" if columns == 4 else b"")
        assert (got.json()["error"]["type"], got.json()["error"]["param"]) == ("invalid_request_error", None)
        assert "openai-organization" not in got.names
