"""Invoices of the Stripe stand-in from draft to paid, void or uncollectible.

docs.stripe.com, workflow-transitions: which status may follow which. configure-grace-period: a draft of a cycle is
finalised when its grace is over, with the usage that has arrived by then. What arrives later is on no invoice.
"""

from collections.abc import Callable
from typing import Any, Final

from gateway.sandbox.stripe.amounts import MINIMUM_CHARGE_CENTS
from gateway.sandbox.stripe.balances import Balances
from gateway.sandbox.stripe.customers import Customers
from gateway.sandbox.stripe.invoice_forms import shape_invoice, sum_up
from gateway.sandbox.stripe.meters import DAY_S, HOUR_S, StripeApiError, list_page, whole_number
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import (
    check_known,
    in_range,
    read_choice,
    read_flag,
    read_instant,
    read_metadata,
    require,
)

FINALIZE: Final = "finalize"
HELD_S: Final = 3 * DAY_S
"""How long an answer to `invoice.created` is waited for (docs.stripe.com, workflow-transitions)."""
COLLECTIONS: Final = ("charge_automatically", "send_invoice")
_OPEN_ENDS: Final = ("open", "uncollectible")
_NEW: Final = frozenset(
    {
        "customer", "currency", "collection_method", "days_until_due", "description", "metadata", "auto_advance",
        "automatically_finalizes_at", "pending_invoice_items_behavior",
    }
)  # fmt: skip


class Invoices:
    """All invoices. `refresh` brings the lines of a draft up to date; `settle_credits` applies what was granted."""

    def __init__(
        self,
        account: Account,
        customers: Customers,
        balances: Balances,
        *,
        refresh: Callable[[Stored], list[Stored]],
        settle_credits: Callable[[Stored, list[Stored]], None],
        reinstate_credits: Callable[[Stored], None],
    ) -> None:
        self._account: Final = account
        self._customers: Final = customers
        self._balances: Final = balances
        self._refresh: Final = refresh
        self._settle_credits: Final = settle_credits
        self._reinstate_credits: Final = reinstate_credits

    def draft(self, customer_id: str, currency: str, fields: Stored) -> Stored:
        """A new draft without lines; it is told of when it has them, by `open_draft`."""
        customer = self._customers.all[customer_id]
        invoice = shape_invoice(customer, currency, self._account.now(), fields)
        made = self._account.add("invoice", "in", invoice)
        sum_up(made, [])
        return made

    def open_draft(self, invoice: Stored, lines: list[Stored], *, finalizes_at: int | None) -> Stored:
        """Gives the draft its lines and tells of it; it is finalised by itself at the instant."""
        sum_up(invoice, lines)
        invoice["automatically_finalizes_at"] = finalizes_at
        self._account.tell("invoice.created", invoice)
        if finalizes_at is not None:
            self._account.agenda.plan(finalizes_at, FINALIZE, invoice["id"])
        return invoice

    def create(self, form: dict[str, Any], pending: Callable[[Stored], list[Stored]]) -> Stored:
        """POST /v1/invoices: one that no subscription makes; `pending` takes the invoice items that wait."""
        check_known(form, _NEW)
        customer_id = str(require(form, "customer"))
        if self._customers.get(customer_id).get("deleted"):
            raise StripeApiError(400, f"No such customer: '{customer_id}'", code="resource_missing", param="customer")
        auto, collection = (
            read_flag(form, "auto_advance", False),
            read_choice(form, "collection_method", COLLECTIONS, COLLECTIONS[0]),
        )
        fields = {
            "auto_advance": auto,
            "billing_reason": "manual",
            "collection_method": collection,
            "description": form.get("description"),
            "metadata": read_metadata(form, {}),
            "due_date": self._due_date(collection, form.get("days_until_due")),
        }
        invoice = self.draft(customer_id, str(form.get("currency", "usd")).lower(), fields)
        wants = read_choice(form, "pending_invoice_items_behavior", ("exclude", "include"), "exclude")
        lines = pending(invoice) if wants == "include" else []
        default_at = self._account.now() + self._account.grace_s if auto else None
        return self.open_draft(
            invoice, lines, finalizes_at=read_instant(form, "automatically_finalizes_at") or default_at
        )

    def update(self, invoice_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/invoices/{id}."""
        check_known(form, ("description", "metadata", "auto_advance", "automatically_finalizes_at"))
        invoice = self._account.get("invoice", invoice_id)
        fields: Stored = {name: form[name] for name in ("description",) if name in form}
        fields["metadata"] = read_metadata(form, invoice["metadata"])
        if invoice["status"] == "draft":
            auto = read_flag(form, "auto_advance", invoice["auto_advance"])
            at = read_instant(form, "automatically_finalizes_at") or invoice["automatically_finalizes_at"]
            at = (at or self._account.now() + self._account.grace_s) if auto else None
            if at is not None and at != invoice["automatically_finalizes_at"]:
                self._account.agenda.plan(at, FINALIZE, invoice_id)
            fields |= {"auto_advance": auto, "automatically_finalizes_at": at}
        return self._account.change(invoice, "invoice.updated", fields)

    def delete(self, invoice_id: str) -> Stored:
        """DELETE /v1/invoices/{id}: drafts that no subscription made."""
        invoice = self._in_status(invoice_id, ("draft",), "delete")
        if invoice["parent"] is not None:
            raise StripeApiError(400, "You can't delete invoices created by subscriptions.")
        for item in self._account.all("invoiceitem"):
            if item["invoice"] == invoice_id:
                del self._account.kinds["invoiceitem"][item["id"]]
        self._account.tell("invoice.deleted", invoice)
        return self._account.remove("invoice", invoice_id)

    def finalize_due(self, invoice_id: str, at: int) -> None:
        """Finalises the draft whose instant has come, unless something was decided about it meanwhile."""
        invoice = self._account.kinds["invoice"].get(invoice_id)
        if invoice is None or invoice["status"] != "draft" or invoice["automatically_finalizes_at"] != at:
            return
        if at < invoice["created"] + HELD_S and self._account.holds(invoice):
            invoice["automatically_finalizes_at"] = min(at + HOUR_S, invoice["created"] + HELD_S)
            self._account.agenda.plan(invoice["automatically_finalizes_at"], FINALIZE, invoice_id)
        else:
            self._finalize(invoice, collects=True)

    def finalize(self, invoice_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/invoices/{id}/finalize."""
        check_known(form, ("auto_advance",))
        invoice = self._in_status(invoice_id, ("draft",), "finalize")
        return self._finalize(invoice, collects=read_flag(form, "auto_advance", invoice["auto_advance"]))

    def finalize_now(self, invoice: Stored) -> Stored:
        """Finalises and collects a draft that has no grace."""
        return self._finalize(invoice, collects=True)

    def _finalize(self, invoice: Stored, *, collects: bool) -> Stored:
        """Takes in the usage that has arrived, applies credits and the balance, and asks for the rest."""
        now, customer = self._account.now(), self._customers.all[invoice["customer"]]
        lines = self._refresh(invoice)
        sum_up(invoice, lines)
        self._settle_credits(invoice, lines)
        sum_up(invoice, lines)
        due = self._apply_balance(invoice)
        number = customer.get("next_invoice_sequence", 1)
        if not customer.get("deleted"):
            customer["next_invoice_sequence"] = number + 1
        invoice |= {
            "amount_due": due,
            "amount_remaining": due,
            "automatically_finalizes_at": None,
            "effective_at": now,
            "number": f"{customer.get('invoice_prefix', 'GONE')}-{number:04d}",
            "status": "open",
        }
        invoice["status_transitions"]["finalized_at"] = now
        self._account.tell("invoice.finalized", invoice)
        if due == 0:
            return self._mark_paid(invoice, due)
        if collects and invoice["collection_method"] == COLLECTIONS[0]:
            self._charge(invoice)
        return invoice

    def _apply_balance(self, invoice: Stored) -> int:
        """What is due after the customer's balance. What a charge would be too small for is owed next time
        (stripe-python 16.1, `Invoice.amount_due`, `starting_balance`, `ending_balance`)."""
        start = self._balances.of(invoice["customer"])
        wanted = start + invoice["total"]
        too_small = 0 < wanted < MINIMUM_CHARGE_CENTS and invoice["collection_method"] == COLLECTIONS[0]
        due = 0 if too_small else max(wanted, 0)
        invoice |= {"starting_balance": start, "ending_balance": wanted - due}
        kind = "invoice_too_small" if too_small else "applied_to_invoice"
        self._balances.move(invoice["customer"], wanted - due - start, kind, invoice)
        return due

    def _charge(self, invoice: Stored) -> None:
        invoice |= {"attempt_count": invoice["attempt_count"] + 1, "attempted": True}
        if self._account.settings.payments == "succeed":
            self._mark_paid(invoice, invoice["amount_remaining"])
            return
        invoice["next_payment_attempt"] = self._account.now() + DAY_S
        self._account.tell("invoice.payment_failed", invoice)

    def _mark_paid(self, invoice: Stored, cents: int) -> Stored:
        invoice |= {
            "status": "paid",
            "amount_paid": invoice["amount_paid"] + cents,
            "amount_remaining": 0,
            "attempted": True,
            "auto_advance": False,
            "next_payment_attempt": None,
        }
        invoice["status_transitions"]["paid_at"] = self._account.now()
        self._account.tell("invoice.paid", invoice)
        self._account.tell("invoice.payment_succeeded", invoice)
        return invoice

    def pay(self, invoice_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/invoices/{id}/pay. Raises StripeApiError: 402 when the charge fails."""
        check_known(form, ("paid_out_of_band", "off_session", "payment_method", "forgive"))
        invoice = self._account.get("invoice", invoice_id)
        if invoice["status"] == "paid":
            raise StripeApiError(400, "Invoice is already paid", code="invoice_already_paid")
        if invoice["status"] == "draft":
            self._finalize(invoice, collects=False)
        invoice = self._in_status(invoice_id, (*_OPEN_ENDS, "paid"), "pay")
        if invoice["status"] == "paid":
            return invoice
        if read_flag(form, "paid_out_of_band", False) or self._account.settings.payments == "succeed":
            return self._mark_paid(invoice, invoice["amount_remaining"])
        self._charge(invoice)
        raise StripeApiError(402, "Your card was declined.", kind="card_error", code="card_declined")

    def void(self, invoice_id: str) -> Stored:
        """POST /v1/invoices/{id}/void: as if it had never been; what it used of balance and credits comes back."""
        invoice = self._in_status(invoice_id, _OPEN_ENDS, "void")
        self._reinstate_credits(invoice)
        back = invoice["starting_balance"] - (invoice["ending_balance"] or 0)
        self._balances.move(invoice["customer"], back, "unapplied_from_invoice", invoice)
        return self._end(invoice, "void", "voided_at", "invoice.voided")

    def mark_uncollectible(self, invoice_id: str) -> Stored:
        """POST /v1/invoices/{id}/mark_uncollectible."""
        invoice = self._in_status(invoice_id, ("open",), "mark_uncollectible")
        return self._end(invoice, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible")

    def _end(self, invoice: Stored, status: str, transition: str, event_type: str) -> Stored:
        invoice |= {"status": status, "auto_advance": False, "next_payment_attempt": None}
        invoice["status_transitions"][transition] = self._account.now()
        self._account.tell(event_type, invoice)
        return invoice

    def lower(self, invoice: Stored, cents: int) -> None:
        """Takes a credit note off what remains to be paid."""
        invoice["pre_payment_credit_notes_amount"] += cents
        invoice["amount_due"] -= cents
        invoice["amount_remaining"] -= cents
        self._account.tell("invoice.updated", invoice)
        if invoice["amount_remaining"] == 0:
            self._mark_paid(invoice, 0)

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/invoices, newest first."""
        wanted = query.get("subscription")
        found = [
            one
            for one in self._account.all("invoice")
            if all(query.get(name) in (None, one[name]) for name in ("customer", "status", "collection_method"))
            and wanted in (None, subscription_of(one))
            and in_range(query, "created", one["created"])
            and in_range(query, "due_date", one["due_date"])
        ]
        return list_page(found, query, "/v1/invoices")

    def list_lines(self, invoice_id: str, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/invoices/{id}/lines."""
        lines = self._account.get("invoice", invoice_id)["lines"]
        return list_page(lines["data"], query, lines["url"])

    def _in_status(self, invoice_id: str, statuses: tuple[str, ...], verb: str) -> Stored:
        invoice = self._account.get("invoice", invoice_id)
        if invoice["status"] not in statuses:
            message = f"This invoice is {invoice['status']}: you cannot {verb} it."
            raise StripeApiError(400, message, code="invoice_not_editable" if verb == "finalize" else None)
        return invoice

    def _due_date(self, collection: str, days: Any) -> int | None:
        if collection == COLLECTIONS[0]:
            return None
        return self._account.now() + whole_number(days or "30", "days_until_due") * DAY_S


def subscription_of(invoice: Stored) -> str | None:
    """The subscription that made it."""
    details = (invoice["parent"] or {}).get("subscription_details")
    return None if details is None else str(details["subscription"])
