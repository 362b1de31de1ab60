"""`python -m bench.outbox`: what the outbox costs PostgreSQL, as CPU of the one backend that works for it.

Two figures that must not grow: the CPU per event while an outage's events are drained (last tenth against the first),
and what looking at a large outbox costs an idle worker. No Stripe: claims and marks only. Ratios and CPU, because wall
time says nothing on a busy machine.
"""

import argparse
import asyncio
import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from bench.measure import positive
from gateway.billing import outbox_sql as sql
from gateway.billing.outbox import Outbox
from gateway.billing.windows import Delivered, StripeAnswer
from gateway.embedded import ephemeral
from gateway.processes.worker import ACCRUED_EVERY, LOOK_EVERY_S
from gateway.stores.migrator import migrate
from gateway.stores.postgres import Pool, open_pool

NOW: Final = datetime(2026, 11, 24, 16, tzinfo=UTC)
ACCOUNT: Final = "acct_1"
FILL: Final = """
insert into stripe_meter_events (user_id, customer, meter, window_start, window_seconds, seq, value, nano,
  carry_nano_after, event_timestamp, identifier, state, next_attempt_at, delivered_at, account)
select $5, 'cus_' || c, 'openai_usage_micro_usd', $1::timestamptz + h * interval '1 hour', 3600, c, 5, 5000, 0,
  $1::timestamptz + h * interval '1 hour' + interval '3599 seconds', $4 || ':' || c || ':' || h, $4,
  case when $4 = 'pending' then $1::timestamptz end, case when $4 = 'sent' then $1::timestamptz end, 'acct_1'
from generate_series(0, $3::integer - 1) h, generate_series(1, $2::integer) c
"""
SKIP: Final = """
update stripe_meter_events set state = 'sent', delivered_at = $1, next_attempt_at = null
where state = 'pending' and id in (
  select id from stripe_meter_events where state = 'pending' order by window_start, customer limit $2)
"""


def backend_cpu_s(pid: int) -> float:
    """Seconds that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def blocks_of(pool: Pool, statement: str) -> int:
    """Blocks that a statement reads, from memory or disk."""
    found = await pool.fetchval(f"explain (analyze, buffers, format json) {statement}")
    plan = json.loads(found)[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


async def fill(pool: Pool, customers: int, hours: int, state: str, first: datetime) -> None:
    user = await pool.fetchval("select id from users limit 1")
    if user is None:
        user = await pool.fetchval("insert into users (email) values ('u@example.com') returning id")
    await pool.execute(FILL, first, customers, hours, state, user, timeout=3600)


async def drain(pool: Pool, events: int, pid: int) -> float:
    """Claims and marks so many events; CPU microseconds of the backend per event."""
    outbox, done, began_s = Outbox(pool), 0, backend_cpu_s(pid)
    while done < events:
        claims = await outbox.claim(NOW, lease_s=120, events_max=32, account=ACCOUNT)
        if not claims:
            raise SystemExit(f"nothing was due after {done} events")
        for claim in claims:
            await outbox.mark_delivered(claim, StripeAnswer(Delivered(), 200, "req_1", claim.event.identifier), NOW)
        done += len(claims)
    return (backend_cpu_s(pid) - began_s) / done * 1e6


async def run(customers: int, hours: int, sample: int, delivered_hours: int) -> None:
    with ephemeral() as servers:
        await migrate(servers.database_url)
        pool = await open_pool(servers.database_url, connections_max=1, statement_timeout_s=3600)
        pid = await pool.fetchval("select pg_backend_pid()")
        await fill(pool, customers, hours, "pending", NOW - timedelta(hours=hours))
        await pool.execute("vacuum analyze stripe_meter_events", timeout=3600)
        total = customers * hours
        first_us = await drain(pool, sample, pid)
        skip = total - 2 * sample
        await pool.execute(SKIP, NOW, skip, timeout=3600)
        await pool.execute("vacuum analyze stripe_meter_events", timeout=3600)
        last_us = await drain(pool, sample, pid)
        print(f"{total} pending of {customers} customers: CPU of the backend per event {first_us:.0f} us at first,")
        print(f"  {last_us:.0f} us at last, ratio {last_us / first_us:.2f} (bar 1.20)")
        await fill(pool, customers, delivered_hours, "sent", NOW - timedelta(hours=9000))
        await pool.execute("vacuum analyze stripe_meter_events", timeout=3600)
        outbox, looks, began_s, at = Outbox(pool), 240, backend_cpu_s(pid), time.monotonic()
        for look in range(looks):
            await outbox.status()
            if look % ACCRUED_EVERY == 0:
                await outbox.unpaid_users()
        share = (backend_cpu_s(pid) - began_s) / (looks * LOOK_EVERY_S)
        rows = await pool.fetchval("select sum(events)::bigint from outbox_totals")
        looked = [await blocks_of(pool, each) for each in (sql.COUNTS, sql.OLDEST, sql.UNPAID_USERS)]
        print(f"{rows} events: a look at them reads {sum(looked)} blocks (bar 100)")
        print(f"{rows} events: looking at them costs {share:.4%} of a core (bar 0.5 %), {time.monotonic() - at:.1f} s")
        await pool.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", type=positive, default=10_000)
    parser.add_argument("--hours", type=positive, default=30)
    parser.add_argument("--sample", type=positive, default=9_600, help="events of the first and of the last part")
    parser.add_argument("--delivered-hours", type=positive, default=200, help="hours of delivered events, per customer")
    given = parser.parse_args()
    asyncio.run(run(given.customers, given.hours, given.sample, given.delivered_hours))


if __name__ == "__main__":
    main()
