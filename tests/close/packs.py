"""Packs for tests, of rows as the real settler values them; no database."""

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

import pricing
import pricing.data
from gateway.billing.bridge import PayerFacts, build_bridge
from gateway.close import pack
from gateway.close.pack import PackWriter, new_folder
from gateway.close.rows import BLOCK_ROWS, PackRow
from gateway.kit.ids import uuid7
from gateway.usage.event import UsageEvent
from gateway.usage.settle import Settler
from gateway.usage.usage_block import NO_USAGE
from tests.support.audits import Maker

OCTOBER: Final = datetime(2026, 10, 1, tzinfo=UTC)
USER, KEY, CUSTOMER = (uuid7(1_790_000_000_000, each) for each in (1, 2, 3))
TEXTS: Final = pricing.data.read_texts()
BOOK: Final = pricing.parse(TEXTS)
MARKUP: Final = Decimal("1.2")
SETTLER: Final = Settler(BOOK, markup=MARKUP, bill_estimates=True, region=None)
PERIOD: Final = "2026-10 v1"
SIGNING_KEY: Final = bytes(range(32))


def row_of(event: UsageEvent, **changes: Any) -> PackRow:
    """A row of the ledger as a pack has it."""
    fields: dict[str, Any] = {
        name: getattr(event, name)
        for name in PackRow.__struct_fields__
        if name in UsageEvent.__struct_fields__ and name not in ("cost_lines", "metadata", "usage")
    }
    fields |= {
        "booked_at": event.completed_at,
        "inserted_at": event.completed_at + timedelta(seconds=1),
        "customer_id": CUSTOMER,
        "plan_version": None if event.cost_nano is None else f"markup:{MARKUP}",
        "books_version": 1,
        "cost_lines": msgspec.Raw(msgspec.json.encode(event.cost_lines)),
        "usage": NO_USAGE if bytes(event.usage) == b"null" else event.usage,
        "metadata": msgspec.Raw(msgspec.json.encode(event.metadata)),
    }
    return PackRow(**fields | changes)


def rows_of(count: int, seed: int = 1) -> list[PackRow]:
    """So many rows of October, of every kind, in the order of their ids."""
    maker, dice = Maker(USER, KEY, SETTLER, seed=seed), Random(seed)
    rows: list[PackRow] = []
    for number in range(count):
        at = OCTOBER + timedelta(seconds=dice.randint(10, 2_500_000))
        kind = number % 10
        event = (
            maker.estimated(at)
            if kind == 7
            else maker.void(at)
            if kind == 8
            else maker.unpriced(at)
            if kind == 9
            else maker.reported(at)
        )
        late = {"booked_at": OCTOBER + timedelta(days=30)} if kind == 5 else {}
        rows.append(row_of(event, **late, **({"customer_id": None} if kind == 6 else {})))
        if kind == 4:
            rows.append(row_of(maker.adjustment(event, at + timedelta(hours=1), -1000), plan_version=None))
    return sorted(rows, key=lambda row: row.id)


def blocks_of(rows: Sequence[PackRow]) -> Iterator[Sequence[PackRow]]:
    return (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))


async def each(rows: Sequence[PackRow]) -> AsyncIterator[Sequence[PackRow]]:
    for block in blocks_of(rows):
        yield block


async def lines(*rows: list[object]) -> AsyncIterator[list[object]]:
    for row in rows:
        yield row


async def write_pack(target: Path, rows: Sequence[PackRow], *, key: bytes | None = None, period: str = PERIOD) -> str:
    """A whole pack; the digest of its manifest."""
    with new_folder(target, None) as folder:
        writer = PackWriter(folder, "2026-10")
        written = await writer.write_rows(each(rows))
        for name, text in TEXTS.items():
            writer.write_text(f"{pack.PRICE_BOOKS}/{BOOK.version}/{name}", text)
        head = {"chain_head": written.chain_head.hex(), "period": period}
        writer.write_json(pack.TOTALS, written.totals.to_json() | head)
        cost, billed = (written.totals.sum(name) for name in ("cost_nano", "billed_nano"))
        facts = PayerFacts(cost=cost, billed=billed, windows_billed=billed, open=billed)
        total = build_bridge(facts, written.totals.margins()).to_json()
        writer.write_json(pack.BRIDGE, {"total": total, "payers": list(_payers(rows))})
        writer.write_json(pack.AUDIT, [])
        writer.write_json(pack.PLANS, [])
        writer.write_json(pack.PERIOD, {"period": period, "accepted": {}, "price_books_missing": []})
        await writer.write_csv(pack.CORRECTIONS, lines(["id", "rows", "why"], ["c", 1, "=HYPERLINK(1)"]))
        await writer.write_csv(pack.OPEN_ITEMS, lines(["id"]))
        await writer.write_csv(pack.ACCRUED, lines(["id", "usd"]))
        await writer.write_csv(pack.STRIPE, lines(["kind", "amount"], ["event", -5]))
        return writer.finish(period, key).hex()


def _payers(rows: Sequence[PackRow]) -> Iterator[dict[str, Any]]:
    """The bridges of the customer, and of the user while nobody pays."""
    for payer_id, is_customer in ((CUSTOMER, True), (USER, False)):
        own = [row for row in rows if (row.customer_id == CUSTOMER) == is_customer]
        cost, billed = sum(row.cost_nano or 0 for row in own), sum(row.billed_nano or 0 for row in own)
        facts = PayerFacts(cost=cost, billed=billed, windows_billed=billed, open=billed)
        yield {"id": payer_id, "is_customer": is_customer, "name": "x", **build_bridge(facts).to_json()}


def edit_json(path: Path, change: Any) -> None:
    """Changes a JSON file as whoever forges a pack would."""
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
