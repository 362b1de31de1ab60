"""A month is closed from the ledger to a pack that verifies; whatever stands against it is listed with its amount."""

import asyncio
import csv
import json
import shlex
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.accounts.store import Accounts
from gateway.close import pack
from gateway.close.close import Closed, CloseOptions, close
from gateway.close.findings import ITEMS, NEVER_ACCEPTED
from gateway.close.manifest import public_key_of
from gateway.close.seal import seal
from gateway.close.verify import verify
from gateway.config.key_ring import entry_of
from gateway.config.settings import Settings
from gateway.kit.clock import now
from gateway.kit.errors import Expected
from gateway.kit.instants import Period
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.stream import Buffer
from gateway.usage.event import encode
from tests.close.packs import SIGNING_KEY
from tests.close.site import ACCEPT, ACCEPTED, FIRST, KEY_TEXT, OCTOBER, SEPTEMBER, Site, items
from tests.support.audits import audited, insert, lines, segment
from tests.support.invoke import gateway
from tests.support.source import TOP


async def test_closing_keeps_what_later_audits_go_on_from(site: Site) -> None:
    site.env["GATEWAY_SECRETS"] = entry_of("one", bytes(32))
    assert (await site.told("2026-09", *ACCEPT))["closed"]
    mark = await site.pool.fetchrow("select * from audit_marks")
    assert mark is not None
    assert (mark["until"], mark["made_by"], mark["rows"]) == (
        OCTOBER,
        "gateway close 2026-09 v1, Ada",
        len(site.events),
    )
    _, found = await audited(site.env, "--from", "2026-09", "--to", "2026-10")
    assert [found[name]["state"] for name in ("INV-5", "INV-6", "INV-11")] == ["ok", "ok", "ok"]


async def test_a_month_is_closed_and_its_pack_verifies(site: Site) -> None:
    dry = await site.told("2026-09", "--dry-run")
    assert items(dry["findings"]) == {"openai": (0, None), "stripe": (0, None)}
    assert await site.pool.fetchval("select count(*) from periods") == 0
    assert (await site.told("2026-09", *ACCEPT[2:]))["refused"] == ["openai"]
    site.env["CLOSE__SIGNING_KEY"] = KEY_TEXT
    done = await site.told("2026-09", *ACCEPT)
    folder = site.data / "closes" / "2026-09-v1"
    assert (done["closed"], done["version"], done["pack"]) == (True, 1, str(folder))
    found = verify(folder, public_key_of(SIGNING_KEY))
    assert found.problems == ()
    assert found.rows == done["rows"] == len(site.events)
    assert found.figures["priced again"] == found.figures["billed amounts derived again"] == len(site.events)
    period = await site.pool.fetchrow("select *, totals::text as said from periods")
    assert period is not None
    assert (period["state"], period["closed_by"], period["pack_digest"]) == ("closed", "Ada", done["digest"])
    assert period["chain_head"].hex() == found.chain_head
    assert json.loads(period["said"])["total"]["rows"] == len(site.events)
    accepted = json.loads((folder / pack.PERIOD).read_text())["accepted"]
    assert accepted["openai"] == "compared by hand"
    assert json.loads(period["accepted"]) == accepted
    # Each customer's bridge is there, and the whole is at Stripe but for what is carried.
    bridges = json.loads((folder / pack.BRIDGE).read_text())
    assert [payer["name"] for payer in bridges["payers"]] == ["cus_ann"]
    billed = sum(event.billed_nano or 0 for event in site.events)
    nano = {line["key"]: line["nano"] for line in bridges["total"]["lines"]}
    assert (nano["billed"], nano["at_stripe"]) == (str(billed), str(billed // 1000 * 1000))
    told = await site.pool.fetch(
        "select verb, phase, after::text from admin_events where subject = 'period' order by id"
    )
    assert [(row["verb"], row["phase"]) for row in told] == [("close", "intent"), ("close", "done")]
    assert done["digest"] in told[1]["after"]


async def test_a_closed_month_is_closed_again_only_after_it_was_reopened(site: Site) -> None:
    await site.told("2026-09", *ACCEPT)
    again = await site.close("2026-09", *ACCEPT)
    assert "closed already: version 1" in again.error
    assert "is not closed" in (await site.close("reopen", "2026-08", "--why", "x")).error
    await site.close("reopen", "2026-09", "--why", "a wrong plan")
    second = await site.told("2026-09", *ACCEPT)
    assert second["version"] == 2
    for version in (1, 2):
        assert verify(site.data / "closes" / f"2026-09-v{version}").is_whole
    rows = await site.pool.fetch("select version, state, totals::text, chain_head from periods order by version")
    assert [(row["version"], row["state"]) for row in rows] == [(1, "reopened"), (2, "closed")]
    # Nothing can be booked into a sealed month, so a version has the same rows and totals as the one before.
    assert rows[0]["totals"] == rows[1]["totals"]
    assert rows[0]["chain_head"] == rows[1]["chain_head"]


async def test_everything_that_stands_against_it_is_listed_with_its_amount(site: Site, buffer: Buffer) -> None:
    pool, maker, at = site.pool, site.maker, FIRST + timedelta(days=2)
    stranger = await Accounts(pool).create_user("eve@example.com")
    unbilled = maker.reported(at, user_id=stranger, api_key_id=None)
    estimated, unpriced = maker.estimated(at), maker.unpriced(at)
    await insert(site.ledger, [unbilled, estimated, unpriced])
    await site.bill()
    for state in ("rejected", "pending"):
        await pool.execute(
            "update stripe_meter_events set state = $1, delivered_at = null where id ="
            " (select min(id) from stripe_meter_events where state = 'sent')", state
        )  # fmt: skip
    amounts = {row["state"]: row["value"] for row in await pool.fetch("select state, value from stripe_meter_events")}
    await pool.execute(
        "insert into open_items (id, kind, upstream_id, user_id, endpoint, opened_at, next_poll_at)"
        " values ($1, 'estimate', 'resp_1', $2, 'responses', $3, now() + interval '1 hour')",
        estimated.id, maker.user_id, at,
    )  # fmt: skip
    await pool.execute("insert into usage_quarantine (raw, reason) values ('x', 'a test')")
    segment(site.data / "journal", 2, lines(maker, [maker.reported(at)]))
    late, later = maker.reported(at), maker.reported(now())
    await buffer.append([(late.id, encode(late)), (later.id, encode(later))])
    site.env["CLOSE__ESTIMATED_MAX_PERCENT"] = "0"
    assert items((await site.told("2026-09", "--dry-run"))["findings"]) == {
        "journal": (1, None),
        "stream": (1, None),
        "quarantine": (1, None),
        "open-items": (1, None),
        "sending": (1, f"{Decimal(amounts['pending']).scaleb(-6):.9f}"),
        "held": (1, f"{Decimal(amounts['rejected']).scaleb(-6):.9f}"),
        "unbilled": (1, f"{Decimal(unbilled.billed_nano or 0).scaleb(-9):.9f}"),
        "unpriced": (1, None),
        "estimated": (1, f"{Decimal(estimated.cost_nano or 0).scaleb(-9):.9f}"),
        "stripe": (0, None),
        "openai": (0, None),
    }
    # An adjustment answers an unpriced or an estimated row.
    await insert(site.ledger, [maker.adjustment(unpriced, at, 5), maker.adjustment(estimated, at, 5)])
    assert {"unpriced", "estimated"}.isdisjoint(items((await site.told("2026-09", "--dry-run"))["findings"]))


async def test_what_was_decided_about_accrued_amounts_is_in_the_pack(site: Site) -> None:
    """With the lines of the bridge, and no text of others as a formula."""
    stranger = await Accounts(site.pool).create_user("eve@example.com")
    unbilled = site.maker.reported(FIRST, user_id=stranger, api_key_id=None)
    await insert(site.ledger, [unbilled])
    assert (await site.told("2026-09", *ACCEPT))["refused"] == ["unbilled"]
    decided = ("--stripe-customer", "cus_eve", "--accrued", "settle", "--reference", '=HYPERLINK("x")', "--yes")
    without_stripe = {name: value for name, value in site.env.items() if name != "STRIPE_SECRET_KEY"}
    assert (await gateway(without_stripe, "users", "set", "eve@example.com", *decided)).status == 0
    done = await site.told("2026-09", *ACCEPT)
    nano = {line["key"]: line["nano"] for line in done["bridge"]["lines"]}
    assert (nano["settled"], nano["written_off"]) == (str(-(unbilled.billed_nano or 0)), "0")
    with (Path(done["pack"]) / pack.ACCRUED).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["email"], row["customer"], row["action"]) == ("eve@example.com", "cus_eve", "settle")
    assert (row["reference"], row["made_by"]) == ('\'=HYPERLINK("x")', "Ada")
    assert Decimal(row["usd"]) == Decimal(unbilled.billed_nano or 0).scaleb(-9)


async def test_a_breach_of_an_invariant_stands_against_it(site: Site) -> None:
    await site.pool.execute("update usage_hourly set calls = calls + 1")
    done = await site.told("2026-09", *ACCEPT[:2], *ACCEPT[4:])
    assert (done["closed"], done["refused"]) == (False, ["audit"])
    (found,) = (each for each in done["findings"] if each["item"] == "audit")
    assert "INV-5" in found["look"]
    await site.told("2026-09", *ACCEPT)
    audit = json.loads((site.data / "closes" / "2026-09-v1" / pack.AUDIT).read_text())
    assert {each["name"]: each["state"] for each in audit}["INV-5"] == "breach"


async def test_a_month_that_is_not_over_or_not_due_is_not_closed(site: Site) -> None:
    this_month = f"{await site.pool.fetchval('select clock_timestamp()'):%Y-%m}"
    assert "month" in (await site.told(this_month))["refused"]
    assert "--accept: 'month'" in (await site.close(this_month, "--accept", "month=now")).error
    assert await site.pool.fetchval("select sealed_until = '-infinity' from books")


async def test_close_seals_a_month_that_is_due(site: Site) -> None:
    assert await site.pool.fetchval("select sealed_until = '-infinity' from books")
    await site.told("2026-09", *ACCEPT)
    assert await site.pool.fetchval("select sealed_until from books") == OCTOBER


@pytest.mark.parametrize("option", ["what=x", "openai", "openai=", "openai= "])
async def test_a_reason_is_for_a_known_item(option: str) -> None:
    assert "--accept" in (await gateway({}, "close", "2026-09", "--accept", option)).error


async def test_a_close_that_was_killed_is_put_right_by_the_next(site: Site) -> None:
    """It left a folder that was not ended; another one a whole pack that the period does not know of."""
    closes = site.data / "closes"
    (closes / ".2026-09-v1.partial").mkdir(parents=True)
    (closes / ".2026-09-v1.partial" / "rows.jsonl.xz").write_bytes(b"half")
    first = await site.told("2026-09", *ACCEPT)
    await site.pool.execute("alter table periods disable trigger periods_stay")
    await site.pool.execute("update periods set state = 'closing', closed_at = null")
    await site.pool.execute("alter table periods enable always trigger periods_stay")
    again = await site.told("2026-09", *ACCEPT)
    assert (again["closed"], again["version"]) == (True, 1)
    assert [path.name for path in closes.iterdir()] == ["2026-09-v1"]
    assert again["rows"] == first["rows"]
    assert verify(closes / "2026-09-v1").is_whole


async def test_of_two_closes_at_once_one_closes(site: Site) -> None:
    settings = Settings.of(site.env)
    wanted = CloseOptions(Period(SEPTEMBER, OCTOBER), ACCEPTED)
    done = await asyncio.gather(*(close(settings, wanted, now=now()) for _ in range(2)), return_exceptions=True)
    (closed,) = (each for each in done if isinstance(each, Closed))
    (other,) = (each for each in done if isinstance(each, Expected))
    assert closed.version == 1
    assert "by somebody else" in str(other) or "closed already" in str(other)
    assert verify(site.data / "closes" / "2026-09-v1").is_whole


async def test_a_late_row_is_in_the_pack_of_the_month_it_is_booked_in(site: Site) -> None:
    await seal(site.pool, OCTOBER)
    late = site.maker.reported(FIRST)
    await site.ledger.insert_batch([LedgerEntry.of(late)])
    done = await site.told("2026-09", *ACCEPT)
    assert done["rows"] == len(site.events)
    booked = await site.pool.fetchval("select booked_at from openai_usage where id = $1::uuid", late.id)
    assert booked > OCTOBER


async def test_the_page_on_closing_can_be_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command of docs/close.md, as it stands there."""
    page = (TOP / "docs/close.md").read_text().partition("## Walk through")[2]
    commands = [shlex.split(line) for line in page.partition("```sh\n")[2].partition("```")[0].splitlines()]
    assert len(commands) == 6
    site.env["GATEWAY_DATA_DIR"] = str(site.data.parent / ".gateway")
    site.data.rename(site.data.parent / ".gateway")
    monkeypatch.chdir(site.data.parent)
    for command in commands:
        accepted = ACCEPT[2:] if "openai" in " ".join(command) else []
        done = await gateway(site.env, *command[1:], *accepted)
        assert (done.status, done.error) == (0, ""), (command, done.out)
    assert sorted(path.name for path in Path(".gateway/closes").iterdir()) == ["2026-09-v1", "2026-09-v2"]


def test_the_page_on_closing_has_every_item() -> None:
    page = (TOP / "docs/close.md").read_text()
    assert [item for item in ITEMS if item not in NEVER_ACCEPTED and f"| `{item}` |" not in page] == []
