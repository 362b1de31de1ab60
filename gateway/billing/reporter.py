"""Bill: closed windows become outbox rows, and outbox rows become Stripe meter events, each counted once.

Any number of workers may run it at once. Must not decide amounts (billing/windows does) nor send an event again whose
fate is in doubt for longer than Stripe remembers it. A worker that dies between sending and marking does no harm:
the event is sent again after its lease, and Stripe answers that it has it.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from gateway.billing.windows import (
    EVENT_AGE_MAX,
    Claim,
    CredentialsRefused,
    Delivered,
    Duplicate,
    FreezeCounts,
    MeterEvent,
    Outcome,
    Rejected,
    Retry,
)
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.kit.failpoints import Failpoint, pass_by

LEASE_S: Final = 120.0
"""Seconds an event belongs to the worker that claimed it; longer than a batch of calls can take."""
BATCH_MAX: Final = 32
"""Events claimed at a time."""
CONCURRENT_MAX: Final = 8
"""Calls to Stripe at the same time; per customer and meter it is one."""
ROUNDS_MAX: Final = 200
"""Batches in one pass."""
BACKOFF_MIN_S: Final = 2.0
BACKOFF_MAX_S: Final = 900.0
STOPPED_S: Final = 300.0
"""Seconds until credentials that Stripe refused are tried again."""


class OutboxStore(Protocol):
    """What billing needs of the outbox."""

    async def freeze_closed(self, now: datetime, grace_s: float, *, account: str) -> FreezeCounts: ...
    async def of_other_accounts(self, account: str) -> dict[str, int]: ...
    async def expire_doubtful(self, now: datetime) -> int: ...
    async def claim(self, now: datetime, *, lease_s: float, events_max: int, account: str) -> list[Claim]: ...
    async def mark_delivered(self, claim: Claim, now: datetime, *, duplicate: bool) -> None: ...
    async def mark_rejected(self, claim: Claim, reason: str) -> None: ...
    async def mark_retry(self, claim: Claim, reason: str, now: datetime, *, after_s: float, in_doubt: bool) -> None: ...


class StripeSender(Protocol):
    """What billing needs of Stripe."""

    async def account(self) -> str: ...
    async def send(self, event: MeterEvent) -> Outcome: ...


class Log(Protocol):
    """A structured logger."""

    def info(self, event: str, /, **fields: object) -> object: ...
    def warning(self, event: str, /, **fields: object) -> object: ...
    def error(self, event: str, /, **fields: object) -> object: ...


class BillCounts(NamedTuple):
    """What one pass did, in events unless said otherwise."""

    windows_frozen: int = 0
    """Windows."""
    frozen: int = 0
    sent: int = 0
    duplicate: int = 0
    rejected: int = 0
    retry: int = 0
    unknown: int = 0
    """Given up on in this pass: in doubt for more than 20 h."""
    stopped: str | None = None
    """Why Stripe refused our credentials; nothing more is sent in this pass."""

    @property
    def done(self) -> int:
        """Things brought forward; 0 when there was nothing to do or nothing could be done."""
        return self.windows_frozen + self.sent + self.duplicate + self.rejected + self.unknown


class UsageReporter:
    """One reporter. `stripe` is None where no Stripe key is set: then nothing is frozen and the amounts accrue."""

    def __init__(
        self,
        outbox: OutboxStore,
        stripe: StripeSender | None,
        *,
        grace_s: float,
        monotonic: Callable[[], float],
        random: Callable[[], float],
        log: Log,
        failpoint: Failpoint = pass_by,
    ) -> None:
        """`grace_s`: seconds after its end at which a window is frozen.

        `monotonic` counts seconds, so that the leases of a long pass are whole ones; `random` gives numbers in
        [0, 1), for jitter.
        """
        self._outbox: Final = outbox
        self._stripe: Final = stripe
        self._grace_s: Final = grace_s
        self._monotonic: Final = monotonic
        self._random: Final = random
        self._log: Final = log
        self._failpoint: Final = failpoint
        self._others: dict[str, int] = {}
        """Events that wait for other Stripe accounts, as last told."""
        self._failures = 0
        """Passes in a row in which Stripe took nothing."""

    @property
    def others_waiting(self) -> int:
        """How many events waited for another Stripe account at the last pass."""
        return sum(self._others.values())

    async def step_once(self, now: datetime, *, grace_s: float | None = None) -> BillCounts:
        """Freezes what is closed at `now` and sends what is due. `grace_s` replaces the usual one; negative closes
        windows before their end.

        Raises DependencyDown when Postgres is away; Stripe being away is a `retry` of its events.
        """
        if self._stripe is None:
            return BillCounts()
        try:
            # First: what is frozen belongs to the account that will be charged with it.
            account = await self._stripe.account()
        except ConfigError as error:
            return BillCounts(stopped=f"whose account the key is of cannot be read: {error}")
        except DependencyDown as error:
            self._log.warning("stripe is away", detail=error.detail)
            return BillCounts(retry=1)
        await self._tell_others(account)
        grace = self._grace_s if grace_s is None else grace_s
        frozen = await self._outbox.freeze_closed(now, grace, account=account)
        if frozen.windows:
            self._failpoint("bill.frozen")
        unknown = await self._outbox.expire_doubtful(now)
        if unknown:
            self._log.error("stripe_events_unknown", count=unknown, help="docs/billing.md, 'unknown'")
        total = BillCounts(windows_frozen=frozen.windows, frozen=frozen.events, unknown=unknown)
        began_s = self._monotonic()
        for _ in range(ROUNDS_MAX):
            at = now + timedelta(seconds=self._monotonic() - began_s)
            claims = await self._outbox.claim(at, lease_s=LEASE_S, events_max=BATCH_MAX, account=account)
            if not claims:
                break
            round_counts = await self._send_all(self._stripe, claims, at)
            total = _sum(total, round_counts)
            if round_counts.stopped is not None or (round_counts.retry and not round_counts.done):
                break  # Stripe does not take anything now: leave the rest untouched
        return total

    async def _tell_others(self, account: str) -> None:
        """Events of another account are never sent under this one; somebody must know that they wait."""
        others = await self._outbox.of_other_accounts(account)
        if others and others != self._others:
            self._log.error("stripe_events_of_another_account", account=account, waiting=others, help="docs/billing.md")
        self._others = others

    async def _send_all(self, stripe: StripeSender, claims: list[Claim], now: datetime) -> BillCounts:
        slots = asyncio.Semaphore(CONCURRENT_MAX)
        stopped: list[str] = []

        async def send_one(claim: Claim) -> BillCounts:
            async with slots:
                outcome = CredentialsRefused(stopped[0]) if stopped else await self._send(stripe, claim, now)
                if isinstance(outcome, CredentialsRefused):
                    stopped.append(outcome.reason)
                self._failpoint("bill.sent")
                counts = await self._mark(claim, outcome, now)
                self._failpoint("bill.marked")
                return counts

        total = BillCounts()
        for done in await asyncio.gather(*map(send_one, claims), return_exceptions=True):
            if isinstance(done, BaseException):
                raise done  # every other event has been brought to its mark first
            total = _sum(total, done)
        return total

    async def _send(self, stripe: StripeSender, claim: Claim, now: datetime) -> Outcome:
        if now - claim.event.timestamp >= EVENT_AGE_MAX:
            # Never filed under another time silently.
            return Rejected("its time is more than 35 days ago, which Stripe does not take; bill it by hand")
        return await stripe.send(claim.event)

    async def _mark(self, claim: Claim, outcome: Outcome, now: datetime) -> BillCounts:
        match outcome:
            case Delivered():
                await self._outbox.mark_delivered(claim, now, duplicate=False)
                return BillCounts(sent=1)
            case Duplicate():
                await self._outbox.mark_delivered(claim, now, duplicate=True)
                return BillCounts(duplicate=1)
            case Rejected(reason):
                await self._outbox.mark_rejected(claim, reason)
                self._log.error("stripe_event_rejected", identifier=claim.event.identifier, reason=reason)
                return BillCounts(rejected=1)
            case Retry(reason, after_s, in_doubt):
                wait_s = max(after_s or 0.0, self._backoff_s(claim.attempts))
                await self._outbox.mark_retry(claim, reason, now, after_s=wait_s, in_doubt=in_doubt)
                return BillCounts(retry=1)
            case CredentialsRefused(reason):
                await self._outbox.mark_retry(claim, reason, now, after_s=0.0, in_doubt=False)
                return BillCounts(stopped=reason)

    def _backoff_s(self, attempts: int) -> float:
        """Doubles with each attempt up to 15 minutes, times a jitter of 0.5 to 1.5."""
        return min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(attempts - 1, 16)) * (0.5 + self._random())

    async def turn_s(self, now: datetime, *, interval_s: float) -> float:
        """One pass, and the seconds until the next: `interval_s`, longer while Stripe takes nothing.

        Raises DependencyDown when PostgreSQL is away.
        """
        counts = await self.step_once(now)
        self._failures = self._failures + 1 if counts.retry and not counts.sent + counts.duplicate else 0
        if counts.stopped is not None:
            self._log.error("bill_stopped", reason=counts.stopped, next_try_s=STOPPED_S)
            return STOPPED_S
        if counts.done or counts.retry:
            self._log.info("billed", **counts._asdict())
        return min(BACKOFF_MAX_S, interval_s * 2.0 ** min(self._failures, 8))


def _sum(a: BillCounts, b: BillCounts) -> BillCounts:
    return BillCounts._make([*(x + y for x, y in zip(a[:-1], b[:-1], strict=True)), a.stopped or b.stopped])
