"""A long outage: stores that are away for minutes while clients go on calling, and the backlog when they are back.

Unlike chaos, no fault excuses anything: every call must be answered.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg

from tests.chaos.deployment import Deployment
from tests.chaos.excuses import Excuses
from tests.chaos.load import Load
from tests.chaos.run import judged

WARM_S: Final = 5.0
KNOWN_S: Final = 120.0
BACKLOG_CALLS_MIN: Final = 100
BACKLOG_S: Final = 300.0
SAMPLE_S: Final = 5.0
DRAIN_S: Final = 300.0
KINDS: Final = ("parent", "proxy", "keeper", "worker")


async def outage(
    made: Deployment, seed: int, away: Sequence[str], seconds: float, clients: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Raises nothing for what is wrong: the figures say it."""
    load = Load(made, seed, clients, Excuses())
    loading = asyncio.create_task(load.run())
    await asyncio.sleep(WARM_S)
    await _until_known(made)
    dsn = made.stores["postgres"].url
    before, seen = await _rows(dsn), load.seen.total()
    for name in away:
        made.stores[name].die()
    memory = await _memory_while_away(made, seconds, lambda: load.seen.total() - seen, say)
    load.stop()
    await loading
    for name in away:
        await asyncio.to_thread(made.stores[name].again)
    back = time.monotonic()
    calls = len(await asyncio.to_thread(made.stack.truth))
    drain = await _drain(dsn, calls, before, back)
    found = await judged(made, load, loading)
    return {"away": list(away), "seconds": seconds, "memory_mb": memory, **drain, **found}


async def _until_known(made: Deployment) -> None:
    """Until every proxy has served both keys: one that has not yet asks PostgreSQL whose a key is.

    The kernel chooses the proxy of a connection, so calls on new ones are made until the log has each.
    """
    wanted = {(f"proxy-{slot}", user) for slot in range(2) for user in (made.stack.user_id, made.second_user_id)}
    url, body = f"{made.stack.base_url}/embeddings", {"model": "text-embedding-3-small", "input": "Hello"}
    connector = aiohttp.TCPConnector(force_close=True)
    async with asyncio.timeout(KNOWN_S), aiohttp.ClientSession(connector=connector) as session:
        while not wanted <= _served(made.stack.serve.output()):
            for key in (made.stack.key, made.second):
                async with session.post(url, json=body, headers={"Authorization": f"Bearer {key}"}) as answer:
                    assert answer.status == 200, await answer.text()


def _served(log: str) -> set[tuple[str, str]]:
    """Which process has served which user."""
    calls = [json.loads(line) for line in log.splitlines() if '"event":"call"' in line and line.endswith("}")]
    return {(call["process"], call["user"]) for call in calls}


async def _rows(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("select count(*) from openai_usage"))
    finally:
        await connection.close()


async def _memory_while_away(
    made: Deployment, seconds: float, calls: Callable[[], int], say: Callable[[str], None]
) -> dict[str, list[int]]:
    """Resident MB of each kind of process, the largest of each kind, sampled over the time.

    It lasts for so many seconds, and on a busy machine until there is a backlog.
    """
    begun = time.monotonic()
    samples: dict[str, list[int]] = {kind: [] for kind in KINDS}
    while (passed := time.monotonic() - begun) < seconds or (calls() <= BACKLOG_CALLS_MIN and passed < BACKLOG_S):
        for kind in KINDS:
            samples[kind].append(max((_resident_mb(pid) for pid in made.pids_of(kind)), default=0))
        say(f"{passed:7.1f} s  " + ", ".join(f"{kind} {taken[-1]} MB" for kind, taken in samples.items()))
        await asyncio.sleep(min(SAMPLE_S, max(0.5, seconds - passed)))
    return {kind: taken[:: max(1, len(taken) // 10)] for kind, taken in samples.items()}


async def _drain(dsn: str, calls: int, before: int, back: float) -> dict[str, Any]:
    """How fast the rows come, from the moment the stores are there: in all, and between a tenth and nine tenths.

    `before`: how many there were when the stores went away.
    """
    connection = await asyncpg.connect(dsn)
    curve: list[tuple[float, int]] = []
    try:
        while (passed := time.monotonic() - back) < DRAIN_S:
            curve.append((passed, int(await connection.fetchval("select count(*) from openai_usage"))))
            if curve[-1][1] >= calls:
                break
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    first, last = curve[0][1], curve[-1][1]
    low, high = (next(at for at in curve if at[1] >= first + share * (last - first)) for share in (0.1, 0.9))
    steady = (high[1] - low[1]) / (high[0] - low[0]) if high[0] > low[0] else 0.0
    return {"backlog_rows": last - before, "drained_in_s": round(curve[-1][0], 1), "rows_per_s": round(steady)}


def _resident_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * 4096 // 1_000_000
