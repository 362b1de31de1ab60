"""Holds what a client was shown, and what OpenAI's stand-in charged, against the client's rows in the ledger."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

import asyncpg

from tests.clients.install import Mismatch

ROWS_S: Final = 90.0
Row = asyncpg.Record
Tokens = tuple[int, int]


def check_charged(charged: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> None:
    """Raises Mismatch unless each call that the stand-in charged has exactly one row, as charged."""
    by_id = {str(row["id"]): row for row in rows}
    if len(charged) != len(rows) or {call["client_request_id"] for call in charged} != by_id.keys():
        raise Mismatch(f"{len(charged)} calls were charged, and {len(rows)} rows are there, with other ids")
    for call in charged:
        row, usage = by_id[call["client_request_id"]], call["usage"]
        where = f"call {call['number']} of {call['endpoint']}, {call['model']}"
        if call["status"] != 200 or usage is None:
            raise Mismatch(f"{where}: the stand-in answered {call['status']} and charged {usage}")
        owed = (usage.get("prompt_tokens", usage.get("input_tokens")), output_of(usage))
        if owed != tokens_of(row):
            raise Mismatch(f"{where}: {owed} tokens were charged, its row has {tokens_of(row)}")
        if row["evidence"] != "reported" or row["cost_usd"] is None or not row["cost_usd"] > 0:
            raise Mismatch(f"{where}: its row is {row['evidence']} and costs {row['cost_usd']}")


def check_told(told: Sequence[Mapping[str, Any]], rows: Sequence[Row]) -> None:
    """Raises Mismatch unless the rows, in the order of their calls, are what the client was shown."""
    remaining = iter(rows)
    for line in told:
        mine = take(remaining, line)
        shown = (line["prompt_tokens"], line["completion_tokens"] or 0)
        kept = tuple(map(sum, zip(*map(tokens_of, mine), strict=True)))
        # Where a stream's usage was not asked for, or a client keeps it to itself, it is shown none.
        if line["prompt_tokens"] is not None and shown != kept:
            raise Mismatch(f"{line['call']}: the client was shown {shown} tokens, {len(mine)} rows have {kept}")
        if "event_id" in line and [str(row["id"]) for row in mine] != [line["event_id"]]:
            raise Mismatch(f"{line['call']}: its answer had the event id {line['event_id']}, which is not its row's")
    if left := len(list(remaining)):
        raise Mismatch(f"{left} rows more than the client told of")


def take(rows: Iterator[Row], line: Mapping[str, Any]) -> list[Row]:
    """The next rows, as many as this line tells of."""
    wanted = line.get("calls", 1)
    mine = list(islice(rows, wanted))
    if len(mine) != wanted or not mine:
        raise Mismatch(f"{line['call']}: the client made {wanted} calls, and {len(mine)} rows are left for them")
    return mine


def tokens_of(row: Row) -> Tokens:
    """Input and output."""
    return row["prompt_tokens"], row["completion_tokens"] or 0


def output_of(usage: Mapping[str, Any]) -> int:
    """Of whichever endpoint."""
    output: int = usage.get("completion_tokens", usage.get("output_tokens", 0))
    return output


async def make_meeting(database_url: str, user_id: str, room: str) -> str:
    """The id of a new meeting of this user."""
    connection = await asyncpg.connect(database_url)
    try:
        statement = "insert into meetings (user_id, room_name) values ($1::uuid, $2) returning id"
        return str(await connection.fetchval(statement, user_id, room))
    finally:
        await connection.close()


async def rows_of(database_url: str, user_id: str, count: int) -> list[asyncpg.Record]:
    """Every row of this user in the order of their calls, once there are `count`, or as many as came in time."""
    connection = await asyncpg.connect(database_url)
    try:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ROWS_S
        while True:
            rows = await connection.fetch("select * from openai_usage where user_id = $1::uuid order by id", user_id)
            if len(rows) >= count or loop.time() > deadline:
                return list(rows)
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
