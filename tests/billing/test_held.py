"""`gateway billing`: the older commands are names for decisions, and do what they did."""

import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.accounts.store import Accounts
from gateway.billing import commands, held
from gateway.billing.held import WantedDecision
from gateway.billing.outbox import Outbox
from gateway.cli.console import Console
from gateway.config.settings import Settings
from gateway.kit.errors import ConfigError
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.billing.outboxes import book, customer, deliver, reject
from tests.support.audits import audited
from tests.support.invoke import gateway
from tests.support.usage import entries, usage

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW = TEN + timedelta(hours=2)
LATER = NOW + timedelta(hours=21)


@pytest.fixture
async def waiting(ledger: Ledger, pool: Pool) -> list[str]:
    """A rejected, an unknown, and another rejected event, by identifier."""
    outbox = Outbox(pool)
    for number, nano in ((1, 5_000), (2, 1_234_567_000), (3, 7_000)):
        user = await Accounts(ledger.pool).create_user(f"user{number}@example.com", stripe_customer_id=f"cus_{number}")
        await ledger.insert_batch(entries(usage(user, TEN, nano)))
    await outbox.freeze_closed(NOW, 300)
    claims = sorted(await outbox.claim(NOW, lease_s=60, events_max=3), key=lambda claim: claim.event.customer)
    for claim in (claims[0], claims[2]):
        await reject(outbox, claim, "400: no [meter]")
    assert await outbox.expire_doubtful(LATER) == 1
    return [claim.event.identifier for claim in claims]


@pytest.fixture
def settings(database_url: str) -> Settings:
    return Settings(database_url=SecretStr(database_url))


async def test_what_waits_is_listed(waiting: list[str], settings: Settings) -> None:
    out = io.StringIO()
    await commands.list_held(settings, Console(file=out, width=200), form="json", now=LATER)
    values = {row["identifier"]: row["value"] for row in json.loads(out.getvalue())}
    assert values == dict(zip(waiting, (5, 1_234_567, 7), strict=True))


async def test_both_ways_out(waiting: list[str], settings: Settings, pool: Pool) -> None:
    rejected, unknown, other = waiting
    again = WantedDecision("reissue", "a test", identifier=rejected, is_forced=True)
    (sent,) = await held.decide(settings, again, now=LATER, is_sure=True)
    delivered = WantedDecision("delivered", "a test", identifier=unknown, is_forced=True)
    await held.decide(settings, delivered, now=LATER, is_sure=True)
    (gone,) = await held.decide(
        settings, WantedDecision("write-off", "small", identifier=other), now=LATER, is_sure=True
    )
    assert gone.is_done
    out = io.StringIO()
    await commands.list_held(settings, Console(file=out, width=200), form="table", now=LATER)
    assert "No meter event waits" in out.getvalue()
    assert sent.replaced is not None
    assert (await Outbox(pool).status()).counts == {"pending": 1, "sent": 1, "superseded": 1, "written_off": 1}


async def test_what_was_refused_is_no_delivery_and_stays_a_breach_however_old(
    ledger: Ledger, pool: Pool, database_url: str, tmp_path: Path
) -> None:
    """3.60 USD were refused 40 days ago; Stripe has 17.313366 USD and not the 20.913366 of both."""
    outbox = Outbox(pool)
    at = (datetime.now(UTC) - timedelta(days=40)).replace(minute=0, second=0, microsecond=0)
    for number, nano in ((1, 3_600_000_000), (2, 17_313_366_000)):
        await book(ledger, await customer(ledger, number), at, nano)
    await outbox.freeze_closed(at + timedelta(hours=2), 300)
    for claim in await outbox.claim(at + timedelta(hours=2), lease_s=60, events_max=2):
        if claim.event.customer == "cus_1":
            await reject(outbox, claim, "400: No such customer", at + timedelta(hours=2))
        else:
            await deliver(outbox, claim, at + timedelta(hours=2))
    await pool.execute("update stripe_meter_events set created_at = $1", at)

    env = {"DATABASE_URL": database_url, "GATEWAY_DATA_DIR": str(tmp_path)}
    _, found = await audited(env, "--all")
    refused = f"openai_usage_micro_usd:cus_1:{int(at.timestamp())}:0"
    assert found["INV-6"]["figures"]["USD delivered"] == "17.313366000"
    assert found["INV-6"]["figures"]["USD held for a person"] == "3.600000000"
    assert (found["INV-8"]["state"], found["INV-8"]["examples"]) == ("breach", [f"{refused} (rejected)"])
    assert await bridge(env) == {"rejected": "-3.600000000", "written_off": "0.000000000", "at_stripe": "17.313366000"}

    decided = await gateway(env, "billing", "decide", "write-off", refused, "--why", "paid in cash", "--yes")
    assert (decided.status, decided.error) == (0, "")
    _, found = await audited(env, "--all")
    assert (found["INV-6"]["figures"]["USD written off"], found["INV-8"]["state"]) == ("3.600000000", "ok")
    assert await bridge(env) == {"rejected": "0.000000000", "written_off": "-3.600000000", "at_stripe": "17.313366000"}


async def bridge(env: dict[str, str]) -> dict[str, str]:
    """The lines of `gateway billing status` that tell of events that were refused; it is explained."""
    done = await gateway(env, "billing", "status", "--json")
    assert (done.status, done.error) == (0, "")
    lines = {line["key"]: line["usd"] for line in json.loads(done.out)["total"]["lines"]}
    return {key: lines[key] for key in ("rejected", "written_off", "at_stripe")}


async def test_without_a_database_the_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        await held.list_held(Settings())
