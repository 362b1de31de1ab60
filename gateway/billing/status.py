"""What `gateway billing status` answers: the bridge of a month, or since the beginning, also by customer."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from gateway.billing.bridge import Bridge, build_bridge
from gateway.billing.bridge_store import read_bridge, read_margins, read_names, reading_once
from gateway.config.settings import Settings
from gateway.kit.instants import Period, rfc3339
from gateway.stores.one_connection import LONG_STATEMENT_S, database

_WHY = "the bridge is read from PostgreSQL"


class PayerBridge(NamedTuple):
    """The bridge of one payer."""

    payer_id: UUID
    name: str
    is_customer: bool
    bridge: Bridge


class BillingStatus(NamedTuple):
    """All of it, from one snapshot."""

    span: Period | None
    as_of: datetime
    total: Bridge
    payers: tuple[PayerBridge, ...]

    @property
    def is_explained(self) -> bool:
        """Whether nothing is unexplained, in total and for each payer that was asked for."""
        return self.total.is_explained and all(payer.bridge.is_explained for payer in self.payers)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "from": None if self.span is None else rfc3339(self.span.since),
            "until": None if self.span is None else rfc3339(self.span.until),
            "as_of": rfc3339(self.as_of),
            "currency": "USD",
            "total": self.total.to_json(),
            "payers": [
                {"id": str(each.payer_id), "name": each.name, "is_customer": each.is_customer, **each.bridge.to_json()}
                for each in self.payers
            ],
            "is_explained": self.is_explained,
        }


async def read_status(
    settings: Settings, span: Period | None, *, by_customer: bool = False, by_plan: bool = False
) -> BillingStatus:
    """`by_plan` reads every row of the span. Raises ConfigError, DependencyDown."""
    bounds = (None, None) if span is None else span
    async with database(settings, _WHY, statement_s=LONG_STATEMENT_S) as pool, reading_once(pool) as connection:
        as_of = await connection.fetchval("select transaction_timestamp()")
        facts = await read_bridge(connection, *bounds)
        margins = await read_margins(connection, *bounds) if by_plan else None
        names = await read_names(connection, facts.payers) if by_customer else {}
    total = build_bridge(facts.total, margins)
    return BillingStatus(span, as_of, total, tuple(_payers(facts.payers, names)) if by_customer else ())


def _payers(payers: Mapping[Any, Any], names: Mapping[UUID, str]) -> list[PayerBridge]:
    """The largest first."""
    found = []
    for (customer_id, user_id), facts in sorted(payers.items(), key=lambda each: -each[1].billed):
        payer_id = customer_id or user_id
        found.append(PayerBridge(payer_id, names.get(payer_id, "?"), customer_id is not None, build_bridge(facts)))
    return found
