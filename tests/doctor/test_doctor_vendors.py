"""`gateway doctor` on Unkey, OpenAI, Stripe, the prices and this host; and the command as a whole."""

import json
import resource
import time
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.config.key_ring import entry_of
from gateway.config.settings import BillingSettings, FlushSettings, KeySettings, Settings
from gateway.doctor import checks as doctor
from gateway.doctor import findings, vendors
from gateway.keys.unkey_admin import KeyAdmin
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.sandbox.unkey.keys import NamedLimit
from tests.billing.stripe_truth import StripeTruth
from tests.config.test_problems import SECRET
from tests.doctor.doctors import found, on, says, settings
from tests.support.invoke import gateway
from tests.support.stand_ins import sandbox_at

TODAY = date(2026, 11, 23)
REAL = "https://api.openai.com/v1"

KEYSPACE = "ks_sandbox"
"""Of the stand-in's API."""


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with sandbox_at(time.time) as running:
        yield running


def behind(sandbox: Sandbox, **given: Any) -> Settings:
    """Settings that fit the stand-ins."""
    usual = {
        "openai_api_key": credentials.OPENAI_API_KEY,
        "openai_base_url": sandbox.openai_base_url,
        "unkey_root_key": credentials.UNKEY_ROOT_KEY,
        "unkey_api_id": credentials.UNKEY_API_ID,
        "unkey_base_url": sandbox.unkey_base_url,
        "stripe_secret_key": credentials.STRIPE_SECRET_KEY,
        "stripe_base_url": sandbox.stripe_base_url,
    }
    return Settings(**{**usual, **given})


async def test_unkey(sandbox: Sandbox) -> None:
    (untried,) = await found("unkey", behind(sandbox))
    assert (untried.level, "was not tried" in untried.says) == ("warn", True)
    async with KeyAdmin(credentials.UNKEY_ROOT_KEY, base_url=sandbox.unkey_base_url) as admin:
        made = await admin.create_key(
            credentials.UNKEY_API_ID,
            external_id="u",
            name=None,
            expires_at=None,
            permissions=["openai.models"],
            meta={"bound": True},
        )
    good = KeySettings(canary=made.secret, keyspace=KEYSPACE)
    assert says(await found("unkey", behind(sandbox, keys=good))) == [("ok", "it answers, and the canary key verifies")]
    bad = KeySettings(canary=f"{SECRET}")
    (refused,) = await found("unkey", behind(sandbox, keys=bad))
    assert (refused.level, refused.says) == ("fail", "keys.canary is NOT_FOUND: every key would be refused")
    (no_api, _) = await found("unkey", behind(sandbox, unkey_api_id=None))
    assert "UNKEY_API_ID is not set" in no_api.says
    (wrong,) = await found("unkey", behind(sandbox, unkey_root_key=SECRET))
    assert (wrong.level, "UNKEY_ROOT_KEY" in wrong.fix) == ("fail", True)
    (away,) = await found("unkey", behind(sandbox, unkey_base_url="http://127.0.0.1:1"))
    assert away.level == "fail"


async def test_surprising_limits_at_unkey_are_reported(sandbox: Sandbox) -> None:
    key = sandbox.unkey.add_key("sk_canary", api_id=credentials.UNKEY_API_ID, key_id="key_canary", external_id="u")
    loaded = behind(sandbox, keys=KeySettings(canary=SecretStr("sk_canary"), keyspace=KEYSPACE))
    assert [("warn", "is not a bound key" in one.says) for one in await found("unkey", loaded)] == [("warn", True)]
    key.permissions = ["openai.models"]
    (unmarked, _) = await found("unkey", loaded)
    assert unmarked.says == "1 key(s) are bound by permissions and not marked so: key_canary"
    key.meta = {"bound": True}
    assert [one.level for one in await found("unkey", loaded)] == ["ok"]
    sandbox.unkey.mode.permissions_hidden = True
    (hidden,) = await found("unkey", loaded)
    assert (hidden.level, "comes without its permissions" in hidden.says) == ("fail", True)
    sandbox.unkey.mode.permissions_hidden = False
    shared = [NamedLimit("requests", 2, 60_000, "rl_1", True)]
    key.ratelimits = [NamedLimit("requests", 9, 60_000, "rl_2", True)]
    sandbox.unkey.kept.identities["u"].ratelimits = shared
    (collides,) = await found("unkey", loaded)
    assert "limits of 1 key(s) hide" in collides.says
    sandbox.unkey.permissions -= {"read_api"}  # a proxy's root key need not list keys
    assert [one.level for one in await found("unkey", loaded)] == ["ok"]


async def test_keys_of_other_apis(sandbox: Sandbox) -> None:
    sandbox.unkey.add_key(
        "sk_canary",
        api_id=credentials.UNKEY_API_ID,
        external_id="u",
        permissions=["openai.models"],
        meta={"bound": True},
    )

    async def told(**keys: object) -> list[tuple[str, str]]:
        return says(await found("unkey", behind(sandbox, keys=KeySettings(canary=SecretStr("sk_canary"), **keys))))

    (open_to_all,) = await told()
    assert (open_to_all[0], "api.*.verify_key" in open_to_all[1]) == ("warn", True)
    (refuses_all,) = await told(keyspace="ks_other")
    assert (refuses_all[0], "every key would be refused" in refuses_all[1]) == ("fail", True)
    (no_row,) = await told(keyspace=KEYSPACE, require_row=False)
    assert (no_row[0], "keys.require_row is off" in no_row[1]) == ("warn", True)


async def test_openai(sandbox: Sandbox) -> None:
    assert says(await found("openai", behind(sandbox))) == [("ok", "it answers, and takes our key")]
    (wrong,) = await found("openai", behind(sandbox, openai_api_key=SECRET))
    assert (wrong.level, wrong.says) == ("fail", "GET /models answers 401")
    (away,) = await found("openai", behind(sandbox, openai_base_url="http://127.0.0.1:1/v1"))
    assert (away.level, "OPENAI_BASE_URL" in away.fix) == ("fail", True)


async def test_stripe(sandbox: Sandbox, database_url: str) -> None:
    (off,) = await found("stripe", settings())
    assert (off.level, "not configured" in off.says) == ("warn", True)
    fits = behind(sandbox, database_url=database_url)
    assert says(await found("stripe", fits)) == [("ok", "the meter and the customers are there, nothing is stuck")]
    other_meter = behind(sandbox, database_url=database_url, billing=BillingSettings(meter_event_name="another"))
    (no_meter,) = await found("stripe", other_meter)
    assert (no_meter.level, "no active meter" in no_meter.says) == ("warn", True)
    (mixed, *_) = await found("stripe", behind(sandbox, database_url=database_url, openai_base_url=REAL))
    assert mixed.says.startswith("a test key, with the real OpenAI")
    live = behind(sandbox, database_url=database_url, stripe_secret_key=f"sk_live_{SECRET}")
    assert (await found("stripe", live))[0].says.startswith("a live key, and an OpenAI that is not OpenAI's")
    (away,) = await found("stripe", behind(sandbox, database_url=database_url, stripe_base_url="http://127.0.0.1:1"))
    assert away.level == "warn"  # a call is metered all the same
    owner = "00000000-0000-4000-8000-000000000002"
    await on(
        database_url,
        f"insert into users (id, email) values ('{owner}', 'o@example.com')",
        "insert into billing_windows (user_id, meter, window_start, window_seconds, billed_nano) values"
        f" ('{owner}', 'openai_usage_micro_usd', '2026-11-01', 3600, 5)",
    )
    seen = says(await found("stripe", behind(sandbox, database_url=database_url)))
    assert (
        "warn",
        "1 user(s) with amounts that no customer pays; they wait for a decision: o@example.com 0.000000005 USD",
    ) in seen


def test_who_may_add_usage_through_redis() -> None:
    ring = entry_of("one", b"k" * 32)
    assert [finding.level for finding in doctor.check_secrets(settings())] == ["warn"]
    assert doctor.check_secrets(settings(gateway_secrets=ring)) == []
    admitting = settings(gateway_secrets=ring, flush=FlushSettings(admit_unsigned=True))
    (finding,) = doctor.check_secrets(admitting)
    assert (finding.level, "admit_unsigned" in finding.says) == ("warn", True)


async def test_a_stripe_key_that_may_not_read_its_account(database_url: str) -> None:
    async with StripeTruth() as truth:
        truth.lacks = "rak_accounts_kyc_basic_read"
        loaded = settings(database_url=database_url, stripe_base_url=truth.url, stripe_secret_key=f"rk_test_{SECRET}")
        (failed,) = [one for one in await found("stripe", loaded) if one.level == "fail"]
    assert "nothing is billed: Stripe answered 403" in failed.says
    assert "rak_accounts_kyc_basic_read" in failed.says
    assert "rak_accounts_kyc_basic_read" in failed.fix


async def test_meter_events_of_another_stripe_account(sandbox: Sandbox, database_url: str) -> None:
    owner = "00000000-0000-4000-8000-000000000003"
    await on(
        database_url,
        f"insert into users (id, email) values ('{owner}', 'p@example.com')",
        "insert into stripe_meter_events (user_id, customer, meter, window_start, window_seconds, seq, value,"
        " nano, carry_nano_after, event_timestamp, identifier, next_attempt_at, account) values"
        f" ('{owner}', 'cus_1', 'm', '2026-11-01', 3600, 0, 5, 5000, 0, now(), 'i', now(), 'acct_other')",
    )
    (failed,) = [
        one for one in await found("stripe", behind(sandbox, database_url=database_url)) if one.level == "fail"
    ]
    assert failed.says == "1 meter event(s) wait for the Stripe account acct_other"


def test_clocks_addresses_and_prices() -> None:
    assert findings.skew("x", 100.0, 101.0) == []
    assert findings.skew("x", 100.0, 110.0, 9.0) == []
    assert "10 s apart" in findings.skew("x", 100.0, 110.0)[0].says
    assert "windows and prices may be wrong" in findings.skew("x", 100.0, 200.0)[0].says
    for url, is_clear in (("http://10.0.0.7/v1", True), ("http://localhost:1/v1", False), (REAL, False)):
        assert bool(vendors.in_clear("openai", "OPENAI_BASE_URL", url)) is is_clear
    open_to_all = settings(gateway_host="0.0.0.0", gateway_admin_host="::", gateway_workers=200)
    assert [finding.level for finding in doctor.check_host(open_to_all)] == ["warn"] * 3
    assert doctor.check_host(settings()) == []
    assert doctor.check_files(settings(), 65_536) == []
    assert doctor.check_files(settings(), resource.RLIM_INFINITY) == []
    (few,) = doctor.check_files(settings(), 1024)
    assert (few.level, "384 connections of 10000" in few.says, few.fix.startswith("20256 at least")) == (
        "warn",
        True,
        True,
    )
    book = doctor.read_book()
    (fresh, low) = doctor.prices(book, TODAY, verbose=False)
    assert (fresh.level, low.level, "gpt-" in low.says) == ("ok", "warn", False)
    (stale, listed) = doctor.prices(book, date(2027, 6, 1), verbose=True)
    assert (stale.level, "gpt-" in listed.says) == ("warn", True)


async def test_the_command(tmp_path: Path, sandbox: Sandbox, database_url: str, redis_url: str) -> None:
    env = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "OPENAI_API_KEY": credentials.OPENAI_API_KEY,
        "OPENAI_BASE_URL": sandbox.openai_base_url,
        "UNKEY_ROOT_KEY": credentials.UNKEY_ROOT_KEY,
        "UNKEY_BASE_URL": sandbox.unkey_base_url,
        "GATEWAY_DATA_DIR": str(tmp_path),
    }
    done = await gateway(env, "doctor", "--json")
    seen = json.loads(done.out)
    assert (done.status, {one["level"] for one in seen}) == (0, {"ok", "warn"})
    assert seen[0]["what"] == "postgres"
    broken = await gateway({**env, "OPENAI_API_KEY": SECRET}, "doctor")
    assert broken.status == 1
    assert SECRET not in broken.out
    for word in ("postgres", "redis", "journal", "unkey", "openai", "stripe", "prices", "how to fix it"):
        assert word in broken.out
