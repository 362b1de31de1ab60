"""`keys create`: a key at Unkey and its link here exist together or not at all, and its secret is shown once."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from gateway.access.identities import KeyOwners
from gateway.accounts.store import Accounts
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.keys.commands import show_created
from gateway.keys.create import CreatedKey, create, create_key
from gateway.keys.unkey_admin import KeyAdmin
from gateway.kit.errors import ConfigError, DependencyDown, OptionError
from gateway.kit.instants import parse_expiry
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.support.servers import free_port

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
ROOT_KEY = "unkey_root_canary_0123456789"


class UnkeyTruth:
    """Unkey's administration as far as its SDK needs it; `keys` is what exists there."""

    def __init__(self) -> None:
        self.keys: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, list[tuple[int, Any]]] = {"create": [], "delete": []}
        """What the next calls answer instead: status and error, or status 200 and any body."""
        self.calls: list[str] = []
        app = web.Application()
        app.router.add_post("/v2/keys.createKey", self._create)
        app.router.add_post("/v2/keys.deleteKey", self._delete)
        self.server = TestServer(app)

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        if failed := self._failed("create", request):
            return failed
        key_id = f"key_{len(self.keys) + 1}"
        self.keys[key_id] = body
        return _ok({"keyId": key_id, "key": f"sk_secret_{len(self.keys)}"})

    async def _delete(self, request: web.Request) -> web.Response:
        body = await request.json()
        if failed := self._failed("delete", request):
            return failed
        del self.keys[body["keyId"]]
        return _ok({})

    def _failed(self, call: str, request: web.Request) -> web.Response | None:
        self.calls.append(call)
        assert request.headers["authorization"] == f"Bearer {ROOT_KEY}"
        if not self.failures[call]:
            return None
        status, body = self.failures[call].pop(0)
        if status == 200:
            return web.json_response(body)
        error = {"title": "no", "detail": body, "status": status, "type": "https://example.com", "errors": []}
        return web.json_response({"meta": {"requestId": "req_1"}, "error": error}, status=status)


def _ok(data: dict[str, str]) -> web.Response:
    return web.json_response({"meta": {"requestId": "req_1"}, "data": data})


@pytest.fixture
async def unkey() -> AsyncIterator[UnkeyTruth]:
    truth = UnkeyTruth()
    await truth.server.start_server()
    yield truth
    await truth.server.close()


@pytest.fixture
def settings(database_url: str, unkey: UnkeyTruth) -> Settings:
    return Settings(
        database_url=SecretStr(database_url),
        unkey_root_key=SecretStr(ROOT_KEY),
        unkey_api_id="api_1",
        unkey_base_url=str(unkey.server.make_url("")),
    )


async def made(settings: Settings, **options: Any) -> tuple[CreatedKey, str]:
    """The key and what was printed."""
    out = io.StringIO()
    arguments: dict[str, Any] = {"user": "ada@example.com", "create_user": True} | options
    as_json, expires = arguments.pop("as_json", False), arguments.pop("expires", None)
    ends = None if expires is None else parse_expiry(expires, "expires", NOW)
    created = await create(settings, expires_at=ends, **arguments)
    show_created(Console(file=out, width=40), created, as_json=as_json)
    return created, out.getvalue()


async def test_a_key_is_made_linked_and_shown_once(
    settings: Settings, unkey: UnkeyTruth, ledger: Ledger, pool: Pool
) -> None:
    created, printed = await made(
        settings, user="Ada@Example.com", name="laptop", description="two\nlines", prefix="paf", expires="30d"
    )
    ((key_id, sent),) = unkey.keys.items()
    assert printed.count(created.secret) == 1
    assert f"  {created.secret}\n" in printed
    assert "2026-12-22 10:00 UTC" in printed
    assert (sent["apiId"], sent["externalId"], sent["name"]) == ("api_1", created.user_id, "laptop")
    assert (sent["prefix"], "description" in sent) == ("paf", False)
    assert sent["expires"] == int((NOW + timedelta(days=30)).timestamp()) * 1000
    (row,) = await Accounts(pool).keys()
    assert (row.id, row.unkey_key_id, row.user_id) == (created.api_key_id, key_id, created.user_id)
    assert (row.email, row.name, row.expires_at) == ("ada@example.com", "laptop", NOW + timedelta(days=30))
    assert row.description == "two\nlines"
    identity = await KeyOwners(ledger.pool).identity(created.user_id, key_id)
    assert identity is not None
    assert (identity.api_key_id, identity.key_is_active) == (created.api_key_id, True)
    stored = "".join(str(row) for row in await pool.fetch("select api_keys::text, users::text from api_keys, users"))
    assert created.secret not in stored
    assert created.secret not in repr(created)


async def test_json_holds_everything(settings: Settings) -> None:
    created, printed = await made(settings, as_json=True)
    assert json.loads(printed) == {
        "key": created.secret, "key_id": "key_1", "api_key_id": created.api_key_id, "user_id": created.user_id,
        "email": "ada@example.com", "name": None, "description": None, "expires_at": None, "user_created": True,
        "warnings": [],
    }  # fmt: skip


async def test_a_user_is_found_by_address_and_by_id(settings: Settings) -> None:
    first, _ = await made(settings)
    by_address, _ = await made(settings, user=" ADA@example.com ", create_user=False)
    by_id, _ = await made(settings, user=first.user_id, create_user=False)
    assert {first.user_id, by_address.user_id, by_id.user_id} == {first.user_id}
    assert (first.user_created, by_address.user_created, by_id.user_created) == (True, False, False)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"create_user": False}, "there is no user ada@example.com; --create-user makes one"),
        ({"user": "ada"}, "'ada' is neither an e-mail address nor a UUID"),
        ({"user": "a b@example.com"}, "neither an e-mail address"),
        ({"user": "00000000-0000-4000-8000-000000000000"}, "a new one is made by e-mail address"),
        ({"expires": "2026-11-22"}, "expires: .* not in the future"),
        ({"name": "n" * 256}, "name: 1 to 255 characters"),
        ({"name": "a\x1b[31mb"}, "name: printable characters only"),
        ({"description": "d" * 1001}, "--description: 1 to 1000 characters"),
        ({"description": "a\x00b"}, "--description: printable"),
        ({"prefix": "p" * 17}, "--prefix: 1 to 16 letters"),
        ({"prefix": "sk-live"}, "--prefix: .* not 'sk-live'"),
    ],
)
async def test_a_wrong_option_costs_nothing(
    settings: Settings, unkey: UnkeyTruth, pool: Pool, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(OptionError, match=why):
        await made(settings, **options)
    assert (unkey.calls, await pool.fetchval("select count(*) from users")) == ([], 0)


async def test_a_deactivated_user_gets_no_key(settings: Settings, unkey: UnkeyTruth, pool: Pool) -> None:
    await pool.execute("insert into users (email, is_active) values ('ada@example.com', false)")
    with pytest.raises(OptionError, match="deactivated"):
        await made(settings)
    assert unkey.calls == []


async def test_missing_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL, UNKEY_ROOT_KEY, UNKEY_API_ID must be set"):
        await made(Settings())


@pytest.mark.parametrize(
    ("status", "body", "expected", "why"),
    [
        (401, f"the root key {ROOT_KEY} is invalid", ConfigError, "UNKEY_ROOT_KEY is refused by Unkey .401.: the root"),
        (403, "Missing permission api.*.create_key", ConfigError, "UNKEY_ROOT_KEY .* api.*.create_key"),
        (404, "The requested API does not exist", ConfigError, "UNKEY_API_ID .api_1. is not an API"),
        (400, "name is too long", OptionError, "name is too long"),
        (429, "slow down", DependencyDown, "unkey: 429: slow down"),
        (500, "oops", DependencyDown, "unkey: 500: oops"),
        (200, {"unexpected": "sk_secret_leak"}, DependencyDown, "a form that its SDK does not know"),
    ],
)
async def test_what_unkey_says_is_told_without_secrets(
    settings: Settings, unkey: UnkeyTruth, status: int, body: Any, expected: type[Exception], why: str
) -> None:
    unkey.failures["create"].append((status, body))
    with pytest.raises(expected, match=why) as caught:
        await made(settings)
    assert unkey.calls == ["create"]  # a repeat could make two keys
    assert caught.value.__context__ is None  # the SDK's exception holds the whole answer
    assert ROOT_KEY not in str(caught.value)
    assert "sk_secret" not in str(caught.value)


async def test_an_unkey_that_is_away_is_named(settings: Settings) -> None:
    away = settings.model_copy(update={"unkey_base_url": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(DependencyDown, match="unkey: no answer"):
        await made(away)


class Unlinkable(Accounts):
    """Accounts until it comes to linking."""

    def __init__(self, pool: Pool, failure: BaseException) -> None:
        super().__init__(pool)
        self._failure = failure

    async def link_key(self, user_id: str, unkey_key_id: str, **fields: Any) -> str:
        raise self._failure


async def unlinked(settings: Settings, pool: Pool, failure: BaseException) -> None:
    async def make_user(email: str) -> None:
        await Accounts(pool).create_user(email)

    async with KeyAdmin(ROOT_KEY, base_url=settings.unkey_base_url) as admin:
        await create_key(
            Unlinkable(pool, failure), admin, "api_1",
            user="ada@example.com", name=None, make_user=make_user, expires_at=None,
        )  # fmt: skip


async def test_a_key_that_cannot_be_linked_is_deleted_again(
    settings: Settings, unkey: UnkeyTruth, pool: Pool, ledger: Ledger
) -> None:
    unkey.failures["delete"].append((503, "busy"))  # deleting is tried again
    with pytest.raises(DependencyDown, match=r"could not be linked .*away.*deleted at Unkey again \(key_1\)"):
        await unlinked(settings, pool, DependencyDown("postgres", "away"))
    assert (unkey.keys, unkey.calls) == ({}, ["create", "delete", "delete"])


async def test_a_key_that_cannot_be_deleted_either_is_named(
    settings: Settings, unkey: UnkeyTruth, pool: Pool, ledger: Ledger
) -> None:
    unkey.failures["delete"].append((403, "Missing permission api.*.delete_key"))
    with pytest.raises(DependencyDown, match=r"exists at Unkey as key_1 .* delete it in Unkey's dashboard") as caught:
        await unlinked(settings, pool, DependencyDown("postgres", "away"))
    assert list(unkey.keys) == ["key_1"]
    assert "sk_secret" not in str(caught.value)


async def test_interrupted_while_linking_leaves_nothing(
    settings: Settings, unkey: UnkeyTruth, pool: Pool, ledger: Ledger
) -> None:
    with pytest.raises(asyncio.CancelledError):
        await unlinked(settings, pool, asyncio.CancelledError())
    assert unkey.keys == {}


async def test_a_key_that_is_not_there_yet_is_deleted_when_it_is(settings: Settings, unkey: UnkeyTruth) -> None:
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)

    unkey.failures["delete"] = [(404, "no such key")] * 2
    unkey.keys["key_9"] = {}
    async with KeyAdmin(ROOT_KEY, base_url=settings.unkey_base_url, pause=pause) as admin:
        assert await admin.delete_key("key_9")
        assert (unkey.calls, unkey.keys) == (["delete"] * 3, {})
        unkey.failures["delete"] = [(404, "no such key")] * 99
        assert not await admin.delete_key("key_9")  # no proof that there is none
    assert sum(paused) < 10
