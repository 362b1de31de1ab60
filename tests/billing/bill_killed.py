"""A reporter that is killed by itself right after Stripe has taken its first event, before it can note that down.

Run as a process: `python -m tests.billing.bill_killed <database url> <stripe url> <now, RFC 3339>`.
"""

import asyncio
import os
import signal
import sys
import time
from datetime import datetime

import structlog

from gateway.billing.outbox import Outbox
from gateway.billing.reporter import UsageReporter
from gateway.billing.stripe import Billing
from gateway.billing.windows import MeterEvent, StripeAnswer
from gateway.stores.postgres import open_pool


class Killed:
    """Stripe, and then the end."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing

    async def account(self) -> str:
        return await self._billing.account()

    async def refusal(self, event_name: str) -> str | None:
        return await self._billing.refusal(event_name)

    async def deliver(self, event: MeterEvent) -> StripeAnswer:
        await self._billing.deliver(event)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


async def main(database_url: str, stripe_url: str, now: str) -> None:
    outbox = Outbox(await open_pool(database_url))
    stripe = Killed(Billing("sk_test_1", base_url=stripe_url))
    log = structlog.get_logger()
    bill = UsageReporter(outbox, stripe, grace_s=300, monotonic=time.monotonic, random=lambda: 0.5, log=log)
    await bill.step_once(datetime.fromisoformat(now))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
