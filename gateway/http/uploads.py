"""Bodies of requests as they come: how long each may take, how large it may be, and how much all of them may hold.

One look a second at the bodies that are still coming ends those that are too slow. Bodies up to 64 KiB are not counted:
the number of connections bounds them, so that ordinary calls are served whatever large ones do.
"""

import asyncio
from collections import Counter
from typing import Final

import aiohttp
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.config.settings import ConnectionSettings
from gateway.http.framing import CLIENT_LEFT, BrokenBody
from gateway.kit.errors import ApiError

UNCOUNTED_BYTES: Final = 64 * 1024
_BROKEN: Final = (OSError, aiohttp.ClientPayloadError, HttpProcessingError)


class Uploads:
    """Those of one process."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings: Final = settings
        self._coming: Final[set[_Upload]] = set()
        self._held_of: Final[Counter[str | None]] = Counter()
        self.held = 0
        """Bytes of all counted bodies whose requests are not answered yet."""

    async def read(self, request: web.BaseRequest, bytes_max: int, owner: str | None = None) -> bytes:
        """The whole body; `owner`: the key that sends it.

        Raises ApiError: 413 beyond `bytes_max`, 408 when it is too slow, 503 when too much is held already, 499 when
        the client leaves before its end.
        """
        if (request.content_length or 0) > bytes_max:
            raise _too_large(bytes_max)
        if not request.body_exists:
            return b""
        content = request.content
        if not content.is_eof() or content.total_bytes > UNCOUNTED_BYTES:
            return await self._receive(request, bytes_max, owner)
        # Nearly always: it came together with its head.
        body = await content.readany()
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        return body

    def check(self, now: float) -> int:
        """Ends the bodies that are too slow; how many."""
        late = [upload for upload in self._coming if upload.is_late(self._settings, now)]
        for upload in late:
            self._coming.discard(upload)
            upload.content.set_exception(_TooSlow())
        return len(late)

    async def _receive(self, request: web.BaseRequest, bytes_max: int, owner: str | None) -> bytes:
        if request.headers.get("Expect", "").lower() == "100-continue":  # the client waits; it is known by now
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        upload = _Upload(request.content, asyncio.get_running_loop().time())
        hold = _Hold(self, owner)
        chunks: list[bytes] = []
        size = 0
        self._coming.add(upload)
        try:
            while chunk := await upload.content.readany():
                size += len(chunk)
                if size > bytes_max:
                    raise _too_large(bytes_max)
                hold.grow(size)
                chunks.append(chunk)
            return b"".join(chunks)
        except _BROKEN as error:
            # aiohttp keeps it: with its traceback it would keep this frame, until the collector looks.
            raise _refusal_of(error.with_traceback(None)) from None
        finally:
            self._coming.discard(upload)
            chunks.clear()

    def take(self, owner: str | None, count: int) -> None:
        """So many bytes more of this key, or of nobody's. Raises ApiError 503 when they are too many."""
        bytes_max = self._settings.bodies_bytes_max
        if self.held + count > bytes_max or self._held_of[owner] + count > bytes_max // 2:
            message = "The gateway holds as many bytes of requests as it may; please try again later."
            raise ApiError(503, "too_many_uploads", message, kind="server_error", headers={"Retry-After": "2"})
        self.held += count
        self._held_of[owner] += count

    def give_back(self, owner: str | None, count: int) -> None:
        """So many bytes are held no longer."""
        self.held -= count
        self._held_of[owner] -= count
        if not self._held_of[owner]:
            del self._held_of[owner]


class _Upload:
    """One body that is coming."""

    __slots__ = ("__weakref__", "_begun_s", "_heard_s", "_received", "content")

    def __init__(self, content: StreamReader, now: float) -> None:
        self.content: Final = content
        self._begun_s: Final = now
        self._heard_s = now
        self._received = 0

    def is_late(self, settings: ConnectionSettings, now: float) -> bool:
        received = self.content.total_raw_bytes
        if received != self._received:
            self._received, self._heard_s = received, now
        allowed_s = settings.body_s + received / settings.body_bytes_per_s
        return now - self._heard_s > settings.body_idle_s or now - self._begun_s > allowed_s


class _Hold:
    """What one body holds, until its request is answered."""

    def __init__(self, uploads: Uploads, owner: str | None) -> None:
        self._uploads: Final = uploads
        self._owner: Final = owner
        self._held = 0

    def grow(self, size: int) -> None:
        """The body has so many bytes now. Raises ApiError."""
        if size <= UNCOUNTED_BYTES:
            return
        self._uploads.take(self._owner, size - self._held)
        if not self._held:
            task = asyncio.current_task()  # aiohttp has one for each request, and it ends with the answer
            assert task is not None
            task.add_done_callback(self._end)
        self._held = size

    def _end(self, _: "asyncio.Task[object]") -> None:
        self._uploads.give_back(self._owner, self._held)


class _TooSlow(TimeoutError):
    """A body that takes too long."""


def _refusal_of(error: BaseException) -> ApiError:
    if isinstance(error, _TooSlow):
        return timed_out("The request's body did not come in time.")
    if isinstance(error, BrokenBody):
        return ApiError(400, "invalid_framing", "The chunks of the body are not valid HTTP/1.1.")
    return ApiError(499, CLIENT_LEFT, "The client left before it had sent its request.", detail=type(error).__name__)


def timed_out(message: str) -> ApiError:
    """408: the client did not send what it had begun to."""
    return ApiError(408, "request_timeout", message)


def _too_large(bytes_max: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request body is larger than {bytes_max} bytes.")
