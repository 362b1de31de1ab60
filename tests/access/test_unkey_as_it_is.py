"""What a proxy lets in where Unkey is as it really is: stale nodes, merged limits, answers that leave something out."""

from collections.abc import AsyncIterator

import pytest

from gateway.accounts.store import Accounts
from gateway.ledger.store import Ledger
from gateway.sandbox.unkey.bodies import LimitBody, UpdateIdentity
from gateway.sandbox.unkey.keys import NamedLimit
from gateway.stores.postgres import Pool
from tests.access.unkey_gate import Gate, gate_at
from tests.keys.unkey_at_work import KeySides, key_sides_at
from tests.support.stand_ins import control

ANN, CANARY = "sk_ann_canary_012", "sk_watch_canary_012"


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        yield made


async def each_node(gate: Gate, key: str, *nodes: int) -> list[int]:
    """How the key is answered by these nodes, one after the other, each time when it has to be asked about."""
    found = []
    for node in nodes:
        await gate.mode(caches=True, node=node)
        found.append(await gate.status(key))
        await gate.later(31)
    return found


# Revocation.


@pytest.mark.parametrize("ended_by", ["change", "revoke"])
async def test_a_key_that_one_node_has_ended_is_not_accepted_from_another(sides: KeySides, ended_by: str) -> None:
    await sides.key("ann")
    async with gate_at(sides) as gate:
        assert await each_node(gate, ANN, 1, 0) == [200, 200]
        if ended_by == "change":
            await gate.change("key_ann", enabled=False)
        else:
            await sides.gone("key_ann")
        # Each node says once what it last knew; then one says no, and the other's old yes is not believed.
        assert await each_node(gate, ANN, 0, 0, 1, 0, 1) == [200, 401, 401, 401, 401]


async def test_a_key_that_a_command_enables_is_let_in_at_once_whatever_was_stale(sides: KeySides) -> None:
    await sides.key("ann")
    async with gate_at(sides) as gate:
        assert await each_node(gate, ANN, 0, 1) == [200, 200]
        await gate.change("key_ann", enabled=False)
        assert await each_node(gate, ANN, 1, 1) == [200, 401]
        assert (await sides.run("enable", "key_ann")).status == 0
        await gate.mode(caches=True, node=1)
        assert await gate.status(ANN) == 200
        await gate.later(31)
        # Node 0 has never been asked since; its stale yes is right again, and a stale no does not last.
        assert await each_node(gate, ANN, 0, 0, 1) == [200, 200, 200]


async def test_a_stale_no_after_a_command_has_enabled_a_key_does_not_last(sides: KeySides) -> None:
    await sides.key("ann")
    async with gate_at(sides, negative_s=10) as gate:
        await gate.change("key_ann", enabled=False)
        await gate.mode(caches=True, node=1)
        assert await gate.status(ANN) == 401  # node 1 has "disabled" in its cache
        await gate.mode(caches=True, node=0)
        assert (await sides.run("enable", "key_ann")).status == 0
        await gate.later(11)
        assert await gate.status(ANN) == 200
        await gate.later(31)
        await gate.mode(caches=True, node=1)
        assert await gate.status(ANN) == 401  # the stale no
        await gate.later(11)
        assert await gate.status(ANN) == 200


async def test_in_the_end_unkey_is_believed_again(sides: KeySides) -> None:
    await sides.key("ann")
    async with gate_at(sides) as gate:
        assert await gate.status(ANN) == 200
        await gate.change("key_ann", enabled=False)
        await gate.later(31)
        assert await gate.status(ANN) == 401
        await gate.change("key_ann", enabled=True)
        await gate.later(650)
        assert await gate.status(ANN) == 401
        await gate.later(11)
        assert await gate.status(ANN) == 200


async def test_an_end_that_was_known_is_extended_at_once(sides: KeySides) -> None:
    now_ms = int(sides.sandbox.unkey.now_s() * 1000)
    await sides.key("ann", expires=now_ms + 20_000)
    await sides.key("bob", expires=now_ms + 3_600_000)
    async with gate_at(sides) as gate:
        for key in (ANN, "sk_bob_canary_012"):
            assert await gate.status(key) == 200
        await gate.change("key_bob", expires=now_ms + 5_000)
        await gate.later(31)
        for key in (ANN, "sk_bob_canary_012"):
            assert await gate.status(key) == 401
        for key_id in ("key_ann", "key_bob"):
            await gate.change(key_id, expires=now_ms + 3_600_000)
        await gate.later(31)
        assert await gate.status(ANN) == 200
        assert await gate.status("sk_bob_canary_012") == 401  # its end was moved: another node may not know


@pytest.mark.parametrize("command", ["revoke", "disable"])
async def test_a_command_ends_a_key_whatever_unkey_s_nodes_say(sides: KeySides, command: str) -> None:
    await sides.key("ann")
    async with gate_at(sides) as gate:
        assert await each_node(gate, ANN, 1, 1) == [200, 200]
        await gate.mode(caches=True, node=0)
        assert (await sides.run(command, "key_ann")).status == 0
        assert await each_node(gate, ANN, 1, 0, 1) == [401, 401, 401]  # node 1 says yes: PostgreSQL says no


async def test_strict_is_no_exception(sides: KeySides) -> None:
    await sides.key("ann")
    async with gate_at(sides, fresh_s=0, stale_s=0) as gate:
        assert await each_node(gate, ANN, 1, 0) == [200, 200]
        await gate.change("key_ann", enabled=False)
        assert await each_node(gate, ANN, 0, 0, 1, 0) == [200, 401, 401, 401]


# Limits.


async def test_a_key_s_limit_does_not_hide_the_user_s(sides: KeySides) -> None:
    _, user = await sides.key("ann")
    limits = [LimitBody(name="requests", limit=2, duration=60_000, auto_apply=True)]
    sides.sandbox.unkey.identities.update_identity(UpdateIdentity(identity=user, ratelimits=limits))
    made = await sides.json("create", "--user", "ann@example.com", "--rpm", "1000", "--tpm", "5000")
    async with gate_at(sides) as gate:
        key_limits = (await gate.admit(made["key"])).key_limits
        assert key_limits is not None
        assert (key_limits.of_key.requests, key_limits.of_key.tokens) == ((1000, 60.0), (5000, 60.0))
        assert key_limits.of_user.requests == (2, 60.0)
    await sides.json("set", "key_ann", "--rpm", "900")
    async with gate_at(sides) as gate:
        key_limits = (await gate.admit(ANN)).key_limits
        assert key_limits is not None
        assert (key_limits.of_key.requests, key_limits.of_user.requests) == ((900, 60.0), (2, 60.0))


async def test_limits_outlive_a_limiter_that_is_down(sides: KeySides) -> None:
    await sides.key("ann", ratelimits=[NamedLimit("key-requests", 2, 3_600_000, "rl_1", True)])
    async with gate_at(sides) as gate:

        async def requests() -> tuple[int, float] | None:
            key_limits = (await gate.admit(ANN)).key_limits
            return None if key_limits is None else key_limits.of_key.requests

        assert await requests() == (2, 3600.0)
        await gate.mode(limiter_down=True)
        for _ in range(3):
            await gate.later(31)
            assert await requests() == (2, 3600.0)
        await gate.later(631)
        assert await requests() is None  # a limit that was taken away is gone in the end
        await gate.mode()
        await gate.later(31)
        assert await requests() == (2, 3600.0)


# Permissions.


async def test_a_bound_key_is_refused_where_its_permissions_are_left_out(sides: KeySides) -> None:
    user = (await sides.key("ann"))[1]
    made = await sides.json("create", "--user", user, "--models", "gpt-4o-mini")
    async with gate_at(sides) as gate:
        allowed = (await gate.admit(made["key"])).allowed
        assert allowed is not None
        assert not allowed.model("gpt-4o")
        await gate.mode(permissions_hidden=True)
        await gate.later(31)
        error = await gate.refused(made["key"])
        assert (error.status, error.code) == (403, "insufficient_permissions")
        assert await gate.status(ANN) == 200  # nothing binds it
        await gate.mode()
        await gate.later(31)
        assert await gate.status(made["key"]) == 200
        await control(sides.sandbox, "unkey", "/change", keyId=made["key_id"], permissions=[])
        await gate.later(31)
        assert await gate.status(made["key"]) == 403  # somebody has deleted the permission


async def test_a_canary_tells_that_permissions_are_left_out(sides: KeySides) -> None:
    await sides.key("ann")
    await sides.key("bob", permissions=["openai.model.gpt-4o-mini"])
    bound = await sides.json("create", "--user", "ann@example.com", "--endpoints", "chat")
    sides.at_unkey("watch", permissions=["openai.models"], meta={"bound": True})
    async with gate_at(sides, canary=CANARY) as gate:
        for key in (ANN, "sk_bob_canary_012", bound["key"]):
            assert await gate.status(key) == 200
        await gate.mode(permissions_hidden=True)
        await gate.later(31)
        assert await gate.status(bound["key"]) == 200  # as before, as in an outage
        allowed = (await gate.admit("sk_bob_canary_012")).allowed
        assert allowed is not None
        assert not allowed.model("gpt-4o")
        sides.at_unkey("new", external_id=bound["user_id"], permissions=["openai.model.gpt-4o-mini"])
        await Accounts(sides.pool).link_key(bound["user_id"], "key_new", name="new")
        assert (await gate.refused("sk_new_canary_012")).status == 503  # what it may call is unknown
        assert gate.verifier.is_doubted
        await gate.mode()
        await gate.later(31)
        assert await gate.status("sk_new_canary_012") == 200
        assert not gate.verifier.is_doubted


async def test_a_canary_that_alone_has_lost_its_permission_stops_nobody(sides: KeySides) -> None:
    await sides.key("ann")
    await sides.key("bob", permissions=["openai.chat"])
    sides.at_unkey("watch", permissions=[], meta={"bound": True})
    async with gate_at(sides, canary=CANARY) as gate:
        assert gate.verifier.is_doubted
        assert await gate.status(ANN) == 503  # nothing tells yet whether others come with theirs
        await gate.later(1)
        assert await gate.status("sk_bob_canary_012") == 200
        assert await gate.status(ANN) == 200
        assert not gate.verifier.is_doubted


async def test_a_canary_is_looked_at_again_for_keys_that_nothing_marks(sides: KeySides) -> None:
    await sides.key("bob", permissions=["openai.model.gpt-4o-mini"])
    sides.at_unkey("watch", permissions=["openai.models"], meta={"bound": True})
    async with gate_at(sides, canary=CANARY, stale_s=1000) as gate:
        assert await gate.status("sk_bob_canary_012") == 200
        await gate.mode(permissions_hidden=True)
        await gate.later(301)
        await gate.status("sk_bob_canary_012")  # the canary is asked about behind this one
        await gate.later(31)
        allowed = (await gate.admit("sk_bob_canary_012")).allowed
        assert gate.verifier.is_doubted
        assert allowed is None or not allowed.model("gpt-4o")


# Unkey's own limit.


async def test_unkey_s_own_limit_is_obeyed_and_is_no_outage(sides: KeySides) -> None:
    await sides.key("ann")
    async with gate_at(sides) as gate:
        assert await gate.status(ANN) == 200
        await sides.trouble(status=429, retry_after_s=20, times=1)
        await control(sides.sandbox, "unkey", "/calls", method="DELETE")
        error = await gate.refused("sk_stranger_0")
        assert (error.status, error.headers["Retry-After"]) == (503, "20")
        for number in range(9):
            assert (await gate.refused(f"sk_stranger_{number}")).headers["Retry-After"] == "20"
        calls = (await control(sides.sandbox, "unkey", "/calls", method="GET"))["calls"]
        assert calls["keys.verifyKey"] == 1
        assert not gate.verifier.circuit_is_open
        assert await gate.status(ANN) == 200
        await gate.later(20)
        assert await gate.status("sk_stranger_0") == 401
