"""What others know of a host: its calls in flight in Redis, and two leases."""

import errno
import os
from pathlib import Path

import pytest

from gateway.hosts.identity import FILE, read_host
from gateway.hosts.open_calls import CALLS, LEASE, NAMES
from gateway.journal.frames import NOTE
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.kit.ids import is_uuid
from gateway.ledger.rows import LedgerEntry
from gateway.usage.event import NoteRecord, encode
from tests.hosts.scene import LEASE_S, RENEW_S, HostScene
from tests.ledger.journals_at_work import LONG_AGO
from tests.support.events import call, new_id


def test_an_id_is_made_once(tmp_path: Path) -> None:
    made = read_host(tmp_path)
    assert read_host(tmp_path) == made
    assert os.stat(tmp_path / FILE).st_mode & 0o777 == 0o600
    (tmp_path / FILE).write_text("canary\n")
    with pytest.raises(ConfigError, match="not the id of a host") as refused:
        read_host(tmp_path)
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("wrong", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_does_not_keep_the_keeper_from_making_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    def refuse(_path: Path, _text: str) -> None:
        raise OSError(wrong, "it is full")

    with monkeypatch.context() as full:
        full.setattr("gateway.hosts.identity._write", refuse)
        for_now = read_host(tmp_path)
    assert is_uuid(for_now.id)
    assert read_host(tmp_path) == read_host(tmp_path)


async def test_redis_has_the_calls_in_flight_and_no_others(scene: HostScene) -> None:
    at_once = await scene.open()
    await scene.settle(at_once)  # opened and settled between two turns: never written
    slow, noted = await scene.open(), await scene.open(note=7)
    await scene.step()
    assert await scene.shown() == {slow, noted}
    notes = {each.id: each.orphan and each.orphan.note for each in await scene.calls.read(scene.host.id, 10)}
    assert notes[slow] is None
    assert b'"output_events":7' in (notes[noted] or b"")
    await scene.shipping.journal.append(NOTE, encode(NoteRecord(noted, "resp", 8)))
    for seconds, events in ((0.1, b":7"), (RENEW_S, b":8")):  # the first at once, the others now and then
        await scene.step(seconds)
        notes = {each.id: each.orphan and each.orphan.note for each in await scene.calls.read(scene.host.id, 10)}
        assert b'"output_events"' + events in (notes[noted] or b"")
    await scene.settle(noted)
    await scene.step()
    assert await scene.shown() == {slow}
    await scene.settle(slow)
    await scene.step()
    assert await scene.shown() == set()
    assert await scene.redis.exists(CALLS + scene.host.id) == 0


async def test_an_open_stays_until_its_settle_is_in_the_stream(scene: HostScene) -> None:
    slow = await scene.open()
    await scene.step()
    append = scene.shipping.buffer.append

    async def away(_entries: object) -> list[bytes]:
        raise DependencyDown("redis", "away")

    scene.shipping.buffer.append = away  # type: ignore[assignment, method-assign]
    await scene.settle(slow)
    with pytest.raises(DependencyDown):
        await scene.shipping.after(1)
    await scene.presence.show_calls()
    assert await scene.shown() == {slow}
    scene.shipping.buffer.append = append  # type: ignore[method-assign]
    await scene.step()
    assert await scene.shown() == set()


async def test_a_lease_in_each_store(scene: HostScene) -> None:
    await scene.open()
    await scene.step()
    assert LEASE_S - 5 < await scene.redis.ttl(LEASE + scene.host.id) <= LEASE_S
    row = await scene.row()
    assert (row["name"], row["open_calls"], row["unconfirmed_calls"], row["lost_at"]) == (scene.host.name, 1, 0, None)
    assert abs((row["lease_until"] - row["seen_at"]).total_seconds() - LEASE_S) < 1
    await scene.redis.expire(LEASE + scene.host.id, 10)
    await scene.lose_in_postgres()
    await scene.step(1)  # nothing has changed, and the lease in Redis is not due
    assert await scene.redis.ttl(LEASE + scene.host.id) <= 10
    assert (await scene.row())["lease_until"] > row["seen_at"]
    await scene.step(RENEW_S)
    assert await scene.redis.ttl(LEASE + scene.host.id) > 10


@pytest.mark.parametrize("idle", [False, True])
async def test_what_redis_has_lost_is_written_again(scene: HostScene, idle: bool) -> None:
    """A flush, or a failover to a replica that lacks the last writes: the number in the lease tells."""
    old = await scene.open()
    await scene.step()
    before = await scene.redis.dump(CALLS + scene.host.id), await scene.redis.dump(LEASE + scene.host.id)
    lost = await scene.open()
    await scene.step()
    assert await scene.shown() == {old, lost}
    await scene.redis.restore(CALLS + scene.host.id, 0, before[0], replace=True)
    await scene.redis.restore(LEASE + scene.host.id, 0, before[1], replace=True)
    await scene.redis.delete(NAMES)
    new = set() if idle else {await scene.open()}
    await scene.step(RENEW_S if idle else 0.1)
    await scene.step()
    assert await scene.shown() == {old, lost} | new
    assert scene.host.id in await scene.calls.names()
    await scene.redis.flushdb()
    await scene.step(RENEW_S)
    await scene.step()
    assert await scene.shown() == {old, lost} | new


async def test_a_new_keeper_removes_only_what_has_ended(scene: HostScene) -> None:
    """What it has not read yet stays, and so does what PostgreSQL does not have."""
    ended, running, written = [await scene.open() for _ in range(3)]
    await scene.step()
    await scene.settle(ended)
    await scene.shipping.ledger.insert_batch([LedgerEntry.of(await scene.settle(written))])
    stale = new_id(scene.random)  # its segment is read no more: all in it was confirmed
    await scene.shipping.ledger.insert_batch([LedgerEntry.of(call(scene.shipping.user_id, stale))])
    await scene.redis.hset(CALLS + scene.host.id, stale, b"{}\n\n")
    scene.shipping.start()
    scene.presence = scene.new_presence()
    await scene.presence.show_calls()  # before the journal is looked at
    await scene.presence.renew()
    assert await scene.shown() == {ended, running}
    await scene.step(RENEW_S)
    assert await scene.shown() == {running}


async def test_a_call_that_the_disk_has_lost_is_settled_after_the_stop(scene: HostScene) -> None:
    """The journal was put back from an older copy: Redis alone knows of the call."""
    lost = await scene.open()
    await scene.step()
    for segment in scene.shipping.folder.glob("*.jnl"):
        segment.unlink()
    scene.shipping.start()
    scene.presence = scene.new_presence()
    await scene.step()
    assert await scene.shown() == {lost}
    await scene.presence.leave()
    assert (await scene.row())["ended_at"] is None
    await scene.lose()
    assert await scene.worker().step_once() == 1


async def test_a_host_that_stops_with_nothing_left_is_not_missed(scene: HostScene) -> None:
    await scene.settle(await scene.open())
    await scene.step()
    await scene.flush().step_once()
    await scene.step(3)
    assert (scene.shipping.ship.open_calls, scene.shipping.ship.unconfirmed) == (0, 0)
    await scene.presence.leave()
    assert (await scene.row())["ended_at"] is not None
    assert await scene.redis.keys("host:*") == []
    assert await scene.worker().step_once() == 0
    assert (await scene.row())["lost_at"] is None
    await scene.step(RENEW_S)  # started again
    assert (await scene.row())["ended_at"] is None
    assert scene.host.id in await scene.calls.names()


async def test_what_the_keeper_sweeps_itself_leaves_redis(scene: HostScene) -> None:
    """Its process is dead: the keeper settles the call, and nobody else will."""
    event_id = await scene.open()
    await scene.step()
    scene.shipping.journal.close()
    (orphan,) = scene.shipping.ship.orphans(older_than_unix_ms=LONG_AGO)
    assert event_id.encode() in orphan.opened
    journal = scene.shipping.writer("keeper")
    journal.open()
    scene.shipping.journal = journal
    await scene.settle(event_id)
    await scene.step()
    assert await scene.shown() == set()
