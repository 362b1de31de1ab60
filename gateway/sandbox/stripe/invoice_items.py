"""Invoice items of the Stripe stand-in: amounts by hand, on a draft or waiting for the customer's next invoice.

Members and parameters: stripe-python 16.1, `InvoiceItem`. A price is named by `pricing[price]` since 2025-09-30.clover.
"""

from decimal import Decimal
from typing import Any, Final

from gateway.sandbox.stripe.amounts import describe, plain, round_to_cents, unit_price
from gateway.sandbox.stripe.customers import Customers
from gateway.sandbox.stripe.invoice_forms import item_parent, pricing_of, shape_line, sum_up
from gateway.sandbox.stripe.meters import StripeApiError, list_page
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import (
    check_known,
    in_range,
    read_decimal,
    read_flag,
    read_instant,
    read_map,
    read_metadata,
    read_signed,
    require,
)

KIND: Final = "invoiceitem"
_NEW: Final = frozenset(
    {
        "customer", "amount", "currency", "description", "metadata", "invoice", "period", "pricing", "quantity",
        "quantity_decimal", "unit_amount_decimal", "subscription",
    }
)  # fmt: skip


class InvoiceItems:
    """All invoice items."""

    def __init__(self, account: Account, customers: Customers) -> None:
        self._account: Final = account
        self._customers: Final = customers

    def create(self, form: dict[str, Any]) -> Stored:
        """POST /v1/invoiceitems."""
        check_known(form, _NEW)
        invoice = None
        if form.get("invoice"):
            invoice = self._account.get("invoice", form["invoice"], param="invoice")
            if invoice["status"] != "draft":
                raise StripeApiError(400, "The invoice is already finalized.", code="invoice_not_editable")
        customer_id = str(form.get("customer") or (invoice or {}).get("customer") or require(form, "customer"))
        if self._customers.get(customer_id).get("deleted"):
            raise StripeApiError(400, f"No such customer: '{customer_id}'", code="resource_missing", param="customer")
        if invoice is not None and invoice["customer"] != customer_id:
            raise StripeApiError(400, "The invoice is another customer's.", param="invoice")
        fields, now = self._amounts(form), self._account.now()
        period = read_map(form, "period")
        fields |= {
            "customer": customer_id,
            "metadata": read_metadata(form, {}),
            "period": {name: read_instant(period, name) or now for name in ("end", "start")},
        }
        if form.get("subscription"):
            fields["parent"] = _parent(self._account.get("subscription", form["subscription"], param="subscription"))
        made = self.add(fields)
        if invoice is not None:
            lines = [*invoice["lines"]["data"], self._attach(made, invoice)]
            sum_up(invoice, lines)
            self._account.tell("invoice.updated", invoice)
        return made

    def add(self, fields: Stored) -> Stored:
        """A new item that waits for an invoice, and tells of it."""
        shape = {
            "customer_account": None, "date": self._account.now(), "description": None, "discountable": False,
            "discounts": [], "frozen_fields": None, "invoice": None, "invoicing_rules": None, "metadata": {},
            "net_amount": fields["amount"], "parent": None, "pricing": None, "proration": False,
            "proration_details": None, "quantity": 1, "quantity_decimal": "1", "tax_rates": [], "test_clock": None,
        }  # fmt: skip
        made = self._account.add(KIND, "ii", shape | fields)
        del made["created"]  # an invoice item has `date` instead
        self._account.tell("invoiceitem.created", made)
        return made

    def bill_usage(self, line: Stored, subscription: Stored) -> Stored:
        """An item out of a line of usage that no invoice of a cycle will have."""
        same = {name: line[name] for name in ("amount", "currency", "description", "pricing", "period")}
        same |= {name: line[name] for name in ("quantity", "quantity_decimal")}
        details = _parent(subscription, line["parent"]["subscription_item_details"]["subscription_item"])
        return self.add(same | {"customer": subscription["customer"], "parent": details, "proration": True})

    def take_pending(self, invoice: Stored) -> list[Stored]:
        """The lines of all items of the customer that wait, in the invoice's currency; they are on this one now."""
        waiting = [
            one
            for one in self._account.all(KIND)[::-1]
            if one["customer"] == invoice["customer"]
            and one["invoice"] is None
            and one["currency"] == invoice["currency"]
        ]
        return [self._attach(one, invoice) for one in waiting]

    def delete(self, item_id: str) -> Stored:
        """DELETE /v1/invoiceitems/{id}: one that waits or is on a draft."""
        item = self._account.get(KIND, item_id)
        if item["invoice"] is not None:
            invoice = self._account.get("invoice", item["invoice"])
            if invoice["status"] != "draft":
                raise StripeApiError(400, "The invoice is already finalized.", code="invoice_not_editable")
            details = [(line["parent"]["invoice_item_details"] or {}, line) for line in invoice["lines"]["data"]]
            sum_up(invoice, [line for detail, line in details if detail.get("invoice_item") != item_id])
            self._account.tell("invoice.updated", invoice)
        self._account.tell("invoiceitem.deleted", item)
        return self._account.remove(KIND, item_id)

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/invoiceitems."""
        found = [
            one
            for one in self._account.all(KIND)
            if all(query.get(name) in (None, one[name]) for name in ("customer", "invoice"))
            and ("pending" not in query or (one["invoice"] is None) == read_flag(query, "pending", True))
            and in_range(query, "created", one["date"])
        ]
        return list_page(found, query, "/v1/invoiceitems")

    def _amounts(self, form: dict[str, Any]) -> Stored:
        """The amount, as one figure or as a quantity of a price."""
        cents, price_id = read_signed(form, "amount"), read_map(form, "pricing").get("price")
        quantity = read_decimal(form, "quantity_decimal") or read_decimal(form, "quantity") or Decimal(1)
        unit = read_decimal(form, "unit_amount_decimal")
        counted = {"quantity": int(quantity), "quantity_decimal": plain(quantity)}
        if price_id is not None:
            price = self._account.get("price", price_id, param="pricing[price]")
            if price["type"] != "one_time":
                message = "The price specified is set to `type=recurring`; only `type=one_time` is accepted here."
                raise StripeApiError(400, message, param="pricing[price]")
            product = self._account.get("product", price["product"])["name"]
            priced = {"amount": round_to_cents(quantity * unit_price(price)), "pricing": pricing_of(price)}
            text = form.get("description") or describe(quantity, product, price)
            return counted | priced | {"currency": price["currency"], "description": text}
        currency = str(require(form, "currency")).lower()
        if cents is None and unit is None:
            raise StripeApiError(400, "One of amount, pricing and unit_amount_decimal is expected.", param="amount")
        amount = round_to_cents(quantity * unit) if cents is None and unit is not None else cents
        return counted | {"amount": amount, "currency": currency, "description": form.get("description")}

    def _attach(self, item: Stored, invoice: Stored) -> Stored:
        item["invoice"] = invoice["id"]
        period = (item["period"]["start"], item["period"]["end"])
        same = {name: item[name] for name in ("amount", "description", "pricing", "quantity", "quantity_decimal")}
        same |= {"discountable": item["discountable"], "metadata": dict(item["metadata"]), "subtotal": item["amount"]}
        return shape_line(invoice["id"], item["currency"], item_parent(item), period, same)


def _parent(subscription: Stored, item_id: str | None = None) -> Stored:
    details = {"subscription": subscription["id"], "subscription_item": item_id}
    return {"subscription_details": details, "type": "subscription_details"}
