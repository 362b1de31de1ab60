"""Bodies in the form of Daily.co's own examples, with invented values: same members, types
and formatting. They become rows, or are kept and say nothing."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.meetings.backfill import event_of
from gateway.meetings.daily_api import DailyMeetings
from gateway.meetings.daily_events import envelope_of, facts_of, occurred_at
from gateway.meetings.signature import is_genuine, sign
from gateway.stores.postgres import Pool
from gateway.stores.webhook_inbox import WebhookEvent
from tests.meetings.daily_lives import told
from tests.meetings.daily_server import KEY, DailyServer, daily_server

PING = '{"test":"test"}'
LIST = """{"total_count":2,"data":[
 {"id":"0f9a1a50-0000-4000-8000-0000000000a1","room":"my-room","start_time":1794283912,"duration":187,"ongoing":false,
  "max_participants":2,"participants":[
  {"user_id":null,"participant_id":"0f9a1a50-0000-4000-8000-0000000000b1","user_name":"A","join_time":1794283925,
   "duration":174},
  {"user_id":null,"participant_id":"0f9a1a50-0000-4000-8000-0000000000b2","user_name":null,"join_time":1794283912,
   "duration":179}]},
 {"id":"0f9a1a50-0000-4000-8000-0000000000a2","room":"room-3","start_time":1794281714,"duration":1650,"ongoing":true,
  "max_participants":3,"participants":[
  {"user_id":null,"user_name":null,"participant_id":"0f9a1a50-0000-4000-8000-0000000000b3","join_time":1794281690,
   "duration":1626},
  {"user_id":null,"user_name":null,"participant_id":"0f9a1a50-0000-4000-8000-0000000000b4","join_time":1794281714,
   "duration":1650}]}]}"""
PEOPLE = """{"data":[
 {"user_id":"SU5WRU5URUQ=","participant_id":"0f9a1a50-0000-4000-8000-0000000000b5","user_name":"L",
  "join_time":1794281813,"duration":150},
 {"user_id":"VkFMVUVTLi4=","participant_id":"0f9a1a50-0000-4000-8000-0000000000b3","user_name":"M",
  "join_time":1794281690,"duration":1626}]}"""
JOINED = """{"version":"1.0.0","type":"participant.joined",
 "id":"ptcpt-join-0f9a1a50-0000-4000-8000-0000000000b3-1794281690961","payload":{"room":"room-3","user_id":"user-1",
 "user_name":"Ann","session_id":"0f9a1a50-0000-4000-8000-0000000000b3","joined_at":1794281690.96,
 "will_eject_at":1794299999.541,"owner":true,"permissions":{"hasPresence":true,"canSend":true,
 "canReceive":{"base":true},"canAdmin":false}},"event_ts":1794281690.961}"""
RECORDING = """{"version":"1.0.0","type":"recording.ready-to-download",
 "id":"rec-rtd-0f9a1a50-0000-4000-8000-0000000000c1-1794284192","payload":{
 "recording_id":"0f9a1a50-0000-4000-8000-0000000000d1","room_name":"my-room","start_ts":1794283983,"status":"finished",
 "max_participants":1,"duration":9,"share_token":"x","s3_key":"domain/my-room/1794283983028"},"event_ts":1794284192}"""
TRANSCRIPT = """{"version":"1.1.0","type":"transcript.ready-to-download",
 "id":"3431-tra-rtd-0f9a1a50-0000-4000-8000-0000000000c2","payload":{"id":"0f9a1a50-0000-4000-8000-0000000000d2",
 "out_params":{"s3":{"key":"domain/room/1794284355482.vtt","bucket":"b","region":"us-west-2"}},
 "room_id":"0f9a1a50-0000-4000-8000-0000000000e1","room_name":"my-room",
 "mtg_session_id":"0f9a1a50-0000-4000-8000-0000000000a1","duration":124.405,"participant_minutes":4,
 "status":"t_finished","domain_id":"0f9a1a50-0000-4000-8000-0000000000e2"},"event_ts":1794284480.1}"""
JOB = """{"version":"1.1.0","type":"batch-processor.job-finished","id":"0f9a1a50-0000-4000-8000-0000000000c3",
 "payload":{"id":"0f9a1a50-0000-4000-8000-0000000000c3","status":"finished","input":{"sourceType":"recordingId",
 "recordingId":"0f9a1a50-0000-4000-8000-0000000000d1"},"output":{"transcription":[{"format":"json","s3Config":{
 "key":"k","bucket":"b","region":"us-west-2"}}]}},"event_ts":1794288213.803}"""
WEBHOOKS = """[{"uuid":"0f9a1a50-0000-4000-8000-0000000000f1","url":"https://gateway.example.com/webhooks/daily",
 "hmac":"aW52ZW50ZWQgc2VjcmV0IQ==","basicAuth":null,"eventTypes":["recording.started","recording.ready-to-download"],
 "state":"ACTIVE","failedCount":0,"lastMomentPushed":"2026-11-15T18:29:52.000Z",
 "domainId":"0f9a1a50-0000-4000-8000-0000000000e2","createdAt":"2026-11-15T18:28:30.000Z",
 "updatedAt":"2026-11-15T18:29:52.000Z"}]"""


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DailyServer]:
    monkeypatch.setattr("gateway.meetings.daily_api.PACE_S", 0.0)
    async with daily_server() as running:
        running.meetings = json.loads(LIST)["data"]
        running.people = json.loads(PEOPLE)["data"]  # past its end there is a 404
        running.webhooks = json.loads(WEBHOOKS)
        yield running


def by_webhook(body: str) -> WebhookEvent:
    envelope = envelope_of(body.encode())
    return WebhookEvent(envelope.id, envelope.type, occurred_at(envelope), body.encode())


async def _never(_: float) -> None:
    """No pause."""


async def test_all_of_them_together(server: DailyServer, pool: Pool) -> None:
    async with aiohttp.ClientSession() as session:
        daily = DailyMeetings(session, server.base_url, KEY, sleep=_never, uniform=lambda least, _: least)
        page = await daily.page(0, 4_000_000_000)
        (webhook,) = await daily.webhooks()
    assert (page.total, page.problem, [one["whole"] for one in page.meetings]) == (2, None, [True, True])
    assert (webhook.failed_count, webhook.retry_type, webhook.state) == (0, None, "ACTIVE")
    assert webhook.last_moment_pushed == "2026-11-15T18:29:52.000Z"
    events = [by_webhook(body) for body in (JOINED, RECORDING, TRANSCRIPT, JOB)]
    assert [event.type for event in events][3] == "batch-processor.job-finished"
    assert events[3].id == "0f9a1a50-0000-4000-8000-0000000000c3"
    for order in (events, events[::-1]):
        await pool.execute("delete from participants; delete from meetings; delete from webhook_inbox")
        await told(pool, [*order, *(event_of(meeting) for meeting in page.meetings)])
        assert await pool.fetchval("select count(*) from webhook_inbox where processed_at is null") == 0
        first, second = await pool.fetch("select * from meetings order by started_at desc")
        assert (first["duration_seconds"], first["status"], second["status"]) == (187, "ended", "in_progress")
        assert first["recording_url"] == "daily-recording:0f9a1a50-0000-4000-8000-0000000000d1"
        assert first["transcript_url"] == "daily-transcript:0f9a1a50-0000-4000-8000-0000000000d2"
        people = await pool.fetch("select * from participants where meeting_id = $1 order by 3", second["id"])
        assert [(one["daily_participant_id"][-2:], one["name"], one["role"]) for one in people] == [
            ("b3", "Ann", "host"), ("b4", None, "guest"), ("b5", "L", "guest"),
        ]  # fmt: skip
        assert people[0]["joined_at"] == second["started_at"]  # they came 24 s before it began
        assert json.loads(people[0]["metadata"])["daily"]["user_id"] == "user-1"


def test_the_question_whether_anybody_listens_says_nothing() -> None:
    secret, at, body = b"sixteen bytes or more", "1794281690", PING.encode()
    assert is_genuine(secret, at, sign(secret, at, body).decode(), body, int(at))
    assert envelope_of(PING.encode()).type == "unknown"


@pytest.mark.parametrize("body", [JOINED, RECORDING, TRANSCRIPT, JOB])
def test_each_is_read_without_a_problem(body: str) -> None:
    said: dict[str, Any] = json.loads(body)
    envelope = envelope_of(body.encode())
    assert (envelope.id, envelope.type) == (said["id"], said["type"])
    assert len(facts_of(envelope)) == (0 if body == JOB else 1)
