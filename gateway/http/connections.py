"""Every open connection of clients of one process: how many there may be, and how long each may keep us waiting.

One look a second at all of them is cheaper than a timer per request. What a client does not do in time ends its
connection; what it does too often is answered 503 at once and closed.
"""

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import Any, Final, Literal, cast, get_args

from aiohttp import web
from aiohttp.web_protocol import _ErrInfo
from multidict import CIMultiDictProxy

from gateway.config.settings import ConnectionSettings
from gateway.http.addresses import TrustedProxies, bucket_of
from gateway.http.framing import SERVER, BrokenBody
from gateway.http.proxy_protocol import Malformed, parse_header
from gateway.http.uploads import Uploads, timed_out
from gateway.kit.errors import ApiError
from gateway.kit.metrics import Sample
from gateway.kit.sockets import acknowledged_bytes

LOOK_S: Final = 1.0
"""Seconds between two looks."""
FILES_KEPT: Final = 256
"""Descriptors that are not for clients: journal, stores, vendors, what the process was started with."""
FILES_PER_CALL: Final = 2
"""A client's connection, and the one to OpenAI that its call needs."""
TAKEN_BYTES_MIN: Final = 16 * 1024
"""What a client must take of its answer within `write_stall_s`: one that takes a byte now and then takes nothing."""
UNREAD_BYTES: Final = 64 * 1024
"""Bytes of a body after which nothing more is read of a connection before somebody wants them (twice that at most)."""
HEAD_END: Final = b"\r\n\r\n"
PIECES_MAX: Final = 16
"""Pieces in which data is given to the parser, at most: a body may hold any number of empty lines."""
_RECEIVE: Final = web.RequestHandler.data_received

Refusal = Literal["total", "address", "key", "proxy_header"]
Delay = Literal["head", "body", "answer"]


class ClientConnection(web.RequestHandler):
    """One connection of a client, with what aiohttp does not watch."""

    __slots__ = (
        "_awaits_header",
        "_connections",
        "_has_sent",
        "_head_of",
        "_head_until_s",
        "_preface",
        "_taken",
        "_taken_s",
        "_wire",
        "address",
        "bucket",
        "is_ours",
        "owner",
    )

    def __init__(self, server: web.Server, connections: "ClientConnections", **settings: Any) -> None:
        """`settings`: those of aiohttp's server."""
        super().__init__(server, **settings, read_bufsize=UNREAD_BYTES)
        self._connections: Final = connections
        self._wire: asyncio.Transport
        """aiohttp forgets its own when it closes, which may be long before what is unsent has gone."""
        self.address = ""
        """Of the client, or of the balancer in front that it comes through."""
        self.is_ours = False
        """Whether `address` is one of `trusted_proxies`."""
        self.bucket: str | None = None
        """What the connection is counted as; None while it is not."""
        self.owner: str | None = None
        """The key that called on it last."""
        self._awaits_header = False
        self._preface = b""
        self._head_of = 0
        """The number of requests before the one whose head is awaited."""
        self._head_until_s = 0.0
        self._has_sent = False
        self._taken = 0
        """Bytes that the client had taken at `_taken_s`."""
        self._taken_s = 0.0
        """When it was last seen to take its share; 0: nothing waits for it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """aiohttp's hook."""
        super().connection_made(transport)
        self._wire = cast(asyncio.Transport, transport)  # uvloop's is one without being derived from it
        self._head_until_s = self._loop.time() + self._connections.settings.head_s
        peer = transport.get_extra_info("peername")
        self._connections.open(self, str(peer[0]) if isinstance(peer, tuple) else "")

    def connection_lost(self, exc: BaseException | None) -> None:
        """aiohttp's hook."""
        self._connections.close(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """aiohttp's hook; on the way of every call."""
        if self._awaits_header:
            data = self._after_header(data)
        if (self._waiter is not None or not self._request_count) and data.count(HEAD_END) > 1:
            self._receive_each(data)
        else:
            _RECEIVE(self, data)
        waiter = self._waiter
        if waiter is None:
            if self._messages:
                self._end_broken_body()
        elif not waiter.done():
            self._begin_head()  # nobody is being served, and what has come is not a whole head

    def _receive_each(self, data: bytes) -> None:
        """Where aiohttp's parser finds an error it forgets the whole requests that came before it in the same piece."""
        *heads, rest = data.split(HEAD_END, PIECES_MAX)
        for head in heads:
            _RECEIVE(self, head + HEAD_END)
            if self._messages and isinstance(self._messages[-1][0], _ErrInfo):
                break
        else:
            _RECEIVE(self, rest)
        if len(self._messages) > 1 and isinstance(self._messages[-1][0], _ErrInfo):
            _, body = self._messages[-2]
            if not body.is_eof():
                body.set_exception(BrokenBody())

    def _end_broken_body(self) -> None:
        """aiohttp queues what its parser refuses as one more request, and the one whose body it is would wait."""
        request = self._current_request
        if request is not None and isinstance(self._messages[-1][0], _ErrInfo) and not request.content.is_eof():
            request.content.set_exception(BrokenBody())

    def start_as(self, address: str, *, is_ours: bool, awaits_header: bool) -> None:
        """Whose connection it is, as far as that is known."""
        self.address, self.is_ours, self._awaits_header = address, is_ours, awaits_header

    def client_of(self, headers: "CIMultiDictProxy[str]") -> str:
        """The address of the client whose request has these headers."""
        if not self.is_ours:
            return self.address
        return self._connections.proxies.client_of(self.address, headers.getall("X-Forwarded-For", []))

    def refuse(self, answer: bytes) -> None:
        """Answers and closes, whatever was asked."""
        if not self._wire.is_closing():
            self._wire.write(answer)
        self.force_close()

    def check(self, now: float) -> Delay | None:
        """What the client has not done in time; the connection is closed then."""
        unsent = self._wire.get_write_buffer_size()
        if not unsent:
            self._taken_s = 0.0
        elif self._takes_nothing(unsent, now):
            self._wire.abort()
            return "answer"
        waiter = self._waiter
        is_waiting = waiter is not None and not waiter.done()
        if is_waiting and self._head_of == self._request_count and now >= self._head_until_s:
            # One that has sent nothing may be about to, and would take an answer for that to its request.
            self.refuse(self._connections.late if self._has_sent else b"")
            return "head"
        return None

    def _takes_nothing(self, unsent: int, now: float) -> bool:
        """Whether the client has taken less than it must for longer than it may."""
        acknowledged = acknowledged_bytes(self._wire.get_extra_info("socket"))
        taken = -unsent if acknowledged is None else acknowledged
        if not self._taken_s or taken - self._taken >= TAKEN_BYTES_MIN:
            self._taken, self._taken_s = taken, now
        return now - self._taken_s > self._connections.write_stall_s

    def _begin_head(self) -> None:
        self._has_sent = True
        if self._head_of != self._request_count:
            self._head_of = self._request_count
            self._head_until_s = self._loop.time() + self._connections.settings.head_s

    def _after_header(self, data: bytes) -> bytes:
        """What follows the balancer's header, as far as it has come."""
        self._preface += data
        try:
            header = parse_header(self._preface)
        except Malformed:
            self._connections.refused["proxy_header"] += 1
            self.refuse(b"")
            return b""
        if header is None:
            return b""
        rest, self._preface, self._awaits_header = self._preface[header.size :], b"", False
        if header.source is not None:
            self._connections.name(self, header.source)
        return rest


class ClientConnections:
    """Those of one process."""

    def __init__(self, settings: ConnectionSettings, uploads: Uploads, *, files: int, write_stall_s: float) -> None:
        """`files`: descriptors that the process may have."""
        self.settings: Final = settings
        self.uploads: Final = uploads
        self.write_stall_s: Final = write_stall_s
        self.max: Final = min(settings.max, max(1, (files - FILES_KEPT) // FILES_PER_CALL))
        self._per_address_max: Final = min(settings.per_address_max, max(1, self.max * 3 // 4))
        self.proxies: Final = TrustedProxies(settings.trusted_proxies)
        self._open: Final[set[ClientConnection]] = set()
        self._buckets: Final[Counter[str]] = Counter()
        self._owners: Final[Counter[str]] = Counter()
        self.refused: Final[Counter[Refusal]] = Counter()
        self.delayed: Final[Counter[Delay]] = Counter()
        self.late: Final = _whole(timed_out("The request's head did not come in time."))
        message = "The gateway has as many connections as it may have; please try again later."
        wait = {"Retry-After": "2"}
        self._full: Final = _whole(ApiError(503, "too_many_connections", message, kind="server_error", headers=wait))

    def open(self, connection: ClientConnection, peer: str) -> None:
        """Takes it in, or refuses it."""
        self._open.add(connection)
        is_ours = self.proxies.trusts(peer)
        connection.start_as(peer, is_ours=is_ours, awaits_header=is_ours and self.settings.proxy_protocol)
        if len(self._open) > self.max:
            self._refuse(connection, "total")
        elif not is_ours:
            self._count(connection)

    def name(self, connection: ClientConnection, source: str) -> None:
        """A balancer has said whose connection it is."""
        is_ours = self.proxies.trusts(source)
        connection.start_as(source, is_ours=is_ours, awaits_header=False)
        if not is_ours:
            self._count(connection)

    def close(self, connection: ClientConnection) -> None:
        """It is gone."""
        self._open.discard(connection)
        if connection.bucket is not None:
            _less(self._buckets, connection.bucket)
        if connection.owner is not None:
            _less(self._owners, connection.owner)
        connection.bucket = connection.owner = None

    def own(self, connection: web.RequestHandler, key_id: str) -> None:
        """A call of this key has come on it. Raises ApiError 429 when the key has too many."""
        assert isinstance(connection, ClientConnection)
        if connection.owner == key_id or connection not in self._open:
            return  # a client may leave while its key is asked about: nothing would take that count back
        if self._owners[key_id] >= self.settings.per_key_max:
            self.refused["key"] += 1
            message = "This API key has as many connections as it may have; close some of them."
            raise ApiError(429, "too_many_connections", message, kind="requests", headers={"Retry-After": "2"})
        if connection.owner is not None:
            _less(self._owners, connection.owner)
        self._owners[key_id] += 1
        connection.owner = key_id

    async def check(self) -> None:
        """Looks at all of them, and at the bodies that come."""
        self.look(asyncio.get_running_loop().time())

    def look(self, now: float) -> None:
        """The same, at an instant of the loop's clock."""
        for connection in list(self._open):
            delay = connection.check(now)
            if delay is not None:
                self.delayed[delay] += 1
        self.delayed["body"] += self.uploads.check(now)

    def samples(self) -> tuple[Sample, ...]:
        """Its figures."""
        return (
            Sample("gateway_connections", (), len(self._open)),
            Sample("gateway_connections_max", (), self.max),
            Sample("gateway_body_bytes_held", (), self.uploads.held),
            *(Sample("gateway_connections_refused_total", (why,), self.refused[why]) for why in get_args(Refusal)),
            *(Sample("gateway_connections_late_total", (what,), self.delayed[what]) for what in get_args(Delay)),
        )

    def _count(self, connection: ClientConnection) -> None:
        bucket = connection.bucket = bucket_of(connection.address)
        self._buckets[bucket] += 1
        if self._buckets[bucket] > self._per_address_max:
            self._refuse(connection, "address")

    def _refuse(self, connection: ClientConnection, why: Refusal) -> None:
        self.refused[why] += 1
        connection.refuse(self._full)


def _less(counter: "Counter[str]", name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]


def _whole(error: ApiError) -> bytes:
    """An error as bytes, for a connection on which no request was read."""
    body = error.body()
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"{name}: {value}" for name, value in {**fields, "Server": SERVER, **error.headers}.items()]
    return "\r\n".join([f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}", *lines, "", ""]).encode() + body
