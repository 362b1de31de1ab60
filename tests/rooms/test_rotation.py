"""Keys of rooms: made, changed for a newer one under load and through kills, and the check of what is sealed."""

import asyncio
import json
import os
from typing import Any
from uuid import uuid4

import pytest

from gateway.config.key_ring import KeyRing, entry_of, parse_ring
from gateway.rooms.bulk_store import BulkRooms
from gateway.rooms.room import place_of
from gateway.rooms.rotate import Rotation
from gateway.rooms.sealing import open_sealed, seal
from gateway.rooms.store import Rooms
from gateway.stores.postgres import Pool
from tests.rooms.rooms_at_work import BOTH, CANARY, NEW, OLD, open_rooms_api
from tests.support.environment import clean_environment
from tests.support.gateway import Process
from tests.support.invoke import gateway
from tests.support.killed import wait_for_rollback

ROOMS = 1200


def spelled(ring: KeyRing) -> str:
    """ROOMS_KEYS of this ring."""
    return ",".join(entry_of(key_id, ring.key(key_id) or b"") for key_id in ring.ids)


def env(database_url: str, ring: KeyRing) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "ROOMS_KEYS": spelled(ring)}


async def fill(pool: Pool, rooms: int, ring: KeyRing = OLD) -> dict[str, dict[str, Any]]:
    """Rooms with sensitive fields under the newest key of `ring`: what each holds, by id."""
    held = {str(uuid4()): {"note": f"{CANARY}-{number}"} for number in range(rooms)}
    rows = [(room_id, *seal(ring, fields, place_of(room_id), os.urandom)) for room_id, fields in held.items()]
    await pool.executemany(
        "insert into rooms (id, room_name, sealed, sealed_key_id) values ($1::uuid, 'r', $2, $3)", rows
    )
    return held


async def opened(pool: Pool, ring: KeyRing) -> dict[str, dict[str, Any]]:
    """What every room holds. Raises NotOpened."""
    found = {}
    for room_id in [row["id"] for row in await pool.fetch("select id::text as id from rooms where sealed is not null")]:
        room = await Rooms(pool).get(room_id)
        assert room is not None
        assert room.sealed is not None
        found[room_id] = open_sealed(ring, room.sealed, place_of(room_id))
    return found


async def no_wait(_seconds: float) -> None:
    await asyncio.sleep(0)


def rotation(pool: Pool, ring: KeyRing = BOTH) -> Rotation:
    return Rotation(BulkRooms(pool), ring, random_bytes=os.urandom, sleep=no_wait, progress=lambda _: None)


async def test_rotation_says_when_the_old_key_may_go(pool: Pool, database_url: str) -> None:
    held = await fill(pool, 25)
    before = await pool.fetch("select id, version, data, room_name from rooms order by id")
    done = await gateway(env(database_url, BOTH), "rooms", "rotate-key", "--batch", "10")
    assert done.status == 0, done
    assert "25 rooms sealed anew under 'new'" in done.out
    assert "remove the old keys" in done.out
    assert CANARY not in done.out + done.noted
    assert await opened(pool, NEW) == held
    assert await pool.fetch("select id, version, data, room_name from rooms order by id") == before
    again = await gateway(env(database_url, BOTH), "rooms", "rotate-key", "--json")
    assert json.loads(again.out) == {"newest": "new", "resealed": 0, "left": {}, "failed": {}}
    checked = await gateway(env(database_url, NEW), "rooms", "check")
    assert (checked.status, checked.out) == (0, "25 rooms open under 'new' (the newest).\n")


async def test_what_does_not_open_stays_as_it_is_and_keeps_its_key(pool: Pool, database_url: str) -> None:
    await fill(pool, 8)
    await fill(pool, 1, KeyRing({"gone": b"g" * 32}))
    broken = await pool.fetchval(
        "update rooms set sealed = overlay(sealed placing '\\x00'::bytea from 20) where id ="
        " (select id from rooms where sealed_key_id = 'old' order by id limit 1) returning id::text"
    )
    lost = await pool.fetchval("select id::text from rooms where sealed_key_id = 'gone'")
    kept = await pool.fetch(
        "select id, sealed, sealed_key_id from rooms where id = any($1) order by id", [broken, lost]
    )
    done = await gateway(env(database_url, BOTH), "rooms", "rotate-key", "--batch", "3")
    assert done.status == 1
    assert "7 rooms sealed anew" in done.out
    assert "No key may be taken out of ROOMS_KEYS yet." in done.out
    assert f"room {broken} does not open under the key 'old'" in done.out
    assert f"room {lost} sealed under the key 'gone', which ROOMS_KEYS does not have" in done.out
    checked = await gateway(env(database_url, BOTH), "rooms", "check", "--json")
    found = json.loads(checked.out)
    assert (checked.status, found["opened"], sorted(found["failed"])) == (1, {"new": 7}, sorted([broken, lost]))
    after = await pool.fetch(
        "select id, sealed, sealed_key_id from rooms where id = any($1) order by id", [broken, lost]
    )
    assert after == kept


async def test_killed_in_the_middle_and_begun_again(pool: Pool, database_url: str, tmp_path: Any) -> None:
    held = await fill(pool, ROOMS)
    environ = clean_environment() | env(database_url, BOTH)
    process = Process(["rooms", "rotate-key", "--batch", "1"], environ, tmp_path / "rotate.log")
    try:
        while not (resealed := await pool.fetchval("select count(*) from rooms where sealed_key_id = 'new'")):
            assert process.popen.poll() is None, process.output()
    finally:
        process.popen.kill()
        process.stop()
    await wait_for_rollback(pool)
    assert 0 < resealed < ROOMS
    left = await pool.fetchval("select count(*) from rooms where sealed_key_id = 'old'")
    assert left > 0, "it was faster than the kill: give it more rooms"
    assert await opened(pool, BOTH) == held  # half-rotated, and every room opens
    done = await gateway(env(database_url, BOTH), "rooms", "rotate-key", "--json")
    assert json.loads(done.out) == {"newest": "new", "resealed": left, "left": {}, "failed": {}}
    assert await opened(pool, NEW) == held
    assert CANARY not in process.output()


async def test_two_rotations_and_the_api_at_once_lose_nothing(pool: Pool) -> None:
    held = await fill(pool, 150)
    ids = list(held)[:40]
    async with open_rooms_api(pool, BOTH) as api:

        async def write(room_id: str) -> None:
            answer = await api.call("PATCH", f"/rooms/{room_id}", {"sensitive": {"more": room_id}})
            assert answer.status == 200, answer
            held[room_id] = {**held[room_id], "more": room_id}

        writing = asyncio.gather(*(write(room_id) for room_id in ids))
        first, second = await asyncio.gather(*(rotation(pool).run(batch=7) for _ in range(2)))
        await writing
    assert (first.left, second.left, first.failed, second.failed) == ({}, {}, {}, {})
    assert first.resealed + second.resealed <= 150
    assert await opened(pool, NEW) == held


async def test_a_room_that_somebody_is_writing_is_waited_for(pool: Pool) -> None:
    held = await fill(pool, 3)
    async with pool.acquire() as writer:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("update rooms set state = 'x' where id = $1", next(iter(held)))
        passes = 0

        async def sleep(_seconds: float) -> None:
            nonlocal passes
            passes += 1
            if passes == 3:
                await transaction.commit()

        rotating = Rotation(BulkRooms(pool), BOTH, random_bytes=os.urandom, sleep=sleep, progress=lambda _: None)
        done = await rotating.run(batch=10)
    assert (done.resealed, done.left, passes) == (3, {}, 3)
    assert await opened(pool, NEW) == held


async def test_one_that_stays_locked_is_left_for_the_next_run(pool: Pool) -> None:
    held = await fill(pool, 2)
    async with pool.acquire() as writer, writer.transaction():
        await writer.execute("update rooms set state = 'x' where id = $1", next(iter(held)))
        done = await rotation(pool).run(batch=10)
    assert (done.resealed, done.left, done.failed) == (1, {"old": 1}, {})


async def test_new_keys_have_ids_that_the_ring_has_not(database_url: str) -> None:
    first = await gateway({}, "rooms", "new-key")
    ring = parse_ring(first.out.strip())
    second = await gateway(env(database_url, ring), "rooms", "new-key")
    both = parse_ring(f"{second.out.strip()},{first.out.strip()}")
    assert both.ids == (f"{ring.newest}-2", ring.newest)
    taken = await gateway(env(database_url, ring), "rooms", "new-key", "--id", ring.newest)
    assert "already" in taken.error
    assert "--id" in (await gateway({}, "rooms", "new-key", "--id", "a/b")).error
    assert "new-key" in (await gateway({"DATABASE_URL": database_url}, "rooms", "check")).error


@pytest.mark.parametrize("wrong", ["junk", "k:junk", "k:" + "QUJD" * 9])
async def test_a_wrong_ring_is_refused_before_anything_is_touched(database_url: str, wrong: str) -> None:
    done = await gateway({"DATABASE_URL": database_url, "ROOMS_KEYS": wrong}, "rooms", "rotate-key")
    assert "ROOMS_KEYS: entry 1" in done.error
    assert wrong.rpartition(":")[2] not in done.error.replace("id:base64", "")
