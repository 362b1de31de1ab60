"""A client that leaves while it sends its request: nobody's fault, so no error and no alarm."""

import socket

import pytest

from tests.support.gateway import Stack
from tests.support.patience import ENDS_S, until_now

REFUSED = "gateway_refused_total"


def refused(running: Stack, code: str) -> float:
    return running.metrics().get((REFUSED, frozenset({("code", code)})), 0.0)


@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("reset", [True, False])
def test_an_upload_that_is_given_up(running: Stack, framing: str, reset: bool) -> None:
    before, errors, served = refused(running, "client_left"), refused(running, "gateway_error"), len(running.truth())
    printed = running.serve.printed_bytes()
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        lines = ["POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {running.key}", framing]
        head = "\r\n".join([*lines, "Expect: 100-continue"])
        part = b'{"model":"gpt-4o-mini"'
        sent = part if "Length" in framing else b"%x\r\n%b\r\n" % (len(part), part)
        connection.sendall(head.encode() + b"\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # a reset before that would take the head along
        connection.sendall(sent)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    until_now(lambda: refused(running, "client_left") > before)  # another test's may be counted late
    assert refused(running, "gateway_error") == errors
    assert len(running.truth()) == served
    assert "call failed" not in running.serve.wait_for('"status":499', printed)
