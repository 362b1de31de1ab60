"""Who pays for what: linking with amounts that have accrued, customers, what is unbilled, cost centres."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.accounts.store import Accounts
from tests.accounts.office import HOUR, NOW, USD, Office
from tests.support.invoke import gateway
from tests.support.usage import entries, usage


async def test_usage_belongs_to_whoever_paid_when_it_was_completed(office: Office) -> None:
    """A change of customer moves nothing: neither what is not frozen yet nor what comes late."""
    await Accounts(office.pool).create_user("dan@example.com", stripe_customer_id="cus_dan1")
    await office.uses("dan", USD, NOW - timedelta(minutes=1))
    done = await office.link("dan", "cus_dan2")
    assert done.error == ""
    await office.uses("dan", 600_000_000, NOW - timedelta(days=10))  # late, of dan1's time
    await office.uses("dan", 2 * USD, datetime.now(UTC))
    assert await office.windows() == {"cus_dan1": (1_600_000_000, 0), "cus_dan2": (2 * USD, 0)}
    assert await office.sent() == {"cus_dan1": 1_600_000, "cus_dan2": 2_000_000}
    assert await office.pool.fetchval("select stripe_customer_id from users") == "cus_dan2"
    assert (await office.run("users", "set", "dan@example.com", "--no-stripe-customer")).error == ""
    await office.uses("dan", 5 * USD, datetime.now(UTC))
    assert (await office.windows())["dan@example.com"] == (5 * USD, 0)
    shown = await office.json("customers", "show", "cus_dan1")
    assert [(each["email"], each["valid_from"], each["valid_to"] is not None) for each in shown["users"]] == [
        ("dan@example.com", None, True)
    ]


async def test_many_users_have_one_customer(office: Office) -> None:
    for who in ("ann", "bob"):
        await Accounts(office.pool).create_user(f"{who}@example.com")
        assert (await office.link(who, "cus_firm")).error == ""
        await office.uses(who, USD, datetime.now(UTC))
    assert await office.windows() == {"cus_firm": (2 * USD, 0)}
    named = await office.run("customers", "set", "cus_firm", "--name", "Firm Ltd", "--tax-note", "reverse charge")
    assert named.error == ""
    (listed,) = await office.json("customers", "list")
    assert (listed["name"], listed["users"], listed["mode"], listed["tax_note"]) == (
        "Firm Ltd", 2, "postpaid", "reverse charge",
    )  # fmt: skip
    assert "Firm Ltd" in (await office.run("customers", "list")).out
    assert "ann@example.com" in (await office.run("customers", "show", "Firm Ltd")).out
    report = await office.json("report", "usage", "--by", "customer", "--customer", "Firm Ltd")
    assert [(row["customer"], row["calls"]) for row in report["rows"]] == [("Firm Ltd", 2)]
    assert "there is no 'Nobody'" in (await office.run("customers", "show", "Nobody")).error


@pytest.mark.parametrize(
    ("action", "more", "sent", "settled"),
    [
        ("bill", (), {"cus_cara": 4_800_000}, 0),
        ("settle", ("--reference", "in_123"), {}, 4_800_000_000),
        ("write-off", ("--why", "a gift"), {}, 4_800_000_000),
    ],
)
async def test_what_has_accrued_is_decided_once(
    office: Office, action: str, more: tuple[str, ...], sent: dict[str, int], settled: int
) -> None:
    await office.uses("cara", 4_800_000_000, NOW - timedelta(days=3))
    undecided = await office.link("cara", "cus_cara")
    assert (undecided.status, "4.800000000 USD in 1 window(s)" in undecided.error) == (1, True)
    preview = await office.link("cara", "cus_cara", "--accrued", action, *more)
    assert (preview.status, "preview" in preview.out) == (0, True)
    assert await office.pool.fetchval("select count(*) from customers") == 0
    assert await office.pool.fetchval("select count(*) from admin_events") == 0
    done = await office.link("cara", "cus_cara", "--accrued", action, *more, "--yes")
    assert done.error == ""
    by_payer = {"cara@example.com": (0, 0), "cus_cara": (4_800_000_000, 0)}
    assert await office.windows() == (by_payer if action == "bill" else {"cara@example.com": (4_800_000_000, settled)})
    assert await office.sent() == sent
    row = await office.pool.fetchrow("select made_by, action, windows, nano, reference, why from accrued_decisions")
    assert row is not None
    given = dict(zip(more[::2], more[1::2], strict=True))
    assert tuple(row) == ("Ada", action, 1, 4_800_000_000, given.get("--reference"), given.get("--why"))
    assert (await office.json("billing", "unbilled")) == []
    again = await office.link("cara", "cus_cara", "--accrued", action, *more, "--yes")
    assert again.error == "--accrued: cara@example.com has accrued nothing"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--accrued", "forget"), "is not one of bill, settle, write-off"),
        (("--accrued", "settle"), "--reference"),
        (("--accrued", "write-off"), "--why"),
        (("--mode", "free"), "is not one of postpaid"),
        (("--from", "2999-01-01"), "a past instant"),
        (("--accrued", "bill"), "has accrued nothing"),
    ],
)
async def test_a_wrong_option_is_named(office: Office, more: tuple[str, ...], named: str) -> None:
    await Accounts(office.pool).create_user("ann@example.com")
    done = await office.link("ann", "cus_ann", *more, "--yes")
    assert (done.status, named in done.error) == (1, True), done
    assert await office.pool.fetchval("select count(*) from user_customers") == 0


async def test_a_period_may_begin_in_the_past_where_nobody_paid(office: Office) -> None:
    await Accounts(office.pool).create_user("ann@example.com")
    since = (NOW - timedelta(days=5)).strftime("%Y-%m-%d")
    done = await office.link("ann", "cus_ann", "--from", since, "--yes")
    assert done.error == ""
    await office.uses("ann", USD, NOW - timedelta(days=2))
    await office.uses("ann", 2 * USD, NOW - timedelta(days=9))
    assert await office.windows() == {"cus_ann": (USD, 0), "ann@example.com": (2 * USD, 0)}
    again = await office.link("ann", "cus_other", "--from", since, "--yes", "--accrued", "bill")
    assert "somebody else pays at that time" in again.error


async def test_credit_and_an_invoice_are_not_mixed_without_a_decision(office: Office) -> None:
    """What credit pays is not invoiced beside it."""
    await Accounts(office.pool).create_user("eve@example.com")
    assert (await office.link("eve", "cus_eve")).error == ""
    refused = await office.run("credits", "add", "eve@example.com", "5", "--reference", "pay-1")
    assert (refused.status, "--mode prepaid" in refused.error) == (1, True)
    assert await office.pool.fetchval("select count(*) from credit_entries") == 0
    done = await office.run("credits", "add", "eve@example.com", "5", "--reference", "pay-1", "--mode", "prepaid")
    assert done.error == ""
    for nano in (3_090_480, 3_000_000_000, 3_000_000_000):
        await office.uses("eve", nano, datetime.now(UTC))
    row = await office.pool.fetchrow(
        "select sum(billed_nano)::bigint, sum(credit_nano)::bigint, (select sum(nano)::bigint from credit_uses)"
        " from billing_windows"
    )
    assert tuple(row or ()) == (6_003_090_480, 5 * USD, 5 * USD)
    assert await office.sent() == {"cus_eve": 1_003_090}

    await Accounts(office.pool).create_user("fay@example.com")
    assert (await office.run("credits", "add", "fay@example.com", "5")).error == ""
    linked = await office.link("fay", "cus_fay")
    assert (linked.status, "--mode" in linked.error) == (1, True)
    assert (await office.link("fay", "cus_fay", "--mode", "postpaid")).error == ""
    assert (
        "1 user(s) of this customer have credit here"
        in (await office.run("customers", "set", "cus_fay", "--mode", "grants")).error
    )
    assert (await office.run("customers", "set", "cus_fay", "--mode", "prepaid")).error == ""


async def test_a_reference_adds_credit_once_and_for_one_user_only(office: Office) -> None:
    for who in ("eve", "fay"):
        await Accounts(office.pool).create_user(f"{who}@example.com")
    for _ in range(2):
        done = await office.run("credits", "add", "eve@example.com", "5", "--reference", "pay-1")
        assert (done.error, "5.000000000 USD left" in done.out) == ("", True)
    for who, usd in (("fay", "5"), ("eve", "6")):
        other = await office.run("credits", "add", f"{who}@example.com", usd, "--reference", "pay-1")
        assert other.error == (
            "--reference: 'pay-1' is of another entry, 5.000000000 USD for eve@example.com. Nothing was added"
        )
    assert await office.pool.fetchval("select sum(amount_usd) from credit_entries") == 5


async def test_an_id_goes_before_a_name_however_odd_the_name_is(office: Office) -> None:
    for who, customer in (("ann", "cus_a"), ("bob", "cus_b")):
        await Accounts(office.pool).create_user(f"{who}@example.com", stripe_customer_id=customer)
    for name in ("=HYPERLINK(1)", "Größe & Söhne '; drop table users; --", "مرحبا", "cus_b"):
        assert (await office.run("customers", "set", "cus_a", "--name", name)).error == ""
        shown = await office.json("customers", "show", name)
        assert shown["stripe_customer_id"] == ("cus_b" if name == "cus_b" else "cus_a")
    for name in ("two\nlines", "x" * 256, "\u202egnp"):
        assert "printable characters" in (await office.run("customers", "set", "cus_a", "--name", name)).error
    assert "there is no" in (await office.run("customers", "show", "nobody\x00")).error


async def test_grants_and_credit_here_or_another_currency_do_not_go_together(office: Office) -> None:
    await Accounts(office.pool).create_user("ann@example.com", stripe_customer_id="cus_a")
    await Accounts(office.pool).create_user("eve@example.com")
    euros = await office.run("customers", "set", "cus_a", "--currency", "eur", "--mode", "grants")
    assert "invoiced in eur" in euros.error
    assert (await office.run("customers", "set", "cus_a", "--mode", "grants")).error == ""
    assert "invoiced in eur" in (await office.run("customers", "set", "cus_a", "--currency", "eur")).error
    assert (await office.run("credits", "add", "eve@example.com", "5")).error == ""
    linked = await office.link("eve", "cus_a", "--mode", "grants")
    assert linked.error == (
        "eve@example.com has 5.000000000 USD of credit here, and grants live at Stripe. Take the credit back first"
    )
    assert (await office.run("credits", "add", "eve@example.com", "--", "-5")).error == ""
    assert (await office.link("eve", "cus_a", "--mode", "grants")).error == ""


async def test_unbilled_says_who_owes_what_and_how_old_it_is(office: Office) -> None:
    month = NOW.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for nano, at in ((USD, NOW), (20, month - timedelta(hours=3)), (3, NOW - timedelta(days=80))):
        await office.uses("ann", nano, at)
    await office.uses("bob", 5, NOW)
    await Accounts(office.pool).create_user("cid@example.com", stripe_customer_id="cus_cid")
    await office.uses("cid", 7, NOW)
    ann, bob = await office.json("billing", "unbilled")
    assert (ann["email"], ann["windows"], ann["usd"]) == ("ann@example.com", 3, "1.000000023")
    assert (ann["in_period_usd"], ann["in_35_days_usd"], ann["older_usd"]) == (
        "1.000000000", "0.000000020", "0.000000003",
    )  # fmt: skip
    assert (bob["email"], bob["usd"], bob["in_period_usd"]) == ("bob@example.com", "0.000000005", "0.000000005")
    for columns in (70, 200):
        table = (await gateway(office.env | {"COLUMNS": str(columns)}, "billing", "unbilled")).out
        assert {"ann@example.com", "bob@example.com", "1.000000028"} <= set(table.split())
    assert "1.000000000 this month, 0.000000020 earlier, 0.000000003 over 35 days old" in table
    text = (await office.run("billing", "unbilled", "--csv")).out
    assert text.splitlines()[1].split(",")[1] == "ann@example.com"


async def test_a_cost_centre_holds_from_a_day_on_and_a_key_goes_before_its_user(office: Office) -> None:
    user = await Accounts(office.pool).create_user("ann@example.com")
    key = await Accounts(office.pool).link_key(user, "key_ann")
    day = HOUR.replace(hour=0)
    for days, nano in ((0, 1), (2, 10), (9, 100)):
        await office.ledger.insert_batch(entries(usage(user, day - timedelta(days=days), nano)))
        await office.ledger.insert_batch(entries(usage(user, day - timedelta(days=days), nano * 1000, api_key_id=key)))

    async def by_centre() -> dict[str | None, int]:
        report = await office.json("report", "usage", "--by", "cost-centre")
        return {row["cost_centre"]: int(row["billed_usd"].replace(".", "")) for row in report["rows"]}

    assert await by_centre() == {None: 111_111}
    since = f"{day - timedelta(days=5):%Y-%m-%d}"
    assert (await office.run("users", "set", "ann@example.com", "--cost-centre", "R-1", "--from", since)).error == ""
    assert await by_centre() == {None: 100_100, "R-1": 11_011}
    assert (await office.run("keys", "set", "key_ann", "--cost-centre", "K-9", "--from", since)).error == ""
    assert await by_centre() == {None: 100_100, "R-1": 11, "K-9": 11_000}
    assert (await office.run("users", "set", "ann@example.com", "--cost-centre", "R-2")).error == ""
    assert await by_centre() == {None: 100_100, "R-1": 10, "R-2": 1, "K-9": 11_000}
    assert (await office.run("keys", "set", "key_ann", "--cost-centre", "")).error == ""
    assert await by_centre() == {None: 100_100, "R-1": 10, "R-2": 1001, "K-9": 10_000}
    part = await office.run("users", "set", "ann@example.com", "--cost-centre", "R", "--from", "2026-11-01T10:00:00Z")
    assert "begins with a UTC day" in part.error
    told = [row["after"] for row in await office.pool.fetch("select after::text from admin_events order by id")]
    assert json.loads(told[-1])["cost_centre_before"] == "K-9"
