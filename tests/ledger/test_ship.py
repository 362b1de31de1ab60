"""From the journal to the ledger, whatever is lost between them, and whose calls nobody will settle."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.journal import reader as segments_module
from gateway.journal.frames import NOTE, OPEN, SETTLE, frame
from gateway.kit.errors import DependencyDown
from gateway.kit.ids import unix_ms_of
from gateway.ledger import ship as ship_module
from gateway.ledger.store import Ledger
from gateway.ledger.stream import OWNER_TTL_S, Buffer
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from gateway.usage.event import NoteRecord, Orphan, encode
from tests.ledger.journals_at_work import LONG_AGO, RANDOM, JournalShipping, open_shipping, opened
from tests.support.events import new_id
from tests.support.servers import free_port


@pytest.fixture
async def shipping(tmp_path: Path, buffer: Buffer, ledger: Ledger) -> AsyncIterator[JournalShipping]:
    async with open_shipping(tmp_path, buffer, ledger) as made:
        yield made


@pytest.fixture
async def redis(redis_url: str) -> "AsyncIterator[Redis]":
    client = open_redis(redis_url)
    yield client
    await client.aclose()


async def ids(pool: Pool) -> list[str]:
    return [str(row["id"]) for row in await pool.fetch("select id from openai_usage order by id")]


async def test_from_the_journal_to_the_ledger_once(shipping: JournalShipping, pool: Pool) -> None:
    events = await shipping.settle(30)
    assert await shipping.ship.step_once() == 30
    assert await shipping.flush() == 30
    assert (shipping.ship.unconfirmed, shipping.ship.open_calls) == (30, 0)
    assert await shipping.after(1.9) == 0  # not asked yet
    assert await shipping.after(0.2) == 30
    assert (shipping.ship.unconfirmed, shipping.ship.open_calls) == (0, 0)
    assert await shipping.after(100) == 0
    assert await ids(pool) == sorted(event.id for event in events)


async def test_the_bytes_are_the_journal_s(shipping: JournalShipping) -> None:
    (event,) = await shipping.settle()
    await shipping.ship.step_once()
    (entry,) = await shipping.buffer.read("writer", 10, 0)
    assert (entry.event_id, entry.raw) == (event.id, encode(event))


async def test_it_is_told_when_postgres_is_so_far_behind_that_owners_expire(
    shipping: JournalShipping, pool: Pool
) -> None:
    (event,) = await shipping.settle()
    shipping.unix_ms = unix_ms_of(event.id) + OWNER_TTL_S * 500
    await shipping.after(0)
    assert not await shipping.buffer.is_behind()
    await pool.close()  # away
    shipping.unix_ms += 1
    for _ in range(2):
        with pytest.raises(DependencyDown, match="postgres"):
            await shipping.after(10)
    assert await shipping.buffer.is_behind()


async def test_a_full_redis_keeps_nobody_from_confirming(shipping: JournalShipping, redis: "Redis") -> None:
    (event,) = await shipping.settle()
    await shipping.after(0)
    assert await shipping.flush() == 1
    shipping.unix_ms = unix_ms_of(event.id) + OWNER_TTL_S * 1000
    await redis.config_set("maxmemory", 1)
    try:
        assert await shipping.after(10) == 1
    finally:
        await redis.config_set("maxmemory", 0)
    assert shipping.ship.unconfirmed == 0


async def test_lives_of_a_keeper_leave_the_stream_as_it_is_while_postgres_is_away(
    shipping: JournalShipping, pool: Pool, redis: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "READ_BYTES_MAX", 4096)  # several steps to the end of the journal
    first, *_ = await shipping.settle(60)
    await redis.xadd("gateway:usage", {"e": "somebody's estimate of the same call", "id": first.id})
    await pool.close()  # away

    async def live() -> Any:
        shipping.start()
        for _ in range(60):
            with contextlib.suppress(DependencyDown):
                await shipping.ship.step_once()
        assert shipping.ship.unconfirmed == 60
        return await redis.xrange("gateway:usage")

    stream = await live()
    assert len(stream) == 61
    for _ in range(2):
        assert await live() == stream
    await redis.xdel("gateway:usage", *(stream_id for stream_id, _ in stream[1:11]))  # a failover lost these
    assert sorted(named[b"id"] for _, named in await live()) == sorted(named[b"id"] for _, named in stream)
    await redis.flushall()
    assert len(await live()) == 60


async def test_redis_loses_everything(shipping: JournalShipping, pool: Pool, redis: "Redis") -> None:
    events = await shipping.settle(10)
    await shipping.ship.step_once()
    await redis.flushall()
    assert await shipping.after(3) == 0  # neither here nor there: taken up again
    assert await shipping.after(0.1) == 10
    assert await shipping.flush() == 10
    await redis.flushall()
    assert await shipping.after(60) == 10
    assert shipping.ship.unconfirmed == 0
    assert await ids(pool) == sorted(event.id for event in events)


async def test_what_a_writer_took_with_it_is_sent_again(shipping: JournalShipping, pool: Pool, redis: "Redis") -> None:
    events = await shipping.settle(5)
    await shipping.ship.step_once()
    await shipping.buffer.read("gone", 3, 0)
    await redis.xgroup_delconsumer("gateway:usage", "ledger", "gone")
    assert await shipping.after(3) == 0
    assert await shipping.after(0.1) == 3
    assert await shipping.flush() == 5
    assert await ids(pool) == sorted(event.id for event in events)


async def test_what_still_waits_in_the_stream_is_not_sent_again(shipping: JournalShipping) -> None:
    await shipping.settle(5)
    await shipping.ship.step_once()
    for _ in range(20):
        assert await shipping.after(40) == 0
    assert (await shipping.buffer.depth()).entries == 5
    await shipping.flush()
    assert await shipping.after(40) == 5


async def test_a_repeat_is_one_row(shipping: JournalShipping, pool: Pool) -> None:
    (event,) = await shipping.settle()
    await shipping.ship.step_once()
    await shipping.flush()
    await shipping.buffer.append([(event.id, encode(event))])
    assert await shipping.flush() == 1
    assert await shipping.after(3) == 1
    assert await ids(pool) == [event.id]


async def test_a_restart_sends_only_what_postgres_does_not_have(
    shipping: JournalShipping, redis: "Redis", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "READ_BYTES_MAX", 4096)  # several steps to the end of the journal
    await shipping.settle(59)
    await steps_of_a_life(shipping)
    assert await shipping.flush() == 59
    (lost,) = await shipping.settle()
    await shipping.ship.step_once()
    await redis.xtrim("gateway:usage", maxlen=0)
    shipping.start()  # a keeper that starts knows nothing of what was sent
    await steps_of_a_life(shipping)
    assert [entry.event_id for entry in await shipping.buffer.read("writer", 100, 0)] == [lost.id]
    assert shipping.ship.unconfirmed == 1


async def steps_of_a_life(shipping: JournalShipping) -> None:
    """Enough of them to read the whole journal of 60 calls."""
    for _ in range(60):
        await shipping.ship.step_once()


async def test_quarantined_events_are_confirmed(shipping: JournalShipping, pool: Pool) -> None:
    event_id = new_id(RANDOM)
    await shipping.journal.append(SETTLE, b'{"id":"%b","nonsense":true}' % event_id.encode())
    await shipping.ship.step_once()
    await shipping.flush()
    assert await shipping.after(3) == 1
    assert shipping.ship.unconfirmed == 0
    assert await pool.fetchval("select count(*) from usage_quarantine") == 1


async def test_redis_away(shipping: JournalShipping, pool: Pool) -> None:
    events = await shipping.settle(3)
    nowhere = open_redis(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)
    shipping.start(Buffer(nowhere, stream="gateway:usage"))
    for _ in range(2):
        with pytest.raises(DependencyDown, match="redis"):
            await shipping.ship.step_once()
    await nowhere.aclose()
    shipping.start()
    await shipping.ship.step_once()
    await shipping.flush()
    assert await ids(pool) == sorted(event.id for event in events)


async def test_open_calls_do_not_stop_the_reading(shipping: JournalShipping, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship_module, "SETTLED_MAX", 3)
    events = [shipping.event() for _ in range(10)]
    for event in events:
        await shipping.journal.append(OPEN, encode(opened(event.id)))
    await shipping.ship.step_once()
    assert shipping.ship.open_calls == 10
    for event in events:
        await shipping.journal.append(SETTLE, encode(event))
    assert await shipping.ship.step_once() == 10
    late = await shipping.settle(2)
    assert await shipping.ship.step_once() == 0  # Postgres must catch up first
    await shipping.flush()
    assert await shipping.after(3) == 10
    assert await shipping.ship.step_once() == len(late)


async def test_a_whole_record_that_makes_no_sense_costs_only_itself(shipping: JournalShipping, pool: Pool) -> None:
    strange = [b"", b"{}", b"[1]", b'{"id":"%b"}' % b"x" * 36, b'{"id":"%b","endpoint":7}' % new_id(RANDOM).encode()]
    for payload in strange:
        await shipping.journal.append(OPEN, payload)
    await shipping.journal.append(SETTLE, strange[3])
    (event,) = await shipping.settle()
    assert await shipping.ship.step_once() == 1
    assert shipping.ship.orphans(older_than_unix_ms=2**60) == []
    assert shipping.ship.open_calls == 0
    assert shipping.segments.corrupt == len(strange) + 1
    assert await shipping.flush() == 1
    assert await ids(pool) == [event.id]


async def test_while_redis_is_away_memory_is_bounded_and_no_old_call_is_estimated(
    shipping: JournalShipping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ship_module, "UNSENT_MAX", 4)
    monkeypatch.setattr(segments_module, "READ_BYTES_MAX", 4096)
    nowhere = open_redis(f"redis://127.0.0.1:{free_port()}/0")
    shipping.start(Buffer(nowhere, stream="gateway:usage"))
    old = shipping.event()
    await shipping.journal.append(OPEN, encode(opened(old.id)))
    events = await shipping.settle(40)
    await shipping.journal.append(SETTLE, encode(old))
    for _ in range(50):
        with pytest.raises(DependencyDown, match="redis"):
            await shipping.ship.step_once()
    held, now_ms = shipping.ship.unconfirmed, unix_ms_of(old.id) + 1
    assert held < 20
    assert shipping.ship.orphans(older_than_unix_ms=now_ms) == []  # its SETTLE lies unread
    await nowhere.aclose()
    shipping.start()
    while await shipping.ship.step_once():
        assert shipping.ship.orphans(older_than_unix_ms=now_ms) == []
    assert await shipping.flush() == len(events) + 1


async def test_a_settle_that_disk_and_stream_lost_does_not_stop_the_others(
    shipping: JournalShipping, redis: "Redis"
) -> None:
    first, second = await shipping.settle(2)
    await shipping.ship.step_once()
    await redis.flushall()
    (path,) = shipping.folder.glob("*.jnl")
    raw = path.read_bytes()
    at = raw.index(b" S " + b'{"id":"' + first.id.encode())
    path.write_bytes(raw[: at + 60] + b"#" + raw[at + 61 :])
    await shipping.after(3)
    assert await shipping.after(1) == 1
    assert [entry.event_id for entry in await shipping.buffer.read("writer", 10, 0)] == [second.id]
    assert shipping.ship.unconfirmed == 2  # its segment stays, and the audit can see it


async def test_segments_retire_only_when_postgres_has_them(shipping: JournalShipping) -> None:
    await shipping.settle(60)
    await shipping.ship.step_once()
    shipping.segments.retire(now_s=0, keep_s=10)
    assert list(shipping.folder.glob("*.confirmed")) == []
    await shipping.flush()
    await shipping.after(3)
    shipping.segments.retire(now_s=0, keep_s=10)
    assert len(list(shipping.folder.glob("*.confirmed"))) == len(list(shipping.folder.glob("*.jnl"))) - 1
    shipping.start()
    await shipping.ship.step_once()
    assert shipping.ship.unconfirmed < 30  # the confirmed ones are not read again


# Orphans.


async def test_a_living_writer_has_no_orphans(shipping: JournalShipping) -> None:
    event = shipping.event()
    await shipping.journal.append(OPEN, encode(opened(event.id)))
    await shipping.ship.step_once()
    assert shipping.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    (orphan,) = shipping.ship.orphans(older_than_unix_ms=unix_ms_of(event.id) + 1)  # older than any call may be
    assert orphan == Orphan(encode(opened(event.id)), None)
    await shipping.journal.append(SETTLE, encode(event))
    await shipping.ship.step_once()
    assert shipping.ship.orphans(older_than_unix_ms=unix_ms_of(event.id) + 1) == []


async def test_orphans_of_a_killed_process(shipping: JournalShipping) -> None:
    command = [sys.executable, "-m", "tests.journal.journal_process", str(shipping.folder), "w9", "boot-9", "5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "open\n"
        written = {process.stdout.readline().strip() for _ in range(50)}
        await shipping.ship.step_once()
        assert shipping.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    finally:
        process.send_signal(signal.SIGKILL)
        written |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.stdout.close()
        process.wait()
    await shipping.ship.step_once()
    found = {orphan.opened[7:43].decode() for orphan in shipping.ship.orphans(older_than_unix_ms=LONG_AGO)}
    assert written <= found
    assert len(found) == shipping.ship.open_calls


async def test_a_settle_not_read_yet_is_not_an_orphan(shipping: JournalShipping) -> None:
    event = shipping.event()
    path = shipping.folder / "dead.0000000000001.000001.jnl"
    path.write_bytes(frame(OPEN, encode(opened(event.id))))
    await shipping.ship.step_once()
    later = shipping.folder / "dead.0000000000002.000002.jnl"  # made just before its writer died
    later.write_bytes(frame(SETTLE, encode(event)))
    assert shipping.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    await shipping.ship.step_once()
    assert shipping.ship.orphans(older_than_unix_ms=LONG_AGO) == []
    assert shipping.ship.unconfirmed == 1


async def test_the_last_note_comes_along(shipping: JournalShipping) -> None:
    event_id = new_id(RANDOM)
    notes = [encode(NoteRecord(event_id, "resp_1", count)) for count in (3, 7)]
    lines = [frame(NOTE, notes[0]), frame(OPEN, encode(opened(event_id))), *(frame(NOTE, note) for note in notes)]
    (shipping.folder / "dead.1.000001.jnl").write_bytes(b"".join(lines))
    await shipping.ship.step_once()
    assert shipping.ship.orphans(older_than_unix_ms=LONG_AGO) == [Orphan(encode(opened(event_id)), notes[1])]
