"""Every open connection of clients of one process: how many there may be, and how long each may keep us waiting.

One look a second at all of them is cheaper than a timer per request. What a client does not do in time ends its
connection; what it does too often is answered 503 and closed. A connection that there is no room for is turned away
when its request has come: one that is closed before the client has sent it looks like a connection that was cut.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
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
"""A client's connection, and the one to OpenAI that its call needs. A drain (its client has left) keeps one."""
FILES_FREE: Final = 128
"""Descriptors that no connection may use up, whatever the others are used for: for those that are turned away, and for
what the calls that run still open."""
TURNED_AWAY: Final = (64, 1000)
"""Connections that wait to be answered 503 at the same time: fewest and most, by what the limit of files leaves."""
TURNED_AWAY_S: Final = 2.0
"""Seconds for a request that is to be answered 503, when others wait for its place."""
TAKEN_BYTES_MIN: Final = 16 * 1024
"""What a client must take of its answer within `write_stall_s`: one that takes a byte now and then takes nothing."""
UNREAD_BYTES: Final = 64 * 1024
"""Bytes of a body after which nothing more is read of a connection before somebody wants them (twice that at most)."""
HEAD_END: Final = b"\r\n\r\n"
PIECES_MAX: Final = 16
"""Pieces in which data is given to the parser, at most: a body may hold any number of empty lines."""
_RECEIVE: Final = web.RequestHandler.data_received

Refusal = Literal["total", "address", "key", "proxy_header", "files"]
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
        file = transport.get_extra_info("socket").fileno()
        self._connections.open(self, str(peer[0]) if isinstance(peer, tuple) else "", file)

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

    def turn_away(self) -> None:
        """Answers 503 to its request, when that has come, and closes."""
        self._request_handler = self._connections.answer_full

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

    def __init__(
        self,
        settings: ConnectionSettings,
        uploads: Uploads,
        *,
        files: int,
        write_stall_s: float,
        drains: Callable[[], int] = lambda: 0,
    ) -> None:
        """`files`: descriptors that the process may have. `drains`: answers being read for clients that have left."""
        self.settings: Final = settings
        self.uploads: Final = uploads
        self.write_stall_s: Final = write_stall_s
        self.max: Final = min(settings.max, max(1, (files - FILES_KEPT) // FILES_PER_CALL))
        self._file_max = max(files - FILES_FREE, files // 2)
        self._drains: Final = drains
        self._turned_away: Final[dict[ClientConnection, float]] = {}
        """Since when each waits for its request, the oldest first."""
        spare = files - FILES_KEPT - FILES_PER_CALL * self.max + TURNED_AWAY[0]
        self._turned_away_max = min(max(spare, TURNED_AWAY[0]), TURNED_AWAY[1])
        self._starved = False
        """Whether there was no descriptor for a connection since the last look but one."""
        self._starved_before = False
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
        self._full: Final = ApiError(503, "too_many_connections", message, kind="server_error", headers=wait)
        self._full_bytes: Final = _whole(self._full)

    @property
    def count(self) -> int:
        """Open connections."""
        return len(self._open) + len(self._turned_away)

    @property
    def failure(self) -> str | None:
        """Why new connections are answered 503; None while there is room for them."""
        if self._starved or self._starved_before:
            return "no file descriptor is left for a new connection: raise the limit of open files"
        return None if self._has_room(1) else f"it has all connections that it may have ({self.max})"

    def may_accept(self, now: float) -> bool:
        """Whether one more could be answered, if only with 503. Who sends nothing makes room for others in the end."""
        if len(self._turned_away) < self._turned_away_max:
            return True
        oldest, since_s = next(iter(self._turned_away.items()))
        if now - since_s < TURNED_AWAY_S:
            return False
        oldest.refuse(self._full_bytes)
        del self._turned_away[oldest]
        return True

    def find_no_file_left(self) -> None:
        """A connection could not even be accepted."""
        self._starved = True

    def _has_room(self, more: int) -> bool:
        held = FILES_PER_CALL * (len(self._open) + more) + self._drains()
        return held <= FILES_PER_CALL * self.max

    def open(self, connection: ClientConnection, peer: str, file: int) -> None:
        """Takes it in, or turns it away."""
        is_ours = self.proxies.trusts(peer)
        connection.start_as(peer, is_ours=is_ours, awaits_header=is_ours and self.settings.proxy_protocol)
        if not self._has_room(1):
            self._turn_away(connection, "total")
        elif file > self._file_max:  # the lowest one that was free: so many are in use
            self._starved = True
            self._turn_away(connection, "files")
        else:
            self._open.add(connection)
            if not is_ours:
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
        self._turned_away.pop(connection, None)
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
        for connection in [
            each for each, since_s in self._turned_away.items() if now >= since_s + self.settings.head_s
        ]:
            connection.force_close()
        self._starved_before, self._starved = self._starved, False

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
            self._turn_away(connection, "address")

    def _turn_away(self, connection: ClientConnection, why: Refusal) -> None:
        self.refused[why] += 1
        self._open.discard(connection)
        if why == "address" and len(self._turned_away) >= self._turned_away_max // 2:
            connection.refuse(self._full_bytes)  # while places are taken, nobody else is accepted
            return
        self._turned_away[connection] = asyncio.get_running_loop().time()
        connection.turn_away()

    async def answer_full(self, _request: web.BaseRequest) -> web.StreamResponse:
        """To whatever is asked on a connection that is turned away."""
        headers = {"Content-Type": "application/json", **self._full.headers}
        answer = web.Response(status=self._full.status, body=self._full.body(), headers=headers)
        answer.force_close()
        return answer


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
