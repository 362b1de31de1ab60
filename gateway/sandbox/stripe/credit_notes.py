"""Credit notes of the Stripe stand-in: less to pay on an open invoice, something back for a paid one.

stripe-python 16.1, `CreditNote` and `CreditNoteService.create`: what is credited first lowers what remains to be paid
(`pre_payment_amount`); the rest (`post_payment_amount`) is the sum of what goes to the customer's balance, is refunded
or was settled elsewhere.
"""

import secrets
from decimal import Decimal
from typing import Any, Final

from gateway.sandbox.stripe.amounts import plain, round_to_cents
from gateway.sandbox.stripe.balances import Balances
from gateway.sandbox.stripe.invoices import Invoices
from gateway.sandbox.stripe.meters import StripeApiError, list_page, whole_number
from gateway.sandbox.stripe.objects import Account, Stored, sub_list
from gateway.sandbox.stripe.params import (
    check_known,
    in_range,
    read_choice,
    read_decimal,
    read_list,
    read_metadata,
    read_signed,
    require,
)

KIND: Final = "credit_note"
REASONS: Final = ("duplicate", "fraudulent", "order_change", "product_unsatisfactory")
_NEW: Final = frozenset(
    {"invoice", "amount", "lines", "credit_amount", "refund_amount", "out_of_band_amount", "memo", "reason", "metadata"}
)
_LINE: Final = frozenset(
    {"type", "amount", "description", "invoice_line_item", "quantity", "unit_amount", "unit_amount_decimal"}
)


class CreditNotes:
    """All credit notes."""

    def __init__(self, account: Account, invoices: Invoices, balances: Balances) -> None:
        self._account: Final = account
        self._invoices: Final = invoices
        self._balances: Final = balances

    def create(self, form: dict[str, Any]) -> Stored:
        """POST /v1/credit_notes."""
        check_known(form, _NEW)
        invoice = self._account.get("invoice", str(require(form, "invoice")), param="invoice")
        if invoice["status"] not in ("open", "paid"):
            message = "You can only create a credit note for an open or paid invoice."
            raise StripeApiError(400, message, param="invoice")
        lines = [self._line(line, invoice) for line in read_list(form, "lines")]
        total = sum(line["amount"] for line in lines) if lines else read_signed(form, "amount")
        before = invoice["pre_payment_credit_notes_amount"] + invoice["post_payment_credit_notes_amount"]
        if total is None or not 0 < total <= invoice["total"] - before:
            message = "The credit note amount must be positive, and no more than the invoice's remaining total."
            raise StripeApiError(400, message, param="amount")
        first = min(total, invoice["amount_remaining"])
        parts = {
            name: read_signed(form, name) or 0 for name in ("credit_amount", "refund_amount", "out_of_band_amount")
        }
        if sum(parts.values()) != total - first or min(parts.values()) < 0:
            message = (
                "The sum of credit amount, refund amount and out of band amount must equal the post-payment amount "
                f"({total - first})."
            )
            raise StripeApiError(400, message, param="amount")
        number = 1 + sum(1 for one in self._account.all(KIND) if one["invoice"] == invoice["id"])
        made = self._account.add(KIND, "cn", _shape(invoice, form, total, first, parts, number))
        made["lines"] = sub_list(lines or [_custom_line(total, None)], f"/v1/credit_notes/{made['id']}/lines")
        if parts["credit_amount"]:
            note = {"credit_note": made["id"]}
            moved = self._balances.move(invoice["customer"], -parts["credit_amount"], KIND, invoice, note)
            made["customer_balance_transaction"] = None if moved is None else moved["id"]
        self._account.tell("credit_note.created", made)
        if total > first:
            after = invoice["post_payment_credit_notes_amount"] + total - first
            self._account.change(invoice, "invoice.updated", {"post_payment_credit_notes_amount": after})
        if first:
            self._invoices.lower(invoice, first)
        return made

    def update(self, note_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/credit_notes/{id}."""
        check_known(form, ("memo", "metadata"))
        found = self._account.get(KIND, note_id)
        fields = {"memo": form.get("memo", found["memo"]), "metadata": read_metadata(form, found["metadata"])}
        return self._account.change(found, "credit_note.updated", fields)

    def void(self, note_id: str) -> Stored:
        """POST /v1/credit_notes/{id}/void: one of an invoice that is still open."""
        found = self._account.get(KIND, note_id)
        invoice = self._account.get("invoice", found["invoice"])
        if found["status"] == "void" or invoice["status"] != "open":
            raise StripeApiError(400, "You can only void a credit note of an open invoice.")
        found |= {"status": "void", "voided_at": self._account.now()}
        self._invoices.lower(invoice, -found["pre_payment_amount"])
        self._account.tell("credit_note.voided", found)
        return found

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/credit_notes."""
        found = [
            one
            for one in self._account.all(KIND)
            if all(query.get(name) in (None, one[name]) for name in ("customer", "invoice"))
            and in_range(query, "created", one["created"])
        ]
        return list_page(found, query, "/v1/credit_notes")

    def _line(self, form: Any, invoice: Stored) -> Stored:
        if not isinstance(form, dict):
            raise StripeApiError(400, "Invalid lines: a map is expected.", param="lines")
        check_known(form, _LINE)
        kind = read_choice(form, "type", ("custom_line_item", "invoice_line_item"), "")
        cents = read_signed(form, "amount")
        if kind == "custom_line_item":
            unit = read_decimal(form, "unit_amount_decimal") or Decimal(read_signed(form, "unit_amount") or 0)
            quantity = whole_number(form.get("quantity", "1"), "quantity")
            amount = cents if cents is not None else round_to_cents(unit * quantity)
            return _custom_line(amount, form.get("description"))
        for line in invoice["lines"]["data"]:
            if line["id"] == form.get("invoice_line_item"):
                same = {"type": kind, "invoice_line_item": line["id"], "description": line["description"]}
                return _custom_line(line["amount"] if cents is None else cents, None) | same
        raise StripeApiError(400, "No such line item on this invoice.", param="lines[0][invoice_line_item]")


def _custom_line(cents: int, description: str | None) -> Stored:
    return {
        "id": f"cnli_{secrets.token_hex(12)}",
        "object": "credit_note_line_item",
        "amount": cents,
        "description": description,
        "discount_amount": 0,
        "discount_amounts": [],
        "invoice_line_item": None,
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": 1,
        "tax_rates": [],
        "taxes": [],
        "type": "custom_line_item",
        "unit_amount": cents,
        "unit_amount_decimal": plain(Decimal(cents)),
    }


def _shape(invoice: Stored, form: dict[str, Any], total: int, first: int, parts: dict[str, int], number: int) -> Stored:
    kind = "mixed" if 0 < first < total else "pre_payment" if first else "post_payment"
    reason = None if form.get("reason") is None else read_choice(form, "reason", REASONS, "")
    return {
        "amount": total,
        "amount_shipping": 0,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": None,
        "invoice": invoice["id"],
        "memo": form.get("memo"),
        "metadata": read_metadata(form, {}),
        "number": f"{invoice['number']}-CN-{number:02d}",
        "out_of_band_amount": parts["out_of_band_amount"] or None,
        "pdf": f"https://pay.stripe.com/credit_notes/sandbox/{invoice['id']}/{number}/pdf",
        "post_payment_amount": total - first,
        "pre_payment_amount": first,
        "pretax_credit_amounts": [],
        "reason": reason,
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
        "total_taxes": [],
        "type": kind,
        "voided_at": None,
    }
