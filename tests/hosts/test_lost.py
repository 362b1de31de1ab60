"""A host that is lost with its disk: a worker settles what Redis knows of its calls, each exactly once."""

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.key_ring import entry_of, parse_ring
from gateway.hosts.open_calls import CALLS, LEASE
from gateway.ledger.signing import EntrySigner
from gateway.ledger.store import Ledger
from gateway.ledger.stream import Buffer
from gateway.stores.postgres import Pool
from tests.hosts.scene import HostScene, host_scene
from tests.support.events import sums_are_right

ROWS = "select id::text, evidence, completion_tokens, metadata->>'reason' as reason from openai_usage order by id"


async def test_every_call_in_flight_becomes_a_labelled_row(scene: HostScene) -> None:
    plain, noted = await scene.open(), await scene.open(note=9)
    response = await scene.open(note=3, endpoint="responses")
    await scene.step()
    assert await scene.worker().step_once() == 0  # it lives
    await scene.lose()
    assert await scene.worker().step_once() == 3
    assert [tuple(row) for row in await scene.pool.fetch(ROWS)] == sorted(
        [
            (plain, "estimated", 0, "host_lost"),
            (noted, "estimated", 9, "host_lost"),
            (response, "estimated", 3, "host_lost"),
        ]
    )
    row = await scene.row()
    assert row["lost_at"] is not None
    assert (row["swept_calls"], row["ended_at"] is not None) == (3, True)
    assert await scene.shown() == set()
    assert await scene.worker().step_once() == 0
    assert (await scene.row())["swept_calls"] == 3
    # The poll loop asks for it, and makes it exact.
    kept = await scene.pool.fetchval("select response_id from openai_usage where id = $1::uuid", response)
    assert kept == f"resp_{response}"
    assert await sums_are_right(scene.pool)


@pytest.mark.parametrize("store", ["redis", "postgres"])
async def test_one_lease_is_enough_to_live(scene: HostScene, store: str) -> None:
    """A host that reaches only one of them is not lost."""
    await scene.open()
    await scene.step()
    await (scene.lose_in_redis() if store == "redis" else scene.lose_in_postgres())
    assert await scene.worker().step_once() == 0
    assert await scene.shown()
    assert (await scene.row())["lost_at"] is None


async def test_a_host_that_postgresql_has_never_heard_of(scene: HostScene) -> None:
    """It was away from the host's first second to its last."""
    await scene.open()
    await scene.shipping.after(0.1)
    await scene.presence.show_calls()
    assert await scene.row() is None
    assert await scene.worker().step_once() == 0
    await scene.lose_in_redis()
    assert await scene.worker().step_once() == 1
    assert ((await scene.row())["swept_calls"], await scene.calls.names()) == (1, {})


async def test_a_host_whose_calls_redis_has_lost_too(scene: HostScene) -> None:
    await scene.open()
    await scene.step()
    await scene.redis.flushdb()
    await scene.lose_in_postgres()
    assert await scene.worker().step_once() == 0
    row = await scene.row()
    assert (row["lost_at"] is not None, row["open_calls"], row["swept_calls"]) == (True, 1, 0)


async def test_one_worker_at_a_time(scene: HostScene) -> None:
    await scene.open()
    await scene.step()
    await scene.lose()
    (host,) = await scene.hosts.lapsed({})
    assert await scene.hosts.claim(host, "first", 60)
    assert await scene.worker("second").step_once() == 0
    assert await scene.shown()
    assert await scene.hosts.claim(host, "first", -1)  # and it dies
    assert await scene.worker("second").step_once() == 1


async def test_two_workers_at_once_make_one_row(scene: HostScene) -> None:
    """One that was thought dead: its claim is over, and it goes on."""
    event_id = await scene.open()
    await scene.step()
    await scene.lose()
    slow = scene.worker("slow")
    found = await slow._claimed()
    calls = await scene.calls.read(found[0].id, 10)
    await scene.pool.execute("update hosts set sweeper_until = now()")
    assert await scene.worker("quick").step_once() == 1
    assert await slow._sweep.step_once([each.orphan for each in calls if each.orphan]) == 1
    assert [row["id"] for row in await scene.pool.fetch(ROWS)] == [event_id]
    assert await sums_are_right(scene.pool)


class Killed(BaseException):
    """kill -9, as a loop in this process can have it."""


class Dying:
    """Something whose every question counts; the n-th kills, before it is asked or after it is answered."""

    def __init__(self, thing: Any, deaths: "Deaths") -> None:
        self._thing, self._deaths = thing, deaths

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if not callable(found):
            return found

        async def asked(*arguments: object, **options: object) -> object:
            self._deaths.reach()
            answer: Awaitable[object] = found(*arguments, **options)
            done = await answer
            self._deaths.reach()
            return done

        return asked


class Deaths:
    def __init__(self, nth: int) -> None:
        self.left = nth

    def reach(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


async def test_killed_at_any_await_each_call_is_one_row(scene: HostScene) -> None:
    """Dies before and after everything that it asks of Redis and PostgreSQL, in one life after the other."""
    nth, calls = 0, 0
    finished = False
    while not finished:
        nth += 1
        event_ids = {await scene.open(), await scene.open(note=4)}
        calls += len(event_ids)
        await scene.step()
        await scene.lose()
        deaths = Deaths(nth)
        parts = {"calls": scene.calls, "hosts": scene.hosts, "ledger": scene.shipping.ledger}
        doomed = scene.worker("doomed", **{name: Dying(part, deaths) for name, part in parts.items()})
        try:
            await doomed.step_once()
            finished = True
        except Killed:
            await scene.pool.execute("update hosts set sweeper_until = now()")
        await scene.worker("next").step_once()
        assert await scene.shown() == set(), nth
        rows = await scene.pool.fetch(ROWS)
        assert len(rows) == calls, nth
        assert event_ids <= {row["id"] for row in rows}
    assert nth > 15
    assert await sums_are_right(scene.pool)


async def test_cut_off_swept_and_reconnected(scene: HostScene) -> None:
    """Its own SETTLE comes after all: the difference becomes a row of its own, and every sum is exact."""
    cut, killed = await scene.open(), await scene.open()
    await scene.step()
    await scene.lose()
    assert await scene.worker().step_once() == 2
    truth = await scene.settle(cut)  # written to its disk meanwhile
    await scene.step()  # it reaches the stores again
    assert (await scene.row())["lost_at"] is None
    flush = scene.flush()
    await flush.step_once()
    await flush.step_once()
    rows = await scene.pool.fetch("select id::text, adjusts::text, evidence, cost_usd, billed_usd from openai_usage")
    assert sorted((row["adjusts"] or "", row["evidence"]) for row in rows) == sorted(
        [("", "estimated"), ("", "estimated"), (cut, "adjustment")]
    )
    of_it = [row for row in rows if cut in (row["id"], row["adjusts"])]
    assert sum(row["cost_usd"] for row in of_it) * 10**9 == truth.cost_nano
    assert sum(row["billed_usd"] for row in of_it) * 10**9 == truth.billed_nano
    assert sum(row["adjusts"] is None for row in of_it) == 1
    assert await sums_are_right(scene.pool)
    await scene.step(3)
    assert (scene.shipping.ship.unconfirmed, scene.shipping.ship.open_calls) == (0, 1)
    assert killed in {row["id"] for row in rows}


async def test_its_disk_comes_back(scene: HostScene) -> None:
    """The host was off for hours: a new keeper reads the journal, in which one call was settled and one was not."""
    settled, open_still = await scene.open(), await scene.open()
    await scene.step()
    truth = await scene.settle(settled)
    await scene.lose()
    assert await scene.worker().step_once() == 2
    scene.shipping.start()
    scene.presence = scene.new_presence()
    await scene.step()
    flush = scene.flush()
    await flush.step_once()
    await scene.step(3)
    rows = await scene.pool.fetch("select id::text, adjusts::text, cost_usd from openai_usage")
    assert sum(row["cost_usd"] for row in rows if settled in (row["id"], row["adjusts"])) * 10**9 == truth.cost_nano
    assert sum(row["adjusts"] is None for row in rows) == 2
    assert {row["id"] for row in rows if row["adjusts"] is None} == {settled, open_still}
    assert await sums_are_right(scene.pool)


async def test_a_call_that_has_its_row_is_left_alone(scene: HostScene) -> None:
    """The host died between its SETTLE in the stream and the removal of its OPEN."""
    event_id = await scene.open()
    await scene.step()
    event = await scene.settle(event_id)
    await scene.shipping.after(0.1)  # into the stream; nothing more
    await scene.flush().step_once()
    await scene.lose()
    assert await scene.worker().step_once() == 0
    (row,) = await scene.pool.fetch("select evidence, cost_usd from openai_usage")
    assert (row["evidence"], row["cost_usd"] * 10**9) == ("reported", event.cost_nano)
    assert await scene.shown() == set()


async def test_only_a_gateway_makes_rows(
    tmp_path: Path, redis_url: str, buffer: Buffer, ledger: Ledger, pool: Pool
) -> None:
    """Whoever can write to Redis can neither add a call nor change one."""
    signer = EntrySigner(parse_ring(entry_of("one", bytes(32))))
    async with host_scene(tmp_path, redis_url, buffer, ledger, pool, signer) as scene:
        good, altered = await scene.open(note=1), await scene.open()
        await scene.step()
        key = CALLS + scene.host.id
        raw = await scene.redis.hget(key, altered)
        await scene.redis.hset(key, altered, raw.replace(b'"text_bytes":400', b'"text_bytes":401'))
        await scene.redis.hset(key, "00000000-0000-7000-8000-000000000001", raw)
        await scene.lose()
        assert await scene.worker().step_once() == 1
        assert [row["id"] for row in await scene.pool.fetch(ROWS)] == [good]
        assert [row["kind"] for row in await scene.pool.fetch("select kind from usage_quarantine")] == ["wrong_mac"] * 2
        assert await scene.redis.exists(key, LEASE + scene.host.id) == 0


async def test_a_call_that_runs_cannot_be_moved_to_a_host_that_nobody_has(
    tmp_path: Path, redis_url: str, buffer: Buffer, ledger: Ledger, pool: Pool
) -> None:
    """Such a host has no lease, so the call would be settled at once."""
    signer = EntrySigner(parse_ring(entry_of("one", bytes(32))))
    async with host_scene(tmp_path, redis_url, buffer, ledger, pool, signer) as scene:
        running, made_up = await scene.open(), "00000000-0000-4000-8000-000000000001"
        await scene.step()
        await scene.redis.hset("host:names", made_up, "x")
        await scene.redis.hset(CALLS + made_up, running, await scene.redis.hget(CALLS + scene.host.id, running))
        assert await scene.worker().step_once() == 0
        assert await scene.pool.fetch(ROWS) == []
        assert [row["kind"] for row in await scene.pool.fetch("select kind from usage_quarantine")] == ["wrong_mac"]
        assert await scene.shown() == {running}


async def test_what_does_not_read_stops_no_other(scene: HostScene) -> None:
    good = await scene.open()
    await scene.step()
    key = CALLS + scene.host.id
    raw = await scene.redis.hget(key, good)
    for name, value in {"00000000-0000-7000-8000-000000000002": raw, "x": b"\xff", "\x00": b"{}\n{}\n"}.items():
        await scene.redis.hset(key, name, value)
    await scene.redis.hset("host:names", "no id", "x")
    await scene.lose()
    assert await scene.worker().step_once() == 1
    assert [row["id"] for row in await scene.pool.fetch(ROWS)] == [good]
    assert await scene.pool.fetchval("select count(*) from usage_quarantine") == 3
    assert await scene.redis.exists(key) == 0
