"""A revocation by a command is heard by every proxy before the command ends; and what holds where one cannot hear."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.access.follow import FollowChanges, name_of
from gateway.accounts import announce, key_changes
from gateway.accounts.key_changes import KeyChanges
from gateway.kit.errors import DependencyDown
from gateway.kit.loops import Loops
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from tests.access.admissions import KEY, AdmissionFakes, Linked
from tests.access.unkey_gate import Gate, gate_at
from tests.keys.unkey_at_work import KeySides, key_sides_at
from tests.support.invoke import gateway
from tests.support.servers import free_port

ANN, BOB = "sk_ann_canary_012", "sk_bob_canary_012"


class Proxies:
    """Proxies over one Redis, as far as keys go; what they remember stays fresh, because the clock stands still."""

    def __init__(self, sides: KeySides, redis_url: str, stack: AsyncExitStack) -> None:
        self.sides = sides
        self.redis_url = redis_url
        self._stack = stack

    async def open(self, name: str, *, follows: bool = True, fresh_s: float = 30) -> tuple[Gate, FollowChanges]:
        """One more; one that does not follow looks for changes only when it is told to."""
        gate = await self._stack.enter_async_context(gate_at(self.sides, fresh_s=fresh_s))
        redis = open_redis(self.redis_url, connections_max=2)
        self._stack.push_async_callback(redis.aclose)
        follow = FollowChanges(KeyChanges(redis), gate.admission, name, lambda: None)
        await follow.open()
        if follows:
            loops = Loops(uniform=lambda least, _: least)
            loops.every("key changes", follow.step_once, every_s=0.01)
            await self._stack.enter_async_context(loops)
        return gate, follow


@pytest.fixture
async def sides(database_url: str, redis_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        made.env["REDIS_URL"] = redis_url
        yield made


@pytest.fixture
async def proxies(sides: KeySides, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxies]:
    monkeypatch.setattr(announce, "WAIT_S", 60.0)  # a busy machine; nobody waits for it where all confirm
    async with AsyncExitStack() as stack:
        yield Proxies(sides, redis_url, stack)


@pytest.fixture
def impatient(proxies: Proxies, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command waits for no proxy that does not confirm at once."""
    monkeypatch.setattr(announce, "WAIT_S", 0.05)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    opened = open_redis(redis_url)
    yield opened
    await opened.aclose()


async def cut_off(redis: Redis) -> None:
    """Ends all other connections."""
    await redis.client_kill_filter(_type="normal", skipme=True)


async def statuses(key: str, *gates: Gate) -> list[int]:
    return [await gate.status(key) for gate in gates]


async def test_the_next_call_on_every_proxy_goes_by_what_a_command_has_done(sides: KeySides, proxies: Proxies) -> None:
    _, user = await sides.key("ann")
    await sides.key("bob")
    gates = [(await proxies.open(name))[0] for name in ("a", "b")]
    assert await statuses(ANN, *gates) == [200, 200]
    assert await statuses(BOB, *gates) == [200, 200]
    for command, expected in (
        (("keys", "disable", "key_ann"), 401),
        (("keys", "enable", "key_ann"), 200),
        (("users", "disable", user), 403),
        (("users", "enable", user), 200),
        (("keys", "revoke", "key_ann"), 401),
    ):
        done = await gateway(sides.env, *command)
        assert (done.status, await statuses(ANN, *gates)) == (0, [expected] * 2), command
        assert "In effect: all 2 proxies have confirmed it." in done.out, command
        assert " s " not in done.out, command
    document = await sides.json("revoke", "key_ann")
    assert (document["in_effect"], document["proxies_confirmed"], document["may_work_for_s"]) == (True, 2, 0)
    assert await statuses(BOB, *gates) == [200, 200]


async def test_a_key_that_was_rerolled_ends_at_once(sides: KeySides, proxies: Proxies) -> None:
    await sides.key("ann")
    gates = [(await proxies.open(name))[0] for name in ("a", "b")]
    assert await statuses(ANN, *gates) == [200, 200]
    made = await sides.json("reroll", "key_ann")
    assert made["in_effect"] is True
    assert await statuses(ANN, *gates) == [401, 401]
    assert await statuses(made["key"], *gates) == [200, 200]


async def test_a_key_that_sync_ends_ends_at_once(sides: KeySides, proxies: Proxies) -> None:
    await sides.key("ann")
    gate, _ = await proxies.open("a")
    assert await gate.status(ANN) == 200
    await sides.gone("key_ann")
    document = await sides.json("sync", "--repair")
    assert document["announced"]["in_effect"] is True
    assert await gate.status(ANN) == 401


async def test_an_earlier_end_holds_where_the_key_is_remembered_for_longer(sides: KeySides, proxies: Proxies) -> None:
    await sides.key("ann")
    gate, _ = await proxies.open("a", fresh_s=7200)
    assert await gate.status(ANN) == 200
    end = datetime.now(UTC) + timedelta(minutes=30)
    document = await sides.json("set", "key_ann", "--expires", end.isoformat())
    assert document["new_end"]["in_effect"] is True
    assert await gate.status(ANN) == 200
    await gate.later(3600)
    assert await gate.status(ANN) == 401


async def test_our_row_ends_a_key_that_a_late_node_knows_without_an_end(sides: KeySides, pool: Pool) -> None:
    await sides.key("ann")
    await pool.execute("update api_keys set expires_at = now() + interval '30 minutes'")
    async with gate_at(sides, fresh_s=7200) as gate:
        assert await gate.status(ANN) == 200
        (entry,) = gate.admission._known.values()
        assert entry.fresh_until_s < sides.sandbox.unkey.now_s() + 3600


@pytest.mark.usefixtures("impatient")
async def test_a_proxy_that_does_not_confirm_is_named_with_the_bound_and_hears_later(
    sides: KeySides, proxies: Proxies
) -> None:
    await sides.key("ann")
    (hearing, hears), (deaf, follow) = await proxies.open("a", follows=False), await proxies.open("b", follows=False)
    assert await statuses(ANN, hearing, deaf) == [200, 200]
    done = await sides.run("revoke", "key_ann")
    assert done.status == 0
    assert re.search(r"0 of 2 proxies have confirmed it, not a, b\. If they run: .*within 30 s.*630 s", done.out)
    await hears.step_once()
    document = await sides.json("revoke", "key_ann")
    assert (document["in_effect"], document["may_work_for_s"]) == (False, 30)
    assert await statuses(ANN, hearing, deaf) == [401, 200]
    await follow.step_once()  # it reads what it has missed
    assert await deaf.status(ANN) == 401


async def test_without_redis_a_command_does_its_work_and_names_the_bound(sides: KeySides) -> None:
    await sides.key("ann")
    sides.env["REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
    async with gate_at(sides) as gate:
        assert await gate.status(ANN) == 200
        done = await sides.run("revoke", "key_ann")
        assert done.status == 0
        assert re.search(r"The proxies could not be told \(redis: .*\)\. Calls that begin within 30 s may", done.out)
        assert await gate.status(ANN) == 200
        await gate.later(30)
        assert await gate.status(ANN) == 401


async def test_nothing_is_said_to_be_in_effect_where_no_proxy_is_known(sides: KeySides) -> None:
    await sides.key("ann")
    document = await sides.json("disable", "key_ann")
    assert (document["in_effect"], document["takes_effect_within_s"]) == (False, 30)
    assert "No running proxy is known. Calls that begin within 30 s" in (await sides.run("disable", "key_ann")).out


async def test_a_proxy_that_is_restarted_meanwhile_lets_nothing_in(sides: KeySides, proxies: Proxies) -> None:
    await sides.key("ann")
    old, follow = await proxies.open("a", follows=False)
    assert await old.status(ANN) == 200
    await follow.close()
    assert "No running proxy is known" in (await sides.run("revoke", "key_ann")).out
    new, follow = await proxies.open("a")
    assert await new.status(ANN) == 401
    assert "the proxy that runs has confirmed it" in (await sides.run("revoke", "key_ann")).out


async def test_a_proxy_that_was_killed_is_named_and_not_waited_for(
    sides: KeySides, proxies: Proxies, redis: Redis
) -> None:
    await sides.key("ann")
    await proxies.open("a")
    seconds, _ = await redis.time()
    await redis.zadd(key_changes.PROXIES, {"gone": seconds - 60, "long gone": seconds - 4000})
    done = await sides.run("revoke", "key_ann")  # else this would wait for a minute
    assert "1 of 2 proxies have confirmed it, not gone. If they run:" in done.out


@pytest.mark.usefixtures("impatient")
async def test_a_proxy_that_was_cut_off_reads_what_it_missed(sides: KeySides, proxies: Proxies, redis: Redis) -> None:
    await sides.key("ann")
    gate, follow = await proxies.open("a", follows=False)
    assert await gate.status(ANN) == 200
    await cut_off(redis)
    await sides.run("revoke", "key_ann")
    assert await gate.status(ANN) == 200
    await follow.step_once()
    assert await gate.status(ANN) == 401


async def test_a_redis_that_has_lost_everything_makes_all_keys_be_asked_about(
    sides: KeySides, proxies: Proxies, redis: Redis, pool: Pool
) -> None:
    await sides.key("ann")
    announcing = KeyChanges(redis)
    await announcing.publish(["key_nobody"], [])
    gate, follow = await proxies.open("a", follows=False)
    assert await gate.status(ANN) == 200
    await redis.flushdb()
    await cut_off(redis)
    await pool.execute("update api_keys set is_active = false")
    assert await gate.status(ANN) == 200
    await follow.step_once()
    assert await gate.status(ANN) == 401
    assert (await announcing.proxies()).keys() == {"a"}


async def test_postgres_away_confirms_nothing(redis: Redis, redis_url: str) -> None:
    fakes, changes = AdmissionFakes(), KeyChanges(redis)
    await fakes.admit()
    follow = FollowChanges(changes, fakes.admission, "a", lambda: None)
    await follow.open()
    fakes.accounts.answer = DependencyDown("postgres", "refused")
    entry_id = await changes.publish(["uk_1"], [])
    with pytest.raises(DependencyDown):
        await follow.step_once()
    assert await changes.confirmed(entry_id) == set()
    await fakes.admit()  # as before: within fresh_s
    fakes.accounts.answer = Linked(key_is_active=False)
    await follow.step_once()
    assert await changes.confirmed(entry_id) == {"a"}
    assert (await fakes.refused()).status == 401


async def test_what_was_asked_before_a_change_is_not_remembered_after_it() -> None:
    fakes = AdmissionFakes()
    fakes.keys.gate.clear()
    asking = asyncio.create_task(fakes.admission.admit(KEY))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(fakes.keys.asked) == 1
    await fakes.admission.look_again(frozenset({"uk_1"}), frozenset())
    fakes.keys.gate.set()
    await asking  # its call was there before
    fakes.accounts.answer = Linked(key_is_active=False)
    assert (await fakes.refused()).status == 401


async def test_a_call_waits_for_no_question_that_was_asked_before_the_change() -> None:
    fakes = AdmissionFakes()
    fakes.keys.gate.clear()
    early = asyncio.create_task(fakes.admission.admit(KEY))
    await asyncio.sleep(0)
    await fakes.admission.look_again(frozenset({"uk_1"}), frozenset())
    late = asyncio.create_task(fakes.admission.admit(KEY))
    while len(fakes.keys.asked) < 2:
        await asyncio.sleep(0)
    fakes.keys.gate.set()
    await asyncio.gather(early, late)


async def test_a_no_of_before_the_change_does_not_last() -> None:
    fakes = AdmissionFakes()
    fakes.accounts.answer = Linked(key_is_active=False)
    fakes.keys.gate.clear()
    early = asyncio.create_task(fakes.refused())
    while not fakes.keys.asked:
        await asyncio.sleep(0)
    await fakes.admission.look_again(frozenset({"uk_1"}), frozenset())
    fakes.keys.gate.set()
    await early
    fakes.accounts.answer = Linked()
    assert (await fakes.admit()).user_id == "user"


@pytest.mark.usefixtures("impatient")
async def test_who_writes_to_redis_lets_no_key_in(sides: KeySides, proxies: Proxies, redis: Redis) -> None:
    await sides.key("ann")
    gate, follow = await proxies.open("a", follows=False)
    await sides.run("revoke", "key_ann")
    assert await gate.status(ANN) == 401
    forged: list[dict[Any, Any]] = [
        {"keys": "key_ann"},
        {"enabled": "key_ann", "users": b"\xed\xb3\xbf"},
        {"keys": b"\xff\x00 key_ann", "users": "' or 1=1"},
    ]
    for fields in forged:
        await redis.xadd(key_changes.STREAM, fields)
        await follow.step_once()
        assert await gate.status(ANN) == 401


async def test_no_secret_is_in_redis(sides: KeySides, proxies: Proxies, redis: Redis) -> None:
    await sides.key("ann")
    gate, _ = await proxies.open("a")
    assert await gate.status(ANN) == 200
    assert (await sides.run("revoke", "key_ann")).status == 0
    for name in await redis.keys("keys:*"):
        assert ANN.encode() not in (await redis.dump(name) or b"")
    entries: Any = await redis.xrange(key_changes.STREAM)
    assert [fields for _, fields in entries] == [{b"keys": b"key_ann", b"users": b""}]


def test_a_name_is_that_of_the_slot_in_its_folder(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    names = [name_of(slot, folder) for folder in (tmp_path, other) for slot in ("proxy-0", "proxy-1")]
    assert len(set(names)) == 4
    assert name_of("proxy-0", tmp_path) == names[0]
    assert json.loads(json.dumps(names[0])).endswith("/proxy-0")
