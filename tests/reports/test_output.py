"""The output of `gateway report usage`: CSV, filters, files. test_usage.py checks its sums."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from gateway.accounts.store import Accounts
from gateway.cli.csv_text import escape_formula
from gateway.kit.errors import OptionError
from gateway.ledger.store import Ledger
from gateway.reports.output import write_whole
from gateway.stores.postgres import Pool
from tests.support.invoke import gateway
from tests.support.usage import entries, usage

HOUR = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOSTILE = '=HYPERLINK("http://example.com","x")'
Env = dict[str, str]


@pytest.fixture
async def env(database_url: str, ledger: Ledger, pool: Pool) -> Env:
    """Two users; one call with a meeting on either side of an hour's end, a correction of the first, one without."""
    ann, bob = [await Accounts(ledger.pool).create_user(f"{name}@example.com") for name in ("ann", "bob")]
    await Accounts(pool).set_stripe_customer(ann, "cus_ann")
    await pool.execute("update user_customers set valid_from = '-infinity'")
    key = await Accounts(ledger.pool).link_key(ann, "key_ann", name=HOSTILE)
    meeting = await pool.fetchval(
        "insert into meetings (user_id, room_name) values ($1, '@room') returning id::text", ann
    )
    first = usage(ann, HOUR + timedelta(minutes=59, seconds=59, microseconds=999_999), 1_000_000_001, api_key_id=key)
    first = msgspec.structs.replace(first, meeting_id=meeting)
    second = msgspec.structs.replace(usage(ann, HOUR + timedelta(hours=1), 20, api_key_id=key), meeting_id=meeting)
    fix = usage(ann, HOUR + timedelta(hours=1), -500, evidence="adjustment", adjusts=first.id, tokens=(-1, 0))
    fix = msgspec.structs.replace(fix, meeting_id=meeting)
    other = usage(bob, HOUR, 3, model='+model,with\r\n"quotes"')
    await ledger.insert_batch(entries(first, second, other))
    await ledger.insert_batch(entries(fix))
    return {"DATABASE_URL": database_url, "MEETING": meeting, "ANN": ann, "KEY": key}


async def table_of(env: Env, *options: str) -> list[dict[str, str]]:
    """The CSV, read by a stranger."""
    done = await gateway(env, "report", "usage", "--csv", *options)
    assert (done.status, done.error) == (0, "")
    assert done.out.count("\r\n") >= 1
    return list(csv.DictReader(io.StringIO(done.out, newline=""), strict=True))


async def test_csv_is_exact_and_every_line_is_a_group(env: Env, pool: Pool) -> None:
    rows = await table_of(env, "--by", "hour,meeting,key,model")
    assert list(rows[0]) == [
        "hour", "meeting_id", "room_name", "key_id", "key_name", "model", "calls", "prompt_tokens", "completion_tokens",
        "total_tokens", "estimated", "unpriced", "void", "adjustments", "cost_usd", "billed_usd",
        "estimated_open", "unpriced_open", "reported_cost_usd", "drained_cost_usd", "estimated_cost_usd",
        "adjustment_cost_usd", "estimated_open_cost_usd",
    ]  # fmt: skip
    truth = await pool.fetchrow("select sum(billed_usd), sum(cost_usd), sum(total_tokens) from openai_usage")
    assert truth is not None
    sums = [sum(Decimal(row[name]) for row in rows) for name in ("billed_usd", "cost_usd", "total_tokens")]
    assert sums == list(truth)
    found = {(row["hour"], row["meeting_id"], row["key_id"]): row for row in rows}
    before = found["2026-11-22T10:00:00Z", env["MEETING"], env["KEY"]]
    assert (before["billed_usd"], before["calls"], before["room_name"]) == ("1.000000001", "1", "'@room")
    fixed = found["2026-11-22T11:00:00Z", env["MEETING"], ""]  # an adjustment: its own hour, its own meeting
    assert (fixed["billed_usd"], fixed["calls"], fixed["adjustments"], fixed["prompt_tokens"]) == (
        "-0.000000500", "0", "1", "-1",
    )  # fmt: skip
    alone = found["2026-11-22T10:00:00Z", "", ""]
    assert (alone["model"], alone["billed_usd"]) == ('\'+model,with\r\n"quotes"', "0.000000003")
    assert before["key_name"] == f"'{HOSTILE}"


async def test_totals_are_a_line_only_when_asked_for(env: Env) -> None:
    plain = await table_of(env, "--by", "user")
    assert [row["email"] for row in plain] == ["ann@example.com", "bob@example.com"]
    *rows, total = await table_of(env, "--by", "user", "--totals")
    assert rows == plain
    assert (total["user_id"], total["email"], total["calls"], total["billed_usd"]) == ("total", "", "3", "0.999999524")
    (only,) = await table_of(env, "--by", "", "--totals")
    assert (only["calls"], next(iter(only))) == ("3", "calls")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        (None, ""),
        ("", ""),
        ("gpt-5-mini", "gpt-5-mini"),
        ("a=b", "a=b"),
        ("ann+1@example.com", "ann+1@example.com"),
        ("=1", "'=1"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@sum", "'@sum"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("\nx", "'\nx"),
        ("\uff1d1", "'\uff1d1"),
        ("\t=1", "'\t'=1"),
        ("x;=1", "x;'=1"),
        ("x\n=1", "x\n'=1"),
        ("'=1", "'=1"),
    ],
)
def test_formulas_are_defused(text: str | None, cell: str) -> None:
    assert escape_formula(text) == cell


async def test_filters_are_exact_and_the_range_is_told(env: Env) -> None:
    for options, calls in (
        (["--user", "ANN@example.com"], 2),
        (["--user", env["ANN"], "--from", "2026-11-22T11:00:00Z"], 1),
        (["--key", "key_ann"], 2),
        (["--key", env["KEY"], "--to", "2026-11-22T11:00:00Z"], 1),
        (["--meeting", env["MEETING"].upper()], 2),
        (["--model", "gpt-5-mini-2025-08-07"], 2),
        (["--model", "gpt-5-mini"], 2),
        (["--model", "gpt-5-mini!"], 0),
        (["--model", "gpt-5-mini-2025-08-07!"], 2),
        (["--model", "gpt-5"], 0),
        (["--evidence", "adjustment"], 0),
        (["--evidence", "reported"], 3),
        (["--tier", "flex"], 0),
        (["--customer", "cus_ann"], 2),
        (["--customer", "cus_ann", "--user", "bob@example.com"], 0),
        (["--endpoint", "chat"], 3),
        (["--endpoint", "responses"], 0),
        (["--user", "bob@example.com", "--meeting", env["MEETING"]], 0),
        (["--during", "2026-11"], 3),
        (["--during", "2026-10"], 0),
    ):
        done = await gateway(env, "report", "usage", "--json", *options)
        assert json.loads(done.out)["totals"]["calls"] == calls, options
    told = json.loads((await gateway(env, "report", "usage", "--json", "--during", "2026-11", "--key", "key_ann")).out)
    assert (told["from"], told["until"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert told["filter"] == {"key_id": env["KEY"]}
    table = await gateway(env, "report", "usage", "--during", "2026-11-22", "--model", "x [red]")
    assert "Usage from 2026-11-22 00:00 until 2026-11-23 00:00 (UTC), USD, model x [red]" in table.out
    aside = await gateway(env, "report", "usage", "--csv", "--to", "2026-11-22T10:00:00.5Z")
    assert aside.noted == "usage from the beginning until 2026-11-22 10:00:00.500000 (UTC)\n"


WRONG: list[tuple[list[str], str]] = [
    (["--json", "--csv"], "--json and --csv: give one"),
    (["--user", "eve@example.com"], "--user: there is no user eve@example.com"),
    (["--key", "sk_canary"], "--key: no key with this id is linked here"),
    (["--meeting", "room"], "--meeting: there is no meeting with the id room"),
    (["--meeting", "00000000-0000-4000-8000-000000000000"], "--meeting: there is no meeting"),
    (["--model", "a\x00"], "--model: printable text"),
    (["--endpoint", ""], "--endpoint: printable text"),
    (["--from", "tomorrow"], "from: 'tomorrow' is neither"),
]


async def test_a_wrong_filter_is_named(env: Env) -> None:
    for options, says in WRONG:
        done = await gateway(env, "report", "usage", *options)
        assert (done.status, done.out) == (1, ""), options
        assert done.error.startswith(says), (options, done.error)
        assert "sk_canary" not in done.error


@pytest.mark.parametrize("form", ["--csv", "--json", None])
async def test_a_file_gets_what_the_terminal_would(env: Env, tmp_path: Path, form: str | None) -> None:
    file = tmp_path / "usage"
    file.write_text("old")
    options = ["report", "usage", "--by", "user", *([form] if form else [])]
    done = await gateway(env, *options, "--output", str(file))
    assert (done.status, done.noted) == (0, "")
    assert done.out == f"2 lines of usage from the beginning until now (UTC) in {file}\n"
    shown = (await gateway(env, *options)).out.encode()
    assert file.read_bytes() == shown if form else b"ann@example.com" in file.read_bytes()
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "form", "says"),
    [
        ("usage.xlsx", "--csv", "no report is written as .xlsx"),
        ("usage.csv", None, "would hold a table; add --csv"),
        ("usage.JSON", "--csv", "would hold a csv; add --json"),
    ],
)
async def test_a_file_is_what_its_name_says(env: Env, tmp_path: Path, name: str, form: str | None, says: str) -> None:
    options = ["report", "usage", "--output", str(tmp_path / name), *([form] if form else [])]
    done = await gateway(env, *options)
    assert (done.status, says in done.error, list(tmp_path.iterdir())) == (1, True, [])


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    file, link = tmp_path / "usage", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")  # fails half-way
    assert (file.read_text(), sorted(tmp_path.iterdir())) == ("old", [link, file])
    write_whole(link, "new\r\n")
    assert (file.read_bytes(), link.is_symlink()) == (b"new\r\n", True)
    for wrong, why in ((tmp_path, "is not a regular file"), (tmp_path / "no" / "x", "No such file or directory")):
        with pytest.raises(OptionError, match=f"--output: .* {why}"):
            write_whole(wrong, "new")


async def test_what_has_no_price_is_never_shown_as_0(database_url: str, ledger: Ledger) -> None:
    env = {"DATABASE_URL": database_url}
    ann = await Accounts(ledger.pool).create_user("ann@example.com")
    unknown = [usage(ann, HOUR + timedelta(minutes=n), None, evidence="unpriced", model="gpt-99") for n in range(3)]
    void = usage(ann, HOUR, 0, evidence="void", model="gpt-99")
    known = usage(ann, HOUR, 5)
    free = usage(ann, HOUR, 0, model="free")
    await ledger.insert_batch(entries(*unknown, void, known, free))
    rows = {row["model"]: row for row in await table_of(env, "--by", "model")}
    assert (rows["gpt-99"]["cost_usd"], rows["gpt-99"]["billed_usd"], rows["gpt-99"]["unpriced_open"]) == ("", "", "3")
    assert rows["free"]["cost_usd"] == "0.000000000"
    document = json.loads((await gateway(env, "report", "usage", "--by", "model", "--json")).out)
    found = {row["model"]: row["cost_usd"] for row in document["rows"]}
    assert found == {"gpt-99": None, "free": "0.000000000", "gpt-5-mini-2025-08-07": "0.000000005"}
    assert document["totals"]["cost_usd"] == "0.000000005"
    (line,) = [
        line for line in (await gateway(env, "report", "usage", "--by", "model")).out.splitlines() if "gpt-99" in line
    ]
    assert "0.000000000" not in line
    assert line.count("–") == 2
    # Its price comes by hand: it is no longer open, and its amount counts where it was booked.
    await ledger.insert_batch(
        entries(usage(ann, HOUR, 7, evidence="adjustment", adjusts=unknown[0].id, model="gpt-99", tokens=(0, 0)))
    )
    (row,) = await table_of(env, "--by", "model", "--model", "gpt-99")
    assert (row["cost_usd"], row["unpriced"], row["unpriced_open"], row["adjustment_cost_usd"]) == (
        "0.000000007", "3", "2", "0.000000007",
    )  # fmt: skip


async def test_evidence_has_its_amounts_and_what_is_open_comes_down(database_url: str, ledger: Ledger) -> None:
    env = {"DATABASE_URL": database_url}
    ann = await Accounts(ledger.pool).create_user("ann@example.com")
    guesses = [usage(ann, HOUR, nano, evidence="estimated") for nano in (100, 20)]
    await ledger.insert_batch(entries(*guesses, usage(ann, HOUR, 3), usage(ann, HOUR, 4, evidence="drained")))
    late = HOUR + timedelta(days=40)
    await ledger.insert_batch(entries(usage(ann, late, -60, evidence="adjustment", adjusts=guesses[0].id)))
    totals = json.loads((await gateway(env, "report", "usage", "--by", "evidence", "--json")).out)["totals"]
    names = ("estimated", "estimated_open", "estimated_cost_usd", "estimated_open_cost_usd", "adjustment_cost_usd")
    assert [totals[name] for name in names] == [2, 1, "0.000000120", "0.000000020", "-0.000000060"]
    assert (totals["reported_cost_usd"], totals["drained_cost_usd"]) == ("0.000000003", "0.000000004")
    table = (await gateway(env, "report", "usage", "--by", "week")).out
    assert "2 estimated (0.000000120), 1 open" in table
    assert "2026-11-16" in table


async def test_a_sealed_month_does_not_move(database_url: str, ledger: Ledger, pool: Pool) -> None:
    env = {"DATABASE_URL": database_url}
    ann = await Accounts(ledger.pool).create_user("ann@example.com")
    october = datetime(2026, 10, 31, 22, tzinfo=UTC)
    await ledger.insert_batch(entries(usage(ann, october, 9_000_000_000)))
    await pool.execute("select seal_books('2026-11-01Z')")
    for by in ("", "hour", "meeting", "day"):
        (before,) = await table_of(env, "--during", "2026-10", "--by", by)
        late = usage(ann, october, 50_000_000_000)
        await ledger.insert_batch(entries(late))
        (after,) = await table_of(env, "--during", "2026-10", "--by", by)
        assert (before["cost_usd"], after) == ("9.000000000", before)
    (since,) = await table_of(env, "--from", "2026-11-01", "--by", "")
    assert since["cost_usd"] == "200.000000000"
