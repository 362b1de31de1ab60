"""`make bench`: CPU per call of the gateway against a bare forwarder, alternating in one run.

The gateway runs with everything on: journal, Valkey, PostgreSQL, the Unkey stand-in, the batch writer. Figures are
CPU time of whole processes (user and system, from /proc), so other load on the machine hardly counts; ratios are
medians over the rounds. Afterwards every call must be in the ledger.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import all_in_ledger, cpu_s, helper, load, positive
from gateway.config.settings import Settings
from gateway.processes import local, up


@dataclass
class Sample:
    """One round of one mode: CPU seconds by group, for `calls` calls."""

    calls: int
    seconds: float
    cpu: dict[str, float] = field(default_factory=dict)

    def per_call_us(self, *groups: str) -> float:
        """CPU per call of these groups together, microseconds."""
        return sum(self.cpu[group] for group in groups) / self.calls * 1e6


class Bench:
    """The two under test, side by side."""

    def __init__(self, running: local.Local, key: str, forwarder: tuple[int, int]) -> None:
        assert running.servers is not None
        self.groups = {
            "proxy": [pid for name, pid in running.gateway.pids.items() if name.startswith("proxy")],
            "background": [pid for name, pid in running.gateway.pids.items() if not name.startswith("proxy")],
            "postgres": [running.servers.pids["postgres"]],
            "valkey": [running.servers.pids["valkey"]],
        }
        self.port = int(running.base_url.rsplit(":", 1)[1].split("/")[0])
        self.key = key
        self.forwarder_pid, self.forwarder_port = forwarder
        self.dsn = running.env["DATABASE_URL"]
        self.made = 0

    async def forward(self, calls: int, concurrent: int, mode: str) -> Sample:
        """One round of the baseline."""
        before = cpu_s([self.forwarder_pid])
        made, seconds = await load(self.forwarder_port, "none", calls, concurrent, mode)
        return Sample(made, seconds, {"forwarder": cpu_s([self.forwarder_pid]) - before})

    async def gateway(self, calls: int, concurrent: int, mode: str) -> Sample:
        """One round of the gateway, until the last row is in the ledger."""
        before = {group: cpu_s(pids) for group, pids in self.groups.items()}
        made, seconds = await load(self.port, self.key, calls, concurrent, mode)
        self.made += made
        await all_in_ledger(self.dsn, self.made)
        after = {group: cpu_s(pids) for group, pids in self.groups.items()}
        return Sample(made, seconds, {group: after[group] - before[group] for group in after})


def ratio_of(pairs: list[tuple[Sample, Sample]], groups: tuple[str, ...]) -> str:
    """The median of the rounds' ratios to the forwarder; `-` when no round took it a tick of the CPU clock."""
    bases = [(pair[0].per_call_us("forwarder"), pair[1].per_call_us(*groups)) for pair in pairs]
    ratios = [cost / base for base, cost in bases if base]
    return f"{statistics.median(ratios):8.2f}" if ratios else f"{'-':>8}"


def show(mode: str, concurrent: int, pairs: list[tuple[Sample, Sample]]) -> None:
    """One table row per group, and the ratios that count."""
    base = statistics.median(pair[0].per_call_us("forwarder") for pair in pairs)
    print(f"\n{mode}, {concurrent} concurrent: {sum(pair[1].calls for pair in pairs)} calls")
    print(f"  {'':28}{'CPU µs/call':>12}{'ratio':>8}")
    print(f"  {'bare forwarder':28}{base:12.0f}{1:8.2f}")
    for label, groups in (
        ("gateway: proxy", ("proxy",)),
        ("gateway: whole tree", ("proxy", "background")),
        ("  beside it: PostgreSQL", ("postgres",)),
        ("  beside it: Valkey", ("valkey",)),
        ("everything", ("proxy", "background", "postgres", "valkey")),
    ):
        cost = statistics.median(pair[1].per_call_us(*groups) for pair in pairs)
        print(f"  {label:28}{cost:12.0f}{ratio_of(pairs, groups)}")
    rates = [f"{statistics.median(p[i].calls / p[i].seconds for p in pairs):.0f}" for i in (0, 1)]
    print(f"  calls per second: forwarder {rates[0]}, gateway {rates[1]}")


async def bench(rounds: int, calls: int, streams: int, concurrent: int) -> None:
    """Runs both modes and prints their tables."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # as root, PostgreSQL's user must be able to pass through to its data
        upstream, upstream_port = await helper("bench.upstream", "0")
        forwarder, forwarder_port = await helper("bench.forwarder", f"http://127.0.0.1:{upstream_port}", "0")
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
                say=lambda line: print(line, flush=True),
            ) as running:
                key = await up.ready_key(running, Settings(gateway_data_dir=data_dir))
                under_test = Bench(running, key, (forwarder.pid, forwarder_port))
                await under_test.gateway(concurrent * 4, concurrent, "whole")
                await under_test.forward(concurrent * 4, concurrent, "whole")
                for mode, count, at_once in (("whole", calls, concurrent), ("stream", streams, concurrent)):
                    pairs = [
                        (await under_test.forward(count, at_once, mode), await under_test.gateway(count, at_once, mode))
                        for _ in range(rounds)
                    ]
                    show("non-stream" if mode == "whole" else "streams of 100 paced chunks", at_once, pairs)
                pairs = [(await under_test.forward(600, 1, "whole"), await under_test.gateway(600, 1, "whole"))]
                show("non-stream, depth 1", 1, pairs)
                print(f"\nledger: {under_test.made} calls, {under_test.made} rows")
        finally:
            for process in (upstream, forwarder):
                process.kill()
                await process.wait()


def main() -> None:
    """Parses the few knobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--calls", type=positive, default=6000, help="non-stream calls per round")
    parser.add_argument("--streams", type=positive, default=288, help="streams per round")
    parser.add_argument("--concurrent", type=positive, default=48)
    options = parser.parse_args()
    asyncio.run(bench(options.rounds, options.calls, options.streams, options.concurrent))


if __name__ == "__main__":
    main()
