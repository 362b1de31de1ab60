"""A call belongs to a meeting of its caller or to none: looked up seldom, never guessed, never somebody else's."""

import asyncio
from typing import NamedTuple

import pytest

from gateway.kit.errors import ApiError, DependencyDown
from gateway.meetings.attribution import ID_TTL_S, ROOM_TTL_S, STALE_S, UNKNOWN_TTL_S, MeetingAttribution

MEETING = "019aab00-0000-7000-8000-0000000000aa"


class Row(NamedTuple):
    id: str
    user_id: str | None
    by_room: bool


class Table:
    """What Postgres knows; away when told so, slow until `gate` opens."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {MEETING: Row(MEETING, "me", False), "room": Row(MEETING, "me", True)}
        self.away = False
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def meeting(self, name: str) -> Row | None:
        self.asked.append(name)
        await self.gate.wait()
        if self.away:
            raise DependencyDown("postgres", "away")
        return self.rows.get(name)


class House:
    def __init__(self) -> None:
        self.table, self.now_s = Table(), 0.0
        self.meetings = MeetingAttribution(self.table, monotonic=lambda: self.now_s)

    async def of(self, *named: str, user: str = "me") -> str | int:
        """Our id, or the status of the refusal."""
        try:
            return await self.meetings.of(list(named), user)
        except ApiError as error:
            if error.code != {400: "invalid_meeting", 503: "ownership_unavailable"}.get(error.status):
                raise
            return error.status


@pytest.mark.parametrize(("name", "ttl_s"), [(MEETING, ID_TTL_S), ("room", ROOM_TTL_S)])
async def test_mine_and_another_s(name: str, ttl_s: float) -> None:
    house = House()
    assert (await house.of(name), await house.of(name, user="other")) == (MEETING, 400)
    house.now_s = ttl_s - 0.1
    assert await house.of(name) == MEETING
    assert len(house.table.asked) == 1
    house.now_s = ttl_s
    assert await house.of(name) == MEETING
    assert len(house.table.asked) == 2


async def test_the_next_meeting_of_a_room() -> None:
    house = House()
    await house.of("room")
    house.table.rows["room"] = Row("next", "me", True)
    house.now_s = ROOM_TTL_S
    assert await house.of("room") == "next"
    del house.table.rows["room"]
    house.now_s += ROOM_TTL_S
    assert await house.of("room") == 400


async def test_what_is_unknown_or_nobody_s_is_soon_asked_for_again() -> None:
    house = House()
    house.table.rows["orphan"] = Row("orphan", None, True)
    assert (await house.of("new"), await house.of("new"), await house.of("orphan")) == (400, 400, 400)
    assert house.table.asked == ["new", "orphan"]
    house.table.rows |= {"new": Row("1", "me", True), "orphan": Row("2", "me", True)}
    house.now_s = UNKNOWN_TTL_S
    assert (await house.of("new"), await house.of("orphan")) == ("1", "2")


async def test_postgres_away() -> None:
    house = House()
    await house.of(MEETING)
    await house.of("room")
    await house.of("unknown")
    house.table.away, house.now_s = True, STALE_S - 0.1
    assert (await house.of(MEETING), await house.of("room")) == (MEETING, MEETING)
    assert (await house.of("other room"), await house.of("unknown")) == (503, 503)
    assert await house.of("room", user="other") == 400
    house.now_s = 10 * STALE_S
    assert (await house.of(MEETING), await house.of("room")) == (MEETING, 503)


async def test_many_calls_ask_once() -> None:
    house = House()
    house.table.gate.clear()
    callers = [asyncio.create_task(house.of("room")) for _ in range(100)]
    await asyncio.sleep(0)
    for caller in callers[:10]:
        caller.cancel()
    house.table.gate.set()
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert told[10:] == [MEETING] * 90
    assert house.table.asked == ["room"]


@pytest.mark.parametrize("odd", [("",), ("é" * 36,), ("a\nb",), ("x" * 201,), (MEETING, MEETING)])
async def test_no_name_is_not_asked_about(odd: tuple[str, ...]) -> None:
    house = House()
    assert await house.of(*odd) == 400
    assert house.table.asked == []
