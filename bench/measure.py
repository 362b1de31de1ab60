"""What every bench measures with: CPU of whole processes, a load of its own process, and the ledger at the end."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import asyncpg

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
SETTLED_WITHIN_S = 60.0


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of these processes and of everything below them, seconds; what has ended below them counts.

    Raises ProcessLookupError when one of `pids` itself has ended.
    """
    return sum(_ticks(pid) for pid in pids) * TICK_S


def _ticks(pid: int) -> int:
    """A PostgreSQL backend may end between the two reads; from then on its time is in that of its parent."""
    while True:
        try:
            return sum(_own_ticks(below) for below in _descendants(pid))
        except (FileNotFoundError, ProcessLookupError):
            os.kill(pid, 0)


def _own_ticks(pid: int) -> int:
    """With the time of the children that it has reaped."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))


def _descendants(pid: int) -> list[int]:
    """`pid` and everything below it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in _descendants(int(child)))]


def positive(text: str) -> int:
    """An argument that counts something."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


async def helper(*arguments: str) -> tuple[asyncio.subprocess.Process, int]:
    """A bench process and the port that it prints."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    return process, int(await process.stdout.readline())


async def load(port: int, key: str, calls: int, concurrent: int, mode: str) -> tuple[int, float]:
    """(calls made, seconds). Any answer but 200 ends the bench."""
    arguments = ("-m", "bench.load", str(port), key, str(calls), str(concurrent), mode)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(f"bench: the load failed: {output.decode()}")
    made, seconds = output.split()
    return int(made), float(seconds)


async def all_in_ledger(dsn: str, calls: int) -> None:
    """Waits until the ledger has so many exact calls. Raises SystemExit when one is missing or one too many."""
    connection = await asyncpg.connect(dsn)
    try:
        deadline = asyncio.get_running_loop().time() + SETTLED_WITHIN_S
        while True:
            rows = await connection.fetchval("select count(*) from openai_usage where evidence = 'reported'")
            if rows == calls:
                return
            if rows > calls or asyncio.get_running_loop().time() > deadline:
                raise SystemExit(f"bench: {calls} calls, {rows} rows in the ledger")
            await asyncio.sleep(0.2)
    finally:
        await connection.close()
