"""`make bench-drain`: how fast a backlog becomes rows, as after an outage of Redis or PostgreSQL.

One call is made, and its journal records are copied under new ids: into the Redis stream, where the batch writer alone
has to do with them; and into a journal segment whose writer is gone, where the keeper reads, ships and confirms them as
well. Rows per second depend on the machine; rows per second of a process's own CPU hardly do.
"""

import argparse
import asyncio
import os
import secrets
import signal
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import msgspec

from bench.measure import SETTLED_WITHIN_S, all_in_ledger, cpu_s, helper, load, positive
from gateway.config.settings import Settings
from gateway.journal.frames import BOOT, OPEN, SETTLE, frame, id_of, unframe
from gateway.kit.ids import uuid7
from gateway.ledger.opening import build_signer
from gateway.ledger.stream import Buffer
from gateway.processes import local, up
from gateway.stores.redis import open_redis

CALLS = 8


class Drain:
    """A gateway that runs, and copies of what it has written down."""

    def __init__(self, running: local.Local, data_dir: Path) -> None:
        assert running.servers is not None
        self.folder = data_dir / "journal"
        self.redis_url = running.env["REDIS_URL"]
        self.dsn = running.env["DATABASE_URL"]
        settings = Settings.of(running.env)
        self.stream, self.signer = settings.flush.stream, build_signer(settings)
        self.groups = {name: [pid] for name, pid in running.gateway.pids.items() if not name.startswith("proxy")}
        self.groups["postgres"] = [running.servers.pids["postgres"]]
        self.groups["valkey"] = [running.servers.pids["valkey"]]
        self.opened, self.settled = self._records()
        self.rows = CALLS

    def _records(self) -> tuple[bytes, bytes]:
        lines = b"".join(path.read_bytes() for path in self.folder.glob("proxy-*.jnl")).splitlines()
        found = dict(record for line in lines if line and (record := unframe(line)) is not None)
        return found[OPEN], found[SETTLE]

    def _copies(self, payload: bytes, ids: list[str]) -> list[bytes]:
        # An answer of OpenAI becomes one row only, so that has to be another one too; and no two requests have one id.
        event, old = msgspec.json.decode(payload), id_of(payload).encode()
        answer, asked = (event.get(name, "none").encode() for name in ("response_id", "request_id"))
        return [
            payload.replace(old, new.encode()).replace(answer, new.encode()).replace(asked, b"req_" + new.encode())
            for new in ids
        ]

    async def stream_in(self, ids: list[str]) -> None:
        """Straight to the batch writer."""
        async with open_redis(self.redis_url) as redis:
            buffer = Buffer(redis, stream=self.stream, signer=self.signer)
            await buffer.append(list(zip(ids, self._copies(self.settled, ids), strict=True)))

    async def journal_in(self, ids: list[str]) -> None:
        """The whole way."""
        pairs = zip(self._copies(self.opened, ids), self._copies(self.settled, ids), strict=True)
        lines = [frame(BOOT, b'"gone"'), *(frame(OPEN, one) + frame(SETTLE, other) for one, other in pairs)]
        path = self.folder / f"gone.{int(time.time() * 1000):013d}.{1:06d}.jnl"
        path.with_suffix(".part").write_bytes(b"".join(lines))
        path.with_suffix(".part").rename(path)

    async def measure(self, backlog: Callable[[list[str]], Awaitable[None]], count: int) -> dict[str, float]:
        """Rows per second, and per second of CPU of each kind of process."""
        ids = [uuid7(int(time.time() * 1000), secrets.randbits(80)) for _ in range(count)]
        before = {name: cpu_s(pids) for name, pids in self.groups.items()}
        self.rows += count
        for name in ("keeper", "worker"):
            os.kill(self.groups[name][0], signal.SIGSTOP)
        await backlog(ids)
        for name in ("keeper", "worker"):
            os.kill(self.groups[name][0], signal.SIGCONT)
        rates = {"rows/s": count / await self._drained()}
        used = {name: cpu_s(pids) - before[name] for name, pids in self.groups.items()}
        return rates | {f"rows per CPU s of {name}": count / spent for name, spent in used.items() if spent}

    async def _drained(self) -> float:
        """Seconds until every row is there, counted in the roll-up: counting rows would cost what is measured."""
        begun = time.perf_counter()
        connection = await asyncpg.connect(self.dsn)
        try:
            while await connection.fetchval("select sum(rows) from usage_hourly") < self.rows:
                if time.perf_counter() - begun > SETTLED_WITHIN_S:
                    raise SystemExit(f"bench: fewer than {self.rows} rows after {SETTLED_WITHIN_S:.0f} s")
                await asyncio.sleep(0.02)
        finally:
            await connection.close()
        return time.perf_counter() - begun


async def bench(rounds: int, rows: int) -> None:
    """Both ways, alternating; medians."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # as root, PostgreSQL's user must be able to pass through to its data
        upstream, upstream_port = await helper("bench.upstream", "0")
        environ = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        environ |= {"OPENAI_API_KEY": "bench", "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}
        data_dir = Path(folder) / "data"
        try:
            async with local.running(
                data_dir,
                environ,
                real=frozenset({"openai"}),
                host="127.0.0.1",
                port=0,
                workers=1,
                say=lambda line: None,
            ) as running:
                key = await up.ready_key(running, Settings(gateway_data_dir=data_dir))
                await load(int(running.base_url.rsplit(":", 1)[1].split("/")[0]), key, CALLS, CALLS, "whole")
                await all_in_ledger(running.env["DATABASE_URL"], CALLS)
                drain = Drain(running, data_dir)
                ways = {"stream to rows": drain.stream_in, "journal to rows": drain.journal_in}
                found = [(name, await drain.measure(way, rows)) for _ in range(rounds) for name, way in ways.items()]
        finally:
            upstream.kill()
            await upstream.wait()
    for name in ways:
        print(f"\n{name}: {rounds} x {rows} rows, medians")
        taken = [rates for way, rates in found if way == name]
        for what in taken[0]:
            print(f"  {what:30}{statistics.median(rates.get(what, 0) for rates in taken):12,.0f}")


def main() -> None:
    """Parses the few knobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--rows", type=positive, default=40_000)
    options = parser.parse_args()
    asyncio.run(bench(options.rounds, options.rows))


if __name__ == "__main__":
    main()
