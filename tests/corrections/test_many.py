"""Many corrections at once, two pairs of eyes, and the list of what was corrected."""

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.corrections.wanted import ROWS_MAX, parse_file
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.stores.postgres import Pool
from tests.corrections.corrections_at_work import LAST_MONTH, NANO, Books
from tests.keys.unkey_at_work import KeySides, key_sides_at


@pytest.fixture
def books(ledger: Ledger, pool: Pool, database_url: str) -> Books:
    return Books(ledger, pool, database_url)


@pytest.fixture
async def sides(database_url: str, ledger: Ledger, pool: Pool) -> AsyncIterator[KeySides]:
    async with key_sides_at(database_url, ledger, pool) as made:
        yield made


async def test_a_file_is_booked_whole_with_its_control_total(books: Books, tmp_path: Path) -> None:
    first, second, third = [await books.call(nano) for nano in (NANO, 2 * NANO, None)]
    file = tmp_path / "corrections.csv"
    file.write_text(f"\ufeffrow,cost_usd,billed_usd,void\r\n{first.id},,,yes\n{second.id},,2,\n{third.id},4,5,no\n")
    seen = await books.run("adjust", "--file", str(file))
    # Billed: 1.2 and 2.4 become 0 and 2; 5 comes.
    assert "Control total: 3 row(s), cost +3.000000000 USD, billed +3.400000000 USD" in seen.out
    assert "--total=3.400000000" in seen.out
    for total in ((), ("--total", "3.4000001")):
        refused = await books.run("adjust", "--file", str(file), "--yes", *total)
        assert (refused.status, "--total" in refused.error) == (1, True)
    assert await books.adjustments() == 0
    done = await books.run("adjust", "--file", str(file), "--yes", "--total=3.400000000")
    assert done.error == ""
    assert (await books.sums(), await books.adjustments()) == ((6 * NANO, 7 * NANO), 3)
    assert await books.pool.fetchval("select rows from corrections") == 3
    again = await books.run("adjust", "--file", str(file), "--yes", "--total", "0")
    assert again.out.endswith("Nothing to correct.\n")


async def test_one_wrong_row_and_nothing_is_booked(books: Books, tmp_path: Path) -> None:
    event = await books.call(NANO)
    file = tmp_path / "corrections.csv"
    for line, named in (("req_unknown,1", "no row for req_unknown"), (f"{event.id.upper()},3", "the same row")):
        file.write_text(f"row,cost_usd\n{event.id},2\n{line}\n")
        done = await books.run("adjust", "--file", str(file), "--yes", "--total", "1.2")
        assert (done.status, named in done.error) == (1, True), done
    assert await books.adjustments() == 0
    assert await books.pool.fetchval("select count(*) from corrections") == 0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "first line"),
        ("row\n", "no row"),
        ("cost_usd\n1\n", "first line"),
        ("row,price\na,1\n", "first line"),
        ("row,row\na,1\n", "first line"),
        ("row,cost_usd\na\n", "line 2: it has more or fewer"),
        ("row,cost_usd\na,1,2\n", "line 2: it has more or fewer"),
        ("row,cost_usd\na,1\nb,x\n", "line 3: cost: 'x'"),
        ("row,void\na,perhaps\n", "line 2: void"),
        ('row,cost_usd\n"a,1\n', "unexpected end of data"),
        ("row,void\n" + "a,yes\n" * (ROWS_MAX + 1), "more than"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(text: str, named: str) -> None:
    with pytest.raises(OptionError, match=re.escape(named)):
        parse_file(text.encode())
    with pytest.raises(OptionError, match="UTF-8"):
        parse_file(b"\xff\xfe")


async def test_two_pairs_of_eyes(books: Books, sides: KeySides, tmp_path: Path) -> None:
    books.env = sides.env | books.env | {"BILLING__FOUR_EYES": "true"}
    sides.at_unkey("approver", permissions={"corrections.approve"})
    sides.at_unkey("other", permissions={"rooms.read"})
    file, wrong = tmp_path / "key", tmp_path / "wrong"
    file.write_text("sk_approver_canary_012\n")
    wrong.write_text("sk_other_canary_012")
    event = await books.call(NANO)
    proposed = await books.adjust(event.id, "--cost", "3")
    assert (proposed["proposed"], await books.adjustments()) == (True, 0)
    approve = ("corrections", "approve", proposed["id"], "--key-file")
    for by, key, named in (
        ("Bob", wrong, "lacks the permission"),
        ("Ada", file, "somebody else"),
        ("Bob", tmp_path / "none", "cannot be read"),
    ):
        refused = await books.run(*approve, str(key), "--by", by, why=None)
        assert (refused.status, named in refused.error) == (1, True), refused
        assert "canary" not in refused.error
    waiting = json.loads((await books.run("corrections", "waiting", "--json", why=None)).out)
    assert [(each["id"], each["made_by"], each["row_ids"]) for each in waiting] == [(proposed["id"], "Ada", [event.id])]
    done = await books.run(*approve, str(file), "--by", "Bob", why=None)
    assert (done.error, await books.adjustments()) == ("", 1)
    assert await books.sums() == (3 * NANO, 3_600_000_000)
    row = await books.pool.fetchrow("select made_by, approved_by from corrections")
    assert tuple(row or ()) == ("Ada", "Bob")
    again = await books.run(*approve, str(file), "--by", "Bob", why=None)
    assert "Bob has approved it already" in again.error
    decided = await books.pool.fetchrow("select key_id, approved from correction_decisions")
    assert tuple(decided or ()) == ("key_approver", True)


async def test_what_has_changed_since_is_not_approved(books: Books, sides: KeySides, tmp_path: Path) -> None:
    books.env = sides.env | books.env
    sides.at_unkey("approver", permissions={"corrections.*"})
    (tmp_path / "key").write_text("sk_approver_canary_012")
    event = await books.call(NANO)
    proposed = await books.adjust(event.id, "--cost", "3", BILLING__FOUR_EYES="true")
    await books.adjust(event.id, "--cost", "2")
    approve = ("corrections", "approve", proposed["id"], "--key-file", str(tmp_path / "key"), "--by", "Bob")
    refused = await books.run(*approve, why=None)
    assert "was corrected since" in refused.error
    rejected = await books.run("corrections", "reject", proposed["id"], why="out of date")
    assert rejected.out.startswith("Rejected")
    assert "rejected it already" in (await books.run(*approve, why=None)).error
    assert json.loads((await books.run("corrections", "waiting", "--json", why=None)).out) == []
    assert (await books.sums(), await books.adjustments()) == ((2 * NANO, 2_400_000_000), 1)


async def test_the_list_says_who_when_why_and_which_months(books: Books) -> None:
    first, second = await books.call(NANO), await books.call(NANO)
    await books.adjust(first.id, "--cost", "3", "--ticket", "FIN-1")
    done = await books.run("adjust", second.id, "--void", "--yes", why="=HYPERLINK()", GATEWAY_OPERATOR="Bob")
    assert done.error == ""
    listed = json.loads((await books.run("corrections", "list", "--during", "this-month", "--json", why=None)).out)
    now = f"{datetime.now(UTC):%Y-%m}"
    assert [
        (
            each["made_by"],
            each["ticket"],
            each["month_corrected"],
            each["month_booked"],
            each["rows"],
            each["billed_usd"],
        )
        for each in listed
    ] == [
        ("Ada", "FIN-1", f"{LAST_MONTH:%Y-%m}", now, 1, "2.400000000"),
        ("Bob", None, f"{LAST_MONTH:%Y-%m}", now, 1, "-1.200000000"),
    ]
    text = (await books.run("corrections", "list", "--csv", why=None)).out
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(each["why"], each["cost_usd"]) for each in lines] == [
        ("a test", "2.000000000"),
        ("'=HYPERLINK()", "-1.000000000"),
    ]
    assert "→" in (await books.run("corrections", "list", why=None)).out
    empty = await books.run("corrections", "list", "--during", "2020-01", why=None)
    assert empty.out == "No corrections.\n"
