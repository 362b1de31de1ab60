"""`python -m tests.clients`: other people's OpenAI clients against a whole gateway on the sandbox, then the ledger.

Installs each client at its locked versions into a temporary folder, runs its script, and holds what the client was
shown against its rows: every call exactly one, with the same tokens; a wrong key the client's own error, and no row.
Must not be in the test suite: it installs from package registries. While the scripts run they talk to loopback only.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from gateway.edges.migrator import migrate
from gateway.embedded import ephemeral
from tests.servers import memory_folder
from tests.stack import Stack, stack

HERE: Final = Path(__file__).resolve().parent
INSTALL_S: Final = 300.0
RUN_S: Final = 120.0
ROWS_S: Final = 20.0
CALLS: Final = frozenset({"chat", "chat stream", "responses", "responses stream", "embeddings"})
"""What every client makes, besides one call with a wrong key."""


class Mismatch(Exception):
    """A client did not work as docs/clients.md says; the message says how."""


@dataclass(frozen=True)
class Client:
    """One client: what must be on the machine, how it is installed into a folder, and what then runs."""

    name: str
    tools: tuple[str, ...]
    install: Callable[[Path], None]
    command: Callable[[Path], Sequence[str | Path]]
    error: str
    """The name that the client gives to a 401."""


def npm(folder: Path) -> None:
    """The packages of node/package-lock.json, and the scripts, into `folder`; once for all that share it."""
    if not folder.exists():
        shutil.copytree(HERE / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
        run(["npm", "ci", "--no-fund", "--no-audit", "--loglevel", "error"], INSTALL_S, cwd=folder)


def pip(folder: Path) -> None:
    """A virtual environment in `folder` with what langchain.lock lists."""
    venv.create(folder, with_pip=True, symlinks=True)
    quiet = ("--quiet", "--no-input", "--no-compile", "--disable-pip-version-check", "--require-hashes")
    run([folder / "bin" / "python", "-m", "pip", "install", *quiet, "-r", HERE / "langchain.lock"], INSTALL_S)


CLIENTS: Final = (
    Client("openai-node", ("node", "npm"), npm, lambda folder: ["node", folder / "openai.mjs"], "AuthenticationError"),
    Client("vercel", ("node", "npm"), npm, lambda folder: ["node", folder / "vercel.mjs"], "AI_APICallError"),
    Client(
        "langchain",
        (),
        pip,
        lambda folder: [folder / "bin" / "python", HERE / "langchain_calls.py"],
        "OpenAIAuthenticationError",
    ),
)


def main() -> None:
    """Exits by SystemExit: 1 when a client fails, or its tools are missing and that was not allowed."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__.partition("\n")[0])
    names = [client.name for client in CLIENTS]
    parser.add_argument("--only", action="append", choices=names, help="this client only; may be repeated")
    parser.add_argument(
        "--skip-missing", action="store_true", help="pass over clients whose tools (node, npm) are not on this machine"
    )
    options = parser.parse_args()
    wanted = [client for client in CLIENTS if client.name in (options.only or names)]
    lacking = {client.name: [tool for tool in client.tools if shutil.which(tool) is None] for client in wanted}
    ready = [client for client in wanted if not lacking[client.name]]
    for name, tools in lacking.items():
        if tools:
            say(f"{name}: {' and '.join(tools)} not found: install it, or pass --skip-missing")
    failed = try_all(ready) if ready and (options.skip_missing or len(ready) == len(wanted)) else []
    say(f"{len(ready) - len(failed)} passed, {len(failed)} failed, {len(wanted) - len(ready)} skipped")
    sys.exit(bool(failed) or not ready or (len(ready) < len(wanted) and not options.skip_missing))


def try_all(clients: Sequence[Client]) -> list[str]:
    """The names of those that failed."""
    failed = []
    with tempfile.TemporaryDirectory(prefix="gateway-clients-") as made, ephemeral(parent=memory_folder()) as servers:
        folder = Path(made)
        asyncio.run(migrate(servers.database_url))
        with stack(folder, servers.database_url, servers.redis_url) as running:
            running.start()
            for client in clients:
                try:
                    say(f"{client.name}: installing")
                    # Those that are installed alike share a folder.
                    home = folder / client.install.__name__
                    client.install(home)
                    attempt(client, home, running)
                except Mismatch as error:
                    failed.append(client.name)
                    say(f"{client.name}: FAILED: {error}")
    return failed


def attempt(client: Client, home: Path, running: Stack) -> None:
    """Runs the client's script as a user of its own, and checks that user's rows. Raises Mismatch."""
    made = running.make_key(f"{client.name}@example.com")
    meeting = asyncio.run(make_meeting(running.env["DATABASE_URL"], made["user_id"], client.name))
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "BASE_URL": running.base_url,
        "API_KEY": made["key"],
        "MEETING_ID": meeting,
        # Where Python looks for a way out of this machine there is none.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    before = len(running.truth())
    told = [json.loads(line) for line in run(client.command(home), RUN_S, cwd=home, env=env).splitlines()]
    calls = {line["call"]: line for line in told}
    wrong = calls.pop("wrong key", None)
    if calls.keys() != CALLS or len(told) != len(CALLS) + 1:
        raise Mismatch(f"it should have made {sorted(CALLS)} and one with a wrong key, and told: {told}")
    if wrong is None or (wrong["error"], wrong["status"]) != (client.error, 401):
        raise Mismatch(f"a wrong key should be {client.error} with status 401, and was {wrong}")
    if (served := len(running.truth()) - before) != len(calls):
        raise Mismatch(f"{len(calls)} calls, but OpenAI's stand-in served {served}")
    rows = asyncio.run(rows_of(running.env["DATABASE_URL"], made["user_id"], len(calls)))
    for call in calls.values():
        check(call, rows, meeting)
    say(f"{client.name}: {len(calls)} calls, {len(rows)} rows with the same tokens; a wrong key is {client.error}")


def check(call: dict[str, Any], rows: Sequence[asyncpg.Record], meeting: str) -> None:
    """Raises Mismatch unless exactly one row is this call's, as its client saw it."""
    mine = [row for row in rows if str(row["id"]) == call["event_id"]]
    if len(mine) != 1:
        raise Mismatch(f"{call['call']}: {len(mine)} rows have its event id {call['event_id']}")
    row = mine[0]
    seen = (call["prompt_tokens"], call["completion_tokens"] or 0)
    kept = (row["prompt_tokens"], row["completion_tokens"] or 0)
    if seen != kept or not call["prompt_tokens"]:
        raise Mismatch(f"{call['call']}: the client was shown {seen} tokens, the row has {kept}")
    if row["evidence"] != "reported" or row["cost_usd"] is None or not row["cost_usd"] > 0:
        raise Mismatch(f"{call['call']}: its row is {row['evidence']} and costs {row['cost_usd']}")
    if str(row["meeting_id"]) != meeting:
        raise Mismatch(f"{call['call']}: its row has the meeting {row['meeting_id']}, not {meeting}")


async def make_meeting(database_url: str, user_id: str, room: str) -> str:
    """The id of a new meeting of this user."""
    connection = await asyncpg.connect(database_url)
    try:
        statement = "insert into meetings (user_id, room_name) values ($1::uuid, $2) returning id"
        return str(await connection.fetchval(statement, user_id, room))
    finally:
        await connection.close()


async def rows_of(database_url: str, user_id: str, count: int) -> list[asyncpg.Record]:
    """Every row of this user, once there are `count`. Raises Mismatch when there are fewer, or more."""
    connection = await asyncpg.connect(database_url)
    try:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ROWS_S
        while True:
            rows = await connection.fetch("select * from openai_usage where user_id = $1::uuid order by id", user_id)
            if len(rows) >= count or loop.time() > deadline:
                break
            await asyncio.sleep(0.05)
    finally:
        await connection.close()
    if len(rows) != count:
        raise Mismatch(f"{count} calls, but {len(rows)} rows: {[(row['endpoint'], row['evidence']) for row in rows]}")
    return list(rows)


def run(
    command: Sequence[str | Path], limit_s: float, *, cwd: Path | None = None, env: dict[str, str] | None = None
) -> str:
    """What it printed. Raises Mismatch with its last words when it fails or takes longer than `limit_s`."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise Mismatch(f"`{command[0]}` did not end within {limit_s:.0f} s") from None
    if done.returncode != 0:
        raise Mismatch(f"`{command[0]}` exited {done.returncode}: {done.stdout[-1500:]}{done.stderr[-3000:]}")
    return done.stdout


def say(line: str) -> None:
    """One line for the person who watches, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
