"""Hosts that are lost with their disk: a worker settles the calls that Redis has of them.

A host is lost when its leases in Redis and in PostgreSQL are both over. Each lease is longer than the longest call by
some minutes, so what is swept has ended. If the host was only cut off, its own SETTLE comes after all, and the writer
makes the row exact (ledger/correct.py).
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from gateway.hosts.identity import KnownHost
from gateway.hosts.open_calls import FoundCall, OpenCalls
from gateway.hosts.store import Hosts
from gateway.ledger.correct import correct_settled
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.ledger.sweep import Sweep
from gateway.openai.upstream import Upstream
from gateway.usage.event import Orphan, UsageEvent, is_readable
from gateway.usage.plan_store import FollowPlans
from gateway.usage.settle import Settler

REASON: Final = "host_lost"
CLAIM_S: Final = 120.0
"""Seconds for which a lost host is one worker's, from each look on."""
CALLS_MAX: Final = 1000
"""Calls of one host settled in one look; the others are settled in the next ones."""
_log: Final = structlog.get_logger("gateway.hosts")


class LostHosts:
    """One per worker. Any number may run; should two settle the same call, it is one row all the same."""

    def __init__(
        self,
        calls: OpenCalls,
        hosts: Hosts,
        ledger: Ledger,
        plans: FollowPlans,
        upstream: Upstream | None,
        settler: Settler,
        *,
        sweeper: str,
        now: Callable[[], datetime],
    ) -> None:
        """`sweeper`: this worker's name, which no other has."""
        self._calls: Final = calls
        self._hosts: Final = hosts
        self._ledger: Final = ledger
        self._plans: Final = plans
        self._sweeper: Final = sweeper
        self._now: Final = now
        self._sweep: Final = Sweep(upstream, settler, self._insert, reason=REASON, clock=lambda: now().timestamp())

    async def step_once(self) -> int:
        """Settles what can be settled of hosts that are lost; how many calls. Raises DependencyDown."""
        waiting: dict[KnownHost, list[str]] = {}
        orphans: list[Orphan] = []
        for host in await self._claimed():
            found = await self._calls.read(host.id, CALLS_MAX)
            left = await self._forget_known(host, [each.id for each in found])
            wanted = [each for each in found if each.id in left]
            readable = [each for each in wanted if each.orphan is not None and is_readable(each.orphan, each.id)]
            await self._put_aside(host, [each for each in wanted if each not in readable])
            waiting[host] = [each.id for each in readable]
            orphans += [each.orphan for each in readable if each.orphan is not None]
        if orphans:  # nobody waits for them, so they wait for the plans
            await self._plans.refresh()
        settled = await self._sweep.step_once(orphans)
        for host, event_ids in waiting.items():
            left = await self._forget_known(host, event_ids)
            done = len(event_ids) - len(left)
            is_all = not await self._calls.count(host.id)
            await self._hosts.record_swept(host.id, done, is_all=is_all)
            if is_all:
                await self._calls.forget_name(host.id)
            if done or is_all:
                _log.error("a host is lost", host=host.id, name=host.name, settled=done, waiting=len(left))
        return settled

    async def _claimed(self) -> list[KnownHost]:
        """Hosts whose leases are over everywhere, and which are ours to settle."""
        lapsed = await self._hosts.lapsed(await self._calls.names())
        living = await self._calls.with_lease(host.id for host in lapsed)
        gone = [host for host in lapsed if host.id not in living]
        return [host for host in gone if await self._hosts.claim(host, self._sweeper, CLAIM_S)]

    async def _forget_known(self, host: KnownHost, event_ids: list[str]) -> set[str]:
        """Removes from Redis what PostgreSQL has; what is left."""
        known = await self._ledger.find_confirmed(event_ids) if event_ids else set()
        await self._calls.forget(host.id, sorted(known))
        return set(event_ids) - known

    async def _put_aside(self, host: KnownHost, unreadable: list[FoundCall]) -> None:
        """What is not believed, or cannot be read, goes to quarantine byte for byte, as it does from the stream."""
        if not unreadable:
            return
        await self._ledger.insert_batch(
            [LedgerEntry("" if each.distrust else each.id, each.raw, each.distrust) for each in unreadable]
        )
        _log.error("open calls in quarantine", host=host.id, calls=len(unreadable))
        await self._calls.forget(host.id, [each.id for each in unreadable])

    async def _insert(self, event: UsageEvent) -> None:
        """The row, or, where a writer was sooner with an estimate, its correction."""
        entry = LedgerEntry.of(event)
        outcome = await self._ledger.insert_batch([entry])
        if outcome.duplicates:
            await correct_settled(self._ledger, [entry.raw], self._now())
