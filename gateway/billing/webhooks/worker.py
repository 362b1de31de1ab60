"""Takes Stripe's events out of the inbox and does what they are about. Any number of workers may run it at once.

An event says which object has changed, never what it is now: that is asked of Stripe, so that events may come in any
order and more than once. One that cannot be applied is put back for later and never holds up the others.
"""

import asyncio
import traceback
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.refresh import Mirror
from gateway.billing.mirror.store import Kind
from gateway.billing.webhooks.event import UNREADABLE, Event, read_event
from gateway.billing.webhooks.inbox import Leased, StripeInbox
from gateway.billing.webhooks.notice_store import NoticeStore
from gateway.billing.webhooks.notices import ALERT, ERROR_REPORT, NO_METER, Notice, read_alert, read_report
from gateway.billing.webhooks.recheck import HourRecheck
from gateway.kit.errors import ConfigError, DependencyDown

RECHECK_S: Final = 30.0
"""Seconds between two looks for hours to be compared."""
AWAY_S: Final = 15.0
"""Seconds until Stripe is asked again when it does not answer."""
_ABOUT: Final[dict[str, Kind]] = {
    "customer": "customer",
    "subscription": "subscription",
    "invoice": "invoice",
    "billing.credit_grant": "credit_grant",
}
"""What an object is of which we keep a copy, by its `object`."""
_log: Final = structlog.get_logger("gateway.billing")


class StripeEvents:
    """One per worker that has Stripe's key."""

    def __init__(
        self, inbox: StripeInbox, notices: NoticeStore, reader: StripeReader, mirror: Mirror, recheck: HourRecheck
    ) -> None:
        self._inbox: Final = inbox
        self._notices: Final = notices
        self._reader: Final = reader
        self._mirror: Final = mirror
        self._recheck: Final = recheck
        self._asks_at_s = 0.0
        self._rechecks_at_s = 0.0

    async def apply_due(self) -> None:
        """Applies all due events and comparisons. Raises DependencyDown when PostgreSQL is away."""
        clock = asyncio.get_running_loop().time
        if clock() < self._asks_at_s:
            return
        try:
            while await self.step_once():
                pass
            if clock() >= self._rechecks_at_s:
                self._rechecks_at_s = clock() + RECHECK_S
                while await self._recheck.step_once():
                    pass
        except DependencyDown as error:
            if error.what != "stripe":
                raise
            # Nothing waits for this but what it would tell; the reporter shows that Stripe is away.
            self._asks_at_s = clock() + AWAY_S
            _log.warning("stripe cannot be asked", detail=error.detail)
        except ConfigError as error:
            self._asks_at_s = clock() + AWAY_S
            _log.error("stripe's summaries cannot be read", detail=str(error))

    async def step_once(self) -> bool:
        """Applies one event; False when none is due. Raises DependencyDown."""
        leased = await self._inbox.lease()
        if leased is None:
            return False
        try:
            await self._apply(leased)
        except DependencyDown as error:
            if error.what == "stripe":
                await self._inbox.release(leased.id)
            raise
        except ConfigError as error:
            _log.error("an event could not be applied", id=leased.id, reason=str(error))
            await self._inbox.mark_failed(leased.id, str(error))
        except Exception as error:  # noqa: BLE001  # a bug must not hold up the events behind this one
            # Where, never what: a message may quote what is in it.
            where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-3:]]
            _log.error("an event could not be applied", id=leased.id, error=type(error).__name__, where=where)
            await self._inbox.mark_failed(leased.id, type(error).__name__)
        return True

    async def _apply(self, leased: Leased) -> None:
        event = read_event(leased.body)
        if event.type == UNREADABLE:
            _log.warning("an event could not be applied", id=leased.id, reason="it cannot be read")
            await self._inbox.mark_failed(leased.id, "it cannot be read as an event of Stripe's", for_good=True)
            return
        await self._inbox.done(leased.id, await self._do(event, leased.body))

    async def _do(self, event: Event, body: bytes) -> str | None:
        """What an event is about; why nothing was done, where that is so."""
        # A thin event may name the account that it is of though that is ours (its `context`).
        if event.account is not None and event.account != await self._reader.account():
            return "of a connected account"
        if event.is_live != self._reader.is_live:
            return "of Stripe's other mode (live or test) than STRIPE_SECRET_KEY"
        if event.type in (ERROR_REPORT, NO_METER):
            return await self._report(event)
        if event.type == ALERT and not event.is_thin:
            await self._alert(event, body)
            return None
        kind, object_id = _subject(event)
        if kind is None or object_id is None:
            return "about nothing that is kept here"
        known = not await self._mirror.refresh(kind, object_id, event=event.id, occurred_at=event.occurred_at)
        return "what is kept was read later" if known else None

    async def _report(self, event: Event) -> str | None:
        found = await self._reader.event(event.id)
        if found is None:
            return "Stripe no longer has it: an event is kept for 30 days"
        notice = read_report(found, _occurred_at(event))
        meter = None if notice.meter_id is None else await self._reader.meter_name(notice.meter_id)
        await self._keep(notice, meter)
        return None

    async def _alert(self, event: Event, body: bytes) -> None:
        about: dict[str, Any] = msgspec.json.decode(body)["data"]["object"]
        notice = read_alert(event.id, _occurred_at(event), about)
        meter = None if notice.meter_id is None else await self._reader.meter_name(notice.meter_id)
        await self._keep(notice, meter)
        _log.warning("stripe_alert", id=event.id, alert=notice.detail["alert"], customer=notice.detail["customer"])

    async def _keep(self, notice: Notice, meter: str | None) -> None:
        rejected = await self._notices.keep(notice, meter)
        if notice.errors:
            _log.error(
                "stripe_events_not_counted",
                id=notice.id,
                type=notice.type,
                meter=meter,
                events=notice.errors,
                identifiers=rejected,
                help="docs/billing.md",
            )


def _occurred_at(event: Event) -> datetime:
    if event.occurred_at is None:
        raise ConfigError("the event has no time")
    return event.occurred_at


def _subject(event: Event) -> tuple[Kind | None, str | None]:
    """The object of which a copy has to be read anew."""
    if event.object_kind == "credit_note":
        return "invoice", event.invoice  # which states what was credited
    if event.object_kind == "billing.credit_balance_transaction":
        return "credit_grant", event.credit_grant
    return _ABOUT.get(event.object_kind or ""), event.object_id
