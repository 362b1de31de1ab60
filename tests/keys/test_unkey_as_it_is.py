"""`gateway keys …` where Unkey is as it really is: roles, a replica that lags, older servers, rights masked as 404."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.config.settings import Settings
from gateway.keys.bounds import BoundsChange
from gateway.keys.change import Wanted, set_fields
from gateway.keys.create import create
from gateway.keys.reroll import Rerolled, reroll
from gateway.kit.errors import DependencyDown, OptionError
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.unkey.bodies import LimitBody, UpdateIdentity
from gateway.sandbox.unkey.keys import NamedLimit
from gateway.stores.postgres import Pool
from tests.access.unkey_gate import gate_at
from tests.keys.unkey_at_work import KeySides, key_sides_at
from tests.support.stand_ins import control

ANN = "sk_ann_canary_012"


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        yield made


def settings_of(sides: KeySides) -> Settings:
    return Settings(
        database_url=SecretStr(sides.env["DATABASE_URL"]),
        unkey_root_key=SecretStr(credentials.UNKEY_ROOT_KEY),
        unkey_api_id=credentials.UNKEY_API_ID,
        unkey_base_url=sides.sandbox.unkey_base_url,
    )


async def mode(sides: KeySides, **fields: Any) -> None:
    await control(sides.sandbox, "unkey", "/mode", **fields)


async def role(sides: KeySides, name: str, *permissions: str) -> None:
    await control(sides.sandbox, "unkey", "/roles", name=name, permissions=permissions)


# Roles.


async def test_what_a_role_allows_does_not_become_the_key_s_own(sides: KeySides) -> None:
    await role(sides, "helper", "rooms.read", "usage.read")
    await sides.key("ann", roles=["helper"], permissions=["openai.chat"])
    done = await sides.json("set", "key_ann", "--models", "gpt-4o-mini")
    assert sides.kept("key_ann").permissions == ["openai.chat", "openai.model.gpt-4o-mini"]
    assert done["changed"] == {"models": {"from": None, "to": ["gpt-4o-mini"]}}
    sides.kept("key_ann").roles = []
    async with gate_at(sides) as gate:
        assert (await gate.admit(ANN)).granted == frozenset()  # nobody ever granted it to the key


REFUSED: list[tuple[str, list[str], BoundsChange]] = [
    ("openai.*", [], BoundsChange(models=("openai.model.gpt-4o-mini",))),
    ("openai.*", ["openai.chat"], BoundsChange(endpoints=("openai.embeddings",))),
    ("openai.model.gpt-5", [], BoundsChange(models=None)),
    ("openai.model.gpt-5", ["openai.model.gpt-4o"], BoundsChange(models=("openai.model.gpt-4o-mini",))),
    ("openai.chat", ["openai.responses"], BoundsChange(endpoints=None, concurrent=2)),
]


@pytest.mark.parametrize(("of_role", "own", "bounds"), REFUSED)
async def test_a_change_that_a_role_makes_untrue_is_refused(
    sides: KeySides, of_role: str, own: list[str], bounds: BoundsChange
) -> None:
    await role(sides, "wide", of_role)
    await sides.key("ann", roles=["wide"], permissions=own, meta={"plan": "pro"})
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    change = Wanted(name="other", bounds=bounds)
    with pytest.raises(OptionError) as refused:
        await set_fields(settings_of(sides), reference="key_ann", change=change, pause=pause)
    assert f"its roles (wide) give it {of_role}, so this would not hold. Nothing was changed." in str(refused.value)
    assert str(refused.value).endswith("in Unkey's dashboard")  # not "run it again": that cannot help
    assert waited  # a replica might have been behind
    kept = sides.kept("key_ann")
    assert (sorted(kept.permissions), kept.meta, kept.name) == (sorted(own), {"plan": "pro"}, "ann")
    assert (await sides.row("key_ann"))["name"] == "ann"


async def test_a_role_that_unkey_does_not_know_is_no_missing_key(sides: KeySides) -> None:
    await sides.key("ann", roles=["gone"])
    del sides.sandbox.unkey.kept.roles["gone"]
    sides.at_unkey("bare", external_id=sides.kept("key_ann").external_id)
    made = {"meta": {"requestId": "r"}, "data": {"keyId": "key_bare", "key": "k"}}
    await sides.trouble(endpoint="keys.rerollKey", body=json.dumps(made))
    done = await sides.run("reroll", "key_ann")
    assert (done.status, done.out) == (1, "")
    assert "Unkey: Role 'gone' was not found." in done.error


# The mark of a bound key.


async def test_bound_keys_are_marked(sides: KeySides) -> None:
    await sides.key("ann", meta={"plan": "pro"})
    made = await sides.json("create", "--user", "ann@example.com", "--models", "gpt-5", "--concurrent", "2")
    free = await sides.json("create", "--user", "ann@example.com", "--permission", "usage.read")
    assert sides.kept(made["key_id"]).meta == {"bound": True, "concurrent": 2}
    assert sides.kept(free["key_id"]).meta is None
    await sides.run("set", "key_ann", "--endpoints", "chat")
    assert sides.kept("key_ann").meta == {"plan": "pro", "bound": True}
    await sides.run("set", "key_ann", "--all-endpoints")
    assert sides.kept("key_ann").meta == {"plan": "pro"}


async def test_sync_marks_bound_keys_that_were_made_without_it(sides: KeySides) -> None:
    await role(sides, "chatter", "openai.chat")
    await sides.key("ann", permissions=["openai.model.gpt-5"], meta={"plan": "pro"})
    await sides.key("bob", roles=["chatter"])
    await sides.key("eve", permissions=["openai.*", "openai.chat"])
    assert "it is not marked so" in (await sides.run("show", "key_ann")).out
    found = await sides.run("sync", "--json")
    drift = {(one["kind"], one["key_id"], one["outcome"]) for one in json.loads(found.out)["drift"]}
    assert (found.status, drift) == (1, {("mark", "key_ann", "differs"), ("mark", "key_bob", "differs")})
    assert sides.kept("key_ann").meta == {"plan": "pro"}
    assert (await sides.run("sync", "--repair")).status == 0
    assert (sides.kept("key_ann").meta, sides.kept("key_bob").meta) == ({"plan": "pro", "bound": True}, {"bound": True})
    assert sides.kept("key_eve").meta is None
    assert (await sides.run("sync")).status == 0
    sides.kept("key_ann").meta = None
    sides.sandbox.unkey.permissions -= {"update_key"}
    done = await sides.run("sync", "--repair")
    assert "key_ann could not be marked as a bound key" in done.error
    assert "api.*.update_key" in done.error


# Limits with one name.


async def test_names_that_collide_are_warned_of(sides: KeySides) -> None:
    _, user = await sides.key("ann", ratelimits=[NamedLimit("requests", 1000, 60_000, "rl_1", True)])
    limits = [LimitBody(name="requests", limit=2, duration=60_000, auto_apply=True)]
    sides.sandbox.unkey.identities.update_identity(UpdateIdentity(identity=user, ratelimits=limits))
    says = "the limit 'requests' of the key hides the one of its user"
    assert says in (await sides.json("show", "key_ann"))["warnings"][0]
    assert says in (await sides.run("set", "key_ann", "--name", "x")).out
    assert (await sides.json("set", "key_ann", "--rpm", "900"))["warnings"] == []  # it has a name of its own now
    assert [one.name for one in sides.kept("key_ann").ratelimits] == ["key-requests"]
    limits.append(LimitBody(name="key-tokens", limit=2, duration=60_000, auto_apply=True))
    sides.sandbox.unkey.identities.update_identity(UpdateIdentity(identity=user, ratelimits=limits))
    made = await sides.run("create", "--user", user, "--tpm", "5")
    assert "warning: the limit 'key-tokens' of the key hides" in made.out


async def test_a_limit_with_its_old_name_is_read_and_taken_away(sides: KeySides) -> None:
    await sides.key(
        "ann", ratelimits=[NamedLimit(name, 9, 60_000, f"rl_{name}", True) for name in ("requests", "tokens")]
    )
    shown = await sides.json("show", "key_ann")
    assert (shown["requests_per_minute"], shown["tokens_per_minute"]) == (9, 9)
    async with gate_at(sides) as gate:
        key_limits = (await gate.admit(ANN)).key_limits
        assert key_limits is not None
        assert (key_limits.of_key.requests, key_limits.of_key.tokens) == ((9, 60.0), (9, 60.0))
    await sides.run("set", "key_ann", "--no-rpm", "--tpm", "8")
    assert [(one.name, one.limit) for one in sides.kept("key_ann").ratelimits] == [("key-tokens", 8)]


# Older servers.


@pytest.mark.parametrize("strict", [False, True])
async def test_both_contracts_are_spoken(sides: KeySides, strict: bool) -> None:
    ends_ms = int(sides.began_at.timestamp() * 1000) + 10**9
    await sides.key("ann", expires=ends_ms, ratelimits=[NamedLimit("key-requests", 9, 60_000, "rl_1", True)])
    await sides.key("bob")
    await mode(sides, strict_nulls=strict)
    assert (await sides.run("set", "key_ann", "--no-rpm")).error == ""
    assert sides.kept("key_ann").ratelimits == []
    for key_id in ("key_ann", "key_bob"):
        done = await sides.run("reroll", key_id, "--overlap", "1h")
        assert done.error == ""
        old = sides.kept(key_id)
        assert old.expires is not None
        assert timedelta(0) < datetime.fromtimestamp(old.expires / 1000, UTC) - sides.began_at < timedelta(hours=2)


async def test_an_old_key_ends_as_it_did_where_the_new_one_is_taken_back(sides: KeySides) -> None:
    ends_ms = int(sides.began_at.timestamp() * 1000) + 10**9
    await sides.key("ann", expires=ends_ms)
    await sides.key("bob")
    await mode(sides, strict_nulls=True)
    async with sides.rows_refuse("insert"):
        for key_id, ends in (("key_ann", ends_ms), ("key_bob", None)):
            done = await sides.run("reroll", key_id)
            assert "deleted at Unkey again" in done.error
            assert sides.kept(key_id).expires == ends
    await sides.trouble(endpoint="keys.updateKey", status=403)
    done = await sides.run("reroll", "key_bob")
    assert "Whether key_bob still ends as it did (never) is not known" in done.error


# A replica that is behind.


async def test_a_new_key_that_cannot_be_found_yet_is_waited_for(sides: KeySides) -> None:
    await sides.key("ann", permissions=["openai.chat"], remaining=10)
    await control(sides.sandbox, "unkey", "/clock", seconds=9)
    await mode(sides, lag_s=3)
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        await control(sides.sandbox, "unkey", "/clock", seconds=seconds)

    at = datetime.fromtimestamp(sides.sandbox.unkey.now_s(), UTC)
    shown: list[Rerolled] = []
    done = await reroll(
        settings_of(sides), reference="key_ann", overlap=timedelta(), now=at, show=shown.append, pause=pause
    )
    assert sum(waited) > 2.9
    assert shown == [done]
    assert sides.kept(done.made.key_id).permissions == ["openai.chat"]
    await control(sides.sandbox, "unkey", "/clock", seconds=9)
    change = Wanted(name="desk")
    changed = await set_fields(settings_of(sides), reference=done.made.key_id, change=change, pause=pause)
    assert changed.different == {"name": {"from": "ann", "to": "desk"}}  # what Unkey says in the end, not what was sent


@pytest.mark.parametrize(("lag_s", "says"), [(3.0, "nothing is left over"), (60.0, "does not find it yet")])
async def test_nothing_is_called_deleted_that_may_appear(sides: KeySides, lag_s: float, says: str) -> None:
    await sides.key("ann")
    await mode(sides, lag_s=lag_s)

    async def pause(seconds: float) -> None:
        await control(sides.sandbox, "unkey", "/clock", seconds=seconds)

    async with sides.rows_refuse("insert"):
        with pytest.raises(DependencyDown) as failed:
            await create(settings_of(sides), user="ann@example.com", pause=pause)
    left = [key for key in sides.sandbox.unkey.kept.keys if key != "key_ann"]
    assert says in str(failed.value)
    assert ("nothing is left over" in str(failed.value)) == (left == [])
    assert all(key_id in str(failed.value) for key_id in left)


# Rights.


@pytest.mark.parametrize(
    ("command", "lacks", "needs"),
    [
        (("create", "--user", "ann@example.com"), "create_key", "api.*.create_key"),
        (("sync",), "read_key", "api.*.read_key and api.*.read_api"),
        (("list", "--limits"), "read_api", "api.*.read_key and api.*.read_api"),
    ],
)
async def test_a_missing_right_is_named_beside_a_missing_api(
    sides: KeySides, command: tuple[str, ...], lacks: str, needs: str
) -> None:
    await sides.key("ann")
    sides.sandbox.unkey.permissions -= {lacks}
    done = await sides.run(*command)
    assert done.status == 1
    api = credentials.UNKEY_API_ID
    assert f"({api}) is not an API of this workspace, or UNKEY_ROOT_KEY lacks {needs}" in done.error


async def test_what_it_takes_to_change_permissions_is_named(sides: KeySides) -> None:
    await sides.key("ann")
    sides.sandbox.unkey.permissions -= {"add_permission_to_key"}
    done = await sides.run("set", "key_ann", "--models", "gpt-5")
    assert "rbac.*.add_permission_to_key" in done.error
    assert sides.kept("key_ann").permissions == []


@pytest.mark.parametrize("option", [["--models", "org/llama"], ["--models", "m" * 120], ["--permission", "a/b"]])
async def test_a_permission_that_unkey_cannot_hold_is_refused_here(sides: KeySides, option: list[str]) -> None:
    await sides.key("ann")
    done = await sides.run("create", "--user", "ann@example.com", *option)
    assert (done.status, len(sides.sandbox.unkey.kept.keys)) == (1, 1)
    assert done.error.startswith(f"{option[0]}: ")


# Credits.


async def test_without_credits_a_key_works_all_the_same(sides: KeySides) -> None:
    await sides.key("ann", remaining=0)
    async with gate_at(sides) as gate:
        assert await gate.status(ANN) == 200
