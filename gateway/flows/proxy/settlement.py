"""How one call ends in the journal: exactly one SETTLE after its OPEN, whatever happens.

Must not lose what OpenAI said, and must not fail for want of it: the last resort rests on the OPEN alone.
"""

from typing import Any, Final

import msgspec
import structlog

from gateway.core.event import OpenRecord, UsageEvent
from gateway.core.families.catalogue import has_output
from gateway.core.request import Request
from gateway.flows.proxy.parts import Parts
from gateway.flows.proxy.relayed import Relayed
from pricing.readers.body import Said
from pricing.stream import StreamMeter

INTERRUPTED: Final = "gateway_interrupted"
"""Reason of an estimate: a shutdown, or a bug of ours. The call may have run."""
_log: Final = structlog.get_logger("gateway.proxy")


class Settlement:
    """Of one call that was opened."""

    __slots__ = ("_asked", "_limited", "_opened", "_parts", "event", "owner_known", "relayed", "request_id", "status")

    def __init__(self, parts: Parts, opened: OpenRecord, asked: Request, *, limited: bool) -> None:
        self._parts: Final = parts
        self._opened: Final = opened
        self._asked: Final = asked
        self._limited: Final = limited
        """Whether limits hold something for the call."""
        self.status = 0
        """OpenAI's, or what the gateway answers in its place; 0 while there is none."""
        self.request_id: str | None = None
        self.relayed: Relayed | None = None
        """What came of the answer; None before there is one."""
        self.owner_known = False
        """Whether the response's id is known as the user's."""
        self.event: UsageEvent | None = None
        """The SETTLE; None until the journal has taken it."""

    async def stream(self, relayed: Relayed, meter: StreamMeter) -> None:
        """An event stream has ended."""
        if relayed.said.usage is not None and relayed.broken is None and not meter.overflow:
            # Usage comes last: a chat stream that ended as it should in all but its `[DONE]` has said everything.
            metadata = {"failed": True} if meter.failed else {}
            await self._settle(self._exact(relayed, metadata if meter.terminal else {**metadata, "unterminated": True}))
        elif relayed.complete:
            await self.estimate("usage_missing")
        else:
            await self.estimate(
                relayed.broken or relayed.unread or ("stream_failed" if meter.failed else "no_terminal_event")
            )

    async def whole(self, relayed: Relayed) -> None:
        """Any other answer has ended."""
        status = self.status
        if status == 200 and relayed.complete and relayed.said.usage is not None:
            await self._settle(self._exact(relayed, {}))
        elif 400 <= status < 500 or (status in (500, 503) and relayed.is_error):
            await self.void(f"http_{status}", {"status": status})
        else:
            unsaid = "usage_missing" if status == 200 else f"http_{status}"
            await self.estimate(relayed.broken or relayed.unread or unsaid)

    async def void(self, reason: str, metadata: dict[str, Any] | None = None) -> None:
        """Proven not to have run."""
        parts = self._parts
        await self._settle(
            parts.settler.void(self._opened, parts.now(), reason, request_id=self.request_id, metadata=metadata)
        )

    async def estimate(self, reason: str) -> None:
        """OpenAI has not said what was used, or not to the end."""
        parts, relayed = self._parts, self.relayed
        meter = None if relayed is None else relayed.meter
        metadata: dict[str, Any] = {"status": self.status} if self.status else {}
        if relayed is not None and relayed.said.usage is not None:
            event = parts.settler.unfinished(self._exact(relayed, metadata), self._opened, reason)
        else:
            shown = relayed is not None and self.status == 200 and has_output(self._opened.endpoint)
            answer = relayed.text if relayed is not None and shown else b""
            tokens = await parts.estimator.tokens(self._opened, self._asked.body, meter, answer)
            said = Said() if relayed is None else relayed.said
            event = parts.settler.estimated(
                self._opened, said, parts.now(), reason, tokens, request_id=self.request_id, metadata=metadata
            )
        await self._settle(event)

    async def interrupted(self) -> None:
        """The call ends in a way that nobody foresaw. With what is known of it, else from its OPEN alone."""
        if self.event is not None:
            return
        try:
            await self.estimate(INTERRUPTED)
        except Exception as error:  # noqa: BLE001  # whatever it is, a call that may have run has its row
            _log.error("settled from its OPEN alone", id=self._opened.id, error=type(error).__name__)
            meter = None if self.relayed is None else self.relayed.meter
            tokens = self._parts.settler.by_bytes(self._opened, 0 if meter is None else meter.deltas)
            now = self._parts.now()
            await self._settle(self._parts.settler.estimated(self._opened, Said(), now, INTERRUPTED, tokens))

    def _exact(self, relayed: Relayed, metadata: dict[str, Any]) -> UsageEvent:
        return self._parts.settler.exact(
            self._opened,
            relayed.said,
            self._parts.now(),
            drained=relayed.client_left,
            request_id=self.request_id,
            metadata=metadata,
        )

    async def _own(self, event: UsageEvent, said: Said) -> UsageEvent:
        """The answer and its items are known as the user's before the client has the end of it, in one trip to Redis;
        and the event tells Postgres of the items, as it does of the answer."""
        fresh = [] if said.response_id is None or self.owner_known else [said.response_id]
        if fresh or said.item_ids:
            self.owner_known = True
            await self._parts.owners.remember([*fresh, *said.item_ids], self._opened.user_id)
        return msgspec.structs.replace(event, item_ids=tuple(said.item_ids)) if said.item_ids else event

    async def _settle(self, event: UsageEvent) -> None:
        """SETTLE is on disk when this returns, also when the caller is cancelled meanwhile."""
        if self._asked.stored and self.relayed is not None:
            event = await self._own(event, self.relayed.said)
        self._parts.failpoint("proxy.ended")
        self.event = event  # first: a caller that is cancelled in the next line has its record queued
        try:
            await self._parts.recorder.settle(event)
        except Exception:
            self.event = None
            raise
        self._parts.failpoint("proxy.settled")
        if self._limited:
            # Before the last byte: the client's next call must find the room that this one gives back.
            await self._parts.limiter.give_back(event.id, event)
