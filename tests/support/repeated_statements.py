"""What the background loops of a worker, a keeper and a proxy ask PostgreSQL, each with the parameters it was given.

The processes are the product's own, run in this one, with their vendors' stand-ins; their loops take turns, one pass
after the other, instead of by the clock.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from unittest.mock import patch

import msgspec
import pytest

from gateway.audit.kept import keep_mark, read_kept
from gateway.audit.marks import Mark, MarkSigner, digest
from gateway.audit.reads.marks import measure, read_marks
from gateway.audit.reads.snapshot import snapshot
from gateway.audit.run import audit
from gateway.audit.span import audited_span
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.close.periods import Periods
from gateway.close.seal import seal
from gateway.config.key_ring import entry_of, parse_ring
from gateway.config.settings import Settings
from gateway.journal.frames import OPEN, SETTLE
from gateway.journal.writer import Journal
from gateway.kit.loops import Loops
from gateway.kit.metrics import Status
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.limits.budgets import Budget
from gateway.limits.claims import Hold
from gateway.limits.counters import Limits
from gateway.processes import keeper, proxy, worker
from gateway.processes.arguments import ProcessArguments
from gateway.processes.exit_status import CallsStay
from gateway.sandbox import credentials
from gateway.stores import postgres_connections
from gateway.stores.postgres import Pool, open_pool
from gateway.stores.postgres_connections import Connection
from gateway.stores.redis import open_redis
from gateway.usage.event import OpenRecord, UsageEvent, encode
from tests.billing.test_mirror import told
from tests.support.audit_plants import BOOK, NO_BUDGETS, POLICY
from tests.support.environment import clean_environment
from tests.support.events import call, new_id
from tests.support.stand_ins import control
from tests.support.statements import IS_STATEMENT, scans
from tests.support.stripe_shop import Shop

PASSES: Final = 3
"""Of each loop: what one has made is what the next one takes up."""
TIMES_MAX: Final = 8
"""How often a statement of a loop is explained."""
_loop: Final[ContextVar[str | None]] = ContextVar("loop", default=None)


class Repeated(NamedTuple):
    """A statement of a loop, as it was about to be run."""

    plan: dict[str, Any]

    @property
    def blocks(self) -> int:
        """Read from memory or disk."""
        return int(self.plan["Shared Hit Blocks"] + self.plan["Shared Read Blocks"])

    @property
    def scans(self) -> set[str]:
        """The tables that are read from end to end."""
        return scans(self.plan)


class Recorded:
    """Every statement of a loop, as it was dearest."""

    def __init__(self, setting: str) -> None:
        """`setting`: of PostgreSQL, for the plans."""
        self.setting: Final = setting
        self.statements: dict[tuple[str, str], Repeated] = {}
        """By loop and text."""
        self._met: Final[Counter[tuple[str, str]]] = Counter()
        self.loops: set[str] = set()

    async def explain(self, connection: Any, query: str, arguments: tuple[Any, ...]) -> None:
        """Runs a statement once more, before it is run, and undoes that."""
        loop = _loop.get()
        if loop is None or not IS_STATEMENT.match(query):
            return
        key = loop, query
        self._met[key] += 1
        if self._met[key] > TIMES_MAX:
            return
        transaction = connection.transaction()
        await transaction.start()
        try:
            if self.setting:
                await Connection.execute(connection, f"set local {self.setting}")
            explain = f"explain (analyze, buffers, verbose, format json) {query}"
            found = await Connection.fetchval(connection, explain, *arguments)
        finally:
            await transaction.rollback()
        new, known = Repeated(json.loads(found)[0]["Plan"]), self.statements.get(key)
        if known is None or new.blocks > known.blocks:
            self.statements[key] = new


def _explaining(recorded: Recorded) -> type[Connection]:
    """A connection of the product's whose statements are recorded."""

    class Explaining(Connection):
        async def fetch(self, query: str, *args: Any, **rest: Any) -> Any:
            await recorded.explain(self, query, args)
            return await super().fetch(query, *args, **rest)

        async def fetchrow(self, query: str, *args: Any, **rest: Any) -> Any:
            await recorded.explain(self, query, args)
            return await super().fetchrow(query, *args, **rest)

        async def fetchval(self, query: str, *args: Any, **rest: Any) -> Any:
            await recorded.explain(self, query, args)
            return await super().fetchval(query, *args, **rest)

        async def execute(self, query: str, *args: Any, **rest: Any) -> Any:
            await recorded.explain(self, query, args)
            return await super().execute(query, *args, **rest)

    return Explaining


class _InTurn(Loops):
    """Loops that take turns until each has had PASSES, and then end."""

    recorded: Recorded

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing runs on."""

    async def run_until(self, stop: asyncio.Event) -> None:
        for _ in range(PASSES):
            for loop in self._loops:
                self.recorded.loops.add(loop.name)
                token = _loop.set(loop.name)
                try:
                    await loop.step()
                finally:
                    _loop.reset(token)


async def record_loops(
    database_url: str, pool: Pool, redis_url: str, folder: Path, shop: Shop, *, setting: str = ""
) -> Recorded:
    """Runs the three processes over this database, with something to do for each loop, for the users that it has."""
    recorded = Recorded(setting)
    in_turn = type("InTurn", (_InTurn,), {"recorded": recorded})
    with (
        patch.dict(os.environ, _environment(database_url, redis_url, folder, shop), clear=True),
        patch.object(postgres_connections, "Connection", _explaining(recorded)),
        patch.object(worker, "Loops", in_turn),
        patch.object(keeper, "Loops", in_turn),
        patch.object(proxy, "Loops", in_turn),
    ):
        settings = Settings()
        await leave_work(settings, pool, redis_url, folder, shop)
        arguments = ProcessArguments(0, "127.0.0.1", 0)
        with pytest.raises(CallsStay):  # no worker yet
            await keeper.run(settings, arguments, asyncio.Event(), _say_nothing)
        for process in (worker.run, keeper.run, proxy.run):
            await process(settings, arguments, asyncio.Event(), _say_nothing)
    return recorded


async def record_audit(database_url: str, folder: Path) -> Recorded:
    """Audits the last two days, as a nightly audit that goes on from what was kept up to the last seal."""
    recorded, now = Recorded(""), datetime.now(UTC)
    signer = MarkSigner(parse_ring(entry_of("one", bytes(32))))
    with patch.object(postgres_connections, "Connection", _explaining(recorded)):
        pool = await open_pool(database_url, connections_max=1)
    async with snapshot(pool) as view:
        measured, newest = await measure(view), await read_marks(view, 1)
    assert measured is not None
    previous = digest(newest[0]) if newest else None
    await keep_mark(pool, signer, Mark(measured.until, now, "", measured.kept, previous), "a test")
    async with snapshot(pool) as view:
        token = _loop.set("audit")
        try:
            span = audited_span(None, None, now)
            kept = await read_kept(view, signer, is_whole=False)
            assert kept.since is not None
            await audit(view, span, now, book=BOOK, policy=POLICY, folder=folder, budgets=NO_BUDGETS, kept=kept)
        finally:
            _loop.reset(token)
    await pool.close()
    return recorded


def _say_nothing(_status: Callable[[], Status]) -> None:
    return None


def _environment(database_url: str, redis_url: str, folder: Path, shop: Shop) -> dict[str, str]:
    origin = shop.sandbox.origin
    return clean_environment() | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "GATEWAY_DATA_DIR": str(folder),
        "OPENAI_API_KEY": credentials.OPENAI_API_KEY,
        "OPENAI_BASE_URL": f"{origin}/openai/v1",
        "UNKEY_ROOT_KEY": credentials.UNKEY_ROOT_KEY,
        "UNKEY_BASE_URL": f"{origin}/unkey",
        "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
        "STRIPE_BASE_URL": f"{origin}/stripe",
        "DAILY_API_KEY": credentials.DAILY_API_KEY,
        "DAILY_BASE_URL": f"{origin}/daily/v1",
        "KEYS__RECHECK_S": "5",
        "GATEWAY_SECRETS": entry_of("one", bytes(32)),
        "GATEWAY_STOP_NOTICE_S": "0",
        "JOURNAL__CONFIRM_AFTER_S": "0.000001",
        "FLUSH__INTERVAL_S": "0.001",
        "RETENTION__INBOX_DAYS": "1",
        "RETENTION__PARTICIPANTS_DAYS": "1",
        "RETENTION__ROOMS_DAYS": "1",
    }


async def leave_work(settings: Settings, pool: Pool, redis_url: str, folder: Path, shop: Shop) -> None:
    """Puts something to do where the loops find it."""
    await pool.execute("update books set sealed_until = '-infinity'")
    # Whose turn it was, and sums of months: those of a slice that is older than they are came too late for them.
    await pool.execute("delete from daily_backfills; delete from summed_months; delete from usage_monthly")
    # As in the first days of a month: the last one is still to be sealed, and all before it are added up.
    this_month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    await seal(pool, (this_month - timedelta(days=1)).replace(day=1))
    while await Periods(pool).sum_month():
        pass
    work = _Work(pool, shop, await pool.fetch(_USERS))
    await work.own()
    events = [work.event(user) for user in (work.pays, work.grants, work.credit)]
    await work.journal(folder / "journal", events)
    await work.count(redis_url, events)
    ledger = Ledger(pool, meter=settings.billing.meter_event_name, window_s=settings.billing.window_s)
    estimate: dict[str, Any] = {
        "endpoint": "responses",
        "evidence": "estimated",
        "metadata": {"reason": "cut_off", "bound_usd": "1"},
    }
    # Of another window than the others: frozen and sent while those are written.
    earlier = work.event(work.pays, timedelta(hours=5))
    await ledger.insert_batch([LedgerEntry.of(each) for each in (work.event(work.pays, **estimate), earlier)])
    await work.meet()
    customer = await pool.fetchval("select stripe_customer_id from users where id = $1", work.pays)
    await StripeInbox(pool).store([told("customer.updated", {"object": "customer", "id": customer})])


_USERS: Final = """
select u.id::text as user_id, k.id::text as key_id
from users u join api_keys k on k.user_id = u.id order by u.email
"""


class _Work:
    """Something to do: of a user who pays at Stripe, of one with credit there, and of one with credit here."""

    def __init__(self, pool: Pool, shop: Shop, users: Sequence[Any]) -> None:
        self.pool, self.shop = pool, shop
        self.pays, self.grants, self.credit = (users[at]["user_id"] for at in (0, 1, -1))
        self.key: str = users[0]["key_id"]
        self.random = Random(str(datetime.now(UTC)))
        self.now = datetime.now(UTC)

    async def own(self) -> None:
        """Who pays by which means."""
        grants = "select customer_id from user_customers where user_id = $1 and valid_to is null"
        await self.pool.execute(f"update customers set mode = 'grants' where id = ({grants})", self.grants)
        self.customer = str(await self.pool.fetchval(grants, self.grants))
        entry = "insert into credit_entries (user_id, amount_usd, created_at) values ($1, 5, now())"
        await self.pool.execute(entry, self.credit)

    def event(self, user: str, ago: timedelta = timedelta(hours=3), **changes: Any) -> UsageEvent:
        """A call that has ended so long ago."""
        at = self.now - ago
        times = {"started_at": at - timedelta(seconds=2), "completed_at": at}
        event_id = new_id(self.random, at)
        named = {"response_id": f"resp_{event_id}", "api_key_id": self.key if user == self.pays else None}
        return call(user, event_id, **{**times, **named, **changes})

    async def journal(self, folder: Path, events: Sequence[UsageEvent]) -> None:
        """Leaves them in a segment of a proxy that is gone."""
        folder.mkdir(parents=True)
        journal = Journal(folder, "proxy-9", "boot", segment_bytes_max=8192, reserve_bytes=0, unix_ms=lambda: 1)
        journal.open()
        for event in events:
            opened = OpenRecord(
                id=event.id,
                user_id=event.user_id,
                endpoint=event.endpoint,
                model=event.model,
                started_at=event.started_at,
            )
            await journal.append(OPEN, encode(opened))
            await journal.append(SETTLE, encode(event))
        journal.close()

    async def count(self, redis_url: str, events: Sequence[UsageEvent]) -> None:
        """Leaves a call under way in each kind of budget."""
        redis = open_redis(redis_url)
        await redis.flushdb()
        limits = Limits(redis, hold_s=600)
        pays, grants, credit = (event.id for event in events)
        ever: dict[str, Any] = {"limit_nano": 10**9, "hard": True, "since": self.now - timedelta(days=1000, minutes=7)}
        total: dict[str, Any] = {"user_id": self.pays, "period": "total", **ever}
        for event_id, budget in (
            (pays, Budget(id="total", **total)),
            (pays, Budget(id="key", api_key_id=self.key, **total)),
            (pays, Budget(id="model", model="gpt-5-mini", **total)),
            (pays, Budget(id="month", **{**total, "period": "month"})),
            (pays, Budget(id="day", **{**total, "period": "day"})),
            (credit, Budget(id=f"credit:{self.credit}", counts="billed_usd", **{**total, "user_id": self.credit})),
            (
                grants,  # since the last final invoice
                Budget(
                    id=f"grants:{self.customer}",
                    counts="billed_usd",
                    **{**total, "user_id": self.grants, "since": self.now - timedelta(days=30)},
                ),
            ),
        ):
            window = budget.window(self.now)
            key = f"limit:b:{window.name}"
            await limits.begin(key, msgspec.json.encode(window), 0)
            await limits.settle(event_id, [Hold(key, window, 5)], tokens=0, cost=1, billed=1)
        await redis.aclose()

    async def meet(self) -> None:
        """A meeting that has ended at Daily.co, of which no webhook has told, and personal data that are due to go."""
        began, room = int(self.now.timestamp()) - 7200, f"room-{self.random.random()}"
        entered = await control(self.shop.sandbox, "daily", "/enter", room=room, name="Ann", at=began)
        await control(self.shop.sandbox, "daily", "/exit", session_id=entered["session_id"], at=began + 60)
        ended = self.now - timedelta(days=2)
        meeting = await self.pool.fetchval(
            "insert into meetings (user_id, room_name, daily_meeting_id, status, started_at, ended_at)"
            " values ($1, 'x', $2, 'ended', $3, $3) returning id",
            *(self.pays, room, ended),
        )
        named = "insert into participants (meeting_id, name, joined_at) values ($1, 'Ann', $2)"
        await self.pool.execute(named, meeting, ended)
        for expires_at in (ended, None):
            await self.pool.execute(
                "insert into rooms (room_name, user_id, meeting_id, state, ended_at, expires_at, sealed, sealed_key_id)"
                " values ('x', $1, $2, 'ended', $3, $4, '\\x01', 'one')",
                *(self.pays, meeting, ended, expires_at),
            )
        await self.pool.execute(
            "insert into webhook_inbox (source, event_id, event_type, body, received_at, processed_at)"
            " values ('daily', $1, 'meeting.ended', '{}', $2, $2)",
            *(room, ended),
        )
