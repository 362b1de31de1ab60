"""Puts OPEN, NOTE and SETTLE where they survive: the journal, and when the disk refuses a SETTLE, Redis.

An OPEN that cannot be written refuses the call (503) before it costs anything. A SETTLE that cannot be written
stays in memory, is tried again until it lands, and holds the client's last byte for 5 s at most.
"""

import asyncio
from functools import partial
from typing import Final

import structlog

from gateway.journal.frames import OPEN, SETTLE
from gateway.journal.writer import Journal
from gateway.kit.errors import ApiError, DependencyDown
from gateway.ledger.stream import Buffer
from gateway.usage.event import NoteRecord, OpenRecord, UsageEvent, encode

HOLD_LAST_BYTE_S: Final = 5.0
RETRY_S: Final = 1.0
_log: Final = structlog.get_logger("gateway.record")


class Recorder:
    """Records the calls of one process."""

    def __init__(self, journal: Journal, buffer: Buffer) -> None:
        self._journal: Final = journal
        self._buffer: Final = buffer
        self._stranded: Final[dict[str, bytes]] = {}
        self._retry: asyncio.Task[None] | None = None

    @property
    def stranded(self) -> int:
        """Settled calls that only memory holds."""
        return len(self._stranded)

    @property
    def failure(self) -> str | None:
        """Why calls cannot be recorded right now; None while they can."""
        if self._stranded:
            return f"{len(self._stranded)} settled calls are not on disk yet"
        return self._journal.failure

    async def open(self, record: OpenRecord) -> None:
        """On disk when it returns. Raises ApiError 503 when it could not be written."""
        try:
            await self._journal.append(OPEN, encode(record))
        except DependencyDown as error:
            _log.error("call refused: the journal cannot be written", detail=error.detail)
            message = "The gateway cannot record calls right now; nothing was sent and nothing was spent."
            raise ApiError(
                503, "journal_unavailable", message, kind="server_error", headers={"Retry-After": "2"}
            ) from error

    def note(self, record: NoteRecord) -> None:
        """In the journal file when it returns, without waiting for the disk."""
        self._journal.note(encode(record))

    async def settle(self, event: UsageEvent) -> None:
        """On disk when it returns; when the disk refuses, in Redis or in memory, and tried again. Never raises.

        The record is queued before the first await, so a caller that is cancelled here loses nothing.
        """
        payload = encode(event)
        try:
            await self._journal.append(SETTLE, payload)
        except DependencyDown as error:
            self._strand(event.id, payload, error)
            if self._retry is not None:
                await asyncio.wait({self._retry}, timeout=HOLD_LAST_BYTE_S)
        except asyncio.CancelledError:
            # Nobody will learn now whether it landed, so a second copy goes out that nobody can cancel; a repeat is
            # harmless. (Shielding every call instead would cost each of them a task.)
            again = self._journal.append(SETTLE, payload)
            again.add_done_callback(partial(self._landed_unseen, event.id, payload))
            raise

    def _landed_unseen(self, event_id: str, payload: bytes, landed: "asyncio.Future[None]") -> None:
        error = landed.exception()
        if error is not None:
            self._strand(event_id, payload, error)

    def _strand(self, event_id: str, payload: bytes, error: BaseException) -> None:
        """The disk has refused a SETTLE: it stays in memory until the disk or Redis has it."""
        _log.error("settle not on disk", id=event_id, detail=str(error))
        self._stranded[event_id] = payload
        if self._retry is None or self._retry.done():
            self._retry = asyncio.get_running_loop().create_task(self._land())

    async def close(self) -> None:
        """Gives stranded events one last chance, within the time a shutdown may take."""
        if self._retry is not None and not self._retry.done():
            await asyncio.wait({self._retry}, timeout=HOLD_LAST_BYTE_S)

    async def _land(self) -> None:
        """Until nothing is stranded: the stream or the disk, whichever answers first."""
        while self._stranded:
            batch = list(self._stranded.items())
            try:
                landed = await self._send(batch) or await self._append_all(batch)
            except Exception as error:  # noqa: BLE001  # these calls are in memory only: whatever it is, try again
                _log.error("settles cannot be written", error=type(error).__name__)
                landed = False
            if not landed:
                await asyncio.sleep(RETRY_S)
                continue
            for event_id, _ in batch:
                del self._stranded[event_id]

    async def _send(self, batch: list[tuple[str, bytes]]) -> bool:
        try:
            await self._buffer.append(batch)
        except DependencyDown:
            return False
        return True

    async def _append_all(self, batch: list[tuple[str, bytes]]) -> bool:
        results = await asyncio.gather(
            *(self._journal.append(SETTLE, payload) for _, payload in batch), return_exceptions=True
        )
        return not any(isinstance(result, BaseException) for result in results)
