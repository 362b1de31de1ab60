"""`python -m tests.clients`: other people's OpenAI clients against a whole gateway on the sandbox, then the ledger.

Installs each client at its locked versions into a temporary folder, runs its program (an ordinary first program, with
only the base URL and the key changed), and holds what the client was shown against its rows: every call exactly one,
with the same tokens. Must not be in the test suite: it installs from package registries. While the programs run they
talk to loopback only.
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gateway.embedded import ephemeral
from gateway.stores.migrator import migrate
from tests.clients.install import Command, Mismatch, find_node, install, run
from tests.clients.ledger import check_charged, check_told, make_meeting, rows_of
from tests.clients.table import CLIENTS, Client
from tests.support.gateway import Stack, stack
from tests.support.patience import ENDS_S, until_now
from tests.support.servers import memory_folder

RUN_S: Final = 300.0
MARK: Final = "duplicate_header"
"""A refusal that no client meets."""


def main() -> None:
    """Exits by SystemExit: 1 when a client fails, or its tools are missing and that was not allowed."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__.partition("\n")[0])
    names = [client.name for client in CLIENTS]
    parser.add_argument("--only", action="append", choices=names, help="this client only; may be repeated")
    parser.add_argument("--quick", action="store_true", help="only those that are run before every change")
    parser.add_argument("--skip-missing", action="store_true", help="pass over those of npm where there is none")
    options = parser.parse_args()
    wanted = [client for client in CLIENTS if client.name in (options.only or names)]
    wanted = [client for client in wanted if client.quick or not options.quick]
    ready = [client for client in wanted if client.language == "python" or shutil.which("npm") is not None]
    for client in wanted:
        if client not in ready:
            say(f"{client.name}: npm not found: install it, or pass --skip-missing")
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
            node = folder
            for client in clients:
                home = folder / client.name
                try:
                    if client.language == "node" and node == folder:
                        node = find_node(folder / "node")
                    began = time.monotonic()
                    command = install(client, home, node)
                    installed = time.monotonic()
                    what = attempt(client, command, node, home, running)
                    took = f"installed in {installed - began:.0f} s, ran {time.monotonic() - installed:.0f} s"
                    say(f"{client.name}: {what} ({took})")
                except Mismatch as error:
                    failed.append(client.name)
                    say(f"{client.name}: FAILED: {error}")
                finally:
                    shutil.rmtree(home, ignore_errors=True)  # some take half a gigabyte
    return failed


def attempt(client: Client, command: Command, node: Path, home: Path, running: Stack) -> str:
    """Runs the program as a user of its own, and checks that user's rows. Raises Mismatch."""
    made = running.make_key(f"{client.name}@example.com")
    meeting = asyncio.run(make_meeting(running.env["DATABASE_URL"], made["user_id"], client.name))
    env = {
        "PATH": f"{node}:{os.environ['PATH']}",
        "HOME": str(home),
        "BASE_URL": running.base_url,
        "API_KEY": made["key"],
        "MEETING_ID": meeting,
        # Where these look for a way out of this machine there is none.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
    }
    before, refused_before = len(running.truth()), count_refused(running)
    told = [json.loads(line) for line in run(command, RUN_S, cwd=home, env=env).splitlines()]
    check_wrong_key(client, [line for line in told if "error" in line])
    shown = [line for line in told if "error" not in line]
    charged = [call for call in running.truth()[before:] if call["endpoint"] != "models"]
    rows = asyncio.run(rows_of(running.env["DATABASE_URL"], made["user_id"], len(charged)))
    check_charged(charged, rows)
    check_told(shown, rows)
    if len(rows) != client.calls:
        raise Mismatch(f"it made {len(rows)} calls instead of {client.calls}: {[line['call'] for line in shown]}")
    if client.meeting and {str(row["meeting_id"]) for row in rows} != {meeting}:
        raise Mismatch("not every row has the meeting that the client named")
    check_refused(client, running, refused_before)
    return f"{len(rows)} calls, as many rows with the same tokens"


def check_wrong_key(client: Client, told: Sequence[dict[str, Any]]) -> None:
    """Raises Mismatch unless the client took the refusal of a wrong key for what it is."""
    seen = [(line["error"], line["status"]) for line in told]
    if seen != ([] if client.wrong_key is None else [(client.wrong_key, 401)]):
        raise Mismatch(f"a wrong key should be {client.wrong_key} with status 401, and was {seen}")


def check_refused(client: Client, running: Stack, before: dict[str, float]) -> None:
    """Raises Mismatch unless the gateway refused what it had to, and nothing besides, which the client might hide."""
    codes = {code for code, count in count_refused(running).items() if count > before.get(code, 0)}
    if codes != client.refused:
        raise Mismatch(f"the gateway refused {sorted(codes)}, where {sorted(client.refused)} were expected")


def count_refused(running: Stack) -> dict[str, float]:
    """How often the gateway has refused, by its code.

    Its metrics are a moment old. So one more is refused here, for what no client does, and once that is counted all
    that came before it are.
    """
    marks = refused(running).get(MARK, 0)
    two_keys = {"Authorization": "Bearer one", "api-key": "another"}
    try:
        urllib.request.urlopen(urllib.request.Request(f"{running.base_url}/models", headers=two_keys), timeout=ENDS_S)
    except urllib.error.HTTPError as error:
        error.close()
    until_now(lambda: refused(running).get(MARK, 0) > marks)
    return {code: count for code, count in refused(running).items() if code != MARK}


def refused(running: Stack) -> dict[str, float]:
    """The same as of a moment ago."""
    samples = running.metrics().items()
    return {dict(labels)["code"]: value for (name, labels), value in samples if name == "gateway_refused_total"}


def say(line: str) -> None:
    """One line for the person who watches, at once."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
