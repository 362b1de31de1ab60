"""The Unkey stand-in, judged by Unkey's own SDK: verification, administration, credits, limits, refusals."""

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx
import pytest
from unkey.py import Unkey
from unkey.py.errors import BadRequestErrorResponse, NotFoundErrorResponse, UnauthorizedErrorResponse, UnkeyError
from unkey.py.models import Operation

from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox, start
from gateway.sandbox.unkey.bodies import Whoami
from gateway.sandbox.unkey.keys import Refill, is_permitted
from tests.support.stand_ins import CODER, Clock, control, sandbox_at

NOW: Final = 1_795_392_000.0
API: Final = credentials.UNKEY_API_ID


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
async def sandbox(clock: Clock) -> AsyncIterator[Sandbox]:
    async with sandbox_at(clock) as running:
        yield running


@pytest.fixture
async def unkey(sandbox: Sandbox) -> AsyncIterator[Unkey]:
    sdk = Unkey(root_key=credentials.UNKEY_ROOT_KEY, server_url=sandbox.unkey_base_url, retry_config=None)
    yield sdk
    sdk.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated
    await sdk.__aexit__(None, None, None)  # type: ignore[no-untyped-call]  # as above


async def verify(unkey: Unkey, key: str, cost: int | None = 0, **options: Any) -> Any:
    """The data of one verification; `cost` None leaves the credits out."""
    credits_: Any = None if cost is None else {"cost": cost}
    answer = await unkey.keys.verify_key_async(key=key, credits=credits_, **options)
    return answer.data


async def test_a_key_is_made_verified_and_deleted(unkey: Unkey, sandbox: Sandbox) -> None:
    made = await unkey.keys.create_key_async(
        api_id=API, prefix="sk", name="laptop", external_id="user-1", meta={"plan": "pro"}
    )
    assert made.data.key.startswith("sk_")
    assert made.meta.request_id
    found = await verify(unkey, made.data.key)
    assert (found.valid, found.code, found.key_id, found.name) == (True, "VALID", made.data.key_id, "laptop")
    assert (found.identity.external_id, found.meta, found.credits) == ("user-1", {"plan": "pro"}, None)
    got = (await unkey.keys.get_key_async(key_id=made.data.key_id)).data
    assert (got.key_id, got.start, got.enabled) == (made.data.key_id, "sk_" + made.data.key[3], True)
    assert got.last_used_at == got.created_at == int(NOW * 1000)
    assert (await unkey.keys.whoami_async(key=made.data.key)).data.key_id == made.data.key_id
    await unkey.keys.delete_key_async(key_id=made.data.key_id)
    gone = await verify(unkey, made.data.key)
    assert gone.model_dump(exclude_none=True, exclude_unset=True) == {"valid": False, "code": "NOT_FOUND"}
    with pytest.raises(NotFoundErrorResponse):
        await unkey.keys.delete_key_async(key_id=made.data.key_id)
    assert (await control(sandbox, "unkey", "/calls", method="GET"))["calls"]["keys.verifyKey"] == 2


async def test_updates_keep_what_is_not_sent_and_clear_nulls(unkey: Unkey) -> None:
    made = (await unkey.keys.create_key_async(api_id=API, name="a", external_id="u", expires=int(NOW * 1000) + 9)).data
    await unkey.keys.update_key_async(key_id=made.key_id, enabled=False)
    assert (await verify(unkey, made.key)).code == "DISABLED"
    await unkey.keys.update_key_async(key_id=made.key_id, enabled=True, name=None, expires=None)
    got = (await unkey.keys.get_key_async(key_id=made.key_id)).data
    assert (got.name, got.expires, got.enabled) == (None, None, True)
    assert got.identity is not None
    assert got.identity.external_id == "u"


async def test_expiry(unkey: Unkey, clock: Clock) -> None:
    made = (await unkey.keys.create_key_async(api_id=API, expires=int(NOW * 1000) + 5000)).data
    assert (await verify(unkey, made.key)).valid
    clock.now += 5
    found = await verify(unkey, made.key)
    assert (found.valid, found.code, found.expires) == (False, "EXPIRED", int(NOW * 1000) + 5000)


async def test_credits(unkey: Unkey) -> None:
    made = (await unkey.keys.create_key_async(api_id=API, credits={"remaining": 5})).data
    assert (await verify(unkey, made.key)).credits == 5
    assert (await verify(unkey, made.key, None)).credits == 4  # one by default
    over = await verify(unkey, made.key, 10)
    assert (over.code, over.credits) == ("USAGE_EXCEEDED", 4)
    change = unkey.keys.update_credits_async
    taken = await change(key_id=made.key_id, operation=Operation.DECREMENT, value=9)
    assert taken.data.remaining == 0  # never below: the debt is lost
    assert (await verify(unkey, made.key)).valid  # a check costs nothing
    assert (await change(key_id=made.key_id, operation=Operation.INCREMENT, value=3)).data.remaining == 3
    assert (await change(key_id=made.key_id, operation=Operation.SET, value=None)).data.remaining is None
    with pytest.raises(BadRequestErrorResponse):
        await change(key_id=made.key_id, operation=Operation.DECREMENT, value=1)


async def test_refill(unkey: Unkey, clock: Clock) -> None:
    balance: Any = {"remaining": 2, "refill": {"interval": "daily", "amount": 7}}
    made = (await unkey.keys.create_key_async(api_id=API, credits=balance)).data
    clock.now += 86_400
    assert (await verify(unkey, made.key, 1)).credits == 6
    assert (await verify(unkey, made.key, 1)).credits == 5


@pytest.mark.parametrize(
    ("day", "today", "due"),
    [
        (15, "2026-02-10", "2026-01-15"),
        (15, "2026-02-15", "2026-02-15"),
        (31, "2026-02-28", "2026-02-28"),
        (31, "2028-02-28", "2028-01-31"),
        (31, "2028-02-29", "2028-02-29"),
        (31, "2026-01-30", "2025-12-31"),
        (None, "2026-05-01", "2026-05-01"),
    ],
)
def test_the_day_of_a_monthly_refill(day: int | None, today: str, due: str) -> None:
    assert str(Refill("monthly", 1, day).due(date.fromisoformat(today))) == due


async def test_a_lost_answer_has_spent_its_credits(unkey: Unkey, sandbox: Sandbox) -> None:
    made = (await unkey.keys.create_key_async(api_id=API, credits={"remaining": 5})).data
    await control(sandbox, "unkey", drop=True, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await verify(unkey, made.key, 2)
    await control(sandbox, "unkey", drop=True, status=503, times=1)
    with pytest.raises(httpx.RemoteProtocolError):
        await verify(unkey, made.key, 2)
    assert (await verify(unkey, made.key)).credits == 3


async def test_reroll_copies_the_credits(unkey: Unkey, clock: Clock) -> None:
    old = (await unkey.keys.create_key_async(api_id=API, credits={"remaining": 5}, external_id="u")).data
    new = (await unkey.keys.reroll_key_async(key_id=old.key_id, expiration=60_000)).data
    assert new.key_id != old.key_id
    assert [(await verify(unkey, key)).credits for key in (old.key, new.key)] == [5, 5]
    clock.now += 60
    assert [(await verify(unkey, key)).code for key in (old.key, new.key)] == ["EXPIRED", "VALID"]


async def test_rate_limits(unkey: Unkey, clock: Clock) -> None:
    limits: Any = [{"name": "calls", "limit": 2, "duration": 60_000, "auto_apply": True}]
    made = (await unkey.keys.create_key_async(api_id=API, ratelimits=limits, credits={"remaining": 9})).data
    seen = [await verify(unkey, made.key, 1) for _ in range(3)]
    assert [found.code for found in seen] == ["VALID", "VALID", "RATE_LIMITED"]
    limit = seen[2].ratelimits[0]
    assert (limit.exceeded, limit.remaining, limit.reset) == (True, 0, (int(NOW) // 60 + 1) * 60_000)
    assert seen[2].credits == 7  # nothing is spent after a refusal
    clock.now += 120
    assert (await verify(unkey, made.key, ratelimits=[{"name": "calls", "cost": 2}])).valid
    adhoc: Any = [{"name": "burst", "limit": 1, "duration": 1000}]
    clock.now += 120
    codes = [(await verify(unkey, made.key, ratelimits=adhoc)).code for _ in range(2)]
    assert codes == ["VALID", "RATE_LIMITED"]
    with pytest.raises(UnkeyError) as caught:
        await verify(unkey, made.key, ratelimits=[{"name": "nowhere"}])
    assert caught.value.status_code == 412


async def test_the_window_of_a_rate_limit_slides(unkey: Unkey, clock: Clock) -> None:
    limits: Any = [{"name": "calls", "limit": 4, "duration": 60_000, "auto_apply": True}]
    made = (await unkey.keys.create_key_async(api_id=API, ratelimits=limits)).data
    clock.now += 60 - clock.now % 60 + 30  # in the middle of a window
    seen = [await verify(unkey, made.key) for _ in range(5)]
    assert [found.code for found in seen] == ["VALID"] * 4 + ["RATE_LIMITED"]
    reset = seen[4].ratelimits[0].reset / 1000
    for since_reset_s, passes in ((0, 0), (0.001, 1), (16, 1), (31, 1), (46, 1), (60.001, 1)):
        clock.now = reset + since_reset_s
        codes = [(await verify(unkey, made.key)).code for _ in range(passes + 1)]
        assert codes == ["VALID"] * passes + ["RATE_LIMITED"], since_reset_s


async def test_permissions(unkey: Unkey) -> None:
    made = (await unkey.keys.create_key_async(api_id=API, permissions=["chat", "embed"])).data
    asked = ("chat AND embed", "chat AND images", "(images OR embed) AND chat")
    codes = [(await verify(unkey, made.key, permissions=query)).code for query in asked]
    assert codes == ["VALID", "INSUFFICIENT_PERMISSIONS", "VALID"]
    with pytest.raises(BadRequestErrorResponse):
        await verify(unkey, made.key, permissions="chat AND")


@pytest.mark.parametrize("query", ["", "AND", "a b", "(a", "a)", "a OR", "a & b"])
def test_a_query_that_is_none(query: str) -> None:
    with pytest.raises(ValueError, match="no query"):
        is_permitted(query, ["a", "b"])


async def test_identities(unkey: Unkey) -> None:
    made = (await unkey.identities.create_identity_async(external_id="org-1", meta={"a": 1})).data
    with pytest.raises(UnkeyError) as caught:
        await unkey.identities.create_identity_async(external_id="org-1")
    assert caught.value.status_code == 409
    limits: Any = [{"name": "shared", "limit": 1, "duration": 60_000, "auto_apply": True}]
    await unkey.identities.update_identity_async(identity="org-1", ratelimits=limits)
    got = (await unkey.identities.get_identity_async(identity=made.identity_id)).data
    assert (got.external_id, got.meta) == ("org-1", {"a": 1})
    listed = await unkey.identities.list_identities_async()
    assert listed is not None
    assert [identity.id for identity in listed.result.data] == [made.identity_id]
    key = (await unkey.keys.create_key_async(api_id=API, external_id="org-1")).data.key
    assert [(await verify(unkey, key)).code for _ in range(2)] == ["VALID", "RATE_LIMITED"]


async def test_listing_pages(unkey: Unkey) -> None:
    made = [
        (await unkey.keys.create_key_async(api_id=API, external_id=f"u{number % 2}")).data.key_id for number in range(5)
    ]
    seen, cursor = [], None
    for _ in range(3):
        page: Any = await unkey.apis.list_keys_async(api_id=API, limit=2, cursor=cursor)
        seen += [key.key_id for key in page.result.data]
        cursor = page.result.pagination.cursor
    assert (seen, cursor) == (made, None)
    own: Any = await unkey.apis.list_keys_async(api_id=API, external_id="u0")
    assert [key.key_id for key in own.result.data] == made[::2]
    with pytest.raises(NotFoundErrorResponse):
        await unkey.apis.list_keys_async(api_id="api_none")


async def test_refusals(unkey: Unkey, sandbox: Sandbox) -> None:
    with pytest.raises(BadRequestErrorResponse) as caught:
        await unkey.keys.create_key_async(api_id=API, prefix="a" * 17)
    assert caught.value.data.error.errors
    wrong = Unkey(root_key="unkey_wrong", server_url=sandbox.unkey_base_url, retry_config=None)
    async with wrong as stranger:
        with pytest.raises(UnauthorizedErrorResponse):
            await stranger.keys.verify_key_async(key="x")
    wrong.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # the SDK leaves it unannotated


async def test_a_root_key_without_permission_finds_nothing(unkey: Unkey, sandbox: Sandbox) -> None:
    made = (await unkey.keys.create_key_async(api_id=API)).data
    await control(sandbox, "unkey", "/root", permissions=["read_key"])
    assert (await verify(unkey, made.key)).code == "NOT_FOUND"
    with pytest.raises(UnkeyError) as caught:
        await unkey.keys.create_key_async(api_id=API)
    assert caught.value.status_code == 404  # it looks like a missing API
    await control(sandbox, "unkey", method="DELETE")
    assert (await verify(unkey, made.key)).valid


async def test_troubles(unkey: Unkey, sandbox: Sandbox) -> None:
    made = await control(sandbox, "unkey", "/keys", key="sk-known", external_id="u", key_id="key_known")
    assert made == {"keyId": "key_known"}
    for status in (429, 503, 500):
        await control(sandbox, "unkey", status=status, times=1, endpoint="keys.verifyKey", retry_after_s=9)
        with pytest.raises(UnkeyError) as caught:
            await verify(unkey, "sk-known")
        assert caught.value.status_code == status
    assert (await verify(unkey, "sk-known")).key_id == "key_known"
    for code in ("FORBIDDEN", "BRAND_NEW"):
        await control(sandbox, "unkey", code=code, times=1)
        assert (await verify(unkey, "sk-known")).code == code
    headers = {"Authorization": f"Bearer {credentials.UNKEY_ROOT_KEY}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        await control(sandbox, "unkey", drop=True, times=1)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.post(f"{sandbox.unkey_base_url}/v2/keys.verifyKey", json={"key": "sk-known"})
        await control(sandbox, "unkey", body="<html>", times=1)
        page = await session.post(f"{sandbox.unkey_base_url}/v2/keys.verifyKey", json={"key": "sk-known"})
        assert await page.text() == "<html>"
    await control(sandbox, "unkey", "/revoke", key_id="key_known")
    assert (await verify(unkey, "sk-known")).code == "NOT_FOUND"


async def test_keys_outlive_a_restart_as_hashes(tmp_path: Path) -> None:
    path = tmp_path / "sandbox" / "keys.json"
    for number in range(3):
        running = await start(paced=False, coder=CODER, keys_file=path)
        if number == 0:
            await control(running, "unkey", "/keys", key="sk-kept-secret", external_id="u")
        found = running.unkey.whoami(Whoami(key="sk-kept-secret"))
        await running.close()
        assert found["identity"]["externalId"] == "u"
    assert "sk-kept-secret" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
