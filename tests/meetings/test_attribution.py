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


class AttributionFakes:
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
    fakes = AttributionFakes()
    assert (await fakes.of(name), await fakes.of(name, user="other")) == (MEETING, 400)
    fakes.now_s = ttl_s - 0.1
    assert await fakes.of(name) == MEETING
    assert len(fakes.table.asked) == 1
    fakes.now_s = ttl_s
    assert await fakes.of(name) == MEETING
    assert len(fakes.table.asked) == 2


async def test_the_next_meeting_of_a_room() -> None:
    fakes = AttributionFakes()
    await fakes.of("room")
    fakes.table.rows["room"] = Row("next", "me", True)
    fakes.now_s = ROOM_TTL_S
    assert await fakes.of("room") == "next"
    del fakes.table.rows["room"]
    fakes.now_s += ROOM_TTL_S
    assert await fakes.of("room") == 400


async def test_what_is_unknown_or_nobody_s_is_soon_asked_for_again() -> None:
    fakes = AttributionFakes()
    fakes.table.rows["orphan"] = Row("orphan", None, True)
    assert (await fakes.of("new"), await fakes.of("new"), await fakes.of("orphan")) == (400, 400, 400)
    assert fakes.table.asked == ["new", "orphan"]
    fakes.table.rows |= {"new": Row("1", "me", True), "orphan": Row("2", "me", True)}
    fakes.now_s = UNKNOWN_TTL_S
    assert (await fakes.of("new"), await fakes.of("orphan")) == ("1", "2")


async def test_postgres_away() -> None:
    fakes = AttributionFakes()
    await fakes.of(MEETING)
    await fakes.of("room")
    await fakes.of("unknown")
    fakes.table.away, fakes.now_s = True, STALE_S - 0.1
    assert (await fakes.of(MEETING), await fakes.of("room")) == (MEETING, MEETING)
    assert (await fakes.of("other room"), await fakes.of("unknown")) == (503, 503)
    assert await fakes.of("room", user="other") == 400
    fakes.now_s = 10 * STALE_S
    assert (await fakes.of(MEETING), await fakes.of("room")) == (MEETING, 503)


async def test_many_calls_ask_once() -> None:
    fakes = AttributionFakes()
    fakes.table.gate.clear()
    callers = [asyncio.create_task(fakes.of("room")) for _ in range(100)]
    await asyncio.sleep(0)
    for caller in callers[:10]:
        caller.cancel()
    fakes.table.gate.set()
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert told[10:] == [MEETING] * 90
    assert fakes.table.asked == ["room"]


@pytest.mark.parametrize("odd", [("",), ("é" * 36,), ("a\nb",), ("x" * 201,), (MEETING, MEETING)])
async def test_no_name_is_not_asked_about(odd: tuple[str, ...]) -> None:
    fakes = AttributionFakes()
    assert await fakes.of(*odd) == 400
    assert fakes.table.asked == []
