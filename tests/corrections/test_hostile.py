"""Corrections as somebody careless or hostile asks for them: odd files, odd amounts, one person with two names."""

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from gateway.config.settings import Settings
from gateway.corrections.booking import approve, reject
from gateway.corrections.store import Proposal
from gateway.corrections.wanted import parse_file, parse_nano
from gateway.kit.errors import OptionError
from gateway.ledger.correct import correct_estimates
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.corrections.corrections_at_work import LAST_MONTH, NANO, Books
from tests.keys.unkey_at_work import KeySides, key_sides_at
from tests.support.usage import usage


@pytest.fixture
def books(ledger: Ledger, pool: Pool, database_url: str) -> Books:
    return Books(ledger, pool, database_url)


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        yield made


@pytest.mark.parametrize(
    ("text", "nano"),
    [("0", 0), ("5", 5 * NANO), (" 0.25 ", NANO // 4), ("1E-05", 10_000), (".5", NANO // 2), ("-0", 0), ("+1", NANO)],
)
def test_amounts_as_spreadsheets_write_them(text: str, nano: int) -> None:
    assert parse_nano(text, "cost") == nano


@pytest.mark.parametrize(
    "text",
    ["", "NaN", "sNaN", "Infinity", "1_000", "1,000", "0,25", "$1", "0x10", "\uff11", "\u0661", "1e-10", "1e999999999",
     "-0.000000001", "1000000.000000001", "1e7", "0." + "0" * 40 + "1", "9" * 40, "--1", "1 2", "\u22121", "=1+1"],
)  # fmt: skip
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(OptionError, match="cost"):
        parse_nano(text, "cost")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("row,void\na,yes\n".encode("utf-16"), "not UTF-8"),
        ("row,void\né,yes\n".encode("latin-1"), "not UTF-8"),
        (b'"row\n', "after line 0: unexpected end of data"),
        (b"row;cost_usd\na;1\n", "first line"),
        (b"row\x00,void\na,yes\n", "first line"),
        (b"row,void\na\x00b,yes\n", "line 2: row"),
        (b'row,void\n"a\nb",yes\n', "line 3: row"),
        ("row,void\na\u202eb,yes\n".encode(), "line 2: row"),
        (b"row,void\n" + b"a" * 200_000 + b",yes\n", "after line 1: field larger"),
        (b"row,cost_usd\na,nan\n", "line 2: cost"),
    ],
)
def test_a_file_that_is_none_is_refused(data: bytes, named: str) -> None:
    with pytest.raises(OptionError, match=re.escape(named)):
        parse_file(data)


def test_a_file_may_have_a_mark_any_line_ends_and_empty_lines() -> None:
    for text in ("\ufeffRow , VOID\r\na,yes\r\n\r\nb,1\r\n", "row,void\ra,yes\rb,true\r"):
        assert [(each.ref, each.void) for each in parse_file(text.encode())] == [("a", True), ("b", True)]


async def test_a_row_that_is_in_the_file_twice_is_named(books: Books, tmp_path: Path) -> None:
    event = await books.call(NANO)
    file = tmp_path / "corrections.csv"
    for again in (event.id, event.id.upper()):
        file.write_text(f"row,cost_usd\n{event.id},2\n{again},2\n")
        done = await books.run("adjust", "--file", str(file))
        assert (done.status, "name the same row" in done.error) == (1, True), done
    assert await books.adjustments() == 0


async def test_a_reason_steers_neither_terminal_nor_spreadsheet(books: Books) -> None:
    event = await books.call(NANO)
    for why in ("\x1b[2J", "a\u202eb", "a\rb", "x" * 1001, "\u2028"):
        done = await books.run("adjust", event.id, "--void", "--yes", why=why)
        assert (done.status, done.error.startswith("--why")) == (1, True), (why, done)
    why = "=1+1 [bold]red[/bold] '; drop table corrections; --"
    assert (await books.run("adjust", event.id, "--void", "--yes", why=why)).error == ""
    assert why in (await books.run("corrections", "list", why=None)).out
    (line,) = csv.DictReader(io.StringIO((await books.run("corrections", "list", "--csv", why=None)).out))
    assert line["why"] == f"'{why}"


async def test_what_is_void_can_still_be_charged_and_an_adjustment_stands_for_its_row(books: Books) -> None:
    event = await books.call(0, evidence="void")
    charged = await books.adjust(event.id, "--cost", "1")
    adjusting = str(await books.pool.fetchval("select id from openai_usage where adjusts is not null"))
    corrected = await books.adjust(adjusting, "--cost", "0.4")
    assert [done["changes"][0]["row"] for done in (charged, corrected)] == [event.id, event.id]
    assert (await books.sums(), await books.adjustments()) == ((NANO * 2 // 5, 480_000_000), 2)


@pytest.mark.parametrize("name", ["Ada", " ada ", "ADA", "\uff21da"])
async def test_one_person_has_one_pair_of_eyes(books: Books, sides: KeySides, tmp_path: Path, name: str) -> None:
    books.env = sides.env | books.env | {"BILLING__FOUR_EYES": "true"}
    event = await books.call(NANO)
    proposed = await books.adjust(event.id, "--cost", "3")
    for key in ("first", "second"):  # another key of the same person helps nothing
        sides.at_unkey(key, permissions={"corrections.approve"})
        (tmp_path / key).write_text(f"sk_{key}_canary_012")
        approve = ("corrections", "approve", proposed["id"], "--key-file", str(tmp_path / key), "--by", name)
        refused = await books.run(*approve, why=None)
        assert (refused.status, "somebody else must approve" in refused.error) == (1, True), refused
    assert await books.adjustments() == 0


async def test_a_key_that_was_revoked_approves_nothing(books: Books, sides: KeySides, tmp_path: Path) -> None:
    books.env = sides.env | books.env | {"BILLING__FOUR_EYES": "true"}
    sides.at_unkey("approver", permissions={"corrections.approve"})
    (tmp_path / "key").write_text("sk_approver_canary_012")
    event = await books.call(NANO)
    proposed = await books.adjust(event.id, "--cost", "3")
    await sides.gone("key_approver")
    approve = ("corrections", "approve", proposed["id"], "--key-file", str(tmp_path / "key"), "--by", "Bob")
    refused = await books.run(*approve, why=None)
    assert (refused.status, "Unkey does not accept this key" in refused.error) == (1, True), refused
    assert await books.adjustments() == 0


async def test_what_openai_said_later_is_in_the_list_by_cause(books: Books) -> None:
    for nano in (NANO, 2 * NANO):
        guess = await books.call(nano, evidence="estimated")
        exact = usage(books.user, LAST_MONTH, 6 * nano, cost_nano=5 * nano)
        changes = {"id": guess.id, "plan_version": guess.plan_version}
        exact = type(exact)(**{name: changes.get(name, getattr(exact, name)) for name in exact.__struct_fields__})
        assert await correct_estimates(books.ledger, {guess.id: exact}, datetime.now(UTC)) == [guess.id]
    by_hand = await books.call(NANO)
    await books.adjust(by_hand.id, "--void")
    now = f"{datetime.now(UTC):%Y-%m}"
    listed = json.loads((await books.run("corrections", "list", "--during", "this-month", "--json", why=None)).out)
    assert [
        (each["id"] is None, each["kind"], each["made_by"], each["why"], each["rows"], each["cost_usd"],
         each["billed_usd"], each["month_corrected"], each["month_booked"])
        for each in listed
    ] == [
        (True, "automatic", "gateway", "openai_said_later", 2, "12.000000000", "14.400000000",
         f"{LAST_MONTH:%Y-%m}", now),
        (False, "adjust", "Ada", "a test", 1, "-1.000000000", "-1.200000000", f"{LAST_MONTH:%Y-%m}", now),
    ]  # fmt: skip
    table = (await books.run("corrections", "list", why=None)).out
    assert "openai_said_later" in table
    assert "automatic" in table
    lines = list(csv.DictReader(io.StringIO((await books.run("corrections", "list", "--csv", why=None)).out)))
    assert (lines[0]["id"], lines[0]["kind"]) == ("", "automatic")
    tomorrow = f"{datetime.now(UTC) + timedelta(days=40):%Y-%m}"
    assert (await books.run("corrections", "list", "--during", tomorrow, why=None)).out == "No corrections.\n"


async def test_of_those_who_decide_at_once_one_decides(books: Books) -> None:
    event = await books.call(NANO)
    proposed = (await books.adjust(event.id, "--cost", "3", BILLING__FOUR_EYES="true"))["id"]
    settings = Settings(database_url=SecretStr(books.env["DATABASE_URL"]))
    approving = [approve(settings, proposed, key_id="key", by=name, now=datetime.now(UTC)) for name in ("Bob", "Eve")]
    done = await asyncio.gather(*approving, reject(settings, proposed, why="no", by="Zoe"), return_exceptions=True)
    failed = [each for each in done if isinstance(each, Exception)]
    assert [type(each) for each in failed] == [OptionError] * 2, done
    booked = not isinstance(done[2], Proposal)
    assert await books.adjustments() == booked
    assert await books.sums() == ((3 * NANO, 3_600_000_000) if booked else (NANO, 1_200_000_000))
    assert await books.pool.fetchval("select count(*) from correction_decisions") == 1
