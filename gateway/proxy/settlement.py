"""How one call ends in the journal: exactly one SETTLE after its OPEN, whatever happens.

Must not lose what OpenAI said, and must not fail for want of it: the last resort rests on the OPEN alone.
"""

from typing import Any, Final

import msgspec
import structlog

from gateway.openai.families.catalogue import has_output
from gateway.openai.request import Request
from gateway.proxy.dependencies import Dependencies
from gateway.proxy.evidence import Decision, End, Interrupted, decide_evidence, hides_output
from gateway.proxy.relay_result import RelayResult
from gateway.usage.event import OpenRecord, UsageEvent
from gateway.usage.settle import Tokens
from pricing.readers.body import Said

_log: Final = structlog.get_logger("gateway.proxy")


class Settlement:
    """Of one call that was opened."""

    __slots__ = (
        "_asked",
        "_deps",
        "_limited",
        "_opened",
        "event",
        "owner_known",
        "relay_result",
        "request_id",
        "status",
    )

    def __init__(self, deps: Dependencies, opened: OpenRecord, asked: Request, *, limited: bool) -> None:
        self._deps: Final = deps
        self._opened: Final = opened
        self._asked: Final = asked
        self._limited: Final = limited
        """Whether limits hold something for the call."""
        self.status = 0
        """OpenAI's, or what the gateway answers in its place; 0 while there is none."""
        self.request_id: str | None = None
        self.relay_result: RelayResult | None = None
        """What came of the answer; None before there is one."""
        self.owner_known = False
        """Whether the response's id is known as the user's."""
        self.event: UsageEvent | None = None
        """The SETTLE; None until the journal has taken it."""

    async def settle(self, end: End) -> None:
        """The call has ended like this. Its row says what `decide_evidence` makes of it."""
        decision, result = decide_evidence(end), self.relay_result
        metadata: dict[str, Any] = dict.fromkeys(decision.marks, True) if decision.marks else {}
        if decision.shows_status and self.status:
            metadata["status"] = self.status
        said = Said() if result is None else result.said
        await self._write(await self._value(decision, said, metadata))

    async def interrupt(self) -> None:
        """Settles a call that ends unexpectedly: with what is known of it, else from its OPEN alone."""
        if self.event is not None:
            return
        usage = self.relay_result is not None and self.relay_result.said.usage is not None
        try:
            await self.settle(Interrupted(usage=usage))
        except Exception as error:  # noqa: BLE001  # whatever it is, a call that may have run has its row
            _log.error("settled from its OPEN alone", id=self._opened.id, error=type(error).__name__)
            await self.settle(Interrupted(usage=usage, estimate_failed=True))

    async def _value(self, decision: Decision, said: Said, metadata: dict[str, Any]) -> UsageEvent:
        """The row of `decision`, with `metadata`."""
        deps, opened, request_id, reason = self._deps, self._opened, self.request_id, decision.reason or ""
        settler, drained = deps.settler, decision.evidence == "drained"
        match decision.figures:
            case "openai":
                return settler.settle_exact(
                    opened, said, deps.now(), drained=drained, request_id=request_id, metadata=metadata
                )
            case "unfinished":
                event = settler.settle_exact(opened, said, deps.now(), request_id=request_id, metadata=metadata)
                return settler.settle_unfinished(event, opened, reason)
            case "counted":
                tokens = await self._count()
                return settler.settle_estimated(
                    opened,
                    said,
                    deps.now(),
                    reason,
                    tokens,
                    request_id=request_id,
                    metadata=metadata,
                    hides_output=hides_output(decision),
                )
            case "open_record":
                meter = None if self.relay_result is None else self.relay_result.meter
                tokens = settler.by_bytes(opened, 0 if meter is None else meter.deltas)
                return settler.settle_estimated(opened, Said(), deps.now(), reason, tokens, hides_output=True)
            case "none":
                return settler.settle_void(opened, deps.now(), reason, request_id=request_id, metadata=metadata)

    async def _count(self) -> Tokens:
        """The call's tokens, from the request and from the received part of the answer."""
        result = self.relay_result
        meter = None if result is None else result.meter
        shown = result is not None and self.status == 200 and has_output(self._opened.endpoint)
        answer = result.text if result is not None and shown else b""
        return await self._deps.estimator.tokens(self._opened, self._asked.body, meter, answer)

    async def _remember_owner(self, event: UsageEvent, said: Said) -> UsageEvent:
        """The answer and its items are known as the user's before the client has the end of it, in one trip to Redis;
        and the event tells Postgres of the items, as it does of the answer."""
        fresh = [] if said.response_id is None or self.owner_known else [said.response_id]
        if fresh or said.item_ids:
            self.owner_known = True
            await self._deps.owners.remember([*fresh, *said.item_ids], self._opened.user_id)
        return msgspec.structs.replace(event, item_ids=tuple(said.item_ids)) if said.item_ids else event

    async def _write(self, event: UsageEvent) -> None:
        """SETTLE is on disk when this returns, also when the caller is cancelled meanwhile."""
        if self._asked.stored and self.relay_result is not None:
            event = await self._remember_owner(event, self.relay_result.said)
        self._deps.failpoint("proxy.ended")
        self.event = event  # first: a caller that is cancelled in the next line has its record queued
        try:
            await self._deps.recorder.settle(event)
        except Exception:
            self.event = None
            raise
        self._deps.failpoint("proxy.settled")
        if self._limited:
            # Before the last byte: the client's next call must find the room that this one gives back.
            await self._deps.limiter.give_back(event.id, event)
