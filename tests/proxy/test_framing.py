"""Requests whose end two servers could see in different places: refused, and the connection closed, so that nothing
behind them is taken for a request (RFC 9112, sections 5 to 7 and 11.2).
"""

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.gateway import Stack
from tests.support.patience import ENDS_S
from tests.support.whole_gateway import row_of

CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hello"}]}'
LINE = b"POST /v1/chat/completions HTTP/1.1"
CANARY = b"CANARY-LINE"
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH = b"Content-Length: %d" % len(CHAT)


@pytest.fixture(scope="module", autouse=True)
def good(running: Stack) -> Iterator[list[str]]:
    """Requests that a test makes and that are good: OpenAI sees these, and no other."""
    before, made = len(running.truth()), list[str]()
    yield made
    assert len(running.truth()) == before + len(made)


def chunk(data: bytes, size: bytes | None = None, *, end: bytes = b"\r\n") -> bytes:
    return (b"%x" % len(data) if size is None else size) + end + data + end


WHOLE = chunk(CHAT) + b"0\r\n\r\n"


def head(
    running: Stack, *fields: bytes, line: bytes = LINE, host: bytes = b"Host: gateway\r\n", eol: bytes = b"\r\n"
) -> bytes:
    key = b"Authorization: Bearer " + running.key.encode()
    return line + b"\r\n" + host + eol.join((key, *fields)) + b"\r\n\r\n"


def exchange(running: Stack, *pieces: bytes) -> bytes:
    """Everything that comes back until the gateway closes; each piece goes out by itself."""
    with socket.create_connection(("127.0.0.1", running.port), timeout=ENDS_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(0.1)
            connection.sendall(piece)
        got = b""
        try:
            while piece := connection.recv(65536):
                got += piece
        except ConnectionResetError:
            pass  # it has closed with something of ours unread
    return got


def statuses(answer: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/\d\.\d (\d{3}) ", answer)]


def code_of(answer: bytes) -> str:
    return str(json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"])


BROKEN: dict[str, tuple[tuple[bytes, ...], bytes]] = {
    "length and chunked": ((LENGTH, CHUNKED), WHOLE),
    "chunked and length": ((CHUNKED, LENGTH), WHOLE),
    "two equal lengths": ((LENGTH, LENGTH), CHAT),
    "two lengths": ((LENGTH, b"Content-Length: 3"), CHAT),
    "a list of lengths": ((b"Content-Length: %d, %d" % (len(CHAT), len(CHAT)),), CHAT),
    "length with a sign": ((b"Content-Length: +%d" % len(CHAT),), CHAT),
    "length below zero": ((b"Content-Length: -1",), CHAT),
    "length with an underscore": ((b"Content-Length: 0_%d" % len(CHAT),), CHAT),
    "length in hexadecimal": ((b"Content-Length: 0x%x" % len(CHAT),), CHAT),
    "length with a space inside": ((b"Content-Length: 7 2",), CHAT),
    "no length": ((b"Content-Length: ",), CHAT),
    "length beyond 64 bits": ((b"Content-Length: 99999999999999999999999",), CHAT),
    "xchunked": ((b"Transfer-Encoding: xchunked",), WHOLE),
    "chunked, identity": ((b"Transfer-Encoding: chunked, identity",), WHOLE),
    "chunked twice in a list": ((b"Transfer-Encoding: chunked, chunked",), WHOLE),
    "two transfer encodings": ((CHUNKED, b"Transfer-Encoding: identity"), WHOLE),
    "two of chunked": ((CHUNKED, CHUNKED), WHOLE),
    "identity": ((b"Transfer-Encoding: identity",), CHAT),
    "transfer encoding with a vertical tab": ((b"Transfer-Encoding: \x0bchunked",), WHOLE),
    "transfer encoding in quotes": ((b'Transfer-Encoding: "chunked"',), WHOLE),
    "NUL in a value": ((b"X-Any: a\x00b", LENGTH), CHAT),
    "CR in a value": ((b"X-Any: a\rb", LENGTH), CHAT),
    "LF ends a field": ((b"X-Any: a\nX-Other: b", LENGTH), CHAT),
    "obs-fold": ((b"X-Any: a\r\n b", LENGTH), CHAT),
    "obs-fold of the length": ((b"Content-Length:\r\n %d" % len(CHAT),), CHAT),
    "space before the colon": ((b"Content-Length : %d" % len(CHAT),), CHAT),
    "space before the colon of the coding": ((b"Transfer-Encoding : chunked",), WHOLE),
    "space before a name": ((b" Content-Length: %d" % len(CHAT),), CHAT),
    "a name that is not a token": ((b"X(Any): a", LENGTH), CHAT),
    "a field without a colon": ((b"X-Any", LENGTH), CHAT),
    "two hosts": ((b"Host: other", LENGTH), CHAT),
    "two content encodings": ((b"Content-Encoding: identity", b"Content-Encoding: gzip", LENGTH), CHAT),
    "two equal content encodings": ((b"Content-Encoding: identity", b"Content-Encoding: identity", LENGTH), CHAT),
    # Chunks.
    "chunk size in hexadecimal notation": ((CHUNKED,), chunk(CHAT, b"0x%x" % len(CHAT)) + b"0\r\n\r\n"),
    "chunk size below zero": ((CHUNKED,), chunk(CHAT, b"-1") + b"0\r\n\r\n"),
    "chunk size with a sign": ((CHUNKED,), chunk(CHAT, b"+%x" % len(CHAT)) + b"0\r\n\r\n"),
    "chunk size with an underscore": ((CHUNKED,), chunk(CHAT, b"0_%x" % len(CHAT)) + b"0\r\n\r\n"),
    "chunk size beyond 64 bits": ((CHUNKED,), chunk(CHAT, b"f" * 17) + b"0\r\n\r\n"),
    "chunk size that is none": ((CHUNKED,), chunk(CHAT, b"zz") + b"0\r\n\r\n"),
    "empty chunk size": ((CHUNKED,), chunk(CHAT, b"") + b"0\r\n\r\n"),
    "chunk lines end in LF": ((CHUNKED,), chunk(CHAT, end=b"\n") + b"0\n\n"),
    "LF in a chunk extension": ((CHUNKED,), chunk(CHAT, b"%x;a\nb" % len(CHAT)) + b"0\r\n\r\n"),
    "chunk longer than its size": ((CHUNKED,), chunk(CHAT, b"%x" % (len(CHAT) - 4)) + b"0\r\n\r\n"),
    "space before the chunk size": ((CHUNKED,), chunk(CHAT, b" %x" % len(CHAT)) + b"0\r\n\r\n"),
}  # fmt: skip


def check_refused(running: Stack, answer: bytes, allowed: tuple[int, ...] = (400, 501)) -> None:
    """One refusal in OpenAI's envelope, that does not quote what came."""
    found = statuses(answer)
    assert len(found) == 1, answer[:500]
    assert found[0] in allowed
    assert code_of(answer)
    assert b"Server: pailflow-gateway\r\n" in answer
    assert CANARY not in answer
    assert running.key.encode() not in answer


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("pieces", [1, 2])
def test_what_two_servers_could_read_differently_is_refused(running: Stack, case: str, pieces: int) -> None:
    fields, body = BROKEN[case]
    # A request within the body, or behind it, must not be seen as one.
    inner = head(running, b"Content-Length: %d" % len(CHAT), b"X-Any: " + CANARY) + CHAT
    start = head(running, *fields, b"X-Canary: " + CANARY)
    answer = exchange(running, *((start + body + inner,) if pieces == 1 else (start, body + inner)))
    check_refused(running, answer)


@pytest.mark.parametrize("host", [b"", b"Host: a\r\nHost: a\r\n"])
def test_a_request_names_one_host(running: Stack, host: bytes) -> None:
    check_refused(running, exchange(running, head(running, LENGTH, host=host) + CHAT), (400,))


@pytest.mark.parametrize("codings", [b"gzip, chunked", b"identity, chunked", b"deflate,chunked", b"trailers, chunked"])
def test_a_transfer_coding_that_nobody_decodes_is_501(running: Stack, codings: bytes) -> None:
    answer = exchange(running, head(running, b"Transfer-Encoding: " + codings) + WHOLE)
    check_refused(running, answer, (501,))
    assert code_of(answer) == "unsupported_transfer_encoding"


@pytest.mark.parametrize(
    "line",
    [
        b"POST /v1/chat/completions?" + CANARY,
        b"POST  /v1/chat/completions HTTP/1.1 " + CANARY,
        b"POST /v1/chat/completions HTTP/1.1 " + CANARY,
        b"POST /v1/chat/completions HTTP/9.9 " + CANARY,
        b"POST /v1/chat/completions HTTX/1.1 " + CANARY,
        CANARY + b" /v1/chat/completions HTTP/1.1",
        CANARY,
        CANARY * 2000,
    ],
)
def test_a_request_line_is_not_quoted(running: Stack, line: bytes) -> None:
    check_refused(running, exchange(running, head(running, LENGTH, line=line) + CHAT), (400, 404, 505))


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b"CHUNKED", b"chunked "])
async def test_plain_chunks_in_any_pieces_are_taken(running: Stack, good: list[str], value: bytes) -> None:
    body = (
        chunk(CHAT[:10], b"a;name=value") + chunk(CHAT[10:], b"000%X" % len(CHAT[10:])) + b"0\r\nX-Trailer: a\r\n\r\n"
    )
    raw = head(running, b"Transfer-Encoding: " + value, b"Connection: close") + body
    answer = await asyncio.to_thread(exchange, running, raw[:200], raw[200:])
    assert statuses(answer) == [200]
    good.append("chunks")
    event_id = answer.lower().partition(b"x-gateway-event-id: ")[2][:36].decode()
    assert (await row_of(running, event_id))["evidence"] == "reported"


def test_compressed_bodies_are_not_inflated(running: Stack) -> None:
    answer = exchange(running, head(running, b"Content-Encoding: gzip", LENGTH, b"Connection: close") + CHAT)
    check_refused(running, answer, (415,))


@pytest.mark.parametrize("end", [chunk(CHAT) + b"0\r\n\r\n", CHAT], ids=["chunked", "length"])
@pytest.mark.parametrize("waits", [True, False], ids=["later", "with the connection"])
@pytest.mark.parametrize("case", ["length and chunked", "two lengths"])
def test_whole_requests_before_a_broken_one_are_answered(
    running: Stack, good: list[str], case: str, waits: bool, end: bytes
) -> None:
    fields, body = BROKEN[case]
    first = head(running, LENGTH if end == CHAT else CHUNKED) + end
    good += [case, case]
    before = [b""] if waits else []
    answer = exchange(running, *before, first + first + head(running, *fields) + body + first)
    assert statuses(answer) == [200, 200, 400]


def test_empty_lines_in_a_body_are_a_body(running: Stack, good: list[str]) -> None:
    body = CHAT + b"\r\n\r\n" * 100
    good.append("empty lines")
    fields = (b"Content-Length: %d" % len(body), b"Connection: close")
    assert statuses(exchange(running, head(running, *fields) + body)) == [200]
