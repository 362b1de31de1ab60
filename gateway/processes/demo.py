"""`gateway demo`: one shot on the sandbox, from the OpenAI SDK's calls to the Stripe meter event that comes of them."""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
from openai import AsyncOpenAI

from gateway.accounts.store import Accounts
from gateway.billing.stripe import Billing
from gateway.cli.command import note, say
from gateway.cli.console import Console, TextTable
from gateway.cli.text import Say
from gateway.config.secret_files import with_file_values
from gateway.embedded import EmbeddedError
from gateway.keys import create as keys
from gateway.kit.core_dumps import forbid_dumps
from gateway.kit.errors import ConfigError, DependencyDown
from gateway.processes import local
from gateway.processes.supervisor import ChildFailed, run_until_stopped, stop_on_signals
from gateway.processes.worker import build_bill
from gateway.reports import commands as report
from gateway.sandbox import credentials
from gateway.stores.migrator import MigrationFailed
from gateway.stores.postgres import open_pool

MODEL: Final = "gpt-4o-mini"
USER: Final = "demo@example.com"
ROWS_WITHIN_S: Final = 30.0
EVENT_ID: Final = "x-gateway-event-id"
ROWS: Final = """
select id::text, endpoint, model, evidence, prompt_tokens, completion_tokens, cost_usd, billed_usd
from openai_usage where id = any($1::uuid[]) order by id
"""


class DemoFailed(Exception):
    """The demo did not show what it must."""


async def demo(environ: Mapping[str, str], say: Say, console: Console) -> None:
    """Raises DemoFailed, also when it is stopped, or whatever kept the gateway from starting; otherwise every step has
    really happened.
    """
    stop = asyncio.Event()
    stop_on_signals(stop)
    if not await run_until_stopped(_demo(environ, say, console), stop, lambda: say("stopping")):
        raise DemoFailed("stopped before its end")


async def _demo(environ: Mapping[str, str], say: Say, console: Console) -> None:
    kept = {name: value for name, value in environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    if len(kept) < len(environ):
        say("ignoring DATABASE_URL and REDIS_URL: the demo brings its own servers")
    kept |= {"FLUSH__INTERVAL_S": "0.05"}
    with tempfile.TemporaryDirectory(prefix="gateway-demo-", ignore_cleanup_errors=True) as folder:
        # PostgreSQL's user must be able to pass through to its data, where we are root; listing it stays with us.
        os.chmod(folder, 0o711)  # noqa: S103  # passing through only
        async with local.running(
            Path(folder) / "data",
            kept,
            real=frozenset(),
            host="127.0.0.1",
            port=0,
            workers=1,
            say=say,
            fsync=False,
        ) as running:
            await _show(running, say, console)


async def _show(running: local.Local, say: Say, console: Console) -> None:
    settings = running.settings
    pool = await open_pool(str(running.env["DATABASE_URL"]), connections_max=2)
    billing = Billing(credentials.STRIPE_SECRET_KEY, base_url=settings.stripe_base_url)
    try:
        accounts = Accounts(pool)
        user_id = await accounts.create_user(USER)
        await billing.ensure_meter(settings.billing.meter_event_name)
        customer = await billing.create_customer(user_id, USER)
        await accounts.create_user(USER, stripe_customer_id=customer)
        key = await keys.create(settings, user=USER, name="demo")
        say(f"\nCalling {running.base_url} with the openai SDK")
        ids = await _calls(running.base_url, key.secret, say)
        rows = await _rows(pool, ids)
        console.say("")
        console.print_table(_table(rows))
        await report.usage(settings, console, now=datetime.now(UTC), by=("user", "model"))
        # An hour's window would close in up to an hour; a grace of minus one window closes it now.
        bill = build_bill(settings, pool, billing)
        counts = await bill.step_once(datetime.now(UTC), grace_s=-float(settings.billing.window_s))
        events = await _meter_events(running.sandbox_url)
        _check(rows, ids, events, customer, counts.sent)
        for event in events:
            console.say(f"Stripe meter event: {event}")
        total = f"{sum(row['billed_usd'] for row in rows):.9f}"
        micro = sum(int(event["value"]) for event in events)
        console.say(f"{len(rows)} calls, {len(rows)} rows, {total} USD in the ledger, {micro} micro-USD at Stripe.")
    finally:
        await billing.close()
        await pool.close()


async def _calls(base_url: str, key: str, say: Say) -> list[str]:
    """The event ids of four calls made with the stock SDK."""
    ids = []
    async with AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0) as client:
        message: Any = {"role": "user", "content": "Say in one sentence what a metering gateway does."}
        chat = await client.chat.completions.with_raw_response.create(model=MODEL, messages=[message])
        ids.append(chat.headers[EVENT_ID])
        say(f"  chat              {chat.parse().choices[0].message.content!s:.60}")
        stream = await client.chat.completions.with_raw_response.create(model=MODEL, messages=[message], stream=True)
        ids.append(stream.headers[EVENT_ID])
        pieces = [chunk.choices[0].delta.content or "" async for chunk in stream.parse() if chunk.choices]
        say(f"  chat stream       {len(pieces)} chunks")
        answer = await client.responses.with_raw_response.create(model=MODEL, input=message["content"], stream=True)
        ids.append(answer.headers[EVENT_ID])
        kinds = [event.type async for event in answer.parse()]
        say(f"  responses stream  {len(kinds)} events, the last is {kinds[-1]}")
        vectors = await client.embeddings.with_raw_response.create(model="text-embedding-3-small", input=["one", "two"])
        ids.append(vectors.headers[EVENT_ID])
        say(f"  embeddings        {len(vectors.parse().data)} vectors")
    return ids


async def _rows(pool: Any, ids: list[str]) -> list[asyncpg.Record]:
    """The ledger rows of these calls, once the background has written them."""
    deadline = asyncio.get_running_loop().time() + ROWS_WITHIN_S
    while True:
        rows: list[asyncpg.Record] = await pool.fetch(ROWS, ids)
        if len(rows) == len(ids):
            return rows
        if asyncio.get_running_loop().time() > deadline:
            raise DemoFailed(f"{len(rows)} of {len(ids)} calls are in the ledger after {ROWS_WITHIN_S:.0f} s")
        await asyncio.sleep(0.05)


def _table(rows: list[asyncpg.Record]) -> TextTable:
    table = TextTable(title="The ledger: openai_usage", boxed=True)
    for name in ("id", "endpoint", "model", "evidence"):
        table.add_column(name)
    for name in ("in", "out", "cost_usd"):
        table.add_column(name, right=True)
    for row in rows:
        tokens = ("" if row[name] is None else str(row[name]) for name in ("prompt_tokens", "completion_tokens"))
        table.add_row(
            "…" + row["id"][-8:], row["endpoint"], row["model"], row["evidence"], *tokens, f"{row['cost_usd']:.9f}"
        )
    return table


async def _meter_events(sandbox_url: str) -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{sandbox_url}/stripe/_control/events") as response,
    ):
        listed = await response.json()
    events: list[dict[str, Any]] = listed["events"]
    return events


def _check(rows: list[asyncpg.Record], ids: list[str], events: list[dict[str, Any]], customer: str, sent: int) -> None:
    """The demo is a claim; this is its proof."""
    if any(row["cost_usd"] is None for row in rows):
        raise DemoFailed("a call has no price")
    billed_nano = sum(int(row["billed_usd"].scaleb(9)) for row in rows)
    at_stripe = sum(int(event["value"]) for event in events if event["customer"] == customer)
    # One event per window, so two where the calls fell into two hours; less than one micro-USD is carried on.
    if sent == 0 or not 0 <= billed_nano - at_stripe * 1000 < 1000:
        raise DemoFailed(f"the ledger has {billed_nano} nano-USD, Stripe {at_stripe} micro-USD in {sent} event(s)")


def main() -> None:
    """`python -m gateway.processes.demo`; exits by SystemExit."""
    forbid_dumps()
    try:
        asyncio.run(demo(with_file_values(os.environ), say, Console()))
    except (ConfigError, DependencyDown, EmbeddedError, ChildFailed, MigrationFailed, DemoFailed) as error:
        note(f"gateway: {error}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
