"""A stop with calls that PostgreSQL does not have says how many, and ends with a status of its own."""

import asyncio
import json
from pathlib import Path
from random import Random
from uuid import uuid4

import aiohttp
import pytest

from gateway.config.settings import Settings
from gateway.journal.frames import BOOT, OPEN, SETTLE, frame
from gateway.processes import keeper
from gateway.processes.arguments import ProcessArguments
from gateway.processes.exit_status import CALLS_STAY, CallsStay
from gateway.usage.event import encode
from tests.ledger.journals_at_work import opened
from tests.support.environment import clean_environment
from tests.support.events import call, new_id
from tests.support.gateway import Stack
from tests.support.servers import free_port

USER = str(uuid4())
BODY = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}


def journal_of_a_dead_proxy(data: Path, *, settled: int, unsettled: int) -> None:
    random = Random(75)
    ids = [new_id(random) for _ in range(settled + unsettled)]
    lines = [frame(BOOT, b'"gone"')]
    lines += [frame(OPEN, encode(opened(event_id, user_id=USER))) for event_id in ids]
    lines += [frame(SETTLE, encode(call(USER, event_id))) for event_id in ids[:settled]]
    (data / "journal").mkdir(parents=True)
    (data / "journal" / "proxy-0.1.000001.jnl").write_bytes(b"".join(lines))


@pytest.mark.parametrize("away", ["REDIS_URL", "DATABASE_URL", "both"])
async def test_a_keeper_that_stops_with_a_store_away(
    redis_url: str, database_url: str, tmp_path: Path, away: str
) -> None:
    journal_of_a_dead_proxy(tmp_path, settled=3, unsettled=2)
    nowhere = {
        "REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/none",
    }
    given = {"REDIS_URL": redis_url, "DATABASE_URL": database_url}
    settings = Settings.of(
        clean_environment()
        | given
        | {name: url for name, url in nowhere.items() if away in (name, "both")}
        | {"GATEWAY_DATA_DIR": str(tmp_path), "OPENAI_API_KEY": "sk-none", "FLUSH__STREAM": f"usage-{uuid4().hex}"}
    )
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(CallsStay, match=r"^5 call\(s\) that PostgreSQL does not have stay in ") as raised:
        await keeper.run(settings, ProcessArguments(0, "", 0), stop, lambda _status_of: None)
    assert str(tmp_path / "journal") in str(raised.value)


@pytest.mark.long
async def test_a_stop_without_a_worker(fresh_stack: Stack) -> None:
    """Nobody writes rows: `serve` says so, and `journal inspect` lists as many."""
    fresh_stack.env["JOURNAL__STOP_S"] = "0.5"
    await asyncio.to_thread(fresh_stack.start, background=False)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {fresh_stack.key}"}) as session:
        for _ in range(3):
            async with session.post(f"{fresh_stack.base_url}/chat/completions", json=BODY) as got:
                assert got.status == 200
    assert await asyncio.to_thread(fresh_stack.serve.stop) == CALLS_STAY
    output = fresh_stack.serve.output()
    assert "gateway: 3 call(s) that PostgreSQL does not have stay in " in output
    (line,) = [json.loads(line) for line in output.splitlines() if '"calls stay on the disk"' in line]
    assert line["calls"] == 3
    seen = await asyncio.to_thread(fresh_stack.command, "journal", "inspect", "--json")
    assert sum(len(slot["missing"]) for slot in json.loads(seen.stdout)) == 3
    again = fresh_stack.run("serve")
    await asyncio.to_thread(again.wait_for, "serving http")
    assert await asyncio.to_thread(again.stop) == 0  # it has shipped them
    seen = await asyncio.to_thread(fresh_stack.command, "journal", "inspect", "--json")
    assert sum(len(slot["missing"]) for slot in json.loads(seen.stdout)) == 0
