"""Limits of one call: claimed before it is written down, settled to what it really used after its row is on disk.

All or nothing, over all proxies at once. Without Redis a hard budget or prepaid credit refuses the call, and everything
else lets it pass (docs/limits.md). Must not keep a client waiting for giving back: that happens behind the answer.
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import islice
from typing import Final, NamedTuple

import msgspec
import structlog

from gateway.config.settings import LimitSettings
from gateway.kit.errors import DependencyDown
from gateway.limits.claims import Claim, CountInSeconds, Hold, KeyLimits, Kind, RateClaim, RateLimits, Slots
from gateway.limits.counters import LEASE_S, PREFIX, Limits, NotCounted
from gateway.limits.headers import RateLimitHeaders
from gateway.limits.limit_errors import limit_error, not_priced, unavailable
from gateway.limits.local_limits import LocalLimits
from gateway.limits.spending import Spending
from gateway.usage.event import OpenRecord, UsageEvent
from gateway.usage.settle import Settler, is_unknown

TRIES: Final = 3
RENEW_S: Final = LEASE_S / 3
"""Seconds between two renewals of running calls' slots."""
CLOSE_S: Final = 2.0
IN_DOUBT_S: Final = 5.0
"""Seconds after which a claim without an answer is released: Redis has carried it out by then, or never will."""
IN_DOUBT_MAX: Final = 10_000
"""Claims without an answer that are kept; the oldest go first, and what they hold ends by itself."""
RELEASED_AT_ONCE: Final = 500
SLOT_WAIT_S: Final = 0.25
"""Seconds for which the last byte waits for a slot to be free again, at most."""
_log: Final = structlog.get_logger("gateway.limits")


class _InDoubt(NamedTuple):
    """What a call has claimed without an answer."""

    since_s: float
    held: list[Claim]


class Limiter:
    """One per process."""

    def __init__(self, limits: Limits, spending: Spending, settler: Settler, settings: LimitSettings) -> None:
        self._limits: Final = limits
        self._spending: Final = spending
        self._settler: Final = settler
        self._settings: Final = settings
        self._running: Final[dict[str, Sequence[Claim]]] = {}
        self._begun: Final[dict[str, asyncio.Task[None]]] = {}
        self._giving_back: Final[set[asyncio.Task[None]]] = set()
        self._in_doubt: Final[dict[str, _InDoubt]] = {}
        """Of calls that were refused because Redis did not answer: it may have carried the claim out all the same."""
        self.ratelimit_headers: Final = RateLimitHeaders()
        self.local: Final = LocalLimits(settings, monotonic=time.monotonic)
        """What is counted here alone, without Redis."""

    async def take(self, opened: OpenRecord, key_limits: KeyLimits, key: str) -> dict[str, str]:
        """Everything this call claims, and headers for its answer. Raises ApiError when there is no room for it.

        `key` names the API key, as Unkey does. What was taken is given back by `give_back`, or ends by itself.
        """
        claims = self._claims(opened, key_limits, key)
        hard = any(isinstance(claim, Hold) and claim.budget.hard for claim in claims)
        for _ in range(TRIES):
            try:
                taken = await self._limits.reserve(opened.id, claims)
                break
            except NotCounted as error:
                claims = await self._begin(claims, error.keys)
            except DependencyDown as error:
                if hard or self._settings.rates_need_redis:
                    self._doubt(opened.id, claims)
                    raise unavailable(error) from error
                _log.warning("limits open", what=error.what, detail=error.detail)
                return {}
        else:
            raise unavailable(DependencyDown("redis", "the counters of budgets come and go"))
        for each in taken:
            if each.refused:
                raise limit_error(each, taken)
        self._running[opened.id] = claims
        return self.ratelimit_headers.build(taken)

    async def give_back(self, event_id: str, event: UsageEvent | None) -> None:
        """The call has ended: as `event` says, or without having cost anything. Idempotent: the first one wins.

        On its way when this returns; a slot is free then, unless Redis is slow.
        """
        claims = self._running.pop(event_id, None)
        if claims is None:
            return
        task = asyncio.get_running_loop().create_task(self._give_back(event_id, claims, event))
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)
        if any(isinstance(claim, Slots) for claim in claims):
            await asyncio.wait({task}, timeout=SLOT_WAIT_S)

    def abandon(self, event_id: str) -> None:
        """The call may have run, and its cost is unknown: its hold stays until its row arrives or the hold expires."""
        self._running.pop(event_id, None)

    async def renew(self) -> None:
        """Renews the slots of running calls, all that can be renewed, and releases what refused calls may hold. Raises
        DependencyDown."""
        renewals = [self._limits.renew(event_id, claims) for event_id, claims in list(self._running.items())]
        for result in await asyncio.gather(*renewals, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        await self._release_doubtful()

    async def close(self) -> None:
        """Waits for pending settlements."""
        if self._giving_back:
            await asyncio.wait(self._giving_back, timeout=CLOSE_S)

    def _doubt(self, event_id: str, claims: Sequence[Claim]) -> None:
        held: list[Claim] = [claim for claim in claims if not isinstance(claim, RateClaim)]  # a rate fills up by itself
        if held:
            self._in_doubt[event_id] = _InDoubt(asyncio.get_running_loop().time(), held)
        while len(self._in_doubt) > IN_DOUBT_MAX:
            del self._in_doubt[next(iter(self._in_doubt))]

    async def _release_doubtful(self) -> None:
        until_s = asyncio.get_running_loop().time() - IN_DOUBT_S
        while due := [each for each in islice(self._in_doubt.items(), RELEASED_AT_ONCE) if each[1].since_s <= until_s]:
            settling = [self._limits.settle(event_id, of.held, tokens=0, cost=0, billed=0) for event_id, of in due]
            for result in await asyncio.gather(*settling, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
            for event_id, _ in due:
                self._in_doubt.pop(event_id, None)

    def _claims(self, opened: OpenRecord, key_limits: KeyLimits, key: str) -> list[Claim]:
        tokens = self._settler.by_bytes(opened, (opened.output_cap or 0) * opened.choices)
        claimed = tokens.input + tokens.output
        claims = _rates(f"{PREFIX}k:{key}", key_limits.of_key, claimed)
        claims += _rates(f"{PREFIX}u:{opened.user_id}", key_limits.of_user, claimed)
        budgets = [b for b in key_limits.budgets if b.counts_call(opened.api_key_id, opened.meeting_id, opened.model)]
        most = self._settler.highest_cost(opened) if budgets else None
        for budget in budgets:
            if most is None and budget.hard:
                raise not_priced(opened.model)
            window = budget.window(opened.started_at)
            nano = self._settler.highest_billed(opened, most or 0) if budget.prepaid else most or 0
            claims.append(Hold(f"{PREFIX}b:{window.name}", window, nano))
        return claims

    async def _begin(self, claims: list[Claim], keys: frozenset[str]) -> list[Claim]:
        """Creates the missing counters of budgets; a soft budget is skipped while PostgreSQL is away."""
        kept = list(claims)
        for claim in claims:
            if not isinstance(claim, Hold) or claim.key not in keys:
                continue
            try:
                await asyncio.shield(self._beginning(claim))
            except DependencyDown as error:
                if claim.budget.hard:
                    raise unavailable(error) from error
                kept.remove(claim)
        return kept

    def _beginning(self, hold: Hold) -> "asyncio.Task[None]":
        """One query to the ledger for any number of waiting calls."""
        task = self._begun.get(hold.key)
        if task is None:
            task = self._begun[hold.key] = asyncio.get_running_loop().create_task(self._begin_one(hold))
            task.add_done_callback(lambda done: self._finish_beginning(hold.key, done))
        return task

    def _finish_beginning(self, key: str, task: "asyncio.Task[None]") -> None:
        self._begun.pop(key, None)
        if not task.cancelled():
            task.exception()  # told to everybody who waits, if anybody still does

    async def _begin_one(self, hold: Hold) -> None:
        nano, _, _ = await self._spending.read_spent(hold.window)
        await self._limits.begin(hold.key, msgspec.json.encode(hold.window), nano)

    async def _give_back(self, event_id: str, claims: Sequence[Claim], event: UsageEvent | None) -> None:
        try:
            await self._limits.settle(
                event_id,
                claims,
                tokens=0 if event is None else event.total_tokens or 0,
                cost=0 if event is None else event.cost_nano or 0,
                billed=0 if event is None else event.billed_nano or 0,
                keeps_hold=event is not None and is_unknown(event),
            )
        except DependencyDown as error:
            # Slots end by themselves, and the ledger's sum will hold what the call has cost.
            _log.warning("limits not given back", id=event_id, detail=error.detail)


def _rates(key: str, limits: RateLimits, tokens: int) -> list[Claim]:
    claims: list[Claim] = []
    asked: tuple[tuple[Kind, CountInSeconds | None, int], ...] = (
        ("requests", limits.requests, 1),
        ("tokens", limits.tokens, tokens),
    )
    for kind, limit, cost in asked:
        if limit is not None:
            claims.append(RateClaim(f"{key}:{kind}", kind, limit[0], limit[1], cost))
    if limits.concurrent is not None:
        claims.append(Slots(f"{key}:running", limits.concurrent))
    return claims
