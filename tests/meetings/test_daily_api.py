"""Daily.co's REST API as a client: pages, being asked to wait, being refused, and links that expire."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp
import pytest

from gateway.kit.errors import DependencyDown, DependencyRefused
from gateway.meetings.backfill import event_of
from gateway.meetings.daily_api import PACE_S, PAGE, TRIES, DailyMeetings
from gateway.sandbox.daily.hooks import ODD_HOOKS
from tests.meetings.daily_server import KEY, DailyServer, daily_server, meeting

ALL = (0, 4_000_000_000)


class DailyApi(NamedTuple):
    server: DailyServer
    client: DailyMeetings
    waits: list[float]


@pytest.fixture
async def api() -> AsyncIterator[DailyApi]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with daily_server() as server, aiohttp.ClientSession() as session:
        yield DailyApi(
            server, DailyMeetings(session, server.base_url, KEY, sleep=sleep, uniform=lambda _, most: most), waits
        )


async def test_pages(api: DailyApi) -> None:
    api.server.meetings = [meeting(number) for number in range(2 * PAGE + 5, 0, -1)]
    first = await api.client.page(*ALL)
    second = await api.client.page(*ALL, after=first.cursor)
    third = await api.client.page(*ALL, after=second.cursor)
    assert [len(page.meetings) for page in (first, second, third)] == [PAGE, PAGE, 5]
    assert (first.total, third.cursor) == (2 * PAGE + 5, None)
    seen = [one["id"] for page in (first, second, third) for one in page.meetings]
    assert len(set(seen)) == 2 * PAGE + 5
    assert api.waits == [PACE_S] * 3
    assert (await api.client.page(*ALL, room="other")).meetings == []


async def test_people_that_were_left_out_are_asked_for(api: DailyApi) -> None:
    bare = meeting(1)
    del bare["participants"]
    api.server.meetings = [bare]
    page = await api.client.page(*ALL)
    assert [person["participant_id"] for person in page.meetings[0]["participants"]] == ["late"]


async def test_asked_too_often_or_nobody_there(api: DailyApi) -> None:
    api.server.troubles = [(429, "7"), (429, None), (503, "nan"), (500, "9999")]
    assert (await api.client.webhooks()) == []
    assert api.waits == [7.0, 3.0, 6.0, 60.0]
    api.server.troubles = [(503, None)] * TRIES
    with pytest.raises(DependencyDown, match=r"daily: HTTP 503 trouble as told"):
        await api.client.webhooks()
    assert len(api.server.asked) == 5 + TRIES


async def test_a_registration_is_not_sent_again_unless_it_was_not_taken(api: DailyApi) -> None:
    api.server.troubles = [(429, "1"), (500, None)]
    with pytest.raises(DependencyDown, match="HTTP 500"):
        await api.client.create_webhook({"url": "http://127.0.0.1:1/webhooks/daily"})
    assert len(api.server.asked) == 2


async def test_refused(api: DailyApi) -> None:
    async with aiohttp.ClientSession() as session:
        client = DailyMeetings(
            session, api.server.base_url, "wrong-CANARY", sleep=lambda _: _never(), uniform=lambda a, _: a
        )
        with pytest.raises(DependencyRefused, match="HTTP 401 authentication-error bad key") as caught:
            await client.webhooks()
    assert "CANARY" not in str(caught.value)
    assert len(api.server.asked) == 1


async def _never() -> None:
    raise AssertionError("nothing to wait for")


async def test_links(api: DailyApi) -> None:
    assert await api.client.link("daily-recording:r-1") == ("https://example.com/r-1", 1795500000)
    assert await api.client.link("daily-transcript:t_1") == ("https://example.com/t_1.vtt", None)
    for wrong in (
        "https://example.com/x",
        "daily-recording:",
        "daily-recording:../../webhooks",
        "daily-recording:a/b",
        "",
    ):
        with pytest.raises(ValueError, match="not a reference"):
            await api.client.link(wrong)


async def test_a_large_meeting_is_walked_over_whole(api: DailyApi) -> None:
    """More people than a page holds, a list that was cut short, and either order of the pages."""
    people = [{"participant_id": f"p{number}", "join_time": 1000 + number, "duration": 5} for number in range(250)]
    api.server.meetings = [meeting(1) | {"participants": people[:100], "max_participants": 240}]
    for api.server.people in (people, people[::-1]):
        (found,) = (await api.client.page(*ALL)).meetings
        assert {one["participant_id"] for one in found["participants"]} == {f"p{number}" for number in range(250)}
        assert len(found["participants"]) == 250


async def test_half_an_emoji_in_a_name_hides_no_meeting(api: DailyApi) -> None:
    half = meeting(1)
    half["participants"][0]["user_name"] = "Ann \ud83d"
    api.server.meetings = [half, meeting(0)]
    page = await api.client.page(*ALL)
    assert len(page.meetings) == 2
    assert page.meetings[0]["participants"][0]["user_name"] == "Ann \ufffd"
    assert b"Ann \xef\xbf\xbd" in event_of(page.meetings[0]).body


async def test_nothing_but_a_404_lies_past_the_end_of_a_list_of_people(api: DailyApi) -> None:
    """Of a meeting whose list is shorter than `max_participants` says, and of one whose list is missing."""
    short, bare = meeting(2) | {"max_participants": 5}, meeting(1)
    del bare["participants"]
    api.server.meetings = [short, bare, meeting(0)]
    page = await api.client.page(*ALL)
    named = [sorted(one["participant_id"] for one in each["participants"]) for each in page.meetings]
    assert named == [["late", "p2-a", "p2-b"], ["late"], ["p0-a", "p0-b"]]
    assert (page.problem, [one["whole"] for one in page.meetings]) == (None, [True] * 3)


async def test_a_meeting_without_a_list_of_people_keeps_those_that_are_known(api: DailyApi) -> None:
    api.server.people = []  # a 404 at once
    api.server.meetings = [meeting(1) | {"max_participants": 5}]
    page = await api.client.page(*ALL)
    assert [one["participant_id"] for one in page.meetings[0]["participants"]] == ["p1-a", "p1-b"]
    assert (page.problem, len(api.server.asked)) == (None, 3)


@pytest.mark.parametrize(("status", "tries"), [(400, 2), (403, 2), (500, TRIES)])
async def test_people_that_cannot_be_had_lose_no_meeting(api: DailyApi, status: int, tries: int) -> None:
    """One that is refused says nothing about the next; one that fails is not tried again for every other meeting."""
    api.server.meetings = [meeting(number) | {"max_participants": 5} for number in (3, 2)] + [meeting(1)]
    api.server.broken_people = status
    page = await api.client.page(*ALL)
    assert [one["id"] for one in page.meetings] == ["meeting-3", "meeting-2", "meeting-1"]
    assert [len(one["participants"]) for one in page.meetings] == [2, 2, 2]
    assert [one["whole"] for one in page.meetings] == [False, False, True]
    assert f"HTTP {status}" in str(page.problem)
    assert sum("participants" in asked for asked in api.server.asked) == tries


async def test_a_list_of_webhooks_that_are_not_all_ours(api: DailyApi) -> None:
    ours = {
        "uuid": "u1", "url": "https://gateway.example.com/webhooks/daily", "hmac": "aGVsbG8=", "basicAuth": None,
        "eventTypes": ["recording.started"], "state": "ACTIVE", "failedCount": 0,
        "lastMomentPushed": "2026-11-15T18:29:52.000Z", "domainId": "d1", "createdAt": "2026-11-15T18:28:30.000Z",
        "updatedAt": "2026-11-15T18:29:52.000Z",
    }  # fmt: skip
    api.server.webhooks = [*ODD_HOOKS, ours]
    found = {one.uuid: one for one in await api.client.webhooks()}
    assert sorted(found) == ["odd-count", "odd-types", "odd-url", "u1"]
    assert (found["odd-types"].event_types, found["odd-types"].state) == ((), "1")
    assert (found["odd-count"].state, found["odd-count"].failed_count, found["odd-count"].url) == ("ACTIVE", 1, "")
    assert (found["odd-url"].retry_type, found["odd-url"].last_moment_pushed) == ("7", "1692124192")
    assert (found["u1"].retry_type, found["u1"].last_moment_pushed) == (None, ours["lastMomentPushed"])
    assert "aGVsbG8=" not in repr(found)
