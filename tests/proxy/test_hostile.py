"""Hostile requests on raw sockets against a running gateway."""

import json
import socket

import pytest

from tests.support.gateway import Stack
from tests.support.patience import ENDS_S

BODY = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"CANARY-PROMPT please"}]}'


def send(running: Stack, raw: bytes) -> tuple[int, bytes]:
    """(status, everything that came back)."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        connection.sendall(raw)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    return int(got.split(b" ", 2)[1]), got


def request(
    running: Stack, *, line: str = "POST /v1/chat/completions HTTP/1.1", body: bytes = BODY, **more: str
) -> bytes:
    headers = {"Host": "gateway", "Connection": "close", "Authorization": f"Bearer {running.key}"}
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value != "")]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def code_of(answer: bytes) -> str:
    code: str = json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"]
    return code


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example/v1/models",
        "http://169.254.169.254/latest",
        "/v1/../v1/models",
        "/v1/%2e%2e/admin",
        "/v1/files/..%2f..%2forganization%2fcosts",
        "/v1/organization/costs",
        "/v1/models/..",
        "/v1/models\\..\\x",
        "/v1/responses/%252e",
        "/v1/realtime/client_secrets",
        "/admin",
    ],
)
def test_paths_that_lead_elsewhere(running: Stack, path: str) -> None:
    before = len(running.truth())
    status, answer = send(running, request(running, line=f"GET {path} HTTP/1.1", body=b""))
    assert status in (400, 404)
    if status == 404:
        assert code_of(answer) == "endpoint_not_supported"
    assert len(running.truth()) == before


@pytest.mark.parametrize(
    ("raw", "statuses"),
    [
        ({"api_key": "another"}, (400,)),
        ({"Content_Encoding": "gzip"}, (415,)),
        ({"Authorization": "Bearer nobody"}, (401,)),
        ({"Authorization": "Bearer ' OR 1=1--"}, (401,)),
        ({"Authorization": "Bearer Bearer x"}, (401,)),
        ({"Authorization": "Basic eDp5"}, (401,)),
        ({"Authorization": "Bearer " + "k" * 600}, (401,)),
        ({"Authorization": "Bearer \xfcnicode"}, (401,)),
        ({"Authorization": ""}, (401,)),
        ({"line": "POST /v1/chat/completions HTTP/2.0"}, (400, 505)),
        ({"line": "POST /v1/chat/completions HTTP/1.0", "Transfer_Encoding": "chunked"}, (400,)),
        ({"X_Meeting_Id": "not-a-uuid"}, (400,)),
        ({"X_Huge": "x" * 20_000}, (400, 431)),
    ],
)
def test_headers_that_must_not_pass(running: Stack, raw: dict[str, str], statuses: tuple[int, ...]) -> None:
    before = len(running.truth())
    status, _ = send(running, request(running, **raw))  # type: ignore[arg-type]  # the names are headers
    assert status in statuses
    assert len(running.truth()) == before


def test_two_credentials_are_refused(running: Stack) -> None:
    raw = request(running).replace(b"\r\nContent-Length", b"\r\nAuthorization: Bearer other\r\nContent-Length")
    status, answer = send(running, raw)
    assert (status, code_of(answer)) == (400, "duplicate_header")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o-mini","model":"gpt-5.1","messages":[]}',
        b'{"model":"gpt-4o-mini","\\u006dodel":"gpt-5.1","messages":[]}',
        b'{"model":"gpt-4o-mini","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b"",
        b"[]",
        b"\xff\xfe",
        b'{"messages":[]}',
        b'{"model":7,"messages":[]}',
    ],
)
def test_bodies_that_say_two_things_or_nothing(running: Stack, body: bytes) -> None:
    before = len(running.truth())
    status, answer = send(running, request(running, body=body))
    assert status == 400
    assert code_of(answer)
    assert len(running.truth()) == before


def test_each_of_two_pipelined_requests_is_judged_alone(running: Stack) -> None:
    first = request(running).replace(b"Connection: close\r\n", b"")
    second = request(running, Authorization="")
    _, answer = send(running, first + second)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"HTTP/1.1 401") == 1


def test_only_listed_headers_reach_openai(running: Stack) -> None:
    raw = request(
        running, OpenAI_Organization="org-mine", X_Forwarded_For="1.2.3.4", X_Stainless_Lang="python", Cookie="a=b"
    )
    status, answer = send(running, raw)
    assert status == 200
    assert b"set-cookie" not in answer.lower()
    names = {name.lower() for name in running.truth()[-1]["headers"]}
    assert {"x-client-request-id", "x-stainless-lang"} <= names
    assert not names & {"openai-organization", "x-forwarded-for", "cookie", "connection"}
