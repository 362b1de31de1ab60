"""Bugs for the audit to find: each is planted in a filled ledger, or in the journal beside it.

The money path must never be able to do any of this; where a constraint or a trigger forbids it, the plant goes around
it as a superuser.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import msgspec

import pricing
from gateway.audit.budgets import Counted
from gateway.audit.reads.snapshot import AuditRange, Offenders, Snapshot
from gateway.audit.result import AuditReport
from gateway.audit.run import Policy, audit
from gateway.journal.frames import OPEN, frame
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.usage.event import encode
from gateway.usage.settle import Settler
from pricing.data import read_texts
from tests.conftest import METER, WINDOW_S
from tests.support.audits import Filled, insert, lines, segment

BOOK = pricing.parse(read_texts())
SETTLER = Settler(BOOK, markup=Decimal("1.2"), bill_estimates=True, region=None)
NO_BUDGETS = Counted(0, Offenders())
POLICY = Policy(open_max_s=4000, billing_grace_s=300, has_stripe_key=True)
NOW = datetime.now(UTC).replace(microsecond=0)
"""The real time, because the database stamps rows with its own clock."""
FIRST = NOW.replace(minute=0, second=0) - timedelta(hours=5)
LATER = NOW + timedelta(hours=1)
EVERYTHING = AuditRange(None, None)

Plant = Callable[["PlantedLedger"], Awaitable[None]]


class PlantedLedger:
    """One filled ledger, in a transaction that is rolled back, and a journal folder."""

    def __init__(self, connection: Any, filled: Filled, folder: Path) -> None:
        self.connection, self.folder = connection, folder
        self.maker, self.events = filled
        self.ledger = Ledger(cast(Pool, connection), meter=METER, window_s=WINDOW_S)

    async def unguarded(self, *statements: str) -> None:
        """As a superuser who goes around every trigger."""
        await self.connection.execute("set local session_replication_role = replica")
        await self.connection.execute("alter table openai_usage disable trigger openai_usage_append_only")
        for statement in statements:
            await self.connection.execute(statement)
        await self.connection.execute("alter table openai_usage enable always trigger openai_usage_append_only")
        await self.connection.execute("set local session_replication_role = origin")

    async def audit(self, span: AuditRange = EVERYTHING, *, now: datetime = NOW, **changes: Any) -> AuditReport:
        return await audit(
            Snapshot(self.connection),
            span,
            now,
            book=BOOK,
            policy=POLICY,
            folder=self.folder,
            budgets=NO_BUDGETS,
            **changes,
        )


TOTALS_ANEW = (
    "delete from outbox_totals",
    "insert into outbox_totals (slot, state, meter, account, events, value)"
    " select 0, state, meter, account, count(*), sum(value) from stripe_meter_events group by 2, 3, 4",
)
"""As its trigger would have left them."""


def sql(*statements: str) -> Plant:
    async def plant(planted: PlantedLedger) -> None:
        await planted.unguarded(*statements)

    return plant


async def wrong_price(planted: PlantedLedger) -> None:
    event = planted.maker.reported(FIRST)
    assert event.cost_nano is not None
    await insert(planted.ledger, [msgspec.structs.replace(event, cost_nano=event.cost_nano + 1)])


async def wrong_billed(planted: PlantedLedger) -> None:
    event = planted.maker.reported(FIRST)
    assert event.billed_nano is not None
    await insert(planted.ledger, [msgspec.structs.replace(event, billed_nano=event.billed_nano + 1)])


async def unknown_plan(planted: PlantedLedger) -> None:
    await insert(planted.ledger, [planted.maker.reported(FIRST, plan_version="never-made@1")])


async def wrong_lines(planted: PlantedLedger) -> None:
    """Cost and lines agree with each other, and with nothing else."""
    line = pricing.Line("input_tokens", "1000", "0.001", "1")
    await insert(planted.ledger, [planted.maker.reported(FIRST, cost_lines=(line,), cost_nano=10**9)])


async def wrong_tokens(planted: PlantedLedger) -> None:
    await insert(planted.ledger, [planted.maker.reported(FIRST, prompt_tokens=1)])


async def billed_for_nothing(planted: PlantedLedger) -> None:
    free = msgspec.Raw(b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}')
    nothing: dict[str, Any] = {
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "total_tokens": 0,
        "cost_nano": 0,
        "cost_lines": (),
    }
    await insert(planted.ledger, [planted.maker.reported(FIRST, usage=free, billed_nano=5, **nothing)])


async def void_without_reason(planted: PlantedLedger) -> None:
    await insert(planted.ledger, [planted.maker.void(FIRST, metadata={})])


async def reported_without_usage(planted: PlantedLedger) -> None:
    await insert(planted.ledger, [planted.maker.reported(FIRST, usage=msgspec.Raw(b"null"))])


async def estimate_above_its_bound(planted: PlantedLedger) -> None:
    await insert(planted.ledger, [planted.maker.estimated(FIRST, bound_usd="0.000000001")])


async def estimate_without_bound(planted: PlantedLedger) -> None:
    await insert(planted.ledger, [planted.maker.estimated(FIRST, bound_usd=None)])


async def estimate_without_reason(planted: PlantedLedger) -> None:
    await insert(planted.ledger, [planted.maker.estimated(FIRST, reason="")])


async def answer_counted_twice(planted: PlantedLedger) -> None:
    await planted.connection.execute("drop index openai_usage_response_id_key")
    once = planted.maker.reported(FIRST)
    again = msgspec.structs.replace(once, id=planted.maker.opened(FIRST).id)
    await insert(planted.ledger, [once, again])


async def adjustment_of_nothing(planted: PlantedLedger) -> None:
    await planted.connection.execute("alter table openai_usage drop constraint openai_usage_adjusts_fkey")
    await insert(planted.ledger, [planted.maker.adjustment(planted.maker.reported(FIRST), FIRST, 5)])


async def trigger_off(planted: PlantedLedger) -> None:
    await planted.connection.execute("alter table openai_usage disable trigger openai_usage_append_only")


async def lost_after_settle(planted: PlantedLedger) -> None:
    segment(planted.folder, 3, lines(planted.maker, [planted.maker.reported(FIRST)]))


async def lost_but_confirmed(planted: PlantedLedger) -> None:
    segment(planted.folder, 3, lines(planted.maker, [planted.maker.reported(FIRST)]), confirmed=True, slot="w1")


async def never_settled(planted: PlantedLedger) -> None:
    segment(planted.folder, 3, [frame(OPEN, encode(planted.maker.opened(FIRST)))])


async def rows_deleted(planted: PlantedLedger) -> None:
    """A row that disappears takes an invariant of the journal and every sum with it."""
    await planted.unguarded(f"delete from openai_usage where id = '{planted.events[0].id}'")


PLANTS: dict[str, tuple[Plant, str]] = {
    "a settled call that never arrived": (lost_after_settle, "INV-1"),
    "a segment confirmed too early": (lost_but_confirmed, "INV-1"),
    "an answer under two ids": (answer_counted_twice, "INV-2"),
    "a correction of nothing": (adjustment_of_nothing, "INV-2"),
    "the trigger off": (trigger_off, "INV-2"),
    "a cost that is one nano off": (wrong_price, "INV-3"),
    "a cost with lines of its own": (wrong_lines, "INV-3"),
    "an amount that is one nano more than its plan makes it": (wrong_billed, "INV-3"),
    "a plan that was never made": (unknown_plan, "INV-3"),
    "tokens that OpenAI did not say": (wrong_tokens, "INV-3"),
    "a charge for nothing": (billed_for_nothing, "INV-3"),
    "a usage block changed by hand": (
        sql("update openai_usage set usage = jsonb_set(usage, '{total_tokens}', '1') where evidence = 'reported'"),
        "INV-3",
    ),
    "a void without a reason": (void_without_reason, "INV-4"),
    "a report that nobody made": (reported_without_usage, "INV-4"),
    "a roll-up counted from the batch": (
        sql("update usage_hourly set calls = calls * 2, rows = rows * 2, total_tokens = total_tokens * 2"),
        "INV-5",
    ),
    "a roll-up of one hour too high by one token": (
        sql(
            "update usage_hourly set total_tokens = total_tokens + 1 "
            "where ctid in (select ctid from usage_hourly limit 1)"
        ),
        "INV-5",
    ),
    "a roll-up row of no row": (
        sql(
            "insert into usage_hourly (hour, user_id, model, endpoint, evidence, total_tokens) "
            "select '2026-01-01T10:00:00Z', id, 'gpt', 'chat', 'void', 7 from users"
        ),
        "INV-5",
    ),
    "a day of usage too dear by one nano": (
        sql("update usage_daily set cost_nano = cost_nano + 1 where ctid in (select ctid from usage_daily limit 1)"),
        "INV-5",
    ),
    "a day of no row": (
        sql(
            "insert into usage_daily (day, user_id, model, endpoint, evidence, rows) "
            "select '2026-01-01', id, 'gpt', 'chat', 'void', 1 from users"
        ),
        "INV-5",
    ),
    "a meeting of no row": (
        sql(
            "insert into usage_daily_meetings (day, meeting_id, user_id, calls) "
            "select '2026-01-01', id, id, 1 from users"
        ),
        "INV-5",
    ),
    "a price line lost": (
        sql("delete from usage_daily_units where ctid in (select ctid from usage_daily_units limit 1)"),
        "INV-5",
    ),
    "a month without its sums": (
        sql(
            "insert into summed_months (month, since, until) select date_trunc('month', h at time zone 'UTC')::date, h,"
            " h + interval '1 hour' from (select min(hour) as h from usage_hourly) first"
        ),
        "INV-5",
    ),
    "a key counted twice": (sql("update api_keys set usage_count = usage_count * 2"), "INV-5"),
    "a writer's counter lost": (sql("delete from flush_counters"), "INV-5"),
    "a window doubled": (sql("update billing_windows set billed_nano = billed_nano * 2"), "INV-6 INV-11"),
    "usage in the wrong window": (
        sql("update billing_windows set window_start = window_start - interval '9 hours'"),
        "INV-6",
    ),
    "a window from before payers of no row": (
        sql(
            "alter table stripe_windows disable trigger all",
            "insert into stripe_windows (user_id, meter, window_start, window_seconds, nano, frozen_nano) "
            "select id, 'm', '2026-01-01T10:00:00Z', 3600, 5, 5 from users",
        ),
        "INV-6",
    ),
    "an amount moved twice": (
        sql("update billing_windows set billed_nano = billed_nano + 5, moved_nano = moved_nano + 5"),
        "INV-6",
    ),
    "an event for more than its window": (
        sql(
            "alter table stripe_meter_events disable trigger all",
            "update stripe_meter_events set value = value + 1",
        ),
        "INV-6",
    ),
    "an event lost": (
        sql(
            "alter table stripe_meter_events disable trigger all",
            "delete from stripe_meter_events where id = (select min(id) from stripe_meter_events)",
        ),
        "INV-6",
    ),
    "a carry of a whole unit": (
        sql(
            "alter table stripe_meter_events disable trigger all",
            "alter table billing_carry drop constraint billing_carry_bounds",
            "update billing_carry set nano = nano + 1000",
            "update stripe_meter_events set value = value - 1 where id = (select min(id) from stripe_meter_events)",
        ),
        "INV-6",
    ),
    "a total of the outbox that is not its sum": (
        sql("update outbox_totals set value = value + 1 where state = 'pending'"),
        "INV-6",
    ),
    "a call that nobody settled": (never_settled, "INV-8"),
    "an open item overdue": (
        sql(
            "insert into open_items (id, kind, upstream_id, user_id, endpoint, opened_at, next_poll_at) select "
            "gen_random_uuid(), 'batch', 'batch_1', id, 'batches', now(), now() - interval '2 hours' from users"
        ),
        "INV-8",
    ),
    "a window that nobody freezes": (
        sql(
            "update customers set created_at = now() - interval '24 hours'",
            "alter table stripe_meter_events disable trigger all",
            "delete from stripe_meter_events",
            "update billing_carry set nano = 0",
            "update billing_windows set frozen_nano = 0, updated_at = now() - interval '24 hours'",
            *TOTALS_ANEW,
        ),
        "INV-8",
    ),
    "an event that nobody sends": (
        sql("update stripe_meter_events set created_at = now() - interval '48 hours'"),
        "INV-8",
    ),
    "an event in doubt for two days": (
        sql("update stripe_meter_events set state = 'unknown', created_at = now() - interval '48 hours'", *TOTALS_ANEW),
        "INV-8",
    ),
    "an event that was refused long ago, and that nobody has decided about": (
        sql(
            "update stripe_meter_events set state = 'rejected', delivered_at = null, next_attempt_at = null,"
            " event_timestamp = now() - interval '960 hours', created_at = now() - interval '960 hours'",
            *TOTALS_ANEW,
        ),
        "INV-8",
    ),
    "an estimate above its bound": (estimate_above_its_bound, "INV-9"),
    "an estimate without a bound": (estimate_without_bound, "INV-9"),
    "an estimate without a reason": (estimate_without_reason, "INV-9"),
    "an entry read and dropped": (sql("update flush_counters set entries_read = entries_read + 1"), "INV-10"),
    "a quarantine emptied by hand": (
        sql("update flush_counters set entries_read = entries_read + 1, quarantined = quarantined + 1"),
        "INV-10",
    ),
    "a window of another payer": (
        sql(
            "insert into customers (id) values ('00000000-0000-7000-8000-0000000000cc')",
            "update billing_windows set customer_id = '00000000-0000-7000-8000-0000000000cc', user_id = null",
        ),
        "INV-6 INV-11",
    ),
    "accrued amounts that a customer took over without a decision": (
        sql("update billing_windows set billed_nano = billed_nano + 5, accrued_nano = accrued_nano + 5"),
        "INV-11",
    ),
    "credit that paid twice": (sql("update billing_windows set credit_nano = credit_nano + 1"), "INV-11"),
    "credit that nobody was given": (
        sql("insert into credit_balances (user_id, since, granted_nano) select id, now(), 5 from users"),
        "INV-11",
    ),
    "a use of credit that no balance has": (
        sql("insert into credit_uses (user_id, day, nano) select id, '2026-01-01', 5 from users"),
        "INV-11",
    ),
}
