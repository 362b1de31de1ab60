"""The log line of a request: one each, and enough in it to answer which customer was refused, and for what."""

import json
import socket
from typing import Any

import pytest

from gateway.kit.version import VERSION
from gateway.proxy.request_info import plain
from tests.proxy.test_front_door import Got, ask
from tests.support.gateway import Stack
from tests.support.patience import ENDS_S, until

EVENT_ID = "x-gateway-event-id"
HINT = "OpenAI refuses the gateway's credential: check OPENAI_API_KEY"
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "CANARY"}]}


def call(running: Stack, path: str = "/v1/chat/completions", **fields: Any) -> Got:
    return ask(running.port, "POST", path, running.key, json.dumps({**CHAT, **fields}))


def lines_of(running: Stack, got: Got) -> list[dict[str, Any]]:
    """Every line about the request, once a later request's is there too."""
    event_id = got.headers[EVENT_ID]
    running.serve.wait_for(event_id)
    running.serve.wait_for(ask(running.port, "GET", "/v1/later").headers[EVENT_ID])
    found = [line for line in running.serve.output().splitlines() if event_id in line]
    assert not [line for line in found if "CANARY" in line or running.key in line]
    return [json.loads(line) for line in found]


def failed_calls(running: Stack) -> float:
    return sum(
        value
        for (name, labels), value in running.metrics().items()
        if name == "gateway_calls_total" and ("status", "5xx") in labels
    )


def failed_lines(running: Stack) -> int:
    calls = [json.loads(line) for line in running.serve.output().splitlines() if '"event":"call"' in line]
    return sum(call["status"] >= 500 for call in calls)


def empty_accounts(running: Stack) -> float:
    which = frozenset({("kind", "insufficient_quota")})
    return running.metrics().get(("gateway_upstream_errors_total", which), 0)


def test_a_refusal_says_who_and_what(running: Stack) -> None:
    got = call(running, "/v1/responses?secret=CANARY", input="x", background=True)
    assert got.status == 400
    (line,) = lines_of(running, got)
    assert line | {"ts": "", "ms": 0, "key": ""} == {
        "ts": "",
        "level": "warning",
        "event": "refused",
        "id": got.headers[EVENT_ID],
        "status": 400,
        "ms": 0,
        "process": "proxy-0",
        "version": VERSION,
        "endpoint": "responses",
        "user": running.user_id,
        "key": "",
        "model": "gpt-4o-mini",
        "code": "unsupported_parameter",
        "param": "background",
        "method": "POST",
        "path": "/v1/responses",
        "peer": "127.0.0.1",
    }
    assert line["key"]


def test_a_refusal_before_the_key_is_known(running: Stack) -> None:
    (line,) = lines_of(running, ask(running.port, "POST", "/v1/chat/completions?key=CANARY", "CANARY", "{}"))
    assert (line["code"], line["path"], line["peer"]) == ("invalid_api_key", "/v1/chat/completions", "127.0.0.1")
    assert "user" not in line


def test_what_a_client_invents_stays_short_and_printable(running: Stack) -> None:
    (line,) = lines_of(running, ask(running.port, "POST", "/v1/" + "a" * 5000))
    assert line["path"] == "/v1/" + "a" * 196
    assert plain("a\x7f\x1b[31mé\ud800\n~ ") == "a??[31m???~ "


@pytest.mark.parametrize(
    ("fault", "code", "openai_status", "detail"),
    [
        ({"drop": "after"}, "upstream_cut", None, "openai: ServerDisconnectedError"),
        ({"cut_after": 10}, "upstream_cut", 200, None),
        ({"status": 401, "message": "CANARY"}, "upstream_credential_refused", 401, HINT),
    ],
)
async def test_a_502_has_one_line(
    running: Stack, fault: dict[str, Any], code: str, openai_status: int | None, detail: str | None
) -> None:
    printed = running.serve.printed_bytes()
    running.control("openai", body={"times": 1, **fault})
    got = call(running)
    assert (got.status, json.loads(got.body)["error"]["code"]) == (502, code)
    (line,) = lines_of(running, got)
    assert (line["event"], line["level"], line["code"]) == ("call", "error", code)
    assert (line["status"], line.get("openai_status"), line.get("detail")) == (502, openai_status, detail)
    assert running.serve.output(printed).count(HINT) == (detail == HINT)
    # What is counted is what the lines say.
    await until(lambda: failed_calls(running) == failed_lines(running))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/models", 200), ("GET", "/v1/models/gpt-none", 404), ("POST", "/v1/traces/ingest", 204)],
)
def test_a_free_call_says_who_and_what(running: Stack, method: str, path: str, status: int) -> None:
    (line,) = lines_of(running, ask(running.port, method, f"{path}?x=CANARY" if status == 200 else path, running.key))
    assert (line["event"], line["status"], line["user"]) == ("free_call", status, running.user_id)
    assert (line["method"], line["path"]) == (method, path)
    assert line["key"]


def test_another_http_version_is_the_clients_mistake(running: Stack) -> None:
    printed = running.serve.printed_bytes()
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        connection.sendall(b"GET /v1/models HTTP/2.0\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b" 505 " in connection.recv(65536)
    said = running.serve.wait_for("http_version_not_supported", printed)
    (found,) = [line for line in said.splitlines() if "http_version_not_supported" in line]
    assert json.loads(found)["level"] == "warning"


async def test_an_empty_account_at_openai_is_not_the_keys_budget(running: Stack) -> None:
    counted_before = empty_accounts(running)
    running.control("openai", body={"times": 1, "status": 429, "code": "insufficient_quota", "message": "Quota."})
    empty = call(running)
    running.control("openai", body={"times": 1, "status": 429, "code": "rate_limit_exceeded", "message": "Slow."})
    limited = call(running)
    said = json.loads(empty.body)["error"]
    assert (empty.status, said["code"], said["message"]) == (429, "insufficient_quota", "Quota.")
    (line,) = lines_of(running, empty)
    assert (line["event"], line["level"], line["openai_code"]) == ("call", "error", "insufficient_quota")
    assert line["request_id"] == empty.headers["x-request-id"]
    (other,) = lines_of(running, limited)
    assert (other["level"], other["openai_code"]) == ("info", "rate_limit_exceeded")
    await until(lambda: empty_accounts(running) == counted_before + 1)


def test_a_call_has_openais_id_and_what_runs_it(running: Stack) -> None:
    got = call(running)
    (line,) = lines_of(running, got)
    assert (got.status, line["event"], line["level"], line["process"]) == (200, "call", "info", "proxy-0")
    assert (line["request_id"], line["version"]) == (got.headers["x-request-id"], VERSION)


@pytest.mark.parametrize(("path", "code"), [("/rooms/some-room", "rooms_not_configured"), ("/nothing", None)])
def test_a_refusal_beside_the_api_has_its_line_too(running: Stack, path: str, code: str | None) -> None:
    (line,) = lines_of(running, ask(running.port, "GET", f"{path}?key=CANARY"))
    assert (line["event"], line["path"]) == ("refused", path)
    assert line["code"] == (code or "endpoint_not_supported")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer CANARY\x01\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer CANARY\r\n\r\n",
        b"POST /v1/chat/completions?api_key=CANARY\xe9 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + b"CANARY" * 2000 + b"\r\n\r\n",
        b"CANARY\r\n\r\n",
    ],
)
def test_what_is_no_http_is_never_quoted(running: Stack, head: bytes) -> None:
    printed = running.serve.printed_bytes()
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        connection.sendall(head)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    assert got.startswith(b"HTTP/1.0 400 ")
    assert b"CANARY" not in got
    fields, _, body = got.partition(b"\r\n\r\n")
    assert json.loads(body)["error"]["code"] == "invalid_framing"
    event_id = dict(line.split(": ", 1) for line in fields.decode().split("\r\n")[1:])[EVENT_ID]
    said = running.serve.wait_for(event_id, printed)
    (line,) = [line for line in said.splitlines() if event_id in line]
    assert json.loads(line)["code"] == "invalid_framing"
    assert "CANARY" not in said
    assert "Error handling request" not in said
