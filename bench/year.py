"""`make bench-year`: what a row costs PostgreSQL when the ledger holds a year of rows, against an empty one.

The batch writer alone, on one connection, with rows as many customers make them: users of very different size, two
keys each, ten models, three in ten with a meeting. First into an empty ledger, then into one that SQL has filled with
`--rows` rows over 364 days. Per row: CPU of the backend, WAL from a checkpoint on, and blocks. Only the ratios of one
run say something.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from bench.measure import cpu_s, positive
from gateway import embedded
from gateway.kit.ids import uuid7
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger
from gateway.stores.migrator import migrate
from gateway.stores.postgres import Pool, open_pool
from gateway.usage.event import UsageEvent, encode
from pricing import Line

DAYS: Final = 364
MODELS: Final = 10
BATCH: Final = 1000
STEP: Final = 50_000
"""Rows that are filled in by one statement."""
STATEMENT_S: Final = 3600.0
_USERS: Final = """
with made as (
  insert into users (email, stripe_customer_id) select 'u' || n || '@example.com', 'cus_' || n
  from generate_series(0, $1::integer - 1) n returning id
), keys as (
  insert into api_keys (user_id, unkey_key_id, name) select id, id || '-' || k, 'bench'
  from made, generate_series(0, 1) k
)
insert into meetings (user_id, room_name) select id, 'room of ' || id from made
"""
_KNOWN: Final = """
select u.id as user_id, array(select k.id from api_keys k where k.user_id = u.id) as keys,
  (select m.id from meetings m where m.user_id = u.id) as meeting
from users u order by u.id
"""
# A user's number is the cube of chance: the first of a thousand has a tenth of the calls.
_FILL: Final = """
with picked as (
  select n, floor($4::integer * power(random(), 3))::integer as owner, random() as dice,
    $1::timestamptz + n * ($2::timestamptz - $1::timestamptz) / $3::integer as at
  from generate_series(0, $3::integer - 1) n
), known as (
  select u.id, row_number() over (order by u.id) - 1 as number, c.customer_id,
    array(select k.id from api_keys k where k.user_id = u.id) as keys,
    (select m.id from meetings m where m.user_id = u.id) as meeting
  from users u join user_customers c on c.user_id = u.id
), added as (
  insert into openai_usage (id, user_id, api_key_id, customer_id, meeting_id, endpoint, model, service_tier, evidence,
    prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd, price_version, cost_lines, usage, response_id,
    request_id, metadata, started_at, completed_at, booked_at)
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text), 1, 3)
      || '8' || substr(md5(random()::text), 1, 15))::uuid,
    k.id, k.keys[1 + (n % 2)], k.customer_id, case when dice < 0.3 then k.meeting end, 'chat',
    'model-' || floor(10 * dice)::integer, 'default', 'reported', 100, 20, 120, 0.000025, 0.00003, '2026-11-22',
    '[{"unit": "input", "quantity": "100", "usd_per_unit": "0.00000025", "usd": "0.000025"}]',
    '{"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}',
    'chatcmpl-' || md5(random()::text), 'req_' || md5(random()::text), '{"status": 200}',
    at - interval '2 seconds', at, at
  from picked p join known k on k.number = p.owner
  returning *
)
insert into usage_hourly as h (user_id, hour, api_key_id, meeting_id, model, endpoint, service_tier, evidence, calls,
  rows, prompt_tokens, completion_tokens, total_tokens, cost_usd, billed_usd)
select user_id, date_bin('1 hour', completed_at, timestamptz 'epoch'), api_key_id, meeting_id, model, endpoint,
  service_tier, evidence, count(*), count(*), sum(prompt_tokens), sum(completion_tokens), sum(total_tokens),
  sum(cost_usd), sum(billed_usd)
from added group by 1, 2, 3, 4, 5, 6, 7, 8
on conflict (user_id, hour, api_key_id, meeting_id, model, endpoint, service_tier, evidence) do update set
  calls = h.calls + excluded.calls, rows = h.rows + excluded.rows,
  prompt_tokens = h.prompt_tokens + excluded.prompt_tokens,
  completion_tokens = h.completion_tokens + excluded.completion_tokens,
  total_tokens = h.total_tokens + excluded.total_tokens,
  cost_usd = h.cost_usd + excluded.cost_usd, billed_usd = h.billed_usd + excluded.billed_usd
"""
_COUNTED: Final = """
select (select blks_hit + blks_read from pg_stat_database where datname = current_database()) as blocks,
  (select blks_read from pg_stat_database where datname = current_database()) as read,
  pg_current_wal_lsn() - '0/0'::pg_lsn as wal, (select wal_fpi from pg_stat_wal) as pages
"""


class Cost(NamedTuple):
    """Of one row of the ledger with all sums beside it."""

    cpu_us: float
    wal_bytes: float
    full_pages: float
    blocks: float
    blocks_read: float


class Maker:
    """Calls of customers of very different size."""

    def __init__(self, people: list[tuple[UUID, list[UUID], UUID]]) -> None:
        self._people: Final = people
        self._random: Final = random.Random(7)

    def entries(self, count: int, at: datetime) -> list[LedgerEntry]:
        return [LedgerEntry(event.id, encode(event)) for event in (self._call(at) for _ in range(count))]

    def _call(self, at: datetime) -> UsageEvent:
        dice = self._random
        user, keys, meeting = self._people[int(len(self._people) * dice.random() ** 3)]
        event_id = uuid7(int(at.timestamp() * 1000), dice.getrandbits(80))
        return UsageEvent(
            id=event_id,
            user_id=str(user),
            api_key_id=str(dice.choice(keys)),
            meeting_id=str(meeting) if dice.random() < 0.3 else None,
            endpoint="chat",
            model=f"model-{dice.randrange(MODELS)}",
            service_tier="default",
            evidence="reported",
            started_at=at - timedelta(seconds=2),
            completed_at=at,
            prompt_tokens=100,
            completion_tokens=20,
            total_tokens=120,
            cost_nano=25_000,
            billed_nano=30_000,
            price_version="2026-11-22",
            cost_lines=(Line("input", "100", "0.00000025", "0.000025"),),
            usage=msgspec.Raw(b'{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}'),
            response_id=f"chatcmpl-{event_id[::-1]}",
            request_id=f"req_{event_id[::-1]}",
            metadata={"status": 200},
        )


async def measure(pool: Pool, maker: Maker, rows: int) -> Cost:
    """Writes so many rows, spread over an hour, from a checkpoint on."""
    ledger = Ledger(pool, meter="openai_usage_micro_usd", window_s=3600)
    now = datetime.now(UTC)
    batches = [
        maker.entries(BATCH, now + timedelta(seconds=3600 * each * BATCH / rows)) for each in range(rows // BATCH)
    ]
    await pool.execute("checkpoint", timeout=STATEMENT_S)
    pid = await pool.fetchval("select pg_backend_pid()")
    before, began_s = await _counted(pool), cpu_s([pid])
    for batch in batches:
        done = await ledger.insert_batch(batch)
        if done.inserted != len(batch):
            raise SystemExit(f"bench: {done.inserted} of {len(batch)} entries became rows")
    spent_s, after = cpu_s([pid]) - began_s, await _counted(pool)
    grown = {name: float(after[name] - before[name]) / rows for name in ("wal", "pages", "blocks", "read")}
    return Cost(spent_s / rows * 1e6, grown["wal"], grown["pages"], grown["blocks"], grown["read"])


async def _counted(pool: Pool) -> dict[str, int]:
    await pool.execute("select pg_stat_force_next_flush()")
    (row,) = await pool.fetch(_COUNTED)
    return {name: int(value) for name, value in row.items()}


async def fill(pool: Pool, rows: int, users: int) -> None:
    """A year that ended yesterday. Sums by hour are right; the month's events for Stripe are left out."""
    until = datetime.now(UTC) - timedelta(days=1)
    step = timedelta(days=DAYS) * STEP / rows
    for each in range(rows // STEP):
        since = until - timedelta(days=DAYS) + each * step
        await pool.execute(_FILL, since, since + step, STEP, users, timeout=STATEMENT_S)
        await pool.execute("delete from units_due", timeout=STATEMENT_S)
    await pool.execute("vacuum analyze", timeout=STATEMENT_S)


async def bench(rows: int, users: int, sample: int) -> None:
    """Empty, filled, measured again."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # as root, PostgreSQL's user must be able to pass through to its data
        servers = await embedded.start(Path(folder) / "data", say=lambda line: None, names={"postgres"})
        try:
            await migrate(servers.database_url)
            pool = await open_pool(
                servers.database_url, connections_max=1, connections_min=1, statement_timeout_s=STATEMENT_S
            )
            await pool.execute(_USERS, users)
            people = [(row["user_id"], row["keys"], row["meeting"]) for row in await pool.fetch(_KNOWN)]
            maker = Maker(people)
            await measure(pool, maker, BATCH)  # the connection and its plans are new
            empty = await measure(pool, maker, sample)
            began_s = time.monotonic()
            await fill(pool, rows, users)
            print(f"{rows:,} rows of {users:,} users over {DAYS} days, filled in {time.monotonic() - began_s:.0f} s")
            full = await measure(pool, maker, sample)
            size = await pool.fetchval("select pg_database_size(current_database())")
            await pool.close()
        finally:
            await servers.stop()
    print(f"{size / (rows + 2 * sample):,.0f} bytes of database per row")
    print(f"{'per row, of ' + format(sample, ','):28}{'empty':>12}{'full':>12}{'ratio':>9}")
    for name, one, other in zip(Cost._fields, empty, full, strict=True):
        ratio = f"{other / one:9.2f}" if one else f"{'-':>9}"
        print(f"{name.replace('_', ' '):28}{one:12.2f}{other:12.2f}{ratio}")


def main() -> None:
    """Parses the few knobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=positive, default=5_000_000, help=f"of the year; in steps of {STEP:,}")
    parser.add_argument("--users", type=positive, default=1000)
    parser.add_argument("--sample", type=positive, default=40_000, help="rows that are measured, each time")
    options = parser.parse_args()
    asyncio.run(bench(max(STEP, options.rows), options.users, max(BATCH, options.sample)))


if __name__ == "__main__":
    main()
