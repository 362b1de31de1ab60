"""What happens to a subscription of the Stripe stand-in when a period ends, and when it is ended before.

docs.stripe.com, configure-grace-period: the invoice of a cycle is a draft that is finalised after the grace; no other
invoice has one. billing-mode/compare: flexible makes no empty first invoice, classic one of 0; at the end of a cycle
either makes one, of 0 as well.
"""

from typing import Final

from gateway.sandbox.stripe.invoice_forms import subscription_parent
from gateway.sandbox.stripe.invoice_items import InvoiceItems
from gateway.sandbox.stripe.invoices import Invoices
from gateway.sandbox.stripe.meters import DAY_S
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.subscription_forms import end_of_period
from gateway.sandbox.stripe.usage_lines import UsageLines

PERIOD_END: Final = "period_end"
FREE_STUBS: Final = "sandbox.free_stub"
"""Subscriptions whose first, shorter period is not billed."""


class Cycle:
    """Ends periods and makes the invoices of subscriptions."""

    def __init__(self, account: Account, invoices: Invoices, items: InvoiceItems, lines: UsageLines) -> None:
        self._account: Final = account
        self._invoices: Final = invoices
        self._items: Final = items
        self.lines: Final = lines

    def free_stub(self, subscription: Stored) -> None:
        """Bills nothing up to the anchor (docs.stripe.com, billing-cycle: `proration_behavior=none`; that this holds
        for usage too is what one production reports, speakeasy-api/gram)."""
        self._account.kinds.setdefault(FREE_STUBS, {})[subscription["id"]] = {"id": subscription["id"]}

    def open_first_invoice(self, subscription: Stored) -> None:
        """The invoice of 0 that classic mode begins with. The first invoice is finalised at once."""
        if subscription["billing_mode"]["type"] == "classic":
            now = self._account.now()
            invoice = self._draft(subscription, "subscription_create", (now, now))
            lines = [
                line for item in _items(subscription) for line in self.lines.make(invoice, subscription, item, now)
            ]
            self._open(subscription, invoice, lines, waits=False)

    def end_period(self, subscription_id: str, at: int) -> None:
        """The period that ends at this instant is billed, and the next one begins, or none."""
        found = self._account.kinds["subscription"][subscription_id]
        items = _items(found)
        if found["status"] == "canceled" or not items or items[0]["current_period_end"] != at:
            return
        start = min(item["current_period_start"] for item in items)
        invoice = self._draft(found, "subscription_cycle", (start, at))
        is_free = self._account.kinds.get(FREE_STUBS, {}).pop(subscription_id, None) is not None
        lines = [] if is_free else [line for item in items for line in self.lines.make(invoice, found, item, at)]
        lines += self._items.take_pending(invoice)
        if found["cancel_at"] == at:
            self.end(found)
        else:
            self._begin(found, at)
        if lines:
            self._open(found, invoice, lines, waits=True)
        else:
            del self._account.kinds["invoice"][invoice["id"]]

    def reset_anchor(self, subscription: Stored) -> None:
        """`billing_cycle_anchor=now`: bills up to now, and begins a full period."""
        now = self._account.now()
        self.invoice_rest(subscription)
        subscription |= {"billing_cycle_anchor": now, "billing_cycle_anchor_config": None}
        self._begin(subscription, now, tells=False)

    def invoice_rest(self, subscription: Stored) -> None:
        """An invoice for the usage up to now and what waits, finalised at once: it is of no cycle, so has no grace.
        That its reason is subscription_update is a guess."""
        now, items = self._account.now(), _items(subscription)
        invoice = self._draft(subscription, "subscription_update", (items[0]["current_period_start"], now))
        lines = [line for item in items for line in self.lines.make(invoice, subscription, item, now)]
        self._open(subscription, invoice, lines + self._items.take_pending(invoice), waits=False)

    def invoice_pending(self, subscription: Stored) -> None:
        """`proration_behavior=always_invoice`: what waits is invoiced at once."""
        now = self._account.now()
        invoice = self._draft(subscription, "subscription_update", (now, now))
        lines = self._items.take_pending(invoice)
        if lines:
            self._open(subscription, invoice, lines, waits=False)
        else:
            del self._account.kinds["invoice"][invoice["id"]]

    def bill_rest_of(self, subscription: Stored, item: Stored) -> None:
        """Leaves the item's usage up to now for the next invoice."""
        now = self._account.now()
        outline = {"id": None, "currency": subscription["currency"]}
        for line in self.lines.make(outline, subscription, item, now):
            if line["quantity_decimal"] != "0":
                self._items.bill_usage(line, subscription)

    def end(self, subscription: Stored) -> None:
        """It is cancelled now."""
        now = self._account.now()
        canceled_at = subscription["canceled_at"] or now
        subscription |= {"status": "canceled", "ended_at": now, "canceled_at": canceled_at}
        self._account.tell("customer.subscription.deleted", subscription)

    def _begin(self, subscription: Stored, start: int, *, tells: bool = True) -> None:
        items = _items(subscription)
        end = end_of_period(subscription, items[0]["price"], start)
        before = [{"items": {"data": [dict(item) for item in items]}}]
        for item in items:
            item |= {"current_period_start": start, "current_period_end": end}
            self.lines.begin_period(item)
        self._account.agenda.plan(end, PERIOD_END, subscription["id"])
        if tells:
            self._account.tell("customer.subscription.updated", subscription, before[0])

    def _draft(self, subscription: Stored, reason: str, period: tuple[int, int]) -> Stored:
        days = subscription["days_until_due"]
        fields = {
            "billing_reason": reason,
            "collection_method": subscription["collection_method"],
            "description": subscription["description"],
            "due_date": None if days is None else self._account.now() + days * DAY_S,
            "parent": subscription_parent(subscription),
            "period_start": period[0],
            "period_end": period[1],
        }
        return self._invoices.draft(subscription["customer"], subscription["currency"], fields)

    def _open(self, subscription: Stored, invoice: Stored, lines: list[Stored], *, waits: bool) -> None:
        subscription["latest_invoice"] = invoice["id"]
        at = self._account.now() + self._account.grace_s if waits else None
        self._invoices.open_draft(invoice, lines, finalizes_at=at)
        if not waits:
            self._invoices.finalize_now(invoice)


def _items(subscription: Stored) -> list[Stored]:
    items: list[Stored] = subscription["items"]["data"]
    return items
