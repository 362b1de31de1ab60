"""`gateway quarantine`: what could not become a row is seen, and ends once: as a row, or with a reason.

Of an entry that can be a row by now exactly one comes, whoever retries it, and however often.
"""

import asyncio
import json
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from gateway.accounts.store import Accounts
from gateway.ledger import sql as ledger_sql
from gateway.ledger.rows import LedgerEntry
from gateway.ledger.store import Ledger, Outcome
from gateway.ledger.stream import Buffer
from gateway.quarantine.retry import retry_all
from gateway.quarantine.store import Quarantine
from gateway.stores.postgres import Pool
from gateway.usage.event import encode
from tests.ledger.test_flush import Clock, writer
from tests.support.events import call, new_id, sums_are_right
from tests.support.invoke import Done, gateway
from tests.usage.test_odd_usage_blocks import ODD, as_of_old

RANDOM = Random(8)
STRANGER = "00000000-0000-7000-8000-00000000000f"


@pytest.fixture
def env(database_url: str) -> dict[str, str]:
    return {"DATABASE_URL": database_url}


async def put_aside(ledger: Ledger, pool: Pool, entry: LedgerEntry) -> int:
    """As a writer would have done, this one or an older one; the entry's id."""
    assert await pool.fetchval(ledger_sql.QUARANTINE, entry.event_id, entry.raw, None, "too odd", "22P05") == 1
    return int(await pool.fetchval("select id from usage_quarantine where raw = $1", entry.raw))


async def stranger(ledger: Ledger) -> LedgerEntry:
    """A call of a user that is not there, in quarantine."""
    entry = LedgerEntry.of(call(STRANGER, new_id(RANDOM)))
    assert await ledger.insert_batch([entry]) == Outcome(0, 0, 1)
    return entry


async def arrives(pool: Pool) -> None:
    await pool.execute("insert into users (id, email) values ($1, 'late@example.com')", STRANGER)


async def listed(env: dict[str, str], *options: str) -> list[dict[str, Any]]:
    done = await gateway(env, "quarantine", "list", "--json", *options)
    assert done.status == 0
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


async def retry(env: dict[str, str], *arguments: str) -> Done:
    return await gateway(env, "quarantine", "retry", *arguments)


async def test_what_waits_is_listed_with_its_reason_and_shown_with_its_bytes(
    env: dict[str, str], ledger: Ledger
) -> None:
    assert "Nothing waits" in (await gateway(env, "quarantine", "list")).out
    entry = await stranger(ledger)
    await ledger.insert_batch([LedgerEntry("odd\x1b[2J", b'{"id":"\xff\x1b[2J')])
    first, second = await listed(env)
    assert (first["event_id"], first["bytes"]) == (entry.event_id, len(entry.raw))
    assert first["kind"] == "ForeignKeyViolationError openai_usage_user_id_fkey"
    assert (second["kind"], second["resolved_at"]) == ("not_decodable", None)
    table = (await gateway(env, "quarantine", "list")).out
    assert entry.event_id in table
    assert "openai_usage_user_id_fkey" in table
    shown = json.loads((await gateway(env, "quarantine", "show", str(first["id"]), "--json")).out)
    assert shown["raw"] == entry.raw.decode()
    assert "is not present" in shown["reason"] or "violates foreign key" in shown["reason"]
    odd = await gateway(env, "quarantine", "show", str(second["id"]))
    assert "\\xff" in odd.out
    assert "\x1b" not in odd.out + table
    assert "no entry 99" in (await gateway(env, "quarantine", "show", "99")).error


async def test_an_entry_becomes_one_row_when_its_cause_is_gone(env: dict[str, str], ledger: Ledger, pool: Pool) -> None:
    entry = await stranger(ledger)
    (waiting,) = await listed(env)
    done = await retry(env, str(waiting["id"]))
    assert (done.status, "still refused: ForeignKeyViolationError" in done.out) == (1, True)
    assert await listed(env) == [waiting]
    await arrives(pool)
    done = await retry(env, str(waiting["id"]), "--by", "Ada")
    assert (done.status, "is a row now" in done.out) == (0, True)
    assert await pool.fetchval("select id::text from openai_usage") == entry.event_id
    assert await listed(env) == []
    (closed,) = await listed(env, "--all")
    assert (closed["resolved_by"], closed["resolution"]) == ("Ada", "retried: became a row")
    done = await retry(env, str(waiting["id"]))
    assert (done.status, "was closed already" in done.out) == (0, True)
    assert await ledger.insert_batch([entry]) == Outcome(0, 1, 0)  # and whoever sends it again changes nothing
    assert await sums_are_right(pool)


@pytest.mark.parametrize("name", ODD)
async def test_blocks_that_older_versions_put_aside_become_rows(
    env: dict[str, str], ledger: Ledger, pool: Pool, name: str
) -> None:
    user = await Accounts(ledger.pool).create_user("a@example.com")
    await put_aside(ledger, pool, as_of_old(call(user, new_id(RANDOM)), ODD[name]))
    assert (await retry(env, "--all")).status == 0
    row = await pool.fetchrow("select total_tokens, usage, usage_raw from openai_usage")
    assert row is not None
    assert (row["total_tokens"], row["usage"]) == (120, None)
    assert row["usage_raw"] == ODD[name][: len(row["usage_raw"])]
    assert await sums_are_right(pool)


async def test_several_at_once_make_one_row_of_each(ledger: Ledger, pool: Pool) -> None:
    entries = [await stranger(ledger) for _ in range(12)]
    await arrives(pool)

    async def correct(_raws: object) -> None:
        return None

    async def run(who: str) -> list[str]:
        async def resolve(entry_id: int, resolution: str) -> bool:
            return await Quarantine(pool).resolve(entry_id, who, resolution)

        return [done.became async for done in retry_all(Quarantine(pool), ledger, correct, resolve)]

    became = [each for done in await asyncio.gather(*(run(f"p{number}") for number in range(4))) for each in done]
    assert became.count("row") == 12
    assert set(became) <= {"row", "known", "closed"}
    assert await pool.fetchval("select count(*) from openai_usage") == len(entries)
    assert await pool.fetchval("select count(*) from usage_quarantine where resolved_at is null") == 0
    assert await sums_are_right(pool)


async def test_one_that_died_before_it_closed_the_entry_is_harmless(
    env: dict[str, str], ledger: Ledger, pool: Pool
) -> None:
    entry = await stranger(ledger)
    await arrives(pool)
    assert await ledger.insert_again(entry)
    done = await retry(env, "--all")
    assert (done.status, "has this call already" in done.out) == (0, True)
    assert await pool.fetchval("select count(*) from openai_usage") == 1
    assert await sums_are_right(pool)


async def test_an_exact_answer_corrects_the_estimate_that_took_its_place(
    env: dict[str, str], ledger: Ledger, pool: Pool
) -> None:
    user = await Accounts(ledger.pool).create_user("a@example.com")
    exact = call(user, new_id(RANDOM), cost_nano=5000, billed_nano=5000)
    await put_aside(ledger, pool, LedgerEntry(exact.id, encode(exact) + b" "))
    estimate = call(user, exact.id, cost_nano=9000, billed_nano=9000, evidence="estimated", response_id=None)
    await ledger.insert_batch([LedgerEntry.of(estimate)])
    for _ in range(2):
        assert (await retry(env, "--all")).status == 0
    rows = await pool.fetch("select evidence, (cost_usd * 1e9)::bigint from openai_usage order by evidence desc")
    assert [tuple(row) for row in rows] == [("estimated", 9000), ("adjustment", -4000)]
    assert await sums_are_right(pool)


async def test_closing_needs_a_reason_and_is_done_once(env: dict[str, str], ledger: Ledger, pool: Pool) -> None:
    await stranger(ledger)
    (waiting,) = await listed(env)
    entry_id = str(waiting["id"])
    for reason in ("", "  ", "a\nb", "x" * 2000):
        assert "--reason" in (await gateway(env, "quarantine", "resolve", entry_id, "--reason", reason)).error
    assert (await gateway(env, "quarantine", "resolve", entry_id)).status == 2
    assert await listed(env) == [waiting]
    first = await gateway(env, "quarantine", "resolve", entry_id, "--reason", "a test call", "--by", "Ada")
    assert f"{entry_id} is closed, by Ada: a test call" in first.out
    again = await gateway(env, "quarantine", "resolve", entry_id, "--reason", "no, mine")
    assert f"{entry_id} was closed already, by Ada: a test call" in again.out
    await arrives(pool)
    assert "was closed already" in (await retry(env, entry_id)).out
    assert await pool.fetchval("select count(*) from openai_usage") == 0
    assert "no entry 77" in (await gateway(env, "quarantine", "resolve", "77", "--reason", "x")).error
    assert await sums_are_right(pool)


async def test_who_did_it_is_known_without_being_asked(env: dict[str, str], ledger: Ledger) -> None:
    await stranger(ledger)
    (waiting,) = await listed(env)
    await gateway(env, "quarantine", "resolve", str(waiting["id"]), "--reason", "a test call")
    (closed,) = await listed(env, "--all")
    assert "@" in closed["resolved_by"]


async def test_entries_or_all_must_be_named(env: dict[str, str], ledger: Ledger) -> None:
    for arguments in ((), ("1", "--all")):
        assert "--all" in (await retry(env, *arguments)).error
    assert "DATABASE_URL" in (await gateway({}, "quarantine", "list")).error
    done = await retry(env, "5")
    assert (done.status, "there is no entry" in done.out) == (1, True)


async def test_the_log_line_names_the_kind_and_nothing_of_the_entry(buffer: Buffer, ledger: Ledger) -> None:
    user, secret = await Accounts(ledger.pool).create_user("a@example.com"), f"secret-{uuid4()}"
    known = new_id(RANDOM)
    entries = [
        (known, encode(call(STRANGER, known, request_id=secret))),
        (secret, b'{"id":"' + secret.encode()),
        (secret, encode(call(user, new_id(RANDOM), request_id=secret))),
    ]
    await buffer.append(entries)
    with capture_logs() as logs:
        flush = writer(buffer, ledger, Clock())
        assert await flush.step_once() == 3
    lines = {line["reason"]: line for line in logs if line["event"] == "usage in quarantine"}
    assert lines.keys() == {"ForeignKeyViolationError openai_usage_user_id_fkey", "not_decodable", "another_id"}
    assert {tuple(line["ids"]) for line in lines.values()} == {(known,), ()}
    assert all(line["entries"] == 1 for line in lines.values())
    assert secret not in str(logs)
