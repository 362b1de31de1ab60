"""The primary dies and its standby is promoted, under a whole gateway: no call fails, and every call becomes a row.

Replication is asynchronous: what the standby had not got is lost with the primary, though the keeper has seen it there.
"""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import openai

from gateway.stores.migrator import migrate
from tests.chaos.tcp import wires
from tests.support.gateway import Stack, stack
from tests.support.patience import until, until_now
from tests.support.postgres_pair import PostgresPair, ask, postgres_pair
from tests.support.whole_gateway import settled_rows

MODEL = "gpt-4o-mini"
LOST = 12
UNCONFIRMED = ("gateway_journal_unconfirmed_events", frozenset[tuple[str, str]]())


async def call(running: Stack, count: int) -> None:
    """So many calls, none of which may fail."""
    async with openai.AsyncOpenAI(base_url=running.base_url, api_key=running.key, max_retries=0) as client:
        for _ in range(count):
            await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])


async def until_confirmed(running: Stack, pair: PostgresPair, count: int) -> None:
    """Until the keeper has seen so many rows at the primary, so that it sends none of them again."""
    assert len(await settled_rows(pair.primary.url, count)) == count
    await until(lambda: running.metrics()[UNCONFIRMED] == 0)


def stop_replicating(pair: PostgresPair) -> None:
    """From here on the standby gets nothing more."""
    until_now(pair.has_caught_up)
    ask(pair.standby, "alter system set primary_conninfo = ''")
    ask(pair.standby, "select pg_reload_conf()")
    until_now(lambda: not ask(pair.standby, "select count(*) from pg_stat_wal_receiver"))


async def test_a_promotion_that_loses_rows(tmp_path: Path, redis_url: str) -> None:
    tmp_path.chmod(0o711)
    quick = {"JOURNAL__CONFIRM_AFTER_S": "0.5", "FLUSH__STREAM": f"usage-{uuid4().hex}"}
    with wires() as laid, postgres_pair(tmp_path / "pair") as pair:
        dsn = pair.url_through(laid.link(pair.primary.socket), laid.link(pair.standby.socket))
        await migrate(dsn)
        with stack(tmp_path, dsn, redis_url, **quick) as running:
            await asyncio.to_thread(running.start)
            await call(running, 5)
            await until_confirmed(running, pair, 5)
            await asyncio.to_thread(stop_replicating, pair)
            await call(running, LOST)
            await until_confirmed(running, pair, 5 + LOST)
            pair.primary.die()
            await call(running, 5)
            await asyncio.to_thread(pair.promote)
            await call(running, 5)
            assert len(await settled_rows(pair.standby.url, 15)) == 15

            found = await asyncio.to_thread(running.command, "journal", "resend", "--json")
            assert found.returncode == 0, found.stderr
            assert (json.loads(found.stdout)["missing"], json.loads(found.stdout)["sent"]) == (LOST, LOST)
            assert len(await settled_rows(pair.standby.url, 15 + LOST)) == 15 + LOST
            again = await asyncio.to_thread(running.command, "journal", "resend", "--json")
            assert json.loads(again.stdout)["missing"] == 0
            await until(lambda: running.metrics()[UNCONFIRMED] == 0)
            audited = await asyncio.to_thread(running.command, "audit", "--all", "--grace", "0")
            assert audited.returncode == 0, audited.stdout.decode()
            assert len(running.truth()) == 15 + LOST
