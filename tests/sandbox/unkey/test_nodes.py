"""The Unkey stand-in as the server is: roles, merged limits, caches of two nodes, a replica (Unkey's server source)."""

from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import pytest
from unkey.py import Unkey
from unkey.py.errors import UnkeyError

from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from tests.support.stand_ins import Clock, control, sandbox_at

NOW: Final = 1_795_392_000.0
API: Final = credentials.UNKEY_API_ID
CALLS: Final = {"name": "calls", "limit": 2, "duration": 60_000, "auto_apply": True}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(Clock(NOW)) as running:
        yield running


@pytest.fixture
async def unkey(sandbox: Sandbox) -> AsyncIterator[Unkey]:
    sdk = Unkey(root_key=credentials.UNKEY_ROOT_KEY, server_url=sandbox.unkey_base_url, retry_config=None)
    yield sdk
    sdk.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated
    await sdk.__aexit__(None, None, None)  # type: ignore[no-untyped-call]  # as above


async def mode(sandbox: Sandbox, **fields: Any) -> None:
    await control(sandbox, "unkey", "/mode", **fields)


async def later(sandbox: Sandbox, seconds: float) -> None:
    await control(sandbox, "unkey", "/clock", seconds=seconds)


async def verify(unkey: Unkey, key: str, **options: Any) -> Any:
    return (await unkey.keys.verify_key_async(key=key, credits={"cost": 0}, **options)).data


async def status(asked: Any) -> int:
    """How a request is refused."""
    with pytest.raises(UnkeyError) as caught:
        await asked
    return int(caught.value.status_code)


async def test_permissions_of_roles_are_merged_without_saying_so(unkey: Unkey, sandbox: Sandbox) -> None:
    await control(sandbox, "unkey", "/roles", name="chatter", permissions=["openai.chat", "rooms.read"])
    made = (await unkey.keys.create_key_async(api_id=API, roles=["chatter"], permissions=["usage.read"])).data
    merged = ["usage.read", "openai.chat", "rooms.read"]
    assert (await verify(unkey, made.key)).permissions == merged
    assert (await unkey.keys.get_key_async(key_id=made.key_id)).data.permissions == merged
    listed: Any = await unkey.apis.list_keys_async(api_id=API)
    assert listed.result.data[0].permissions == merged
    assert (await verify(unkey, made.key, permissions="openai.chat")).code == "VALID"
    await unkey.keys.remove_permissions_async(key_id=made.key_id, permissions=["openai.chat", "usage.read"])
    await unkey.keys.add_permissions_async(key_id=made.key_id, permissions=["a.b", "a.b"])
    assert (await verify(unkey, made.key)).permissions == ["a.b", "openai.chat", "rooms.read"]
    assert await status(unkey.keys.remove_permissions_async(key_id=made.key_id, permissions=["nowhere"])) == 404
    assert await status(unkey.keys.create_key_async(api_id=API, roles=["unknown"])) == 404
    assert await status(unkey.keys.update_key_async(key_id=made.key_id, roles=["unknown"])) == 404


async def test_permissions_have_a_form_and_take_rights(unkey: Unkey, sandbox: Sandbox) -> None:
    assert await status(unkey.keys.create_key_async(api_id=API, permissions=["openai.model.org/llama"])) == 400
    made = (await unkey.keys.create_key_async(api_id=API, permissions=["openai.model.ft:gpt-4.1:org::id"])).data
    assert await status(unkey.keys.update_key_async(key_id=made.key_id, permissions=["p" * 129])) == 400
    for lacks in ("add_permission_to_key", "create_permission", "update_key"):
        sandbox.unkey.permissions -= {lacks}
        assert await status(unkey.keys.add_permissions_async(key_id=made.key_id, permissions=["new"])) == 403
        await control(sandbox, "unkey", method="DELETE")


async def test_limits_are_merged_by_name_and_the_key_s_wins(unkey: Unkey) -> None:
    limits: Any = [CALLS, CALLS | {"name": "others"}]
    await unkey.identities.create_identity_async(external_id="u", ratelimits=limits)
    own: Any = [CALLS | {"limit": 1000}]
    made = (await unkey.keys.create_key_async(api_id=API, external_id="u", ratelimits=own)).data
    found = await verify(unkey, made.key)
    assert {limit.name: limit.limit for limit in found.ratelimits} == {"calls": 1000, "others": 2}
    assert [limit.name for limit in found.identity.ratelimits] == ["others"]  # no word of the one that is hidden
    got: Any = (await unkey.keys.get_key_async(key_id=made.key_id)).data
    ids = [limit.id for limit in (*got.ratelimits, *got.identity.ratelimits)]
    assert len(set(ids)) == 3
    other = (await unkey.keys.create_key_async(api_id=API, external_id="u")).data.key
    assert [(await verify(unkey, key)).code for key in (other, other, made.key)] == [
        "VALID", "RATE_LIMITED", "RATE_LIMITED",
    ]  # fmt: skip


async def test_a_stale_answer_comes_once_from_each_node(unkey: Unkey, sandbox: Sandbox) -> None:
    made = (await unkey.keys.create_key_async(api_id=API)).data

    async def codes(*nodes: int) -> list[str]:
        found = []
        for node in nodes:
            await mode(sandbox, caches=True, node=node)
            found.append((await verify(unkey, made.key)).code)
        return found

    assert await codes(0, 1) == ["VALID", "VALID"]
    await control(sandbox, "unkey", "/change", keyId=made.key_id, enabled=False)
    assert await codes(0, 1) == ["VALID", "VALID"]  # fresh
    await later(sandbox, 22)
    assert await codes(0, 0, 1, 0, 1) == ["VALID", "DISABLED", "VALID", "DISABLED", "DISABLED"]
    await unkey.keys.update_key_async(key_id=made.key_id, enabled=True)  # it goes to node 1
    assert await codes(1, 0) == ["VALID", "DISABLED"]
    await later(sandbox, 601)
    assert await codes(0) == ["VALID"]
    await control(sandbox, "unkey", "/revoke", key_id=made.key_id)
    await later(sandbox, 600)
    assert await codes(0) == ["NOT_FOUND"]


async def test_a_replica_is_behind(unkey: Unkey, sandbox: Sandbox) -> None:
    await mode(sandbox, lag_s=2, caches=True)
    made = (await unkey.keys.create_key_async(api_id=API, name="a")).data
    assert (await verify(unkey, made.key)).code == "NOT_FOUND"
    for asked in (
        unkey.keys.get_key_async(key_id=made.key_id),
        unkey.keys.update_key_async(key_id=made.key_id, enabled=False),
        unkey.keys.delete_key_async(key_id=made.key_id),
        unkey.keys.reroll_key_async(key_id=made.key_id, expiration=None),
    ):
        assert await status(asked) == 404
    await later(sandbox, 3)
    await unkey.keys.update_key_async(key_id=made.key_id, name="b")
    assert (await unkey.keys.get_key_async(key_id=made.key_id)).data.name == "a"
    await later(sandbox, 3)
    assert (await unkey.keys.get_key_async(key_id=made.key_id)).data.name == "b"
    assert (await verify(unkey, made.key)).code == "VALID"  # the write cleared "not found"
    other = (await unkey.keys.create_key_async(api_id=API)).data.key
    seen = [(await verify(unkey, other)).code]
    for seconds in (9, 2, 0):
        await later(sandbox, seconds)
        seen.append((await verify(unkey, other)).code)
    assert seen == ["NOT_FOUND", "NOT_FOUND", "NOT_FOUND", "VALID"]


async def test_the_limiter_is_down_and_permissions_are_left_out(unkey: Unkey, sandbox: Sandbox) -> None:
    limits: Any = [CALLS]
    made = (await unkey.keys.create_key_async(api_id=API, permissions=["openai.chat"], ratelimits=limits)).data
    await mode(sandbox, limiter_down=True, permissions_hidden=True)
    found = [await verify(unkey, made.key) for _ in range(5)]
    assert [(one.code, one.ratelimits, one.permissions) for one in found] == [("VALID", None, None)] * 5
    assert (await verify(unkey, made.key, permissions="openai.chat")).permissions == ["openai.chat"]
    await control(sandbox, "unkey", method="DELETE")
    assert (await verify(unkey, made.key)).ratelimits[0].remaining == 1


@pytest.mark.parametrize("lacks", ["read_key", "read_api", "create_key"])
async def test_a_missing_right_looks_like_a_missing_api(unkey: Unkey, sandbox: Sandbox, lacks: str) -> None:
    made = (await unkey.keys.create_key_async(api_id=API)).data
    sandbox.unkey.permissions -= {lacks}
    asked = unkey.keys.create_key_async(api_id=API) if lacks == "create_key" else unkey.apis.list_keys_async(api_id=API)
    assert await status(asked) == 404
    if lacks != "read_api":
        reads = unkey.keys.get_key_async(key_id=made.key_id)
        rerolls = unkey.keys.reroll_key_async(key_id=made.key_id, expiration=0)
        assert await status(reads if lacks == "read_key" else rerolls) == 403
        (reads if lacks != "read_key" else rerolls).close()


async def test_an_older_server_takes_no_null(unkey: Unkey, sandbox: Sandbox) -> None:
    made = (await unkey.keys.create_key_async(api_id=API)).data
    await mode(sandbox, strict_nulls=True)
    assert await status(unkey.keys.reroll_key_async(key_id=made.key_id, expiration=None)) == 400
    assert await status(unkey.keys.update_key_async(key_id=made.key_id, ratelimits=None)) == 400
    await unkey.keys.update_key_async(key_id=made.key_id, ratelimits=[])
    await later(sandbox, 61)
    await unkey.keys.reroll_key_async(key_id=made.key_id, expiration=1000)
    assert sandbox.unkey.kept.keys[made.key_id].expires == int(NOW + 120) * 1000  # the end of that minute
    await unkey.keys.reroll_key_async(key_id=made.key_id, expiration=0)
    assert (await verify(unkey, made.key)).code == "EXPIRED"


async def test_the_workspace_has_a_limit_of_its_own(unkey: Unkey, sandbox: Sandbox) -> None:
    await later(sandbox, 15)
    await mode(sandbox, per_minute=2)
    url, headers = f"{sandbox.unkey_base_url}/v2/keys.verifyKey", {"Authorization": f"Bearer {sandbox.unkey.root_key}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for expected in (200, 200, 429):
            async with session.post(url, json={"key": "nobody"}) as response:
                assert response.status == expected
                said = {name: response.headers.get(name) for name in ("RateLimit-Limit", "Retry-After")}
        assert said == {"RateLimit-Limit": "2", "Retry-After": "45"}
        await later(sandbox, 45)
        async with session.post(url, json={"key": "nobody"}) as response:
            assert response.status == 200
