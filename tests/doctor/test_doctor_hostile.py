"""`gateway doctor` where dependencies answer oddly: a refusal is a finding, never a trace, and nothing is changed."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from aiohttp import web

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.config.settings import KeySettings, Settings
from gateway.doctor.checks import FIX_STATEMENT
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.stores.postgres import Pool
from gateway.stores.redis import open_redis
from tests.billing.outboxes import reject
from tests.config.test_problems import SECRET
from tests.conftest import METER, WINDOW_S
from tests.doctor.doctors import found, on, says, settings
from tests.processes.test_serve_refusals import environment, refusal, valkey
from tests.support.servers import free_port
from tests.support.stand_ins import control, sandbox_at
from tests.support.usage import entries, usage


@asynccontextmanager
async def openai_that_says(date: str) -> AsyncIterator[Settings]:
    """Settings for an OpenAI whose answers bear this `Date`."""

    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"data": []}, headers={"Date": date})

    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = answer
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield settings(openai_base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("date", ["", "nonsense", "Mon, 99 Foo 2026"])
async def test_a_date_that_is_none_says_nothing_of_a_clock(date: str) -> None:
    async with openai_that_says(date) as loaded:
        assert [finding.level for finding in await found("openai", loaded)] == ["ok"]


async def test_openai_s_clock_is_compared_with_ours() -> None:
    now = datetime.now(UTC)
    async with openai_that_says(format_datetime(now - timedelta(minutes=10), usegmt=True)) as loaded:
        ((level, text),) = says(await found("openai", loaded))
        assert (level, "windows and prices may be wrong" in text) == ("warn", True)
    # "-0000" is UTC too, wherever this host is.
    async with openai_that_says(format_datetime(now.replace(tzinfo=None))) as loaded:
        assert [finding.level for finding in await found("openai", loaded)] == ["ok"]


async def test_a_login_without_any_right(database_url: str, redis_url: str, tmp_path: Path) -> None:
    role = f"nobody_{uuid4().hex[:8]}"
    await on(database_url, f"create role {role} login")
    parts = urlsplit(database_url)
    dsn = parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl()
    try:
        (refused,) = await found("postgres", settings(database_url=dsn))
        assert (refused.level, refused.fix) == ("fail", FIX_STATEMENT)
        assert "permission denied for schema supabase_migrations" in refused.says
        said = await refusal(tmp_path, environment(dsn, redis_url, tmp_path))
        assert "DATABASE_URL: postgres refuses a statement: InsufficientPrivilegeError" in said
    finally:
        await on(database_url, f"drop role {role}")


async def test_redis_is_left_as_it_was_and_a_login_without_rights_is_refused(tmp_path: Path) -> None:
    port = free_port()
    with valkey(tmp_path, port):
        async with open_redis(f"redis://127.0.0.1:{port}") as client:
            await found("redis", settings(redis_url=f"redis://127.0.0.1:{port}"))
            assert await client.keys() == []  # not even an empty stream
            await client.acl_setuser(
                "weak", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], commands=["+@read", "-info"]
            )
        (refused,) = await found("redis", settings(redis_url=f"redis://weak:{SECRET}@127.0.0.1:{port}"))
        assert (refused.level, refused.fix) == ("fail", "correct REDIS_URL")
        assert "NoPermissionError" in refused.says


async def test_a_segment_that_the_keeper_removes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = tmp_path / "journal" / "proxy-0.0000000000001.000001.jnl"
    segment.parent.mkdir()
    segment.write_bytes(b"")
    listed = Path.glob

    def listed_then_removed(folder: Path, pattern: str) -> list[Path]:
        paths = list(listed(folder, pattern))
        if segment in paths:
            os.unlink(segment)
        return paths

    monkeypatch.setattr(Path, "glob", listed_then_removed)
    seen = says(await found("journal", settings(gateway_data_dir=tmp_path)))
    assert not segment.exists()
    assert not any("segment(s)" in text for _, text in seen)


async def test_a_root_key_that_may_not_verify() -> None:
    """Unkey then finds no key at all, and answers 200 all the same: only the canary tells."""
    async with sandbox_at(time.time) as sandbox:
        await control(sandbox, "unkey", "/keys", key=SECRET, permissions=["openai.models"], meta={"bound": True})
        loaded = settings(
            unkey_root_key=credentials.UNKEY_ROOT_KEY,
            unkey_api_id=credentials.UNKEY_API_ID,
            unkey_base_url=sandbox.unkey_base_url,
            keys=KeySettings(canary=SECRET, keyspace="ks_sandbox"),
        )
        assert [finding.level for finding in await found("unkey", loaded)] == ["ok"]
        await control(sandbox, "unkey", "/root", permissions=["create_key"])
        (blind,) = await found("unkey", loaded)
        assert (blind.level, blind.says) == ("fail", "keys.canary is NOT_FOUND: every key would be refused")
        assert "api.<UNKEY_API_ID>.verify_key" in blind.fix


async def test_what_stripe_refuses_or_would_add_up_wrongly(ledger: Ledger, pool: Pool, database_url: str) -> None:
    now = datetime.now(UTC)
    user = await Accounts(ledger.pool).create_user("u@example.com", stripe_customer_id="cus_1")
    await ledger.insert_batch(entries(usage(user, now - timedelta(hours=2), 5_000)))
    outbox = Outbox(pool)
    await outbox.freeze_closed(now, -WINDOW_S)
    (claim,) = await outbox.claim(now, lease_s=60, events_max=1)
    await reject(outbox, claim, "400: no")
    async with sandbox_at(time.time) as sandbox:
        for meter in list(sandbox.stripe.meters.values()):
            sandbox.stripe.set_status(meter.id, "inactive")
        loaded = settings(
            database_url=database_url,
            openai_base_url=sandbox.openai_base_url,
            stripe_secret_key=credentials.STRIPE_SECRET_KEY,
            stripe_base_url=sandbox.stripe_base_url,
        )
        assert any("no active meter" in text for _, text in says(await found("stripe", loaded)))
        sandbox.stripe.add_meter(METER, formula="count")
        seen = await found("stripe", loaded)
        assert any(finding.says.startswith("its formula is 'count'") for finding in seen)
        (held,) = [finding for finding in seen if "rejected" in finding.says]
        assert (held.level, held.fix) == ("warn", "gateway billing held, docs/billing.md")
