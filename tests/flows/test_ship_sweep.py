"""From the journal to the ledger whatever is lost between them, and calls settled whose process never will."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis

import pricing
from gateway.core.errors import DependencyDown
from gateway.core.event import NoteRecord, OpenRecord, Orphan, UsageEvent, decode_event, encode
from gateway.core.frames import NOTE, OPEN, SETTLE, frame
from gateway.core.ids import unix_ms_of
from gateway.core.settle import Settler
from gateway.edges.buffer import Buffer, open_redis
from gateway.edges.journal import Journal
from gateway.edges.ledger import Entry, Ledger, Pool
from gateway.edges.segments import Segments
from gateway.edges.upstream import Upstream, new_session
from gateway.flows import ship as ship_module
from gateway.flows.ship import Ship
from gateway.flows.sweep import PATIENCE_S, Sweep
from pricing.data import read_texts
from tests.events import AT, call, new_id
from tests.servers import free_port

RANDOM = Random(7)
SETTLER = Settler(pricing.parse(read_texts()), markup=Decimal(1), bill_estimates=True, region=None)
LONG_AGO = 0


class House:
    """A journal, and what ships it, with a clock of the test's own."""

    def __init__(self, folder: Path, buffer: Buffer, ledger: Ledger, user_id: str) -> None:
        self.folder, self.buffer, self.ledger, self.user_id = folder, buffer, ledger, user_id
        self.now_s = 0.0
        self.journal = self.writer("w0")
        self.start()

    def writer(self, slot: str) -> Journal:
        return Journal(self.folder, slot, f"boot-{slot}", segment_bytes_max=8192, unix_ms=lambda: 1)

    def start(self, buffer: Buffer | None = None) -> None:
        """A new shipping process: it knows what the disk says."""
        self.segments = Segments(self.folder)
        self.ship = Ship(
            self.segments, buffer or self.buffer, self.ledger, confirm_after_s=2, monotonic=lambda: self.now_s
        )

    def event(self) -> UsageEvent:
        return call(self.user_id, new_id(RANDOM))

    async def settle(self, count: int = 1) -> list[UsageEvent]:
        events = [self.event() for _ in range(count)]
        for event in events:
            await self.journal.append(OPEN, encode(opened(event.id)))
            await self.journal.append(SETTLE, encode(event))
        return events

    async def flush(self) -> int:
        entries = await self.buffer.read("writer", 10_000, 0)
        await self.ledger.insert_batch([Entry(entry.event_id, entry.raw) for entry in entries])
        await self.buffer.ack([entry.stream_id for entry in entries])
        return len(entries)

    async def after(self, seconds: float) -> int:
        self.now_s += seconds
        return await self.ship.step_once()


@pytest.fixture
async def house(tmp_path: Path, buffer: Buffer, ledger: Ledger) -> AsyncIterator[House]:
    user_id = await ledger.create_user("owner@example.com")
    made = House(tmp_path / "journal", buffer, ledger, user_id)
    made.journal.open()
    yield made
    made.journal.close()


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.aclose()


def opened(event_id: str, **changes: Any) -> OpenRecord:
    fields = {"endpoint": "chat", "model": "gpt-5-mini", "started_at": AT, "text_bytes": 400, "user_id": "u"}
    return OpenRecord(**{"id": event_id, **fields, **changes})


async def ids(pool: Pool) -> list[str]:
    return [str(row["id"]) for row in await pool.fetch("select id from openai_usage order by id")]


# Shipping.


async def test_from_the_journal_to_the_ledger_once(house: House, pool: Pool) -> None:
    events = await house.settle(30)
    assert await house.ship.step_once() == 30
    assert await house.flush() == 30
    assert (house.ship.unconfirmed, house.ship.open_calls) == (30, 0)
    assert await house.after(1.9) == 0  # not asked yet
    assert await house.after(0.2) == 30
    assert (house.ship.unconfirmed, house.ship.open_calls) == (0, 0)
    assert await house.after(100) == 0
    assert await ids(pool) == sorted(event.id for event in events)


async def test_the_bytes_are_the_journal_s(house: House) -> None:
    (event,) = await house.settle()
    await house.ship.step_once()
    (entry,) = await house.buffer.read("writer", 10, 0)
    assert (entry.event_id, entry.raw) == (event.id, encode(event))


async def test_redis_loses_everything(house: House, pool: Pool, redis: "Redis") -> None:
    events = await house.settle(10)
    await house.ship.step_once()
    await redis.flushall()
    assert await house.after(3) == 0  # neither here nor there: taken up again
    assert await house.after(0.1) == 10
    assert await house.flush() == 10
    await redis.flushall()
    assert await house.after(60) == 10
    assert house.ship.unconfirmed == 0
    assert await ids(pool) == sorted(event.id for event in events)


async def test_what_still_waits_in_the_stream_is_not_sent_again(house: House) -> None:
    await house.settle(5)
    await house.ship.step_once()
    for _ in range(20):
        assert await house.after(40) == 0
    assert (await house.buffer.depth()).entries == 5
    await house.flush()
    assert await house.after(40) == 5


async def test_a_repeat_is_one_row(house: House, pool: Pool) -> None:
    (event,) = await house.settle()
    await house.ship.step_once()
    await house.flush()
    house.start()  # a restart knows nothing of what was sent
    await house.ship.step_once()
    assert await house.flush() == 1
    assert await house.after(3) == 1
    assert await ids(pool) == [event.id]


async def test_quarantined_events_come_to_rest(house: House, pool: Pool) -> None:
    event_id = new_id(RANDOM)
    await house.journal.append(SETTLE, b'{"id":"%b","nonsense":true}' % event_id.encode())
    await house.ship.step_once()
    await house.flush()
    assert await house.after(3) == 1
    assert house.ship.unconfirmed == 0
    assert await pool.fetchval("select count(*) from usage_quarantine") == 1


async def test_redis_away(house: House, pool: Pool) -> None:
    events = await house.settle(3)
    nowhere = open_redis(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    house.start(Buffer(nowhere, stream="gateway:usage"))
    for _ in range(2):
        with pytest.raises(DependencyDown, match="redis"):
            await house.ship.step_once()
    await nowhere.aclose()
    house.start()
    await house.ship.step_once()
    await house.flush()
    assert await ids(pool) == sorted(event.id for event in events)


async def test_open_calls_do_not_stop_the_reading(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_module, "SETTLED_MAX", 3)
    events = [house.event() for _ in range(10)]
    for event in events:
        await house.journal.append(OPEN, encode(opened(event.id)))
    await house.ship.step_once()
    assert house.ship.open_calls == 10
    for event in events:
        await house.journal.append(SETTLE, encode(event))
    assert await house.ship.step_once() == 10
    late = await house.settle(2)
    assert await house.ship.step_once() == 0  # Postgres must catch up first
    await house.flush()
    assert await house.after(3) == 10
    assert await house.ship.step_once() == len(late)


async def test_a_settle_that_disk_and_stream_lost_does_not_stop_the_others(house: House, redis: "Redis") -> None:
    first, second = await house.settle(2)
    await house.ship.step_once()
    await redis.flushall()
    (path,) = house.folder.glob("*.jnl")
    raw = path.read_bytes()
    at = raw.index(b" S " + b'{"id":"' + first.id.encode())
    path.write_bytes(raw[: at + 60] + b"#" + raw[at + 61 :])
    await house.after(3)
    assert await house.after(1) == 1
    assert [entry.event_id for entry in await house.buffer.read("writer", 10, 0)] == [second.id]
    assert house.ship.unconfirmed == 2  # its segment stays, and the audit can see it


async def test_segments_retire_only_when_postgres_has_them(house: House) -> None:
    await house.settle(60)
    await house.ship.step_once()
    house.segments.retire(now_s=0, keep_s=10)
    assert list(house.folder.glob("*.confirmed")) == []
    await house.flush()
    await house.after(3)
    house.segments.retire(now_s=0, keep_s=10)
    assert len(list(house.folder.glob("*.confirmed"))) == len(list(house.folder.glob("*.jnl"))) - 1
    house.start()
    await house.ship.step_once()
    assert house.ship.unconfirmed < 30  # the confirmed ones are not read again


# Orphans.


async def test_a_living_writer_has_no_orphans(house: House) -> None:
    event = house.event()
    await house.journal.append(OPEN, encode(opened(event.id)))
    await house.ship.step_once()
    assert house.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    (orphan,) = house.ship.orphans(older_than_unix_ms=unix_ms_of(event.id) + 1)  # older than any call may be
    assert orphan == Orphan(encode(opened(event.id)), None)
    await house.journal.append(SETTLE, encode(event))
    await house.ship.step_once()
    assert house.ship.orphans(older_than_unix_ms=unix_ms_of(event.id) + 1) == []


async def test_orphans_of_a_killed_process(house: House) -> None:
    command = [sys.executable, "-m", "tests.edges.journal_process", str(house.folder), "w9", "boot-9", "5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        written = {process.stdout.readline().strip() for _ in range(50)}
        await house.ship.step_once()
        assert house.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    finally:
        process.send_signal(signal.SIGKILL)
        written |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.stdout.close()
        process.wait()
    await house.ship.step_once()
    found = {orphan.opened[7:43].decode() for orphan in house.ship.orphans(older_than_unix_ms=LONG_AGO)}
    assert written <= found
    assert len(found) == house.ship.open_calls


async def test_a_settle_not_read_yet_is_not_an_orphan(house: House) -> None:
    event = house.event()
    path = house.folder / "dead.0000000000001.000001.jnl"
    path.write_bytes(frame(OPEN, encode(opened(event.id))))
    await house.ship.step_once()
    later = house.folder / "dead.0000000000002.000002.jnl"  # made just before its writer died
    later.write_bytes(frame(SETTLE, encode(event)))
    assert house.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    await house.ship.step_once()
    assert house.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    assert house.ship.unconfirmed == 1


async def test_the_last_note_comes_along(house: House) -> None:
    event_id = new_id(RANDOM)
    notes = [encode(NoteRecord(event_id, "resp_1", count)) for count in (3, 7)]
    lines = [frame(NOTE, notes[0]), frame(OPEN, encode(opened(event_id))), *(frame(NOTE, note) for note in notes)]
    (house.folder / "dead.1.000001.jnl").write_bytes(b"".join(lines))
    await house.ship.step_once()
    assert house.ship.orphans(older_than_unix_ms=LONG_AGO) == [Orphan(encode(opened(event_id)), notes[1])]


# Sweeping.


class OpenAI:
    """Answers one GET as told, in two pieces."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 200, b"", 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        assert request.path == "/v1/responses/resp_1"
        assert request.headers["Authorization"] == "Bearer canary"
        response = web.StreamResponse(status=self.status)
        await response.prepare(request)
        await response.write(self.body[:20])
        await asyncio.sleep(0.02)
        await response.write(self.body[20:])
        return response


class Sweeper:
    """A Sweep with its stand-ins and its clock."""

    def __init__(self, house: House, openai: OpenAI, upstream: Upstream, journal: Journal) -> None:
        self.openai, self.journal, self.now_s = openai, journal, AT.timestamp() + 5
        self.sweep = Sweep(upstream, SETTLER, journal, clock=lambda: self.now_s)
        self._folder = house.folder

    def swept(self) -> list[UsageEvent]:
        segments = Segments(self._folder)
        segments.refresh()
        return [decode_event(record.payload) for record in segments.poll() if record.kind == SETTLE]


@pytest.fixture
async def sweeper(house: House) -> AsyncIterator[Sweeper]:
    openai, port = OpenAI(), free_port()
    app = web.Application()
    app.router.add_get("/{path:.*}", openai.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    journal = house.writer("keeper")
    journal.open()
    session: aiohttp.ClientSession = new_session(connect_s=2, read_s=5)
    yield Sweeper(house, openai, Upstream(session, f"http://127.0.0.1:{port}/v1", "canary"), journal)
    await session.close()
    journal.close()
    await runner.cleanup()


def orphan(endpoint: str = "responses", *, output_events: int = 9, **changes: Any) -> Orphan:
    record = opened(new_id(RANDOM), endpoint=endpoint, **changes)
    return Orphan(encode(record), encode(NoteRecord(record.id, "resp_1", output_events)))


ANSWER = (
    b'{"id":"resp_1","object":"response","status":"%b","model":"gpt-5-mini-2025-08-07","service_tier":"default",'
    b'"output":[],"usage":{"input_tokens":100,"output_tokens":20,"total_tokens":120}}'
)


@pytest.mark.parametrize("status", [b"completed", b"incomplete", b"failed", b"cancelled"])
async def test_exact_where_openai_can_be_asked(sweeper: Sweeper, status: bytes) -> None:
    sweeper.openai.body = ANSWER % status
    lost = orphan()
    assert await sweeper.sweep.step_once([lost]) == 1
    assert await sweeper.sweep.step_once([lost]) == 0  # the reader has not come to it yet
    (event,) = sweeper.swept()
    assert (event.evidence, event.cost_nano, event.response_id) == ("drained", 100 * 250 + 20 * 2000, "resp_1")
    assert event.metadata["reason"] == "process_died"
    assert sweeper.openai.asked == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"error":{}}'),
        (200, ANSWER.replace(b"100,", b'"x",')[:50]),
        (200, b'{"status":"cancelled","usage":null}'),
    ],
)
async def test_estimated_where_openai_kept_nothing(sweeper: Sweeper, status: int, body: bytes) -> None:
    sweeper.openai.status, sweeper.openai.body = status, body
    assert await sweeper.sweep.step_once([orphan()]) == 1
    (event,) = sweeper.swept()
    assert (event.evidence, event.prompt_tokens, event.completion_tokens) == ("estimated", 100, 9)
    assert event.cost_nano == 100 * 250 + 9 * 2000
    assert Decimal(event.metadata["bound_usd"]) * 10**9 >= event.cost_nano


@pytest.mark.parametrize(("status", "body"), [(500, b""), (429, b"{}"), (200, ANSWER % b"in_progress")])
async def test_patience_while_openai_cannot_tell(sweeper: Sweeper, status: int, body: bytes) -> None:
    sweeper.openai.status, sweeper.openai.body = status, body
    lost = orphan()
    assert await sweeper.sweep.step_once([lost]) == 0
    sweeper.openai.status, sweeper.openai.body = 200, ANSWER % b"completed"
    assert await sweeper.sweep.step_once([lost]) == 1
    sweeper.openai.status, sweeper.openai.body = status, body
    sweeper.now_s += PATIENCE_S
    assert await sweeper.sweep.step_once([orphan()]) == 1
    assert [event.evidence for event in sweeper.swept()] == ["drained", "estimated"]
    assert sweeper.swept()[1].metadata["reason"] == "process_died, openai did not answer"


async def test_a_chat_is_estimated_and_never_void(sweeper: Sweeper) -> None:
    with_note, without = orphan("chat", output_events=4), Orphan(encode(opened(new_id(RANDOM))), None)
    assert await sweeper.sweep.step_once([with_note, without]) == 2
    assert [(event.evidence, event.completion_tokens) for event in sweeper.swept()] == [
        ("estimated", 4),
        ("estimated", 0),
    ]
    assert sweeper.openai.asked == 0


async def test_from_the_dead_process_to_the_ledger(house: House, sweeper: Sweeper, pool: Pool) -> None:
    record = opened(new_id(RANDOM), user_id=house.user_id, endpoint="responses")
    note = encode(NoteRecord(record.id, "resp_1", 2))
    dead = frame(OPEN, encode(record)) + frame(NOTE, note)
    (house.folder / "dead.1.000001.jnl").write_bytes(dead + frame(SETTLE, b'{"id":"')[:12])
    sweeper.openai.body = ANSWER % b"completed"
    for _ in range(4):
        await house.after(3)
        await sweeper.sweep.step_once(house.ship.orphans(older_than_unix_ms=LONG_AGO))
        await house.flush()
    assert (house.ship.open_calls, house.ship.unconfirmed) == (0, 0)
    row = await pool.fetchrow("select id::text, evidence, cost_usd, created_at - started_at as took from openai_usage")
    assert row is not None
    assert tuple(row) == (record.id, "drained", Decimal("0.000065000"), timedelta(seconds=5))
    house.segments.retire(now_s=0, keep_s=10)
    assert (house.folder / "dead.1.000001.jnl.confirmed").exists()
