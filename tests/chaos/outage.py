"""A long outage: stores that are away for minutes while clients go on calling, and the backlog when they are back.

Unlike chaos, no fault excuses anything: every call must be answered.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg

from tests.chaos.deployment import Deployment
from tests.chaos.excuses import Excuses
from tests.chaos.load import Load
from tests.chaos.run import judged

WARM_S: Final = 5.0
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
    for name in away:
        made.stores[name].die()
    memory = await _memory_while_away(made, seconds, say)
    load.stop()
    await loading
    for name in away:
        await asyncio.to_thread(made.stores[name].again)
    back = time.monotonic()
    calls = len(await asyncio.to_thread(made.stack.truth))
    drain = await _drain(made.stores["postgres"].url, calls, back)
    found = await judged(made, load, loading)
    return {"away": list(away), "seconds": seconds, "memory_mb": memory, **drain, **found}


async def _memory_while_away(made: Deployment, seconds: float, say: Callable[[str], None]) -> dict[str, list[int]]:
    """Resident MB of each kind of process, the largest of each kind, sampled over the time."""
    begun = time.monotonic()
    samples: dict[str, list[int]] = {kind: [] for kind in KINDS}
    while (passed := time.monotonic() - begun) < seconds:
        for kind in KINDS:
            samples[kind].append(max((_resident_mb(pid) for pid in made.pids_of(kind)), default=0))
        say(f"{passed:7.1f} s  " + ", ".join(f"{kind} {taken[-1]} MB" for kind, taken in samples.items()))
        await asyncio.sleep(min(SAMPLE_S, seconds - passed))
    return {kind: taken[:: max(1, len(taken) // 10)] for kind, taken in samples.items()}


async def _drain(dsn: str, calls: int, back: float) -> dict[str, Any]:
    """How fast the rows come, from the moment the stores are there: in all, and between a tenth and nine tenths."""
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
    return {"backlog_rows": last - first, "drained_in_s": round(curve[-1][0], 1), "rows_per_s": round(steady)}


def _resident_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * 4096 // 1_000_000
