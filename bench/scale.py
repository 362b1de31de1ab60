"""`make bench-scale`: calls per second with two proxies against one, where the load is not the limit.

Two cores cannot hold two busy proxies, a load and an OpenAI. So every proxy gets the same small share of a core: it is
stopped (SIGSTOP) for the rest of each period, one after the other. If the proxies share nothing that binds them (a
lock, a disk, one accepting socket), two of them then make twice the calls of one. Wants a machine that is otherwise
quiet: what a proxy was really given is printed with each round.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from bench.measure import all_in_ledger, cpu_s, helper, load, positive
from gateway.config.settings import Settings
from gateway.processes import local, up

PERIOD_S = 0.04


@contextlib.asynccontextmanager
async def throttled(pids: Sequence[int], share: float) -> AsyncIterator[None]:
    """Lets these processes run for `share` of every period; they run freely again afterwards."""

    async def beat(pid: int, offset_s: float) -> None:
        await asyncio.sleep(offset_s)
        while True:
            for number, wait_s in ((signal.SIGCONT, PERIOD_S * share), (signal.SIGSTOP, PERIOD_S * (1 - share))):
                os.kill(pid, number)
                await asyncio.sleep(wait_s)

    beats = [asyncio.create_task(beat(pid, PERIOD_S * at / len(pids))) for at, pid in enumerate(pids)]
    try:
        yield
    finally:
        for beating in beats:
            beating.cancel()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def one(workers: int, calls: int, concurrent: int, share: float, environ: dict[str, str]) -> tuple[float, float]:
    """(calls per second, CPU microseconds of the proxies per call) with so many proxies."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)  # as root, PostgreSQL's user must be able to pass through to its data
        data_dir = Path(folder) / "data"
        async with local.running(
            data_dir,
            environ,
            real=frozenset({"openai"}),
            host="127.0.0.1",
            port=0,
            workers=workers,
            say=lambda line: None,
        ) as running:
            key = await up.ready_key(running, Settings(gateway_data_dir=data_dir))
            port = int(running.base_url.rsplit(":", 1)[1].split("/")[0])
            await load(port, key, concurrent, concurrent, "whole")
            proxies = [pid for name, pid in running.gateway.pids.items() if name.startswith("proxy")]
            before = cpu_s(proxies)
            async with throttled(proxies, share):
                made, seconds = await load(port, key, calls, concurrent, "whole")
            used = cpu_s(proxies) - before
            await all_in_ledger(running.env["DATABASE_URL"], made + concurrent)
            return made / seconds, used / made * 1e6


async def bench(rounds: int, calls: int, concurrent: int, share: float) -> None:
    """Alternates, and prints medians."""
    upstream, upstream_port = await helper("bench.upstream", "0")
    environ = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    environ |= {"OPENAI_API_KEY": "bench", "OPENAI_BASE_URL": f"http://127.0.0.1:{upstream_port}/v1"}
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    try:
        for _ in range(rounds):
            for workers, results in found.items():
                results.append(await one(workers, calls * workers, concurrent * workers, share, environ))
                rate, cpu = results[-1]
                busy = rate * cpu / 1e6 / workers
                print(
                    f"{workers} proxy(s): {rate:.0f} calls/s, {cpu:.0f} µs/call, {busy:.0%} of a core each", flush=True
                )
    finally:
        upstream.kill()
        await upstream.wait()
    ratio = statistics.median(two[0] / one[0] for one, two in zip(found[1], found[2], strict=True))
    rates = [statistics.median(rate for rate, _ in results) for results in found.values()]
    print(
        f"\neach proxy on {share:.0%} of a core: {rates[0]:.0f} calls/s with one, {rates[1]:.0f} with two, {ratio:.2f}×"
    )


def main() -> None:
    """Parses the few knobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--calls", type=positive, default=3000, help="per proxy and round")
    parser.add_argument("--concurrent", type=positive, default=96, help="connections per proxy")
    parser.add_argument("--share", type=float, default=0.15, help="of a core that each proxy may use")
    options = parser.parse_args()
    if not 0 < options.share <= 1:
        parser.error(f"argument --share: {options.share} is not above 0 and at most 1")
    asyncio.run(bench(options.rounds, options.calls, options.concurrent, options.share))


if __name__ == "__main__":
    main()
