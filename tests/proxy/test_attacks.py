"""Odd clients on raw sockets: what a refused request must not do, and what a strange one must not make of its row."""

import asyncio
import json
import socket
from typing import Any

import pytest

from tests.support.gateway import Stack
from tests.support.patience import ENDS_S
from tests.support.whole_gateway import row_of

EVENT_ID = "x-gateway-event-id"
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}


def head(running: Stack, *more: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    lines = [line, b"Host: gateway", f"Authorization: Bearer {running.key}".encode(), *more]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def whole(running: Stack, body: bytes, *more: bytes) -> bytes:
    return head(running, b"Connection: close", b"Content-Length: %d" % len(body), *more) + body


def exchange(running: Stack, raw: bytes) -> bytes:
    """Everything that comes back until the gateway closes."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        connection.sendall(raw)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    return got


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def event_id_of(answer: bytes) -> str:
    lines = answer.split(b"\r\n\r\n", 1)[0].decode("latin-1").lower().split("\r\n")
    return next(line.partition(": ")[2] for line in lines if line.startswith(EVENT_ID))


@pytest.mark.parametrize(
    "broken",
    [
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer CANARY-KEY\x00\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization Bearer CANARY-KEY\r\n\r\n",
        b"GET /v1/models?k=CANARY-KEY HTTP/1.1 x\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: CANARY-KEY\r\n\r\n",
        b"CANARY-KEY /v1/models HTTP/1.1\r\n\r\n",
    ],
)
def test_what_cannot_be_parsed_is_not_logged(running: Stack, broken: bytes) -> None:
    before, printed = len(running.truth()), running.serve.printed_bytes()
    assert status_of(exchange(running, broken)) == 400
    # A whole request after it: the log is written by then.
    marker = event_id_of(exchange(running, whole(running, b"{}")))
    assert "CANARY-KEY" not in running.serve.wait_for(marker, printed)
    assert len(running.truth()) == before


def test_a_client_that_waits_for_100_continue_is_told_to(running: Stack) -> None:
    body = json.dumps(CHAT).encode()
    raw = head(running, b"Connection: close", b"Expect: 100-continue", b"Content-Length: %d" % len(body))
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        connection.sendall(raw)
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(body)
        got = b""
        while piece := connection.recv(65536):
            got += piece
    assert status_of(got) == 200


def test_nobody_is_told_to_continue_before_the_key_is_known(running: Stack) -> None:
    raw = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        connection.sendall(raw + b"Content-Length: 10\r\n\r\n")
        assert status_of(connection.recv(65536)) == 401


@pytest.mark.parametrize("value", [b"caf\xe9", b"\xff\xfe", b"x" * 4000])
async def test_any_request_id_of_a_client_is_kept_as_text(running: Stack, value: bytes) -> None:
    body = json.dumps(CHAT).encode()
    got = await asyncio.to_thread(exchange, running, whole(running, body, b"X-Client-Request-Id: " + value))
    assert status_of(got) == 200
    row = await row_of(running, event_id_of(got))
    assert row["evidence"] == "reported"
    assert json.loads(row["metadata"])["client_request_id"] == value.decode(errors="replace")[:512]


@pytest.mark.parametrize("name", ["'; drop table openai_usage; --", "\\ud83d\\ude00"])
async def test_any_name_of_a_model_ends_in_a_row_and_one_log_line(running: Stack, name: str) -> None:
    body = b'{"model":"%s","messages":[{"role":"user","content":"x"}]}' % name.encode()
    got = await asyncio.to_thread(exchange, running, whole(running, body))
    assert status_of(got) == 404
    event_id = event_id_of(got)
    row = await row_of(running, event_id)
    assert (row["evidence"], row["cost_usd"]) == ("void", 0)
    log = await asyncio.to_thread(running.serve.wait_for, event_id)
    lines = [line for line in log.split("\n") if event_id in line]
    assert len(lines) == 1
    assert json.loads(lines[0])["model"] == json.loads(f'"{name}"')
    assert "\x1b" not in lines[0]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o-mini","messages":[],"stream":false,"stream":true}',
        b'{"model":"gpt-4o-mini","messages":[],"stream":true,"stream_options":{"include_usage":true},'
        b'"stream_options":{}}',
        b'{"model":"gpt-4o-mini","messages":[],"n":1,"\\u006e":128}',
        b'{"model":"\\ud800","messages":[]}',
        b'{"model":"gpt\\u0000x","messages":[]}',
        b'{"model":"a\\nb\\u001b[31m","messages":[]}',
        b'{"model":"gpt-4o-mini","messages":[],"service_tier":"\\u0000"}',
        b'{"model":"gpt-4o-mini","messages":[],"max_tokens":1e999,"n":NaN}',
        b'{"model":"gpt-4o-mini","messages":[],"stream":"true"}',
        b'{"model":"gpt-4o-mini","messages":[]}{"model":"gpt-5.1"}',
    ],
)
def test_bodies_that_two_parsers_may_read_differently(running: Stack, body: bytes) -> None:
    before = len(running.truth())
    got = exchange(running, whole(running, body))
    assert status_of(got) == 400
    assert json.loads(got.split(b"\r\n\r\n", 1)[1])["error"]["message"]
    assert len(running.truth()) == before


def test_every_one_of_many_pipelined_requests_is_judged_alone(running: Stack) -> None:
    body = json.dumps(CHAT).encode()
    good = head(running, b"Content-Length: %d" % len(body)) + body
    bad = good.replace(running.key.encode(), b"stolen")
    got = exchange(running, (good + bad) * 20 + whole(running, body))
    assert (got.count(b"HTTP/1.1 200 "), got.count(b"HTTP/1.1 401 ")) == (21, 20)


@pytest.mark.parametrize(
    "values",
    [
        (b"00000000-0000-7000-8000-000000000000",),
        (b"00000000-0000-7000-8000-000000000000' or '1'='1",),
        (b"",),
        (b"00000000-0000-7000-8000-000000000000", b"00000000-0000-7000-8000-000000000001"),
    ],
)
def test_a_meeting_of_nobody_costs_nothing(running: Stack, values: tuple[bytes, ...]) -> None:
    before = len(running.truth())
    got = exchange(running, whole(running, json.dumps(CHAT).encode(), *(b"X-Meeting-Id: " + v for v in values)))
    assert status_of(got) == 400
    assert json.loads(got.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "invalid_meeting"
    assert len(running.truth()) == before


@pytest.mark.parametrize(
    "line",
    [
        b"GET /healthz HTTP/1.1",
        b"GET /v1/models HTTP/1.1",
        b"GET /v1/nothing HTTP/1.1",
        b"GET /webhooks/daily HTTP/1.1",
        b"GET /rooms/x HTTP/1.1",
        b"no HTTP at all",
    ],
)
def test_every_answer_names_the_same_server(running: Stack, line: bytes) -> None:
    got = exchange(running, head(running, b"Connection: close", line=line)).split(b"\r\n\r\n", 1)[0]
    assert [each for each in got.split(b"\r\n") if each.lower().startswith(b"server:")] == [b"Server: pailflow-gateway"]


@pytest.mark.parametrize(("both", "status"), [("", 200), ("Bearer KEY", 200), ("Bearer other", 400)])
def test_the_key_as_azures_clients_send_it(running: Stack, both: str, status: int) -> None:
    lines = ["GET /v1/models HTTP/1.1", "Host: x", "Connection: close", f"api-key: {running.key}"]
    lines += [f"Authorization: {both.replace('KEY', running.key)}"] if both else []
    assert status_of(exchange(running, ("\r\n".join(lines) + "\r\n\r\n").encode())) == status
