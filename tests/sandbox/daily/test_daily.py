"""The Daily.co stand-in does as Daily.co's docs say: REST, webhooks and their failures."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.config.secrets import secret_of
from gateway.meetings.daily_events import facts_of, read_envelope
from gateway.meetings.signature import is_genuine
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from tests.support.servers import free_port
from tests.support.stand_ins import Clock, sandbox_at

NOW = 1_795_000_000.0
SECRET = credentials.DAILY_WEBHOOK_SECRET
LONG_S = 600.0
"""Longer than any test: a delivery that only came late is tried again, and counts twice."""
TYPES = ["meeting.started", "meeting.ended", "participant.joined", "participant.left", "recording.error"]


class Receiver:
    """Where webhooks arrive: answers as told, keeps what came."""

    def __init__(self) -> None:
        self.port = free_port()
        self.statuses: list[int] = []
        """Of the next answers; then 200."""
        self.wait_s = 0.0
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks/daily"

    async def handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read()
        self.got.append((dict(request.headers), body))
        await asyncio.sleep(self.wait_s)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got if body != b'{"test":"test"}']


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    runner = web.ServerRunner(web.Server(made.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.port).start()
    yield made
    await runner.cleanup()


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW)) as running:
        running.daily.hooks.speed = 1e6
        running.daily.hooks.answer_s = LONG_S
        yield running


async def ask(sandbox: Sandbox, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {credentials.DAILY_API_KEY if key is None else key}"} if key != "" else {}
    url = sandbox.origin + "/daily" + path
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body, headers=headers) as response:
        return response.status, await response.json()


async def register(sandbox: Sandbox, receiver: Receiver, retry: str = "exponential", **more: Any) -> Any:
    body = {"url": receiver.url, "eventTypes": TYPES, "hmac": SECRET, "retryType": retry, **more}
    status, hook = await ask(sandbox, "POST", "/v1/webhooks", body)
    assert status == 200, hook
    return hook


async def act(sandbox: Sandbox, what: str, **said: Any) -> Any:
    status, answer = await ask(sandbox, "POST", f"/_control/{what}", said)
    assert status == 200, answer
    return answer


async def deliveries(sandbox: Sandbox) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = (await ask(sandbox, "GET", "/_control/deliveries"))[1]["deliveries"]
    return told


async def test_a_life_is_told_and_signed(sandbox: Sandbox, receiver: Receiver) -> None:
    await register(sandbox, receiver)
    for faults in ({}, {"milliseconds": True}, {"rewritten": True}, {"sparse": True}):
        receiver.got.clear()
        await act(sandbox, "faults", **faults)
        meeting = (await act(sandbox, "start", room="hall", at=NOW))["meeting_id"]
        person = (await act(sandbox, "join", meeting_id=meeting, name="Ann", owner=True, at=NOW + 1.5))["session_id"]
        await act(sandbox, "leave", meeting_id=meeting, session_id=person, at=NOW + 61.5)
        await act(sandbox, "end", meeting_id=meeting, at=NOW + 70)
        await act(sandbox, "record", meeting_id=meeting, fails=True)
        await deliveries(sandbox)
        assert len(receiver.got) == 5
        for headers, body in receiver.got:
            at, signature = headers["X-Webhook-Timestamp"], headers["X-Webhook-Signature"]
            assert is_genuine(secret_of(SECRET), at, signature, body, NOW)
            assert len(at) == (13 if "milliseconds" in faults else 10)
            facts_of(read_envelope(body))
        joined = next(event for event in receiver.events() if event["type"] == "participant.joined")
        assert ("permissions" in joined["payload"]) == ("sparse" not in faults)


async def test_registration_asks_whether_anybody_listens(sandbox: Sandbox, receiver: Receiver) -> None:
    body = {"url": receiver.url, "eventTypes": TYPES}
    for receiver.statuses, receiver.wait_s in (([500], 0.0), ([204], 0.0), ([200], LONG_S)):
        sandbox.daily.hooks.answer_s = 0.3 if receiver.wait_s else LONG_S
        status, answer = await ask(sandbox, "POST", "/v1/webhooks", body)
        assert (status, answer["info"]) == (400, "non-200 status code returned from webhook endpoint")
    receiver.statuses, receiver.wait_s, sandbox.daily.hooks.answer_s = [], 0.0, LONG_S
    hook = await register(sandbox, receiver)
    assert receiver.got[-1][1] == b'{"test":"test"}'
    assert (hook["state"], hook["failedCount"]) == ("ACTIVE", 0)
    made = (await ask(sandbox, "POST", "/v1/webhooks", body))[1]
    assert len(made["hmac"]) == 44  # its own, where none was given
    assert made["retryType"] == "circuit-breaker"
    assert (await ask(sandbox, "POST", "/v1/webhooks", {"url": "https://example.com/x"}))[0] == 400
    assert len((await ask(sandbox, "GET", "/v1/webhooks"))[1]) == 2
    assert (await ask(sandbox, "DELETE", f"/v1/webhooks/{made['uuid']}"))[0] == 200
    assert (await ask(sandbox, "GET", f"/v1/webhooks/{made['uuid']}"))[0] == 404


async def test_the_breaker_opens_and_what_is_missed_is_lost(sandbox: Sandbox, receiver: Receiver) -> None:
    hook = await register(sandbox, receiver, "circuit-breaker")
    receiver.statuses = [500, 500, 500]
    for number in range(5):
        await act(sandbox, "start", room=f"r{number}")
        await deliveries(sandbox)
    state = (await ask(sandbox, "GET", f"/v1/webhooks/{hook['uuid']}"))[1]
    assert (state["state"], state["failedCount"]) == ("FAILED", 3)
    assert [one["statuses"] for one in await deliveries(sandbox)] == [[500]] * 3
    again = (await ask(sandbox, "POST", f"/v1/webhooks/{hook['uuid']}", {}))[1]
    assert (again["state"], again["hmac"]) == ("ACTIVE", SECRET)
    await act(sandbox, "start", room="later")
    assert (await deliveries(sandbox))[-1]["statuses"] == [200]


async def test_exponential_tries_five_times_and_goes_on(sandbox: Sandbox, receiver: Receiver) -> None:
    await register(sandbox, receiver)
    receiver.statuses = [500] * 5 + [503, 200]
    await act(sandbox, "start", room="lost")
    await deliveries(sandbox)
    await act(sandbox, "start", room="late")
    assert [one["statuses"] for one in await deliveries(sandbox)] == [[500] * 5, [503, 200]]


async def test_duplicates_drops_and_another_order(sandbox: Sandbox, receiver: Receiver) -> None:
    await register(sandbox, receiver)
    await act(sandbox, "faults", duplicate=True, drop=1, hold=True)
    await act(sandbox, "start", room="never told")
    meeting = (await act(sandbox, "start", room="r"))["meeting_id"]
    for name in ("a", "b", "c"):
        await act(sandbox, "join", meeting_id=meeting, name=name)
    assert receiver.events() == []
    assert await act(sandbox, "release", seed=3) == {"released": 8}
    await deliveries(sandbox)
    ids = [event["id"] for event in receiver.events()]
    assert (len(ids), len(set(ids))) == (8, 4)


async def test_meetings_by_page(sandbox: Sandbox) -> None:
    for number in range(7):
        people = [
            {
                "session_id": f"p{number}",
                "name": "x",
                "joined_at": NOW + number * 100 + 7,
                "left_at": NOW + number * 100 + 37,
            }
        ]
        await act(
            sandbox, "meetings", id=f"m{number}", room=f"r{number % 2}", start=NOW + number * 100 + 7,
            end=NOW + number * 100 + 67, people=people,
        )  # fmt: skip
    await act(sandbox, "start", room="r0", at=NOW + 5000, meeting_id="on")

    async def page(query: str) -> tuple[int, list[str]]:
        status, answer = await ask(sandbox, "GET", f"/v1/meetings?{query}")
        assert status == 200, answer
        return answer["total_count"], [one["id"] for one in answer["data"]]

    assert await page("") == (8, ["on", "m6", "m5", "m4", "m3", "m2", "m1", "m0"])
    assert await page("limit=2&starting_after=m5") == (8, ["m4", "m3"])
    assert await page("limit=2&ending_before=m2") == (8, ["m4", "m3"])
    assert await page(f"timeframe_start={NOW + 100:.0f}&timeframe_end={NOW + 300:.0f}") == (2, ["m2", "m1"])
    assert await page("room=r1&ongoing=false") == (3, ["m5", "m3", "m1"])
    assert await page("ongoing=true") == (1, ["on"])
    for wrong in ("limit=101", "limit=0", "limit=x", "starting_after=nobody"):
        assert (await ask(sandbox, "GET", f"/v1/meetings?{wrong}"))[0] == 400
    one = (await ask(sandbox, "GET", "/v1/meetings/m1"))[1]
    assert (one["start_time"], one["duration"], one["participants"][0]["duration"]) == (int(NOW) + 107, 60, 30)
    await act(sandbox, "faults", coarse=True)
    assert (await ask(sandbox, "GET", "/v1/meetings/m1"))[1]["start_time"] % 15 == 0
    assert (await ask(sandbox, "GET", "/v1/meetings/m1/participants"))[1]["data"][0]["participant_id"] == "p1"
    assert (await ask(sandbox, "GET", "/v1/meetings/none"))[0] == 404


async def test_people_by_page_are_named_by_their_ids(sandbox: Sandbox) -> None:
    people = [{"session_id": f"p{n}", "name": "x", "joined_at": NOW + n, "left_at": NOW + 50} for n in range(5)]
    await act(sandbox, "meetings", id="m", room="r", start=NOW, end=NOW + 60, people=people)
    path = "/v1/meetings/m/participants"

    async def page(query: str) -> list[str]:
        return [one["participant_id"] for one in (await ask(sandbox, "GET", f"{path}?{query}"))[1]["data"]]

    assert await page("limit=2") == ["p4", "p3"]
    assert await page("limit=2&joined_before=p3") == ["p2", "p1"]
    assert await page("joined_after=p2") == ["p4", "p3"]
    for past_an_end in ("joined_before=p0", "joined_after=p4"):
        assert (await ask(sandbox, "GET", f"{path}?{past_an_end}"))[0] == 404
    assert (await ask(sandbox, "GET", f"{path}?joined_before=nobody"))[0] == 400


async def test_the_last_first(sandbox: Sandbox, receiver: Receiver) -> None:
    await register(sandbox, receiver)
    await act(sandbox, "faults", hold=True)
    meeting = (await act(sandbox, "start", room="r"))["meeting_id"]
    person = (await act(sandbox, "join", meeting_id=meeting, name="a"))["session_id"]
    await act(sandbox, "leave", meeting_id=meeting, session_id=person)
    await act(sandbox, "release", reversed=True)
    told = [one["type"] for one in await deliveries(sandbox)]
    assert told == ["participant.left", "participant.joined", "meeting.started"]


async def test_recordings_and_transcripts(sandbox: Sandbox) -> None:
    meeting = (await act(sandbox, "start", room="r"))["meeting_id"]
    recording = (await act(sandbox, "record", meeting_id=meeting))["recording_id"]
    transcript = (await act(sandbox, "transcribe", meeting_id=meeting))["transcript_id"]
    assert (await ask(sandbox, "GET", "/v1/recordings?room_name=r"))[1]["data"][0]["mtgSessionId"] == meeting
    link = (await ask(sandbox, "GET", f"/v1/recordings/{recording}/access-link"))[1]
    assert (recording in link["download_link"], link["expires"]) == (True, int(NOW) + 3600)
    assert (await ask(sandbox, "GET", f"/v1/transcript?mtgSessionId={meeting}"))[1]["total_count"] == 1
    assert transcript in (await ask(sandbox, "GET", f"/v1/transcript/{transcript}/access-link"))[1]["link"]


async def test_keys_and_limits(sandbox: Sandbox) -> None:
    assert await ask(sandbox, "GET", "/v1/meetings", key="") == (
        400, {"error": "authorization-header-error", "info": "missing authorization header"},
    )  # fmt: skip
    assert (await ask(sandbox, "GET", "/v1/meetings", key="wrong"))[0] == 401
    await act(sandbox, "limits", times=1)
    assert [(await ask(sandbox, "GET", "/v1/meetings"))[0] for _ in range(2)] == [429, 200]
    for what, said in (("start", {}), ("join", {"meeting_id": "none", "name": "x"}), ("faults", {"no": 1})):
        assert (await ask(sandbox, "POST", f"/_control/{what}", said))[0] == 400
