"""One connection may be in several meetings, or in none: the same rows in any order, from webhooks, REST, or both."""

import asyncio
from typing import Any

import pytest

from gateway.ledger.store import Ledger
from gateway.meetings.attribution import MeetingAttribution
from gateway.meetings.call_meetings import CallMeetings
from gateway.meetings.inbox import Inbox
from gateway.stores.postgres import Pool, open_pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.meetings.daily_lives import T0, ended, joined, left, outcome, rest, started, told, wipe, work
from tests.meetings.daily_rooms_lives import ROWS_OF_A_LONG_STAY, Daily, Source, a_long_stay
from tests.meetings.test_apply import USER, shuffled

SOURCES: tuple[Source, ...] = ("webhooks", "rest", "both")
ROWS = """
select m.daily_meeting_id, p.name, p.joined_at, p.left_at, p.role, m.user_id::text, m.started_at, m.ended_at
from participants p join meetings m on m.id = p.meeting_id order by m.started_at, p.name
"""


@pytest.fixture
async def user(pool: Pool) -> str:
    await pool.execute("insert into users (id, email) values ($1, 'ann@example.com')", USER)
    return USER


async def rows(pool: Pool, daily: Daily) -> list[tuple[int, str, float, float]]:
    """Meeting by number, name, minutes from and to; all instants lie inside the meeting."""
    numbers = {daily_id: number for number, daily_id in enumerate(daily.meetings())}
    found = []
    for row in await pool.fetch(ROWS):
        assert row["started_at"] <= row["joined_at"] <= row["left_at"] <= row["ended_at"]
        minutes = [(row[name] - T0).total_seconds() / 60 for name in ("joined_at", "left_at")]
        found.append((numbers[row["daily_meeting_id"]], row["name"], minutes[0], minutes[1]))
    return found


async def owners(pool: Pool) -> list[str | None]:
    return [row[0] for row in await pool.fetch("select user_id::text from meetings order by started_at")]


@pytest.mark.parametrize("orders", [3, pytest.param(100, marks=pytest.mark.long)])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("faults", [{}, {"encoded_user_ids": True, "whole_stays": True, "room_names": True}])
async def test_a_stay_is_split_where_meetings_end(
    pool: Pool, user: str, source: Source, faults: dict[str, Any], orders: int
) -> None:
    """The host is in each of their meetings, and so each has an owner whom calls can name it for."""
    daily = a_long_stay(user, **faults)
    events = daily.events(source)
    await told(pool, events)
    assert await rows(pool, daily) == ROWS_OF_A_LONG_STAY
    if source != "rest":  # which tells of no owner's token
        assert await owners(pool) == [USER, USER, USER, None]
        waiting = await pool.fetchval("select count(*) from webhook_inbox where waits_for = 'room room'")
        assert waiting == 2  # a visit that became no meeting
    expected = await outcome(pool)
    for seed in range(orders):
        await wipe(pool)
        await told(pool, shuffled(events, seed))
        assert await outcome(pool) == expected, seed


@pytest.mark.parametrize("orders", [3, pytest.param(100, marks=pytest.mark.long)])
async def test_ends_that_say_less(pool: Pool, user: str, orders: int) -> None:
    """participant.left without a duration was sent when they left; meeting.ended without its beginning waits for it."""
    daily = a_long_stay(user, bare_ends=True)
    events = daily.by_webhooks()
    await told(pool, events)
    assert await rows(pool, daily) == ROWS_OF_A_LONG_STAY
    assert await pool.fetchval("select count(*) from webhook_inbox where attempts > 0") == 0
    expected = await outcome(pool)
    for seed in range(orders):
        await wipe(pool)
        await told(pool, shuffled(events, seed))
        assert await outcome(pool) == expected, seed


def still_there() -> list[WebhookEvent]:
    """Ann is alone in the second meeting, and nobody has seen her leave."""
    return [
        joined("ann", "room", 0, owner=True, user=USER), started("m1", "room", 0.5), joined("bob", "room", 1),
        left("bob", "room", 1, 19), ended("m1", "room", 0.5, 30), started("m2", "room", 30),
    ]  # fmt: skip


async def who(pool: Pool, meeting: str) -> list[str]:
    query = """
    select daily_participant_id from participants p join meetings m on m.id = p.meeting_id
    where daily_meeting_id = $1 order by 1"""
    return [row[0] for row in await pool.fetch(query, meeting)]


async def test_whoever_is_still_there_is_in_the_meeting_that_goes_on(pool: Pool, user: str) -> None:
    for order in (still_there(), still_there()[::-1]):
        await wipe(pool)
        await told(pool, order)
        assert (await who(pool, "m1"), await who(pool, "m2")) == (["ann", "bob"], ["ann"])
        assert await owners(pool) == [USER, USER]


@pytest.mark.parametrize("number", range(4))
async def test_what_ends_a_stay_that_nobody_saw_ending(pool: Pool, user: str, number: int) -> None:
    """REST of the first meeting, or a whole list of the second without them; the webhook itself; a gap between both."""
    ends = [
        rest("m1", "room", 0, 30, [("ann", 0, 20), ("bob", 1, 19)]),
        rest("m2", "room", 30, 30, [("cem", 30, 30)]),
        left("ann", "room", 0, 30, owner=True, user=USER),
        started("m2", "room", 32),
    ][number]
    life = still_there()[: 5 if number == 3 else 6]
    for order in ([*life, ends], [ends, *life[::-1]]):
        await wipe(pool)
        await told(pool, order)
        assert "ann" in await who(pool, "m1")
        assert "ann" not in await who(pool, "m2")


@pytest.mark.parametrize("later", [0, 40])
async def test_a_look_by_rest_takes_no_owner_away(pool: Pool, user: str, later: int) -> None:
    """Its user_id has another form, and it sorts after the webhooks'."""
    await told(pool, [started("m1", "room", 0), joined("zzzz-ann", "room", 0, name="Ann", owner=True, user=USER)])
    await told(pool, [rest("m1", "room", 0, later or 30, [("zzzz-ann", 0, later or 30)])])
    assert await owners(pool) == [USER]
    assert await pool.fetchval("select name from participants") == "Ann"


async def test_a_visit_after_the_end_belongs_to_no_meeting(pool: Pool) -> None:
    """Half a minute after everybody had left, or before the next one comes: no meeting was on."""
    life = [
        started("m1", "room", 0), joined("ann", "room", 0), left("ann", "room", 0, 30), ended("m1", "room", 0, 30),
        joined("bob", "room", 30.5), left("bob", "room", 30.5, 0.3), started("m2", "room", 31.2),
        joined("cem", "room", 31),
    ]  # fmt: skip
    for order in (life, life[::-1], shuffled(life, 1)):
        await wipe(pool)
        await told(pool, order)
        assert (await who(pool, "m1"), await who(pool, "m2")) == (["ann"], ["cem"])
        waiting = "select count(*) from webhook_inbox where waits_for is not null and about = 'bob'"
        assert await pool.fetchval(waiting) == 2


async def test_a_row_of_an_earlier_version_is_read(pool: Pool, user: str) -> None:
    """As it kept what it knew: one meeting for each connection, and no word of whose user_id it was."""
    await told(pool, still_there())
    await pool.execute(
        "delete from participants where daily_participant_id = 'ann' and meeting_id in"
        " (select id from meetings where daily_meeting_id = 'm1')"
    )
    await pool.execute("update participants set metadata = metadata #- '{daily,pins}' #- '{daily,user_rank}'")
    await told(pool, [rest("m1", "room", 0, 30, [("ann", 0, 30), ("bob", 1, 19)])])
    await told(pool, [left("ann", "room", 0, 45, owner=True, user=USER)])
    assert (await who(pool, "m1"), await who(pool, "m2")) == (["ann", "bob"], ["ann"])
    assert await owners(pool) == [USER, USER]


async def test_workers_side_by_side_on_one_stay(pool: Pool, user: str, database_url: str) -> None:
    """They take each other's waiting events along, and never wait for each other in a circle."""
    many = await open_pool(database_url, connections_max=5)
    daily = a_long_stay(user)
    await told(pool, daily.events("both"))
    expected = await outcome(pool)

    async def drain() -> None:
        worker = work(many)
        while await worker.step_once():
            pass

    for seed in range(5):
        await wipe(pool)
        await Inbox(pool).store(shuffled(daily.events("both"), seed))
        for _ in range(3):
            await asyncio.gather(*(drain() for _ in range(4)))
        assert await outcome(pool) == expected, seed
    await many.close()


async def test_calls_can_name_each_meeting_of_a_host_who_stays_on(pool: Pool, user: str, ledger: Ledger) -> None:
    """Also the one that is still on, by the room's name."""
    await told(pool, still_there())
    ids = {row["daily_meeting_id"]: str(row["id"]) for row in await pool.fetch("select * from meetings")}
    meetings = MeetingAttribution(CallMeetings(ledger.pool), monotonic=lambda: 0.0)
    assert [await meetings.of([name], user) for name in ("m1", "m2", "room")] == [ids["m1"], ids["m2"], ids["m2"]]
