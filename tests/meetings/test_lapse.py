"""Events of a visit that never became a meeting lapse: operators see it, and a later word takes them up."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.kit.instants import rfc3339
from gateway.meetings.backfill import Backfill
from gateway.meetings.backfill_cursors import BackfillCursors
from gateway.meetings.daily_api import Page
from gateway.meetings.inbox import Inbox
from gateway.stores.postgres import Pool
from tests.meetings.daily_lives import T0, joined, left, outcome, recording, rest, started, told, wipe, work
from tests.support.invoke import gateway

MINUTE = timedelta(minutes=1)
NOW = datetime.now(UTC)
STATES = "select processed_at is not null, lapsed_at is not null, attempts from webhook_inbox order by event_id"
WAITS, LAPSED = (False, False, 0), (True, True, 0)


class Nothing:
    """Daily.co without a meeting."""

    async def page(self, since: int, until: int, *, room: str | None = None, after: str | None = None) -> Page:
        return Page([], None, 0)


async def walk(pool: Pool, since: datetime, until: datetime, room: str | None = None) -> None:
    backfill = Backfill(Nothing(), Inbox(pool), BackfillCursors(pool))
    await backfill.run(since, until, now=NOW, room=room, again=True, progress=lambda *_: None)


async def look_again(pool: Pool) -> list[tuple[bool, bool, int]]:
    """An hour later: whether each event is done, has lapsed, has failed."""
    await pool.execute("update webhook_inbox set next_attempt_at = now() where processed_at is null")
    worker = work(pool)
    while await worker.step_once():
        pass
    return [tuple(row.values()) for row in await pool.fetch(STATES)]


@pytest.fixture
async def visit(pool: Pool) -> None:
    """Six days ago by T0, for 20 seconds."""
    await told(pool, [joined("dan", "room", 0), left("dan", "room", 0, 0.3), recording("r", "room", 0.1)])


async def test_a_visit_waits_until_its_time_has_been_looked_at(pool: Pool, visit: None) -> None:
    assert await look_again(pool) == [WAITS] * 3
    for since, until, room in (
        (T0 + MINUTE, NOW, None),  # begins too late
        (T0 - MINUTE, T0, None),  # ends too early
        (T0 - MINUTE, NOW, "other"),
    ):
        await walk(pool, since, until, room)
        assert await look_again(pool) == [WAITS] * 3, (since, until)
    await walk(pool, T0 - MINUTE, NOW, "room")
    assert await look_again(pool) == [LAPSED] * 3
    counts = await Inbox(pool).counts()
    assert (counts.waiting, counts.failed, counts.new, counts.lapsed) == (0, 0, 0, 3)


async def test_a_visit_of_today_waits(pool: Pool) -> None:
    minutes = (NOW - timedelta(hours=20) - T0) / MINUTE
    await told(pool, [joined("dan", "room", minutes), left("dan", "room", minutes, 0.3)])
    await walk(pool, T0, NOW)
    assert await look_again(pool) == [WAITS] * 2


async def test_without_a_look_a_week_must_do(pool: Pool, visit: None) -> None:
    await pool.execute("update webhook_inbox set received_at = now() - interval '167 hours'")
    assert await look_again(pool) == [WAITS] * 3
    await pool.execute("update webhook_inbox set received_at = now() - interval '168 hours 1 minute'")
    assert await look_again(pool) == [LAPSED] * 3


async def test_regular_looks_make_one_range(pool: Pool) -> None:
    async def ranges(*hours: float) -> list[timedelta]:
        await pool.execute("delete from daily_backfills")
        for hour in hours:
            await pool.execute("update daily_backfills set leased_until = now() - interval '1 second'")
            reconciled = Backfill(Nothing(), Inbox(pool), BackfillCursors(pool)).reconcile(
                NOW + timedelta(hours=hour), hours=6, lease_s=60
            )
            assert await reconciled == 0
        (row,) = await pool.fetch("select since_at, until_at, finished_at from daily_backfills")
        assert row["finished_at"] is not None
        return [row["since_at"] - NOW, row["until_at"] - NOW]

    assert await ranges(0, 5, 10) == [timedelta(hours=-6), timedelta(hours=10)]
    assert await ranges(0, 5, 20) == [timedelta(hours=14), timedelta(hours=20)]  # a gap: what was before is not sure


async def test_a_meeting_that_is_told_later_takes_up_what_has_lapsed(pool: Pool, visit: None) -> None:
    life = [rest("m1", "room", -1, 10, [("dan", 0, 0.3)])]
    await walk(pool, T0 - MINUTE, NOW)
    assert await look_again(pool) == [LAPSED] * 3
    await told(pool, [started("m9", "room", 5000)])  # of another time: it wakes nobody
    assert [tuple(row.values()) for row in await pool.fetch(STATES)][1:] == [LAPSED] * 3
    await told(pool, life)
    found = await outcome(pool)
    assert "dan" in repr(found)
    await wipe(pool)
    await pool.execute("delete from daily_backfills")
    await told(pool, [started("m9", "room", 5000), *life, joined("dan", "room", 0), left("dan", "room", 0, 0.3)])
    await told(pool, [recording("r", "room", 0.1)])
    assert await outcome(pool) == found


async def test_operators_see_it(pool: Pool, visit: None, database_url: str) -> None:
    await walk(pool, T0 - MINUTE, NOW)
    assert await look_again(pool) == [LAPSED] * 3
    listed = await gateway({"DATABASE_URL": database_url}, "meetings", "list")
    assert "3 events have lapsed in the last day" in listed.out
    assert "failed" not in listed.out
    plain = json.loads((await gateway({"DATABASE_URL": database_url}, "meetings", "list", "--json")).out)
    assert plain["events"] == {
        "new": 0, "waiting": 0, "failed": 0, "given_up": 0, "oldest": rfc3339(None), "lapsed": 3,
    }  # fmt: skip
