"""What may pass in headers, both ways, and which framings are refused."""

from types import SimpleNamespace
from typing import Final, cast

import pytest
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.framing import check_framing, refusal
from gateway.kit.errors import ApiError
from gateway.openai.headers import answer_headers, forwarded_headers, is_event_stream
from gateway.openai.namespaces import Namespaces
from gateway.openai.upstream import UpstreamAnswer


def request(headers: dict[str, str], version: HttpVersion = HttpVersion11) -> web.Request:
    return make_mocked_request("POST", "/v1/responses", headers=CIMultiDict(headers), version=version)


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        ({}, HttpVersion(2, 0), 505),
        ({}, HttpVersion(0, 9), 505),
        ({"Transfer-Encoding": "chunked"}, HttpVersion10, 400),
        ({"Content-Encoding": "gzip"}, HttpVersion11, 415),
        ({"content-encoding": "identity, br"}, HttpVersion11, 415),
    ],
)
def test_refused_framing(headers: dict[str, str], version: HttpVersion, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        check_framing(request(headers, version))
    assert caught.value.status == status


@pytest.mark.parametrize("version", [HttpVersion10, HttpVersion11])
def test_plain_framing(version: HttpVersion) -> None:
    check_framing(request({"Content-Encoding": "Identity", "Content-Length": "2"}, version))


def test_only_the_allowed_go_upstream() -> None:
    sent = [
        ("Content-Type", "application/json"), ("Accept", "*/*"), ("OpenAI-Beta", "x"), ("Idempotency-Key", "i"),
        ("User-Agent", "u"), ("X-Stainless-Retry-Count", "1"), ("content-type", "text/plain"),
        ("Traceparent", "t"), ("Tracestate", "s"),
        ("Authorization", "Bearer canary"), ("api-key", "canary"), ("Cookie", "canary"),
        ("OpenAI-Organization", "canary"),
        ("OpenAI-Project", "canary"), ("X-Forwarded-For", "canary"), ("X-Client-Request-Id", "canary"),
        ("X-Meeting-Id", "canary"), ("Connection", "canary"), ("Accept-Encoding", "canary"), ("Host", "canary"),
        ("Transfer-Encoding", "canary"), ("X_Stainless_Lang", "canary"), ("Expect", "canary"), ("Range", "canary"),
    ]  # fmt: skip
    names = Namespaces()
    passed = forwarded_headers(CIMultiDictProxy(CIMultiDict(sent)), "event", names, "user", has_body=True)
    assert passed == {
        "X-Client-Request-Id": "event",
        "content-type": "application/json",
        "accept": "*/*",
        "openai-beta": "x",
        "idempotency-key": names.name_key("user", "i"),
        "user-agent": "u",
        "x-stainless-retry-count": "1",
        "traceparent": "t",
        "tracestate": "s",
    }


RECORDED: Final = [
    ("Date", "Tue, 01 Sep 2026 10:00:00 GMT"), ("Content-Type", "application/json"), ("Content-Length", "1021"),
    ("Transfer-Encoding", "chunked"), ("Connection", "keep-alive"), ("Server", "cloudflare"), ("CF-RAY", "9-CANARY"),
    ("cf-cache-status", "DYNAMIC"), ("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload"),
    ("alt-svc", 'h3=":443"; ma=86400'), ("X-Content-Type-Options", "nosniff"),
    ("access-control-expose-headers", "X-Request-ID"), ("access-control-allow-origin", "*"),
    ("openai-organization", "org-CANARY"), ("openai-project", "proj_CANARY"), ("openai-model", "gpt-4o"),
    ("openai-processing-ms", "412"), ("openai-version", "2020-10-01"), ("x-request-id", "req_1"),
    ("x-envoy-upstream-service-time", "419"), ("x-envoy-decorator-operation", "CANARY"), ("via", "CANARY"),
    ("x-openai-proxy-wasm", "v0.1"), ("set-cookie", "__cf_bm=CANARY"), ("set-cookie", "_cfuvid=CANARY"),
    ("cache-control", "no-store"), ("vary", "Origin"), ("www-authenticate", "Bearer realm=CANARY"),
    ("location", "https://CANARY"), ("timing-allow-origin", "*"), ("x-response-tracked", "CANARY"),
    ("content-disposition", "attachment"),
    *[(f"x-ratelimit-{what}-{of}", "CANARY") for what in ("limit", "remaining", "reset")
      for of in ("requests", "tokens", "input-images", "project-tokens", "project-requests", "tokens-usage-based")],
]  # fmt: skip
"""A header of every name that was seen in recorded answers of api.openai.com (3,009 of them with all headers)."""
PASSED: Final = [
    ("Content-Type", "application/json"),
    ("openai-processing-ms", "412"),
    ("openai-version", "2020-10-01"),
    ("x-request-id", "req_1"),
    ("content-disposition", "attachment"),
]


def test_what_passes_back_is_a_list() -> None:
    ours = {"Server": "pailflow-gateway", "x-gateway-event-id": "event"}
    passed = answer_headers(CIMultiDictProxy(CIMultiDict(RECORDED)), "event")
    assert sorted(passed.items()) == sorted([*PASSED, *ours.items()])


@pytest.mark.parametrize("name", ["X-Request-Id", "CONTENT-TYPE", "Content-Language", "Retry-After", "retry-after-ms"])
def test_what_is_on_the_list_passes_in_any_case(name: str) -> None:
    assert answer_headers({name: "value"}, "event")[name] == "value"


@pytest.mark.parametrize(
    "name", ["X-Request-Id-2", "openai-anything", "x-gateway-event-id", "X-Gateway-Billed-Usd", "retry-after-days"]
)
def test_a_header_that_nobody_has_seen_yet_does_not_pass(name: str) -> None:
    assert "CANARY" not in answer_headers({name: "CANARY"}, "event").values()


def test_rate_limits_are_those_of_the_key() -> None:
    ours = {"x-ratelimit-limit-requests": "60"}
    passed = answer_headers(CIMultiDictProxy(CIMultiDict(RECORDED)), "event", ours)
    assert {name: value for name, value in passed.items() if name.startswith("x-ratelimit-")} == ours


@pytest.mark.parametrize(
    ("media_type", "asked", "stream"),
    [
        ("text/event-stream", False, True),
        ("text/event-stream; charset=utf-8", False, True),
        ("Text/Event-Stream;Charset=UTF-8", False, True),
        ("TEXT/EVENT-STREAM", True, True),
        (" text/event-stream ", False, True),
        ("application/json", True, False),
        ("text/plain; text/event-stream", True, False),
        (None, True, True),
        (None, False, False),
    ],
)
def test_an_event_stream_is_known_by_its_media_type(media_type: str | None, asked: bool, stream: bool) -> None:
    headers = CIMultiDict() if media_type is None else CIMultiDict({"Content-Type": media_type})
    source = cast("UpstreamAnswer", SimpleNamespace(headers=CIMultiDictProxy(headers)))
    assert is_event_stream(source, asked=asked) is stream


def test_refusal() -> None:
    error = ApiError(429, "c", 'say "no"', kind="requests", param="p", headers={"Retry-After": "2"})
    answer = refusal(error, "event")
    assert (answer.status, answer.headers["Retry-After"], answer.headers["x-gateway-event-id"]) == (429, "2", "event")
    assert answer.body == b'{"error":{"message":"say \\"no\\"","type":"requests","param":"p","code":"c"}}'
