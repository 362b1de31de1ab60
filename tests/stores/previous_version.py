"""The last released version of the gateway, as far as the database meets it: its migrations and its statements.

`previous_version.sql` has the statements as that version sends them. What is released next takes their place; until
then each must go on working on the schema of today, because both versions run side by side for a while.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from gateway.billing.windows import identifier
from gateway.ledger.rows import LedgerEntry, columns, to_row
from gateway.ledger.sql import COLUMNS
from gateway.stores.migrator import Migration, load
from gateway.usage.event import UsageEvent
from tests.conftest import METER, WINDOW_S

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
else:
    Connection = Any

LAST: Final = "20261130003000"
"""Its last migration."""
NEW_COLUMNS: Final = {"plan_version"}
"""Columns of a batch that it does not know."""
_PART: Final = re.compile(r"^-- name: (\S+)\n(.*?)(?=^-- name|\Z)", re.MULTILINE | re.DOTALL)
STATEMENTS: Final = dict(_PART.findall(Path(__file__).with_suffix(".sql").read_text("utf-8")))


def migrations() -> list[Migration]:
    return [each for each in load() if each.version <= LAST]


async def insert_batch(connection: Connection, events: Sequence[UsageEvent]) -> int:
    """As its batch writer does; how many were new."""
    rows = sorted((to_row(LedgerEntry.of(event)) for event in events), key=lambda row: str(row[0]))
    named = zip((name for name, _ in COLUMNS), columns(rows), strict=True)
    arrays = [values for name, values in named if name not in NEW_COLUMNS]
    return int(await connection.fetchval(STATEMENTS["INSERT_BATCH"], *arrays, METER, WINDOW_S, len(rows)))


async def freeze_closed(connection: Connection, now: datetime, grace_s: float) -> int:
    """As its reporter does; how many windows it has frozen."""
    closed_by, frozen_windows = now - timedelta(seconds=grace_s), 0
    for row in await connection.fetch(STATEMENTS["CLOSED"], closed_by, 1000):
        group = (row["user_id"], row["meter"])
        async with connection.transaction():
            await connection.execute(STATEMENTS["CARRY_ROW"], *group)
            locked = await connection.fetchrow(STATEMENTS["CARRY_LOCK"], *group)
            if locked is None or locked["customer"] is None:
                continue
            carry = locked["nano"]
            for window in await connection.fetch(STATEMENTS["WINDOWS"], *group, closed_by):
                pending = window["nano"] - window["frozen_nano"]
                # No test comes near the 15 digits from which on it splits an amount.
                (value, carry), seq = divmod(pending + carry, 1000), window["next_seq"]
                start, seconds = window["window_start"], window["window_seconds"]
                if value:
                    made = identifier(row["meter"], locked["customer"], start, seq)
                    at = min(start + timedelta(seconds=seconds - 1), now).replace(microsecond=0)
                    whom = (row["user_id"], locked["customer"], row["meter"], start, seconds, seq)
                    await connection.fetchval(
                        STATEMENTS["INSERT_EVENT"], *whom, value, pending, carry, at, made, now, None
                    )
                    seq += 1
                await connection.execute(STATEMENTS["FREEZE_WINDOW"], *group, start, window["nano"], seq)
                frozen_windows += 1
            await connection.execute(STATEMENTS["FREEZE_CARRY"], *group, carry)
    return frozen_windows


async def fill(connection: Connection, rows: int, first: datetime, every: timedelta) -> None:
    """A ledger as that version leaves it: `rows` calls from `first` on, of forty users. Half of them have a Stripe
    customer, and one has paid in advance."""
    await connection.execute("""
      insert into users (email, stripe_customer_id)
        select 'user' || n || '@example.com', case when n % 2 = 0 then 'cus_' || n end from generate_series(1, 40) n;
      insert into api_keys (user_id, unkey_key_id) select id, 'key_' || email from users;
      insert into meetings (user_id, room_name) select id, 'room ' || email from users;
      create temporary table owners as
        select row_number() over (order by u.email) - 1 as n, u.id as user_id, k.id as key_id, m.id as meeting_id
        from users u join api_keys k on k.user_id = u.id join meetings m on m.user_id = u.id;
    """)
    await connection.execute(
        "insert into credit_entries (user_id, amount_usd, created_at) select user_id, 1, $1 from owners where n = 3",
        first,
    )
    await connection.execute(
        """
        insert into openai_usage (id, user_id, api_key_id, meeting_id, endpoint, model, service_tier, evidence,
          prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd, price_version, cost_lines, usage,
          response_id, metadata, started_at, completed_at)
        select (lpad(to_hex((extract(epoch from c.at) * 1000)::bigint), 12, '0') || '7' || substr(md5(c.i::text), 1, 3)
            || '8' || substr(md5(c.i::text), 4, 15))::uuid,
          o.user_id, o.key_id, case when c.i % 5 = 0 then o.meeting_id end, 'chat', 'gpt-5-mini-2025-08-07', 'default',
          case when c.i % 50 = 0 then 'unpriced' else 'reported' end, 100, 20, 120,
          case when c.i % 50 <> 0 then 0.000001 * (c.i % 97 + 1) end,
          case when c.i % 50 <> 0 then 0.0000012 * (c.i % 97 + 1) end, '2026-11-22',
          '[{"unit": "input", "quantity": "100", "usd_per_unit": "0.00000025", "usd": "0.000025"}]',
          '{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}', 'chatcmpl-' || c.i, '{"status": 200}',
          c.at, c.at
        from (select i, $2::timestamptz + i * $3::interval as at from generate_series(1, $1::integer) i) c
        join owners o on o.n = c.i % 40
        """,
        rows, first, every,
    )  # fmt: skip
    await connection.execute("""
      insert into usage_hourly (user_id, hour, api_key_id, meeting_id, model, endpoint, service_tier, evidence, calls,
        rows, prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd)
      select user_id, date_bin('1 hour', completed_at, 'epoch'), api_key_id, meeting_id, model, endpoint, service_tier,
        evidence, count(*), count(*), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens),
        coalesce(sum(cost_usd), 0), coalesce(sum(billed_usd), 0)
      from openai_usage group by 1, 2, 3, 4, 5, 6, 7, 8;
      insert into flush_counters (slot, entries_read, inserted) select 0, count(*), count(*) from openai_usage;
      update api_keys k set usage_count = (select count(*) from openai_usage u where u.api_key_id = k.id);
      drop table owners;
    """)
    await connection.execute(
        "insert into stripe_windows (user_id, meter, window_start, window_seconds, nano)"
        " select user_id, $1, date_bin('1 hour', completed_at, 'epoch'), 3600, sum(billed_usd) * 1000000000"
        " from openai_usage where billed_usd > 0 group by 1, 3",
        METER,
    )
