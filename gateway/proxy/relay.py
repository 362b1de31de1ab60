"""Reads an answer from OpenAI to its end and passes it to the client, metering on the way.

A client that leaves does not stop the reading, because the usage comes last; the reading is bounded in time and
bytes instead. Nothing here journals or prices; the last bytes are left with the caller until SETTLE is on disk.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config.settings import UpstreamSettings
from gateway.http.errors import forget_frames
from gateway.kit.errors import ApiError
from gateway.openai.upstream import UpstreamAnswer
from gateway.proxy.active_relays import ActiveRelays
from gateway.proxy.begun import error_event
from gateway.proxy.relay_result import RelayResult
from gateway.proxy.wholes import feed_large, read_large, read_whole
from pricing.coded import CodedStream
from pricing.readers.coding import Decoder, coding_of
from pricing.readers.scan import Scan
from pricing.stream import StreamMeter

WHOLE_BYTES_MAX: Final = 1024 * 1024
"""Answers up to this size are released whole after SETTLE; of larger ones only the last piece waits."""
SLOW_BUFFER_BYTES: Final = 64 * 1024
"""Unsent bytes beyond which a write to the client may have to wait for it."""
NOTE_EVERY_S: Final = 1.0
_BROKEN: Final = (aiohttp.ClientError, HttpProcessingError, ConnectionError, TimeoutError)


class Relay:
    """One answer on its way from `source` to the client of `request`."""

    def __init__(
        self,
        request: web.BaseRequest,
        source: UpstreamAnswer,
        headers: "CIMultiDict[str]",
        bounds: UpstreamSettings,
        active_relays: ActiveRelays,
        noted: Callable[[RelayResult], Awaitable[None]],
        key: str,
    ) -> None:
        """`key`: the id of the caller's key, whose drains count together."""
        self._key: Final = key
        self._request: Final = request
        self._source: Final = source
        self._headers: Final = headers
        self._bounds: Final = bounds
        self._active_relays: Final = active_relays
        self._noted: Final = noted
        self._loop: Final = asyncio.get_running_loop()
        self._end_s: Final = self._loop.time() + bounds.total_s
        self._drain_until_s = 0.0
        self._drained_bytes = 0
        self.result: Final = RelayResult()
        self.result.heard_s = self._loop.time()
        coding = self.result.coding = coding_of(source.headers.get("Content-Encoding"))
        self._decoder: Final = None if coding is None else Decoder(coding)
        active_relays.add(self)

    async def relay_stream(self, meter: StreamMeter) -> RelayResult:
        """An event stream; `result.last` is the terminal event."""
        result = self.result
        result.said, result.meter = meter.said, meter
        passing = meter if self._decoder is None else CodedStream(meter, self._decoder)
        client = result.client = self._new_client()
        await self._prepare(client)
        try:
            await self._pass_stream(passing.feed, meter, client)
        except _BROKEN as error:
            self._broke_off(error)
        self._active_relays.relays.discard(self)
        await self._write(client, passing.finish())
        if self._decoder is not None:
            result.unread = self._decoder.problem
        if meter.terminal:
            result.broken = None  # all has been said; what became of the connection after it changes nothing
        result.complete = meter.terminal and not meter.failed
        result.deltas = meter.deltas
        result.last = passing.release()
        return result

    async def _pass_stream(
        self, feed: Callable[[bytes], bytes], meter: StreamMeter, client: web.StreamResponse
    ) -> None:
        # The hottest loop there is: whatever is added here is paid once per token.
        result, read, time, write = self.result, self._source.content.readany, self._loop.time, client.write
        transport = self._request.transport
        note_at_s = 0.0
        while chunk := await read():
            visible = feed(chunk)
            now = result.heard_s = time()
            if now >= note_at_s and meter.said.response_id is not None:
                result.first_byte_s = result.first_byte_s or now
                result.deltas = meter.deltas
                await self._noted(result)
                note_at_s = now + NOTE_EVERY_S
            if result.client_left:
                if self._over_drain(len(chunk)):
                    return
            elif visible:
                if transport is None or transport.get_write_buffer_size() > SLOW_BUFFER_BYTES:
                    await self._write(client, visible)
                    result.heard_s = time()  # a slow client is not OpenAI's silence
                    continue
                try:
                    await write(visible)
                except ConnectionError:
                    self._mark_client_left()

    async def relay_whole(self) -> RelayResult:
        """Any other answer; `result.last` is its body, or its last piece when it is large."""
        result = self.result
        chunks: list[bytes] = []
        size = 0
        try:
            while chunk := await self._source.content.readany():
                self.result.heard_s = self._loop.time()
                if result.first_byte_s is None:
                    result.first_byte_s = self.result.heard_s
                chunks.append(chunk)
                size += len(chunk)
                if size > WHOLE_BYTES_MAX:
                    return await self._pass_large(b"".join(chunks))
        except _BROKEN as error:
            self._broke_off(error)
        self._active_relays.relays.discard(self)
        result.last = b"".join(chunks)
        transport = self._request.transport
        result.client_left = transport is None or transport.is_closing()
        read_whole(result, self._decoder)
        return result

    async def _pass_large(self, first: bytes) -> RelayResult:
        """Beyond 1 MiB the body is passed on as it comes, and what it says of itself is found on the way."""
        result, scan, waiting = self.result, Scan(), first
        noted = False
        feed_large(result, scan, first, self._decoder)
        client = result.client = self._new_client()
        length = self._source.headers.get("Content-Length")
        if length is not None and length.isdigit():
            client.content_length = int(length)
        await self._prepare(client)
        try:
            while chunk := await self._source.content.readany():
                if not noted and "id" in scan.members:
                    noted = True
                    read_large(result, scan, self._decoder)
                    await self._noted(result)
                await self._write(client, waiting)
                waiting = chunk
                feed_large(result, scan, chunk, self._decoder)
                self.result.heard_s = self._loop.time()
                if result.client_left and self._over_drain(len(chunk)):
                    break
        except _BROKEN as error:
            self._broke_off(error)
        self._active_relays.relays.discard(self)
        read_large(result, scan, self._decoder)
        result.last = waiting
        result.complete = result.broken is None
        return result

    async def release(self) -> web.StreamResponse:
        """After SETTLE: the last bytes, and the end of the client's answer. A cut answer is cut for the client too.

        Raises ApiError 502 when the answer broke off before anything of it had gone out.
        """
        result, client, transport = self.result, self.result.client, self._request.transport
        if client is None:
            if result.broken is not None:
                message = "OpenAI's answer broke off; the call may have run."
                raise ApiError(502, result.broken, message, kind="server_error")
            answer = web.Response(status=self._source.status, headers=self._headers, body=result.last)
            if self._active_relays.closing:
                answer.force_close()
            return answer
        if result.broken is not None and transport is not None:
            transport.abort()
        elif not result.client_left:
            await self._write(client, result.last)
            try:
                await client.write_eof()
                result.ended = True
            except ConnectionError:
                result.client_left = True
        return client

    def _new_client(self) -> web.StreamResponse:
        client = web.StreamResponse(status=self._source.status, headers=self._headers)
        if self._active_relays.closing:
            client.force_close()
        return client

    async def _prepare(self, client: web.StreamResponse) -> None:
        try:
            await client.prepare(self._request)
        except ConnectionError:
            self._mark_client_left()

    async def _write(self, client: web.StreamResponse, data: bytes) -> None:
        if not data or self.result.client_left:
            return
        if self._request.transport is None:
            self._mark_client_left()
            return
        try:
            # However long it takes: a client that takes too little is cut by http/connections. How soon this goes on
            # says little, because a kernel asks for more only when a third of its megabytes has gone.
            await client.write(data)
        except ConnectionError:
            self._mark_client_left()

    def _mark_client_left(self) -> None:
        """The client is gone: read on, within bounds."""
        self.result.client_left = True
        if not self._drain_until_s:
            self._active_relays.begin_drain(self._key)
        self._drain_until_s = self._loop.time() + self._bounds.drain_s

    @property
    def request_headers(self) -> "CIMultiDictProxy[str]":
        """The request's headers, which hold the key."""
        return self._request.headers

    async def refuse(self, error: ApiError) -> None:
        """The client may not have the rest: a stream ends with the error, as OpenAI's own do; anything else is cut."""
        client, transport = self.result.client, self._request.transport
        if self.result.client_left or transport is None:
            return
        if client is not None and client.prepared:
            await self._write(client, error_event(error))
        if not self.result.client_left:
            self._mark_client_left()
        transport.close()

    def close(self) -> None:
        """Whatever happened: the connection to OpenAI and the place among the active relays are given back."""
        self._source.release()
        self._active_relays.relays.discard(self)
        if self._drain_until_s:
            self._active_relays.end_drain(self._key)
            self._drain_until_s = 0.0

    def _over_drain(self, size: int) -> bool:
        """Whether reading on without a client has reached a bound; then the answer is given up."""
        self._drained_bytes += size
        too_many = self._active_relays.is_too_many(self._key, self._bounds)
        if too_many or self._drained_bytes > self._bounds.drain_bytes_max:
            self.give_up("drain_limit")
        return self.result.broken is not None

    def check(self, now: float) -> None:
        """Gives the answer up when it is silent for too long, takes too long in all, or is drained for too long."""
        if now - self.result.heard_s > self._bounds.read_s or now > self._end_s:
            self.give_up("upstream_timeout")
        elif self._drain_until_s and (
            now > self._drain_until_s or self._active_relays.is_too_many(self._key, self._bounds)
        ):
            self.give_up("drain_limit")

    def _broke_off(self, error: BaseException) -> None:
        forget_frames(error)
        self.result.broken = self.result.broken or _reason(error)

    def give_up(self, reason: str) -> None:
        self.result.broken = self.result.broken or reason
        self._source.close()  # a read that waits ends with an error, or as if the body had ended


def _reason(error: BaseException) -> str:
    return "upstream_timeout" if isinstance(error, TimeoutError) else "upstream_cut"
