"""Requests that no entry of the catalogue takes, and the small ways in which real clients knock: browsers, uptime
monitors, WebSocket first, a base URL without /v1, traces of an SDK.
"""

import json
import socket
from typing import NamedTuple

import pytest

from tests.support.gateway import Stack
from tests.support.patience import ENDS_S
from tests.support.servers import free_port

PAGE = "https://app.example"
CHAT = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]})


class Got(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["error"]["message"])


def ask(port: int, method: str, path: str, key: str | None = None, body: str = "", **headers: str) -> Got:
    """One request on a connection of its own, read to its end."""
    given = {"Host": "gateway", "Connection": "close", **{name.replace("_", "-"): headers[name] for name in headers}}
    if key is not None:
        given["Authorization"] = f"Bearer {key}"
    if body:
        given["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=ENDS_S) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        got = b""
        while piece := connection.recv(65536):
            got += piece
    head, _, rest = got.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    pairs = (field.split(": ", 1) for field in fields)
    return Got(int(status.split(" ")[1]), {name.lower(): value for name, value in pairs}, rest)


@pytest.fixture(scope="module")
def open_port(running: Stack) -> int:
    """A gateway that lets pages of `PAGE` call, forwards traces and drops idle connections soon."""
    kept, port = dict(running.env), free_port()
    running.env.update(
        GATEWAY_PORT=str(port),
        GATEWAY_ADMIN_PORT="0",
        GATEWAY_DATA_DIR=str(running.folder / "open"),
        GATEWAY_KEEPALIVE_S="0.2",
        CORS__ORIGINS=json.dumps([PAGE]),
        TRACES__FORWARD_AGENTS="true",
    )
    try:
        running.run("serve", "--no-background").wait_for("serving http")
    finally:
        running.env.clear()
        running.env.update(kept)
    return port


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/models/gpt-4o-mini"])
def test_head_is_get_without_a_body(running: Stack, path: str) -> None:
    head, get = (ask(running.port, method, path, running.key) for method in ("HEAD", "GET"))
    assert (head.status, head.body) == (200, b"")
    assert get.body
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_needs_the_key_all_the_same(running: Stack) -> None:
    assert ask(running.port, "HEAD", "/v1/models").status == 401
    assert ask(running.port, "HEAD", "/v1/chat/completions", running.key).status == 404


def test_a_websocket_is_told_to_come_by_http(running: Stack) -> None:
    upgrade = {"Upgrade": "websocket", "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    got = ask(running.port, "GET", "/v1/responses?model=CANARY", running.key, **upgrade, Connection="close, Upgrade")
    assert got.status == 426
    assert json.loads(got.body)["error"]["code"] == "websocket_not_supported"
    assert b"CANARY" not in got.body
    assert ask(running.port, "GET", "/v1/nothing", running.key, **upgrade, Connection="close, Upgrade").status == 404


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        (
            "POST",
            "/chat/completions?api-key=CANARY",
            "POST /chat/completions is not served: every path begins with /v1/",
        ),
        ("GET", "/models", "GET /models is not served: every path begins with /v1/"),
        ("POST", "/v1/v1/responses", "must end in /v1, once"),
        ("POST", "/v1/chat/completions/chat/completions", "must end in /v1, once"),
        ("GET", "/v1/responses", "GET /v1/responses is not served: this path takes POST."),
        (
            "POST",
            "/v1/images/generations",
            "/v1/images/generations is not served: the gateway does not meter images yet.",
        ),
        ("GET", "/v1/files", "GET /v1/files is not served: the gateway keeps no record of whose a file is."),
        (
            "GET",
            "/v1/files?after=CANARY",
            "GET /v1/files is not served: the gateway keeps no record of whose a file is.",
        ),
        (
            "GET",
            "/v1/chat/completions",
            "GET /v1/chat/completions is not served: the gateway keeps no record of whose a",
        ),
        ("DELETE", "/v1/models/ft:gpt-5:a", "is not served: a model belongs to the whole organization."),
        ("POST", "/v1/nothing", "POST /v1/nothing is not served: this gateway knows no such path of OpenAI's API."),
    ],
)
def test_404_names_the_path_and_the_usual_mistake(running: Stack, method: str, path: str, says: str) -> None:
    got = ask(running.port, method, path, running.key)
    assert got.status == 404
    assert says in got.message
    assert "CANARY" not in got.message


def test_no_page_may_call_by_default(running: Stack) -> None:
    preflight = ask(running.port, "OPTIONS", "/v1/chat/completions", Origin=PAGE, Access_Control_Request_Method="POST")
    call = ask(running.port, "POST", "/v1/chat/completions", running.key, CHAT, Origin=PAGE)
    assert (preflight.status, call.status) == (404, 200)
    assert not [name for name in (*preflight.headers, *call.headers) if name.startswith("access-control-")]


def test_a_listed_page_may_call(running: Stack, open_port: int) -> None:
    asks = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}
    preflight = ask(open_port, "OPTIONS", "/v1/chat/completions", Origin=PAGE, **asks)
    assert (preflight.status, preflight.body) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert preflight.headers["access-control-allow-headers"] == "authorization,content-type"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    stream = CHAT[:-1] + ',"stream":true}'
    for body in (CHAT, stream, "{}"):
        got = ask(open_port, "POST", "/v1/chat/completions", running.key, body, Origin=PAGE)
        assert got.status == (400 if body == "{}" else 200)
        assert got.headers["access-control-allow-origin"] == PAGE
        assert got.headers["access-control-expose-headers"] == "*"
    refused = ask(open_port, "POST", "/v1/chat/completions", None, CHAT, Origin=PAGE)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, PAGE)


def test_another_page_may_not(running: Stack, open_port: int) -> None:
    preflight = ask(open_port, "OPTIONS", "/v1/chat/completions", Origin="https://evil.example")
    call = ask(open_port, "POST", "/v1/chat/completions", running.key, CHAT, Origin="https://evil.example")
    beside = ask(open_port, "GET", "/healthz", Origin=PAGE)
    assert (preflight.status, call.status, beside.status) == (403, 200, 200)
    for got in (preflight, call, beside):
        assert "access-control-allow-origin" not in got.headers


def test_an_idle_connection_stays_open_as_long_as_is_set(open_port: int) -> None:
    with socket.create_connection(("127.0.0.1", open_port), timeout=ENDS_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        while piece := connection.recv(65536):  # ends when the gateway closes; the default of 75 s would be too long
            got += piece
    assert got.startswith(b"HTTP/1.1 200 ")


def test_traces_are_dropped_unless_they_are_to_be_forwarded(running: Stack, open_port: int) -> None:
    traces = json.dumps({"data": [{"object": "trace", "workflow_name": "x" * 500_000}]})
    dropped = ask(running.port, "POST", "/v1/traces/ingest", running.key, traces, OpenAI_Beta="traces=v1")
    assert (dropped.status, dropped.body) == (204, b"")
    assert ask(running.port, "POST", "/v1/traces/ingest", None, traces).status == 401
    forwarded = ask(open_port, "POST", "/v1/traces/ingest", running.key, traces, OpenAI_Beta="traces=v1")
    # The stand-in has no such path: its own 404 shows that it was asked.
    assert forwarded.status == 404
    assert "x-request-id" in forwarded.headers


def test_models_that_are_not_served_are_not_offered(running: Stack) -> None:
    names = {model["id"] for model in json.loads(ask(running.port, "GET", "/v1/models", running.key).body)["data"]}
    assert "gpt-4o-mini" in names
    assert not [name for name in names if name.startswith(("gpt-image", "ft:"))]
    hidden = ask(running.port, "GET", "/v1/models/ft:gpt-4o:acme::a1", running.key)
    assert (hidden.status, json.loads(hidden.body)["error"]["code"]) == (404, "model_not_found")
