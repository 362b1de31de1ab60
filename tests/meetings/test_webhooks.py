"""`/webhooks/daily` on a running gateway: what is genuine is stored and acknowledged, everything else refused."""

import asyncio
import io
import json
import os
import signal
import time
from typing import Any

import aiohttp
import asyncpg
import pytest

from gateway.config.secrets import secret_of
from gateway.meetings.signature import sign
from gateway.stores.webhook_inbox import ATTEMPTS_MAX
from tests.meetings.daily_lives import ended, joined, left, started
from tests.support.gateway import Stack
from tests.support.whole_gateway import DAILY_SECRET

DONE_S = 180.0
"""Only ever waited for in full when something is broken."""


def signed(body: bytes, *, secret: str = DAILY_SECRET, at_s: float | None = None, unit: int = 1) -> dict[str, str]:
    at = str(int((time.time() if at_s is None else at_s) * unit))
    return {"X-Webhook-Timestamp": at, "X-Webhook-Signature": sign(secret_of(secret), at, body).decode()}


async def post(
    running: Stack, body: bytes | io.BytesIO, headers: dict[str, str] | list[tuple[str, str]]
) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{running.port}/webhooks/daily"
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, await response.json()


async def rows(running: Stack, query: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(running.env["DATABASE_URL"])
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


async def until_done(running: Stack, prefix: str, count: int) -> None:
    """Until so many events whose ids have this in them are processed."""
    query = "select count(*) from webhook_inbox where event_id like '%' || $1 || '%' and processed_at is not null"
    deadline_s = time.monotonic() + DONE_S
    while (await rows(running, query, prefix))[0][0] != count:
        assert time.monotonic() < deadline_s, await rows(
            running, "select event_id, last_error from webhook_inbox where processed_at is null"
        )
        await asyncio.sleep(0.05)


async def until_tried(running: Stack, event_id: str) -> tuple[int, str]:
    """Attempts and error of this event, once there was one."""
    query = "select attempts, last_error from webhook_inbox where event_id = $1 and attempts > 0"
    deadline_s = time.monotonic() + DONE_S
    while not (found := await rows(running, query, event_id)):
        assert time.monotonic() < deadline_s, event_id
        await asyncio.sleep(0.05)
    return found[0]["attempts"], found[0]["last_error"]


async def test_a_meeting_comes_in(running: Stack) -> None:
    events = [
        joined("hall-w1", "hall", 0),
        started("hall-wm", "hall", 0),
        left("hall-w1", "hall", 0, 5),
        ended("hall-wm", "hall", 0, 6),
    ]
    for number, event in enumerate(events):
        headers = signed(event.body, unit=1000 if number % 2 else 1)
        assert await post(running, event.body, headers) == (200, {})
        assert await post(running, event.body, headers) == (200, {})  # a replay has one effect
    await until_done(running, "hall-w", 4)
    (meeting,) = await rows(running, "select * from meetings where daily_meeting_id = 'hall-wm'")
    assert (meeting["status"], meeting["duration_seconds"]) == ("ended", 360)
    (person,) = await rows(running, "select * from participants where daily_participant_id = 'hall-w1'")
    assert (person["meeting_id"], person["duration_seconds"]) == (meeting["id"], 300)
    log = running.serve.output()
    assert '"type": "participant.joined"' in log or "participant.joined" in log
    assert "user_name" not in log


async def test_the_question_whether_anybody_listens(running: Stack) -> None:
    assert await post(running, b'{"test":"test"}', {}) == (200, {})
    assert await rows(running, "select * from webhook_inbox where body = $1", b'{"test":"test"}') == []


async def test_what_is_not_daily_s_is_refused_and_not_stored(running: Stack) -> None:
    body = started("forged", "hall", 0).body
    good = signed(body)
    for headers in (
        {},
        {"X-Webhook-Signature": good["X-Webhook-Signature"]},
        {"X-Webhook-Timestamp": good["X-Webhook-Timestamp"]},
        good | {"X-Webhook-Signature": "AAAA"},
        good | {"X-Webhook-Timestamp": "1"},
        signed(body, secret="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        signed(body, at_s=time.time() - 5000),
        signed(body, at_s=time.time() + 5000),
        signed(body + b" "),
        [*good.items(), ("X-Webhook-Signature", "second")],
    ):
        status, answer = await post(running, body, headers)
        assert (status, answer["error"]["code"]) == (401, "invalid_signature")
    changed = body.replace(b"forged", b"f0rged")
    assert (await post(running, changed, good))[0] == 401
    # The same document, written otherwise: that is how Daily's own example signs it.
    assert (
        await post(
            running,
            json.dumps(json.loads(body), indent=1).encode(),
            signed(json.dumps(json.loads(body), separators=(",", ":")).encode()),
        )
    )[0] == 200
    assert len(await rows(running, "select * from webhook_inbox where event_id = 'met-sta-forged'")) == 1


@pytest.mark.parametrize(
    "fields",
    [
        "",
        "X-Webhook-Timestamp: NOW",
        "X-Webhook-Timestamp: NOW\r\nX-Webhook-Signature: c2hvcnQ=",
        "X-Webhook-Timestamp: NOW\r\nX-Webhook-Signature: " + "?" * 44,
        "X-Webhook-Timestamp: 1600000000\r\nX-Webhook-Signature: " + "A" * 43 + "=",
        "X-Webhook-Timestamp: soon\r\nX-Webhook-Signature: " + "A" * 43 + "=",
    ],
)
async def test_what_headers_show_is_refused_before_the_body_comes(running: Stack, fields: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    lines = ["POST /webhooks/daily HTTP/1.1", "Host: x", "Content-Length: 500000"]
    lines += [fields.replace("NOW", str(int(time.time())))] if fields else []
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert (await reader.readline()).split()[1] == b"401"
    writer.close()


async def test_other_methods_paths_and_bodies(running: Stack) -> None:
    base = f"http://127.0.0.1:{running.port}"
    async with aiohttp.ClientSession() as session:
        for method, path, status in (
            ("GET", "/webhooks/daily", 405),
            ("POST", "/webhooks/", 404),
            ("POST", "/webhooks/daily/x", 404),
            ("POST", "/webhooks", 404),
        ):
            async with session.request(method, base + path) as response:
                assert (response.status, (await response.json())["error"]["type"]) == (status, "invalid_request_error")
    huge = b"[" + b" " * (1024 * 1024 + 10) + b"]"
    assert (await post(running, io.BytesIO(huge), signed(huge)))[0] == 413
    strange = b'{"type":"no.such","id":"strange-1","payload":7}'
    assert await post(running, strange, signed(strange)) == (200, {})
    await until_done(running, "strange-1", 1)


async def test_what_cannot_be_applied_is_kept_and_holds_up_nobody(running: Stack) -> None:
    bad = b'{"type":"meeting.started","id":"bad-1","payload":{"room":"hall"}}'
    assert await post(running, bad, signed(bad)) == (200, {})
    good = started("good-1", "cellar", 0)
    assert await post(running, good.body, signed(good.body)) == (200, {})
    await until_done(running, "good-1", 1)
    assert await until_tried(running, "bad-1") == (ATTEMPTS_MAX, "meeting_id must be text of 1 to 500 characters")


@pytest.mark.parametrize("body", [b"[]", b"\xff\x00", b'{"type":7}', b"[" * 3000, b'{"type":"meeting.started",'])
async def test_what_is_signed_and_no_event_is_kept_for_a_person(running: Stack, body: bytes) -> None:
    assert await post(running, body, signed(body)) == (200, {})
    ((event_id, kind, kept),) = await rows(
        running, "select event_id, event_type, body from webhook_inbox where body = $1", body
    )
    assert (event_id[:7], kept) == ("sha256-", body)
    assert kind == ("unknown" if b"7" in body else "unreadable")
    attempts, error = await until_tried(running, event_id)
    assert attempts == ATTEMPTS_MAX  # it is not taken up again by itself: the bytes stay what they are
    assert "not a JSON object with a type" in error or "type must be text" in error


async def test_half_an_emoji_in_a_name(running: Stack) -> None:
    meeting = started("half-1", "attic", 0)
    assert await post(running, meeting.body, signed(meeting.body)) == (200, {})
    at = json.loads(meeting.body)["payload"]["start_ts"]
    body = (
        b'{"type":"participant.joined","id":"half-2","payload":{"room":"attic","session_id":"half-s","joined_at":%d,'
        b'"user_name":"Ann \\ud83d","user_id":"x\\u0000"}}' % (at + 1)
    )
    assert await post(running, body, signed(body)) == (200, {})
    await until_done(running, "half-2", 1)
    ((name,),) = await rows(running, "select name from participants where daily_participant_id = 'half-s'")
    assert name == "Ann \ufffd"
    ((kept,),) = await rows(running, "select body from webhook_inbox where event_id = 'half-2'")
    assert kept == body


@pytest.mark.long
async def test_a_thousand_at_once(running: Stack) -> None:
    events = []
    for number in range(250):
        room, meeting = f"burst-{number % 20}", f"burst-m{number}"
        begin = (number // 20) * 10.0
        person = f"burst-s{number}"
        events += [
            started(meeting, room, begin),
            joined(person, room, begin + 0.1),
            left(person, room, begin + 0.1, 5),
            ended(meeting, room, begin, begin + 9),
        ]
    events.sort(key=lambda event: event.id[-3:])
    url = f"http://127.0.0.1:{running.port}/webhooks/daily"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50)) as session:

        async def send(body: bytes) -> int:
            async with session.post(url, data=body, headers=signed(body)) as response:
                return response.status

        assert set(await asyncio.gather(*(send(event.body) for event in events))) == {200}
    for _ in range(2):  # in the middle of it, whatever it is doing: another one goes on
        os.kill(running.pid_of("worker"), signal.SIGKILL)
        await asyncio.sleep(1)
    assert (await rows(running, "select count(*) from webhook_inbox where event_id like '%burst%'"))[0][0] == 1000
    await until_done(running, "burst", 1000)
    query = (
        "select count(*), count(distinct room_name), sum(duration_seconds) from meetings where room_name like 'burst-%'"
    )
    assert tuple((await rows(running, query))[0].values()) == (250, 20, 250 * 540)
    query = """select count(*) from participants p join meetings m on m.id = p.meeting_id
      where replace(p.daily_participant_id, '-s', '-m') = m.daily_meeting_id and p.duration_seconds = 300
        and m.room_name like 'burst-%'"""
    assert (await rows(running, query))[0][0] == 250
