"""A host whose keeper ships into real stores, and workers that look for hosts that are lost."""

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import uuid4

import pricing
from gateway.hosts.identity import read_host
from gateway.hosts.lost import LostHosts
from gateway.hosts.open_calls import LEASE, OpenCalls
from gateway.hosts.presence import Presence
from gateway.hosts.store import Hosts
from gateway.journal.frames import NOTE, OPEN, SETTLE
from gateway.ledger.flush import Flush
from gateway.ledger.signing import EntrySigner
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.event import NoteRecord, UsageEvent, encode
from gateway.usage.plan_store import FollowPlans
from gateway.usage.settle import Settler
from pricing.data import read_texts
from tests.ledger.journals_at_work import JournalShipping, open_shipping, opened
from tests.support.events import AT, call, new_id

BOOK: Final = pricing.parse(read_texts())
LEASE_S: Final = 4600.0
RENEW_S: Final = 5.0


class HostScene:
    """One host, with a clock of the test's own; `cut_off` and `lose` end its leases as time would."""

    def __init__(self, shipping: JournalShipping, redis: Any, signer: EntrySigner | None, pool: Pool) -> None:
        self.shipping, self.redis, self.pool, self.signer = shipping, redis, pool, signer
        self.host: Final = read_host(shipping.folder.parent)
        self.calls: Final = OpenCalls(redis, signer=signer)
        self.hosts: Final = Hosts(pool)
        self.random: Final = Random(16)
        self.presence = self.new_presence()

    def new_presence(self) -> Presence:
        """As of a keeper that has just started."""
        return Presence(
            self.host,
            self.shipping.ship,
            self.calls,
            self.hosts,
            self.shipping.ledger,
            lease_s=LEASE_S,
            renew_s=RENEW_S,
            monotonic=lambda: self.shipping.now_s,
        )

    async def step(self, seconds: float = 0.1) -> None:
        """One turn of each loop of the keeper."""
        await self.shipping.after(seconds)
        await self.presence.show_calls()
        await self.presence.renew()

    async def open(self, *, note: int | None = None, **changes: Any) -> str:
        """A call that begins; its id."""
        event_id = new_id(self.random)
        record = opened(event_id, user_id=self.shipping.user_id, **changes)
        await self.shipping.journal.append(OPEN, encode(record))
        if note is not None:
            await self.shipping.journal.append(NOTE, encode(NoteRecord(event_id, f"resp_{event_id}", note)))
        return event_id

    async def settle(self, event_id: str) -> UsageEvent:
        """It ends, and OpenAI has said what it used."""
        event = call(self.shipping.user_id, event_id)
        await self.shipping.journal.append(SETTLE, encode(event))
        return event

    async def shown(self) -> set[str]:
        """The calls that Redis has of this host."""
        return await self.calls.ids(self.host.id)

    async def lose(self) -> None:
        """Time passes without a word of this host: both its leases end."""
        await self.lose_in_redis()
        await self.lose_in_postgres()

    async def lose_in_redis(self) -> None:
        await self.redis.delete(LEASE + self.host.id)

    async def lose_in_postgres(self) -> None:
        await self.pool.execute("update hosts set lease_until = now() - interval '1 second' where ended_at is null")

    def worker(self, sweeper: str | None = None, **parts: Any) -> LostHosts:
        """A worker without a key of OpenAI; `parts` take the place of what it asks."""
        plans = FollowPlans(self.pool, monotonic=lambda: 0.0)
        settler = Settler(BOOK, markup=Decimal(1), bill_estimates=True, region=None, plans=plans.known)
        made = {"calls": self.calls, "hosts": self.hosts, "ledger": self.shipping.ledger, "plans": plans, **parts}
        return LostHosts(
            **made, upstream=None, settler=settler, sweeper=sweeper or uuid4().hex, now=lambda: AT + timedelta(hours=2)
        )

    def flush(self) -> Flush:
        """The writer from the stream to the ledger."""
        return Flush(
            self.shipping.buffer,
            self.shipping.ledger,
            consumer="writer",
            batch_rows_max=1000,
            interval_s=0.01,
            claim_idle_s=60,
            monotonic=lambda: 0.0,
            now=lambda: AT + timedelta(hours=3),
        )

    async def row(self) -> Any:
        """What PostgreSQL knows of this host."""
        return await self.pool.fetchrow("select * from hosts where id = $1::uuid", self.host.id)


@contextlib.asynccontextmanager
async def host_scene(
    folder: Path, redis_url: str, buffer: Buffer, ledger: Ledger, pool: Pool, signer: EntrySigner | None = None
) -> AsyncIterator[HostScene]:
    """A host that takes calls."""
    redis = open_redis(redis_url)
    async with open_shipping(folder, buffer, ledger) as shipping:
        yield HostScene(shipping, redis, signer, pool)
    await redis.aclose()
