"""Reporters that are killed by themselves, each right after one of its calls to PostgreSQL or Stripe.

Run as a process: `python -m tests.billing.bill_killed <database url> <stripe url>`. Each line that it reads is an
instant (RFC 3339) and a call: a number from 1 on, or `send`, the first event that Stripe has taken.
It runs one pass in a process of its own, and prints its exit status: -9, or 0 where there were fewer calls.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import aiohttp
import asyncpg
import structlog

from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.stores.postgres import open_pool

STATEMENTS = ("execute", "fetch", "fetchrow", "fetchval")


class Death:
    """Counts calls that have been done, and ends the process after one of them."""

    def __init__(self, call: str) -> None:
        self._at = call
        self._calls = 0

    def deadly(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same call, which may be the last one."""

        async def call(*arguments: Any, **named: Any) -> Any:
            result = await method(*arguments, **named)
            self._calls += 1
            is_send = any("meter_events" in str(argument) for argument in arguments)
            if self._at == str(self._calls) or (self._at == "send" and is_send):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


async def main(database_url: str, stripe_url: str, now: str, call: str) -> None:
    outbox, billing = Outbox(await open_pool(database_url)), Billing("sk_test_1", base_url=stripe_url)
    death = Death(call)
    deadly: list[tuple[Any, str]] = [(aiohttp.ClientSession, "_request")]
    if call != "send":
        deadly += [(asyncpg.Connection, name) for name in STATEMENTS]
    for owner, name in deadly:
        setattr(owner, name, death.deadly(getattr(owner, name)))
    log = structlog.get_logger()
    bill = UsageReporter(outbox, billing, grace_s=300, monotonic=time.monotonic, random=lambda: 0.5, log=log)
    await bill.step_once(datetime.fromisoformat(now))
    os._exit(0)


def run_one(database_url: str, stripe_url: str, now: str, call: str) -> int:
    """In a fork, which needs no new interpreter: that takes most of the time."""
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(main(database_url, stripe_url, now, call))
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    for line in sys.stdin:
        print(run_one(*sys.argv[1:], *line.split()), flush=True)
