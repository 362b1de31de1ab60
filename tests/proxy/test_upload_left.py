"""A client that leaves while it sends its request: nobody's fault, so no error and no alarm."""

import socket
import time
from collections.abc import Callable

import pytest

from tests.support.gateway import Stack

REFUSED = "gateway_refused_total"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def refused(running: Stack, code: str) -> float:
    return running.metrics().get((REFUSED, frozenset({("code", code)})), 0.0)


@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("reset", [True, False])
def test_an_upload_that_is_given_up(running: Stack, framing: str, reset: bool) -> None:
    before, errors, served = refused(running, "client_left"), refused(running, "gateway_error"), len(running.truth())
    printed = running.serve.printed_bytes()
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.key}\r\n{framing}"
        part = b'{"model":"gpt-4o-mini"'
        sent = part if "Length" in framing else b"%x\r\n%b\r\n" % (len(part), part)
        connection.sendall(head.encode() + b"\r\n\r\n" + sent)
        time.sleep(0.2)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    wait_until(lambda: refused(running, "client_left") == before + 1)
    assert refused(running, "gateway_error") == errors
    assert len(running.truth()) == served
    assert '"status":499' in running.serve.output(printed)
    assert "call failed" not in running.serve.output(printed)
