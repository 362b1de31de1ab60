"""Each background loop in a real process under its parent: a bug in it ends the process, which is started again."""

import ast
import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from gateway.config.key_ring import entry_of
from gateway.kit.metrics import Status
from gateway.processes.supervisor import Child
from tests.chaos.entry import MODULE
from tests.chaos.planted import CONTENT
from tests.faults.scene import scene
from tests.support.environment import clean_environment
from tests.support.gateway import Stack
from tests.support.servers import free_port
from tests.support.source import files, tree, walk

ENDS_S: Final = 120.0
"""Only ever waited for in full when something is broken."""
LOOPS: Final = {
    "journal": "keeper",
    "open calls": "keeper",
    "host": "keeper",
    "slots": "proxy",
    "bounds": "proxy",
    "connections": "proxy",
    "good keys": "proxy",
    "recheck": "proxy",
    "key changes": "proxy",
    "plans": "proxy",
    "flush": "worker",
    "flush helper": "worker",
    "units": "worker",
    "bill": "worker",
    "stripe events": "worker",
    "credit balances": "worker",
    "recount": "worker",
    "poll": "worker",
    "lost hosts": "worker",
    "expire": "worker",
    "seal": "worker",
    "meetings": "worker",
    "reconcile": "worker",
    "retention": "worker",
    "backlog": "worker",
    "redis memory": "worker",
}
"""Every background loop, and the kind of process that has it."""
QUICK: Final = ("journal", "bounds", "recount")
"""One of each kind; the others are long, as starting a process twice is."""


class Lives:
    """What a parent hears of one child."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.heard_in: dict[int, list[Status]] = {}

    def mark_started(self, _name: str, pid: int) -> None:
        self.pids.append(pid)
        self.heard_in[pid] = []

    def heard(self, _name: str, status: Status) -> None:
        self.heard_in[self.pids[-1]].append(status)

    def mark_ended(self, _name: str) -> None:
        """The next one says that it has started."""


def named_loops() -> Iterator[str]:
    """The name given at every place where a loop is."""
    for file in files():
        for node in walk(tree(file)) if file.startswith("gateway/") else ():
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in ("every", "paced") and ast.unparse(node.func.value).endswith("loops"):
                assert isinstance(node.args[0], ast.Constant), f"{file}:{node.lineno}"
                yield str(node.args[0].value)


def test_every_loop_is_tried() -> None:
    assert sorted(named_loops()) == sorted(LOOPS)


def lines_of(log: Path) -> list[dict[str, Any]]:
    """The JSON lines of a process's standard error."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize(
    "loop", [loop if loop in QUICK else pytest.param(loop, marks=pytest.mark.long) for loop in LOOPS]
)
async def test_a_loop_that_fails_ends_its_process_which_is_started_again(
    loop: str, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    env = clean_environment() | {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "FLUSH__STREAM": f"usage-{uuid4().hex}",
        "GATEWAY_DATA_DIR": str(tmp_path / "data"),
        "OPENAI_API_KEY": "sk-none",
        "OPENAI_BASE_URL": f"{away}/v1",
        "UNKEY_ROOT_KEY": "none",
        "UNKEY_BASE_URL": away,
        "STRIPE_SECRET_KEY": "sk_test_none",
        "STRIPE_BASE_URL": away,
        "DAILY_API_KEY": "none",
        "DAILY_BASE_URL": f"{away}/v1",
        "KEYS__RECHECK_S": "5",
        "GATEWAY_SECRETS": entry_of("one", bytes(32)),
        "RETENTION__INBOX_DAYS": "30",
        "CHAOS_LOOP": loop,
        "CHAOS_DIED": str(tmp_path / "died"),
    }
    log, lives, kind = tmp_path / "log", Lives(), LOOPS[loop]
    where = ("--port", str(free_port())) if kind == "proxy" else ()
    with log.open("wb") as file:
        child = Child(kind, (kind, *where), env, log_fd=file.fileno(), watcher=lives, entry=MODULE)
        try:
            await asyncio.wait_for(child.start(), ENDS_S)
            async with asyncio.timeout(ENDS_S):
                while len(lives.pids) < 2 or not lives.heard_in[lives.pids[1]]:
                    await asyncio.sleep(0.05)
        finally:
            await child.stop()
    assert (tmp_path / "died").read_text() == str(lives.pids[0])
    assert lives.heard_in[lives.pids[0]][-1].failure == f"the background loop {loop!r} has failed"
    assert lives.heard_in[lives.pids[1]][-1].failure is None
    (line,) = [line for line in lines_of(log) if line["level"] == "error"]
    assert (line["event"], line["loop"], line["error"]) == ("loop failed, process ends", loop, "KeyError")
    assert CONTENT not in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.long
async def test_a_whole_gateway_is_ready_again(fresh_stack: Stack) -> None:
    fresh_stack.prepare()
    fresh_stack.env["CHAOS_LOOP"] = "recount"
    with scene(fresh_stack) as playing:
        async with asyncio.timeout(ENDS_S):
            while ready_of(fresh_stack).get("worker") != {"starts": 2, "problem": None}:
                await asyncio.sleep(0.1)
        assert playing.died.exists()
        assert await playing.call("/embeddings", {"model": "text-embedding-3-small", "input": "A story"}) == 200
    events = [(line.get("event"), line.get("loop"), line.get("child")) for line in lines_of(fresh_stack.serve.log)]
    assert ("loop failed, process ends", "recount", None) in events
    assert ("child died, restarting", None, "worker") in events


def ready_of(stack: Stack) -> dict[str, dict[str, Any]]:
    """What /readyz says of each process."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{stack.admin_port}/readyz", timeout=10) as response:
            body = json.loads(response.read())
    except urllib.error.HTTPError as error:
        body = json.loads(error.read())
    return {name: {"starts": one["starts"], "problem": one["problem"]} for name, one in body["processes"].items()}
