"""What may pass in headers, both ways, and which framings are refused (facts/attacks.md A18-A21, A31, A39)."""

import pytest
from aiohttp import HttpVersion, HttpVersion10, HttpVersion11, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.core.errors import ApiError
from gateway.flows.proxy.headers import answer_headers, check_framing, forwarded_headers, is_error_envelope, refusal


def request(headers: dict[str, str], version: HttpVersion = HttpVersion11) -> web.Request:
    return make_mocked_request("POST", "/v1/responses", headers=CIMultiDict(headers), version=version)


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        ({}, HttpVersion(2, 0), 505),
        ({}, HttpVersion(0, 9), 505),
        ({"Transfer-Encoding": "chunked"}, HttpVersion10, 400),
        ({"api-key": "x"}, HttpVersion11, 400),
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
    passed = forwarded_headers(CIMultiDictProxy(CIMultiDict(sent)), "event")
    assert passed == {
        "X-Client-Request-Id": "event",
        "content-type": "text/plain",
        "accept": "*/*",
        "openai-beta": "x",
        "idempotency-key": "i",
        "user-agent": "u",
        "x-stainless-retry-count": "1",
        "traceparent": "t",
        "tracestate": "s",
    }


def test_answers_lose_what_is_of_one_connection_and_cookies() -> None:
    sent = CIMultiDict(
        [
            ("Content-Type", "application/json"), ("x-request-id", "req"), ("x-ratelimit-limit-requests", "9"),
            ("Set-Cookie", "canary"), ("set-cookie", "canary"), ("Connection", "close, X-Private"),
            ("X-Private", "canary"),
            ("Keep-Alive", "canary"), ("Transfer-Encoding", "canary"), ("Content-Length", "5"), ("Upgrade", "canary"),
            ("x-gateway-event-id", "canary"), ("Warning", "a"), ("Warning", "b"), ("retry-after-ms", "5"),
        ]
    )  # fmt: skip
    passed = answer_headers(CIMultiDictProxy(sent), "event")
    assert sorted(passed.items()) == sorted(
        [
            ("Content-Type", "application/json"), ("x-request-id", "req"), ("x-ratelimit-limit-requests", "9"),
            ("Warning", "a"), ("Warning", "b"), ("retry-after-ms", "5"), ("x-gateway-event-id", "event"),
        ]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"error":{"message":"x"}}', True),
        (b'{"error":"x"}', False),
        (b'{"error":null}', False),
        (b"[]", False),
        (b"<html>", False),
        (b"", False),
        (b"\xff", False),
        (b'{"error":{"message":"\xff"}}', True),
        (b'{"error":' + b"[" * 99_999 + b"]" * 99_999 + b"}", False),
    ],
)
def test_error_envelope(body: bytes, answer: bool) -> None:
    assert is_error_envelope(body) is answer


def test_refusal() -> None:
    error = ApiError(429, "c", 'say "no"', kind="requests", param="p", headers={"Retry-After": "2"})
    answer = refusal(error, "event")
    assert (answer.status, answer.headers["Retry-After"], answer.headers["x-gateway-event-id"]) == (429, "2", "event")
    assert answer.body == b'{"error":{"message":"say \\"no\\"","type":"requests","param":"p","code":"c"}}'
