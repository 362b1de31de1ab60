"""From the journal to the ledger, whatever is lost between them, and whose calls nobody will settle."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from gateway.journal import reader as segments_module
from gateway.journal.frames import NOTE, OPEN, SETTLE, frame
from gateway.kit.errors import DependencyDown
from gateway.kit.ids import unix_ms_of
from gateway.ledger import ship as ship_module
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.event import NoteRecord, Orphan, encode
from tests.ledger.journals_at_work import LONG_AGO, RANDOM, House, open_house, opened
from tests.support.events import new_id
from tests.support.servers import free_port


@pytest.fixture
async def house(tmp_path: Path, buffer: Buffer, ledger: Ledger) -> AsyncIterator[House]:
    async with open_house(tmp_path, buffer, ledger) as made:
        yield made


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.aclose()


async def ids(pool: Pool) -> list[str]:
    return [str(row["id"]) for row in await pool.fetch("select id from openai_usage order by id")]


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


async def test_what_a_writer_took_with_it_is_sent_again(house: House, pool: Pool, redis: "Redis") -> None:
    events = await house.settle(5)
    await house.ship.step_once()
    await house.buffer.read("gone", 3, 0)
    await redis.xgroup_delconsumer("gateway:usage", "ledger", "gone")
    assert await house.after(3) == 0
    assert await house.after(0.1) == 3
    assert await house.flush() == 5
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


async def test_a_whole_record_that_makes_no_sense_costs_only_itself(house: House, pool: Pool) -> None:
    strange = [b"", b"{}", b"[1]", b'{"id":"%b"}' % b"x" * 36, b'{"id":"%b","endpoint":7}' % new_id(RANDOM).encode()]
    for payload in strange:
        await house.journal.append(OPEN, payload)
    await house.journal.append(SETTLE, strange[3])
    (event,) = await house.settle()
    assert await house.ship.step_once() == 1
    assert house.ship.orphans(older_than_unix_ms=2**60) == []
    assert house.ship.open_calls == 0
    assert house.segments.corrupt == len(strange) + 1
    assert await house.flush() == 1
    assert await ids(pool) == [event.id]


async def test_while_redis_is_away_memory_is_bounded_and_no_old_call_is_estimated(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship_module, "UNSENT_MAX", 4)
    monkeypatch.setattr(segments_module, "READ_BYTES_MAX", 4096)
    nowhere = open_redis(f"redis://127.0.0.1:{free_port()}/0")
    house.start(Buffer(nowhere, stream="gateway:usage"))
    old = house.event()
    await house.journal.append(OPEN, encode(opened(old.id)))
    events = await house.settle(40)
    await house.journal.append(SETTLE, encode(old))
    for _ in range(50):
        with pytest.raises(DependencyDown, match="redis"):
            await house.ship.step_once()
    held, now_ms = house.ship.unconfirmed, unix_ms_of(old.id) + 1
    assert held < 20
    assert house.ship.orphans(older_than_unix_ms=now_ms) == []  # its SETTLE lies unread
    await nowhere.aclose()
    house.start()
    while await house.ship.step_once():
        assert house.ship.orphans(older_than_unix_ms=now_ms) == []
    assert await house.flush() == len(events) + 1


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
    command = [sys.executable, "-m", "tests.journal.journal_process", str(house.folder), "w9", "boot-9", "5"]
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
