"""OpenAI, seen from the gateway: sends one request, hands back the answer as it arrives.

Never retries, never follows a redirect, keeps no cookie, decodes nothing. Of a failure it
says one thing only: whether a byte of the request may have gone out. Built on aiohttp's C parser and its protocol,
without ClientSession, whose cookies, redirects, middlewares and timers cost more than metering a call
(docs/decisions/0005).
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDictProxy

from gateway.config.egress import parse_proxy
from gateway.http.dial import Dialer, ProxyRefused
from gateway.kit.errors import DependencyDown
from gateway.kit.failpoints import Failpoint, pass_by

KEEPALIVE_S: Final = 15.0
"""Seconds an idle connection may be used again; shorter than any server in front of OpenAI keeps it."""
READ_BUFFER_BYTES: Final = 256 * 1024
HEADS_MAX: Final = 64
STORED_BYTES_MAX: Final = 64 * 1024 * 1024
STORED_S: Final = 60.0
"""Seconds in which OpenAI must have sent a whole stored response."""


class NotSent(DependencyDown):
    """No connection could be opened, so it is certain that nothing reached OpenAI."""


class Unanswered(DependencyDown):
    """The request went out, at least in part, and no answer came: the call may have run."""


class UpstreamAnswer:
    """One answer: its head, and its body as it arrives. `release` or `close` it in every case."""

    __slots__ = ("_connection", "_upstream", "content", "headers", "status")

    def __init__(
        self,
        status: int,
        headers: "CIMultiDictProxy[str]",
        content: aiohttp.StreamReader,
        connection: ResponseHandler,
        upstream: "Upstream",
    ) -> None:
        self.status: Final = status
        self.headers: Final = headers
        self.content: Final = content
        self._connection: ResponseHandler | None = connection
        self._upstream: Final = upstream

    def release(self) -> None:
        """Gives the connection back when the body has been read to its end, else closes it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self.content.is_eof() and not connection.should_close:
            self._upstream.keep(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Ends the answer now; a read that waits is woken."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not self.content.is_eof():
            # The protocol forgets its payload when it is closed, and would leave the reader waiting for ever.
            self.content.set_exception(aiohttp.ClientConnectionError("the answer was given up"))
        connection.close()


class Upstream:
    """Sends calls to `base_url` (it ends in `/v1`) with our credential. One per process; `close` it at the end."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        connect_s: float,
        first_byte_s: float,
        proxy: str | None = None,
        failpoint: Failpoint = pass_by,
    ) -> None:
        """`connect_s`: seconds to open a connection, TLS included; `first_byte_s`: seconds OpenAI has to answer."""
        parts = urlsplit(base_url)
        secure = parts.scheme == "https"
        tls = ssl.create_default_context() if secure else None
        port = parts.port or (443 if secure else 80)
        self._dialer: Final = Dialer(parts.hostname or "", port, tls, None if proxy is None else parse_proxy(proxy))
        self._prefix: Final = parts.path.rstrip("/")
        self._host: Final = parts.netloc.rpartition("@")[2]
        self._constant = self._constant_fields(api_key)
        self._connect_s: Final = connect_s
        self._first_byte_s: Final = first_byte_s
        self._failpoint: Final = failpoint
        self._heads: Final[dict[str, str]] = {}
        self._idle: Final[deque[tuple[float, ResponseHandler]]] = deque()

    def use_key(self, api_key: str) -> None:
        """Requests from now on are made with this credential; those that run go on."""
        self._constant = self._constant_fields(api_key)
        self._heads.clear()

    def _constant_fields(self, api_key: str) -> str:
        return f"Host: {self._host}\r\nAuthorization: Bearer {api_key}\r\nAccept-Encoding: identity\r\n"

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> UpstreamAnswer:
        """`path` comes from the catalogue and is appended to the base, never joined to it.

        Raises NotSent or Unanswered.
        """
        request = self._head(method, path, headers, body)
        connection = self._take()
        if connection is None:  # not `or`: a ResponseHandler with an empty queue is false
            connection = await self._connect()
        transport = connection.transport
        if transport is None:
            raise Unanswered("openai", "ServerDisconnectedError")
        silent = aiohttp.SocketTimeoutError("no answer in time")
        silence = asyncio.get_running_loop().call_later(self._first_byte_s, connection.set_exception, silent)
        try:
            transport.write(request)
            self._failpoint("proxy.sent")
            while True:
                message, content = await connection.read()
                if message.code > 199:
                    return UpstreamAnswer(message.code, message.headers, content, connection, self)
                if message.code == 101:  # nobody asked for another protocol
                    connection.close()
                    raise Unanswered("openai", "UnaskedUpgrade")
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            connection.close()
            raise Unanswered("openai", type(error).__name__) from error
        except asyncio.CancelledError:
            connection.close()
            raise
        finally:
            silence.cancel()

    async def stored_response(self, response_id: str) -> bytes | None:
        """The Response object that OpenAI kept; None when it kept none. Raises DependencyDown while it cannot tell."""
        source = await self.send("GET", f"/responses/{response_id}", {}, None)
        try:
            async with asyncio.timeout(STORED_S):
                body = await _read(source.content)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise DependencyDown("openai", type(error).__name__) from error
        finally:
            source.close()
        if source.status == 404:
            return None
        if source.status != 200:
            raise DependencyDown("openai", f"HTTP {source.status}")
        return body

    def keep(self, connection: ResponseHandler) -> None:
        """A connection whose answer has been read to its end waits here for the next call."""
        self._idle.append((time.monotonic(), connection))

    async def close(self) -> None:
        """Closes the idle connections; those of running answers are closed with them."""
        while self._idle:
            self._idle.pop()[1].close()
        await asyncio.sleep(0)

    def close_old(self) -> None:
        """Closes idle connections that are not to be used again: while no call comes they would hold descriptors."""
        oldest = time.monotonic() - KEEPALIVE_S
        while self._idle and self._idle[0][0] < oldest:
            self._idle.popleft()[1].close()

    def _take(self) -> ResponseHandler | None:
        self.close_old()
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.is_connected() and not connection.should_close:
                return connection
            connection.close()
        return None

    async def _connect(self) -> ResponseHandler:
        try:
            async with asyncio.timeout(self._connect_s):
                connection = await self._dialer.connect()
        except ProxyRefused as error:
            raise NotSent("openai", str(error)) from error
        except OSError as error:  # a TimeoutError and an SSLError are, too
            raise NotSent("openai", type(error).__name__) from error
        connection.set_response_params(
            read_until_eof=True, auto_decompress=False, read_bufsize=READ_BUFFER_BYTES, max_field_size=32 * 1024
        )
        return connection

    def _head(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
        """The request in one piece. Raises ValueError when a header could break out of its line."""
        start = self._heads.get(f"{method} {path}")
        if start is None:
            start = f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._constant}"
            if len(self._heads) < HEADS_MAX:
                self._heads[f"{method} {path}"] = start
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if fields.count("\n") != len(headers) or fields.count("\r") != len(headers) or "\0" in fields:
            raise ValueError("a header value holds a line break or NUL")
        length = "" if body is None else f"Content-Length: {len(body)}\r\n"
        head = f"{start}{fields}{length}\r\n".encode("utf-8", "surrogateescape")
        return head + body if body else head


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The whole body; `content.read(n)` would return its first piece. Raises DependencyDown beyond STORED_BYTES_MAX."""
    pieces, size = [], 0
    while piece := await content.readany():
        pieces.append(piece)
        size += len(piece)
        if size > STORED_BYTES_MAX:
            raise DependencyDown("openai", f"its answer is larger than {STORED_BYTES_MAX} bytes")
    return b"".join(pieces)
