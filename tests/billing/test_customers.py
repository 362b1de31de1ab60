"""Customers that Stripe does not have: `users` refuses them, `users list`, `doctor` and the audit name them."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import structlog

from gateway.accounts.store import Accounts
from gateway.billing.outbox import Outbox
from gateway.billing.reporter import BillCounts, UsageReporter
from gateway.billing.stripe import Billing
from gateway.ledger.store import Ledger
from gateway.sandbox import credentials
from gateway.sandbox.server import Sandbox
from gateway.stores.postgres import Pool
from tests.billing.outboxes import events_in
from tests.support.audits import audited
from tests.support.invoke import gateway
from tests.support.stand_ins import control, sandbox_at
from tests.support.usage import entries, usage

NOW: Final = datetime.now(UTC)
AGO: Final = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=4)
FAR: Final = "http://127.0.0.1:1"
ABOUT_INVOICES: Final = [  # said as soon as somebody is billed
    "STRIPE_WEBHOOK_SECRET is not set: events that Stripe did not count, and invoices, are not told",
    "no subscription is known here, so periods are taken for calendar months",
    "billing.invoice_grace_h is 1: later usage is on the next invoice",
]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    # An hour ago, so that its summaries are old enough to be compared.
    async with sandbox_at((NOW - timedelta(hours=1)).timestamp) as running:
        await control(running, "stripe", "/customers", id="cus_here")
        await control(running, "stripe", "/customers", id="cus_gone")
        await control(running, "stripe", "/customers", id="cus_live", livemode=True)
        running.stripe.customers.delete("cus_gone")
        yield running


@pytest.fixture
def env(database_url: str, sandbox: Sandbox) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "OPENAI_BASE_URL": sandbox.openai_base_url,  # a test key goes with it
        "STRIPE_SECRET_KEY": credentials.STRIPE_SECRET_KEY,
        "STRIPE_BASE_URL": sandbox.stripe_base_url,
    }


async def stored(pool: Pool) -> dict[str, str | None]:
    return {row["email"]: row["stripe_customer_id"] for row in await pool.fetch("select * from users")}


@pytest.mark.parametrize(
    ("customer", "says"),
    [
        ("cus_never", "cus_never is not there for STRIPE_SECRET_KEY (404: No such customer: 'cus_never')"),
        ("cus_gone", "cus_gone has been deleted at Stripe"),
        ("cus_live", "cus_live is of Stripe's other mode (live or test) than STRIPE_SECRET_KEY"),
    ],
)
async def test_a_customer_that_stripe_does_not_have_is_refused(
    env: dict[str, str], pool: Pool, customer: str, says: str
) -> None:
    await gateway(env, "users", "create", "ann@example.com")
    for verb, who in (("create", "bob@example.com"), ("set", "ann@example.com")):
        done = await gateway(env, "users", verb, who, "--stripe-customer", customer)
        assert (done.status, done.out) == (1, "")
        assert done.error == f"--stripe-customer: {says}; usage reported for it would be lost"
    assert await stored(pool) == {"ann@example.com": None}


async def test_a_customer_that_stripe_has_is_linked_and_its_mode_told(env: dict[str, str], pool: Pool) -> None:
    made = await gateway(env, "users", "create", "ann@example.com", "--stripe-customer", "cus_here")
    assert "Stripe has it, in test mode." in made.out
    done = await gateway(env, "users", "set", "ann@example.com", "--stripe-customer", "cus_here", "--json")
    assert json.loads(done.out)["stripe_is_live"] is False
    assert await stored(pool) == {"ann@example.com": "cus_here"}


async def test_without_a_key_it_is_linked_with_a_warning_and_without_an_answer_not(
    env: dict[str, str], pool: Pool
) -> None:
    keyless = {"DATABASE_URL": env["DATABASE_URL"]}
    done = await gateway(keyless, "users", "create", "ann@example.com", "--stripe-customer", "cus_never")
    assert "STRIPE_SECRET_KEY is not set here, so nobody has asked Stripe whether cus_never exists." in done.out
    away = await gateway(
        env | {"STRIPE_BASE_URL": FAR}, "users", "set", "ann@example.com", "--stripe-customer", "cus_here"
    )
    assert (away.status, away.error[:7]) == (1, "stripe:")
    refused = await gateway(
        env | {"STRIPE_SECRET_KEY": "sk_test_wrong"}, "users", "set", "ann@example.com", "--stripe-customer", "cus_here"
    )
    assert (refused.status, "it must be allowed to read customers" in refused.error) == (1, True)
    assert await stored(pool) == {"ann@example.com": "cus_never"}


async def test_the_list_asks_when_told_to(env: dict[str, str], ledger: Ledger) -> None:
    for name in ("here", "gone", "live", "never"):
        await Accounts(ledger.pool).create_user(f"{name}@example.com", stripe_customer_id=f"cus_{name}")
    await Accounts(ledger.pool).create_user("none@example.com")
    told = (await gateway(env, "users", "list", "--stripe")).out
    for shown in ("cus_here (test)", "cus_gone (has been deleted at Stripe)", "cus_live (is of Stripe's other mode"):
        assert shown in " ".join(told.split())
    rows = {row["email"]: row for row in json.loads((await gateway(env, "users", "list", "--stripe", "--json")).out)}
    assert (rows["here@example.com"]["stripe_is_live"], rows["here@example.com"]["stripe_problem"]) == (False, None)
    assert "No such customer" in rows["never@example.com"]["stripe_problem"]
    assert rows["none@example.com"]["stripe_problem"] is None
    plain = json.loads((await gateway(env, "users", "list", "--json")).out)
    assert all("stripe_problem" not in row for row in plain)
    keyless = await gateway({"DATABASE_URL": env["DATABASE_URL"]}, "users", "list", "--stripe")
    assert (keyless.status, "STRIPE_SECRET_KEY is not set" in keyless.error) == (1, True)
    away = await gateway(env | {"STRIPE_BASE_URL": FAR}, "users", "list", "--stripe")
    assert (away.status, "not known: stripe:" in " ".join(away.out.split())) == (0, True)


async def bill(pool: Pool, sandbox: Sandbox, at: datetime) -> BillCounts:
    """Sends everything that is due."""
    billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=sandbox.stripe_base_url, timeout_s=10)
    log = structlog.get_logger()
    reporter = UsageReporter(Outbox(pool), billing, grace_s=300, monotonic=lambda: 0, random=lambda: 0, log=log)
    counts = await reporter.step_once(at)
    await billing.close()
    return counts


async def findings(env: dict[str, str]) -> list[str]:
    done = await gateway(env, "doctor", "--json")
    seen: list[dict[str, Any]] = json.loads(done.out)
    return [one["says"] for one in seen if one["what"] == "stripe"]


async def test_what_is_sent_for_them_is_sent_and_never_counted_and_both_doctor_and_audit_say_whose(
    env: dict[str, str], sandbox: Sandbox, ledger: Ledger, pool: Pool
) -> None:
    for name in ("here", "gone", "never"):
        user = await Accounts(ledger.pool).create_user(f"{name}@example.com", stripe_customer_id=f"cus_{name}")
        await ledger.insert_batch(entries(usage(user, AGO, 7_000)))
    assert (await bill(pool, sandbox, NOW - timedelta(hours=1))).sent == 3
    assert (await Outbox(pool).status()).counts == {"sent": 3}  # Stripe answered 200 to all of them
    assert [event.customer for event in sandbox.stripe.events] == ["cus_here"]
    before = await findings(env)
    assert before == [
        "usage would be lost: customer cus_never is not there for STRIPE_SECRET_KEY (404: No such customer: "
        "'cus_never'), cus_gone has been deleted at Stripe",
        *ABOUT_INVOICES,
    ]
    await control(sandbox, "stripe", "/report")
    _, reported, *rest = await findings(env)
    assert rest == ABOUT_INVOICES
    assert "2 meter event(s) received since" in reported
    assert reported.endswith("not counted: meter_event_customer_not_found, of cus_gone, cus_never")
    _, found = await audited(env, "--stripe", "--grace", "0", "--all")
    verdict = found["INV-7"]
    assert (verdict["state"], verdict["wrong"]) == ("breach", ["2 × customer that Stripe does not have"])
    assert {example.split()[0] for example in verdict["examples"]} == {"cus_gone", "cus_never"}
    assert verdict["figures"]["their micro-USD"] == 14
    assert len(found) == 11  # the other verdicts are not hidden


async def test_a_key_that_may_not_read_reports_hides_nothing_else(env: dict[str, str], sandbox: Sandbox) -> None:
    await control(sandbox, "stripe", path="/v2/core/events", status=403)
    (only,) = await findings(env)
    assert only.startswith("its reports on meter events that it did not count could not be read")


@pytest.mark.parametrize("trouble", [{"body": ""}, {"body": "<html>"}, {"status": 408}])
async def test_an_answer_of_an_intermediary_never_leads_to_charging_twice(
    env: dict[str, str], sandbox: Sandbox, ledger: Ledger, pool: Pool, trouble: dict[str, Any]
) -> None:
    """Stripe has counted it, and the answer was lost: a person cannot send it again, and the worker does no harm."""
    user = await Accounts(ledger.pool).create_user("here@example.com", stripe_customer_id="cus_here")
    await ledger.insert_batch(entries(usage(user, AGO, 7_000)))
    await control(sandbox, "stripe", path="meter_events", times=1, accept=True, **trouble)
    assert (await bill(pool, sandbox, NOW - timedelta(hours=1))).retry == 1
    (event,) = await events_in(Outbox(pool), "pending")
    again = await gateway(env, "billing", "again", event.identifier)
    assert (again.status, "gateway billing held" in again.error) == (1, True)
    assert (await bill(pool, sandbox, NOW - timedelta(minutes=50))).sent == 1
    assert [one.value for one in sandbox.stripe.events] == ["7"]
