"""Bill: closed windows become outbox rows, and outbox rows become Stripe meter events, each counted once.

Any number of workers may run it at once. Must not decide amounts (billing/windows does) nor send an event again whose
fate is in doubt for longer than Stripe remembers it. A worker that dies between sending and marking does no harm:
the event is sent again after its lease, and Stripe answers that it has it.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple, Protocol

from gateway.billing.windows import (
    Claim,
    CredentialsRefused,
    Delivered,
    Duplicate,
    FreezeCounts,
    MeterEvent,
    MeterRefused,
    Rejected,
    Retry,
    StripeAnswer,
)
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.kit.failpoints import Failpoint, pass_by

LEASE_S: Final = 120.0
"""Seconds an event belongs to the worker that claimed it."""
SEND_WITHIN_S: Final = 60.0
"""Seconds after its claim within which an event is sent, so that its calls have ended before its lease does."""
BATCH_MAX: Final = 32
"""Events claimed at a time."""
CONCURRENT_MAX: Final = 8
"""Calls to Stripe at the same time; per customer and meter it is one."""
ROUNDS_MAX: Final = 200
"""Batches in one pass."""
BACKOFF_MIN_S: Final = 2.0
BACKOFF_MAX_S: Final = 900.0
STOPPED_S: Final = 300.0
"""Seconds until what stops all events is tried again."""
REFUSED_CUSTOMERS: Final = 5
"""Customers whose events are refused in one pass, from which on it is not the events' fault."""


class OutboxStore(Protocol):
    """What billing needs of the outbox."""

    async def now(self) -> datetime: ...
    async def freeze_closed(self, now: datetime, grace_s: float, *, account: str) -> FreezeCounts: ...
    async def of_other_accounts(self, account: str) -> dict[str, int]: ...
    async def meters_waiting(self, account: str) -> list[str]: ...
    async def expire_doubtful(self, now: datetime, *, account: str) -> int: ...
    async def refile_overdue(self, now: datetime, *, account: str) -> tuple[int, int]: ...
    async def claim(self, now: datetime, *, lease_s: float, events_max: int, account: str) -> list[Claim]: ...
    async def mark_delivered(self, claim: Claim, answer: StripeAnswer, now: datetime) -> None: ...
    async def mark_rejected(self, claim: Claim, answer: StripeAnswer, reason: str, now: datetime) -> None: ...
    async def mark_retry(
        self,
        claim: Claim,
        answer: StripeAnswer,
        reason: str,
        now: datetime,
        *,
        after_s: float,
        outcome: Literal["retry", "in_doubt", "stopped", "not_sent"],
    ) -> None: ...


class StripeSender(Protocol):
    """What billing needs of Stripe."""

    async def account(self) -> str: ...
    async def refusal(self, event_name: str) -> str | None: ...
    async def deliver(self, event: MeterEvent) -> StripeAnswer: ...


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
    """Why Stripe takes no event of anybody (our credentials, the meter); nothing more is sent in this pass."""

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
        self._at_once = CONCURRENT_MAX
        """Calls to Stripe at the same time; fewer after it has asked for fewer."""
        self.stopped: str | None = None
        """Why nothing was sent at the last pass."""

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
        unknown = await self._outbox.expire_doubtful(now, account=account)
        refiled, doubtful = await self._outbox.refile_overdue(now, account=account)
        unknown += doubtful
        if refiled:
            self._log.warning("stripe_events_filed_anew", count=refiled, help="docs/billing.md")
        if unknown:
            self._log.error("stripe_events_unknown", count=unknown, help="docs/billing.md, 'unknown'")
        total = BillCounts(windows_frozen=frozen.windows, frozen=frozen.events, unknown=unknown)
        stopped = await self._why_stopped(self._stripe, account)
        if stopped is not None:
            return total._replace(stopped=stopped)
        return _sum(total, await self._send_due(self._stripe, account, now))

    async def _why_stopped(self, stripe: StripeSender, account: str) -> str | None:
        """Why every event would be lost, or refused, at a meter for which some wait. Asked before any is sent."""
        for meter in await self._outbox.meters_waiting(account):
            try:
                refusal = await stripe.refusal(meter)
            except DependencyDown:
                return None  # the first sends tell what is the matter, and keep their events
            if refusal is not None:
                return f"Stripe's meter {meter!r}: {refusal}"
        return None

    async def _send_due(self, stripe: StripeSender, account: str, now: datetime) -> BillCounts:
        """Sends what is due, batch by batch, until nothing is, or Stripe does not take it."""
        total, run = BillCounts(), _Pass(now, self._monotonic)
        for _ in range(ROUNDS_MAX):
            claimed_at = run.now()
            claims = await self._outbox.claim(claimed_at, lease_s=LEASE_S, events_max=BATCH_MAX, account=account)
            if not claims:
                break
            counts = await self._send_all(stripe, claims, claimed_at, run)
            total = _sum(total, counts)
            if run.stopped is not None or run.is_slowed or (counts.retry and not counts.done):
                break  # Stripe does not take anything now: leave the rest untouched
            total = _sum(total, await self._settle_refused(run, older_s=LEASE_S / 2))
        if not run.is_slowed:
            self._at_once = min(CONCURRENT_MAX, self._at_once + 1)
        return _sum(total, await self._settle_refused(run, older_s=0.0))._replace(stopped=run.stopped)

    async def _tell_others(self, account: str) -> None:
        """Events of another account are never sent under this one; somebody must know that they wait."""
        others = await self._outbox.of_other_accounts(account)
        if others and others != self._others:
            self._log.error("stripe_events_of_another_account", account=account, waiting=others, help="docs/billing.md")
        self._others = others

    async def _send_all(
        self, stripe: StripeSender, claims: list[Claim], claimed_at: datetime, run: "_Pass"
    ) -> BillCounts:
        slots, send_by = asyncio.Semaphore(self._at_once), claimed_at + timedelta(seconds=SEND_WITHIN_S)

        async def send_one(claim: Claim) -> BillCounts:
            async with slots:
                why_not = run.why_not_sent(send_by)
                if why_not is not None:
                    await self._outbox.mark_retry(claim, _NOT_SENT, why_not, run.now(), after_s=0.0, outcome="not_sent")
                    return BillCounts()
                answer = await stripe.deliver(claim.event)
                self._failpoint("bill.sent")
                counts = await self._mark(claim, answer, run)
                self._failpoint("bill.marked")
                return counts

        total = BillCounts()
        for done in await asyncio.gather(*map(send_one, claims), return_exceptions=True):
            if isinstance(done, BaseException):
                raise done  # every other event has been brought to its mark first
            total = _sum(total, done)
        return total

    async def _mark(self, claim: Claim, answer: StripeAnswer, run: "_Pass") -> BillCounts:
        now = run.now()
        match answer.outcome:
            case Delivered():
                await self._outbox.mark_delivered(claim, answer, now)
                return BillCounts(sent=1)
            case Duplicate():
                await self._outbox.mark_delivered(claim, answer, now)
                return BillCounts(duplicate=1)
            case Rejected():
                run.refuse(claim, answer)
                return BillCounts()
            case Retry(reason, after_s, in_doubt, limit):
                if limit == "rate" and not run.is_slowed:
                    run.is_slowed, self._at_once = True, max(1, self._at_once // 2)
                own_s = self._random() + 0.5 if limit == "slot" else self._backoff_s(claim.attempts)
                outcome: Literal["in_doubt", "retry"] = "in_doubt" if in_doubt else "retry"
                wait_s = max(after_s or 0.0, own_s)
                await self._outbox.mark_retry(claim, answer, reason, now, after_s=wait_s, outcome=outcome)
                return BillCounts(retry=1)
            case CredentialsRefused(reason) | MeterRefused(reason):
                run.stopped = run.stopped or reason
                await self._outbox.mark_retry(claim, answer, reason, now, after_s=0.0, outcome="stopped")
                return BillCounts()

    async def _settle_refused(self, run: "_Pass", *, older_s: float) -> BillCounts:
        """What Stripe refused for good waits for a person; where it refuses everybody, no event is at fault."""
        counts, now = BillCounts(), run.now()
        is_everybody = len({claim.event.customer for claim, _, _ in run.refused}) >= REFUSED_CUSTOMERS
        due = [each for each in run.refused if is_everybody or now - each[2] >= timedelta(seconds=older_s)]
        for claim, answer, at in due:
            reason = getattr(answer.outcome, "reason", "")
            run.refused.remove((claim, answer, at))
            if is_everybody:
                run.stopped = run.stopped or f"events of {REFUSED_CUSTOMERS} customers or more were refused: {reason}"
                wait_s = self._backoff_s(claim.attempts)
                await self._outbox.mark_retry(claim, answer, reason, now, after_s=wait_s, outcome="stopped")
                continue
            counts = _sum(counts, await self._reject(claim, answer, reason, now))
        return counts

    async def _reject(self, claim: Claim, answer: StripeAnswer, reason: str, now: datetime) -> BillCounts:
        await self._outbox.mark_rejected(claim, answer, reason, now)
        self._log.error("stripe_event_rejected", identifier=claim.event.identifier, reason=reason)
        return BillCounts(rejected=1)

    def _backoff_s(self, attempts: int) -> float:
        """Doubles with each attempt up to 15 minutes, times a jitter of 0.5 to 1.5."""
        return min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(attempts - 1, 16)) * (0.5 + self._random())

    async def turn_now_s(self, *, interval_s: float) -> float:
        """`turn_s` at this instant by the clock of PostgreSQL, which is one for all workers: theirs may differ by more
        than a lease, or by more than an invoice still takes usage."""
        return await self.turn_s(await self._outbox.now(), interval_s=interval_s)

    async def turn_s(self, now: datetime, *, interval_s: float) -> float:
        """One pass, and the seconds until the next: `interval_s`, longer while Stripe takes nothing.

        Raises DependencyDown when PostgreSQL is away.
        """
        counts = await self.step_once(now)
        self._failures = self._failures + 1 if counts.retry and not counts.sent + counts.duplicate else 0
        if counts.stopped is not None:
            if counts.stopped != self.stopped:  # once: the metric stays until it is over
                self._log.error("bill_stopped", reason=counts.stopped, next_try_s=STOPPED_S, help="docs/billing.md")
            self.stopped = counts.stopped
            return STOPPED_S
        self.stopped = None
        if counts.done or counts.retry:
            self._log.info("billed", **counts._asdict())
        return min(BACKOFF_MAX_S, interval_s * 2.0 ** min(self._failures, 8))


class _Pass:
    """What one pass has learned so far."""

    def __init__(self, began_at: datetime, monotonic: Callable[[], float]) -> None:
        self._began_at: Final = began_at
        self._monotonic: Final = monotonic
        self._began_s: Final = monotonic()
        self.stopped: str | None = None
        """Why Stripe takes nothing of anybody."""
        self.is_slowed = False
        """Whether Stripe asked for fewer calls in all."""
        self.refused: list[tuple[Claim, StripeAnswer, datetime]] = []
        """Events that were refused for good, and when: nobody knows yet whether all customers are refused."""

    def now(self) -> datetime:
        """By the clock of who began the pass."""
        return self._began_at + timedelta(seconds=self._monotonic() - self._began_s)

    def why_not_sent(self, send_by: datetime) -> str | None:
        """Why an event that was claimed is not sent."""
        if self.stopped is not None:
            return self.stopped
        if self.is_slowed:
            return "not sent: Stripe takes fewer calls now"
        return None if self.now() <= send_by else "not sent: Stripe was too slow with those before it"

    def refuse(self, claim: Claim, answer: StripeAnswer) -> None:
        """Stops the pass once too many customers are refused for the event to be at fault."""
        self.refused.append((claim, answer, self.now()))
        if len({each.event.customer for each, _, _ in self.refused}) >= REFUSED_CUSTOMERS and self.stopped is None:
            reason = getattr(answer.outcome, "reason", "")
            self.stopped = f"events of {REFUSED_CUSTOMERS} customers were refused: {reason}"


_NOT_SENT: Final = StripeAnswer(Retry("not sent", None, in_doubt=False))


def _sum(a: BillCounts, b: BillCounts) -> BillCounts:
    return BillCounts._make([*(x + y for x, y in zip(a[:-1], b[:-1], strict=True)), a.stopped or b.stopped])
