"""Asks Stripe what an object is now, and keeps that. The order of events does not matter, nor how often each comes."""

from datetime import datetime
from typing import Final, NamedTuple

from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.store import Kind, MirrorStore


class MirrorSynced(NamedTuple):
    """How many objects were read."""

    subscriptions: int
    invoices: int
    credit_grants: int


class Mirror:
    """Stripe's objects, kept. Every method raises ConfigError, DependencyDown."""

    def __init__(self, reader: StripeReader, store: MirrorStore) -> None:
        self._reader: Final = reader
        self._store: Final = store

    async def refresh(self, kind: Kind, object_id: str, *, event: str | None, occurred_at: datetime | None) -> bool:
        """Reads an object because an event told of it; False when what is kept is so much newer that it need not be."""
        if await self._store.contains(kind, object_id, occurred_at):
            return False
        asked_at = await self._store.now()
        match kind:
            case "customer":
                if (customer := await self._reader.customer(object_id)) is not None:
                    await self._store.keep_customer(customer, asked_at, event)
            case "subscription":
                if (items := await self._reader.subscription(object_id)) is not None:
                    await self._store.keep_subscription(object_id, items, asked_at, event)
            case "invoice":
                invoice = await self._reader.invoice(object_id)
                if invoice is None:
                    await self._store.drop_invoice(object_id, asked_at, event)
                else:
                    await self._store.keep_invoice(invoice, asked_at, event)
            case "credit_grant":
                if (grant := await self._reader.credit_grant(object_id)) is not None:
                    await self._store.keep_grant(grant, asked_at, event)
        return True

    async def sync(self, since: datetime) -> MirrorSynced:
        """Reads all subscriptions and credit grants, and the invoices made since then or not yet settled here."""
        subscriptions = invoices = grants = 0
        asked_at = await self._store.now()
        async for items in self._reader.subscriptions():
            if items:
                await self._store.keep_subscription(items[0].id, items, asked_at, None)
                subscriptions += 1
        asked_at, seen = await self._store.now(), set[str]()
        async for invoice in self._reader.invoices(since):
            await self._store.keep_invoice(invoice, asked_at, None)
            seen.add(invoice.id)
        for invoice_id in await self._store.unsettled_invoices():
            if invoice_id not in seen:
                await self.refresh("invoice", invoice_id, event=None, occurred_at=None)
                seen.add(invoice_id)
        invoices = len(seen)
        asked_at = await self._store.now()
        async for grant in self._reader.credit_grants():
            await self._store.keep_grant(grant, asked_at, None)
            grants += 1
        return MirrorSynced(subscriptions, invoices, grants)
