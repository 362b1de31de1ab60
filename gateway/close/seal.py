"""Months seal themselves: a while after its end nothing is booked into a month any more. Sealing makes no pack.

They are sealed a little before Stripe finalises the month's invoices, so that what is booked into a month can still be
filed before its invoice is final (billing.invoice_grace_h), and what comes later is booked, and filed, into the next.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Final

import structlog

import pricing
from gateway.close.periods import Periods
from gateway.stores.postgres import Connections, Pool, in_transaction

MARGIN: Final = timedelta(minutes=15)
"""How long before the end of Stripe's grace a month is sealed: what has been booked has to be sent until then."""
_log: Final = structlog.get_logger("gateway.seal")


def after_end(invoice_grace_h: int) -> timedelta:
    """How long after its end a month is sealed."""
    return max(timedelta(hours=invoice_grace_h) - MARGIN, timedelta())


class Seal:
    """The worker's step. Any number of workers may take it: the bound only moves forward."""

    def __init__(self, pool: Pool, *, invoice_grace_h: int, price_texts: Mapping[str, str]) -> None:
        """`price_texts` is this version's price book, which is kept for the packs of later days."""
        self._pool: Final = pool
        self._after_end: Final = after_end(invoice_grace_h)
        self._price_texts: Mapping[str, str] | None = price_texts

    async def step_once(self) -> None:
        """Seals what is due and adds up what is sealed, all of it after a long pause too. Raises DependencyDown."""
        periods = Periods(self._pool)
        if self._price_texts is not None:
            await periods.keep_book(pricing.parse(dict(self._price_texts)).version, self._price_texts)
            self._price_texts = None
        if (until := await periods.due(self._after_end)) is not None:
            months = await seal(self._pool, until)
            _log.info("months sealed", until=until.isoformat(), months=[f"{month:%Y-%m}" for month in months])
        while await periods.sum_month():
            pass


async def seal(pool: Connections, until: datetime) -> list[date]:
    """Seals all months before `until`, and notes it of each. Raises DependencyDown."""
    async with in_transaction(pool) as connections:
        return await Periods(connections).seal(until)
