"""How the Stripe stand-in shapes invoices and their lines.

Members: stripe-python 16.1, `Invoice` and `InvoiceLineItem`, and a real webhook of 2025-08-27.basil (public in
juniorsereno/Nomami-v2), which has them all. `quantity_decimal` is of 2026-03-25.dahlia (docs.stripe.com, changelog).
"""

import secrets
from decimal import Decimal
from typing import Any, Final

from gateway.sandbox.stripe.amounts import describe, plain, round_to_cents, unit_price
from gateway.sandbox.stripe.objects import Stored, sub_list

_ABSENT: Final[dict[str, Any]] = {
    "account_tax_ids": None, "amount_overpaid": 0, "amount_shipping": 0, "application": None, "custom_fields": None,
    "customer_address": None, "customer_phone": None, "customer_shipping": None, "customer_tax_exempt": "none",
    "customer_tax_ids": [], "default_payment_method": None, "default_source": None, "default_tax_rates": [],
    "discounts": [], "footer": None, "from_invoice": None, "hosted_invoice_url": None, "invoice_pdf": None,
    "last_finalization_error": None, "latest_revision": None, "on_behalf_of": None, "receipt_number": None,
    "rendering": None, "shipping_cost": None, "shipping_details": None, "statement_descriptor": None,
    "test_clock": None, "total_discount_amounts": [], "total_taxes": [], "webhooks_delivered_at": None,
}  # fmt: skip
UNTAXED: Final = {
    "disabled_reason": None, "enabled": False, "liability": None, "provider": None, "status": None,
}  # fmt: skip


def shape_invoice(customer: Stored, currency: str, now: int, fields: Stored) -> Stored:
    """A draft without lines; `fields` are what its making decides."""
    return (
        _ABSENT
        | {
            "account_country": "US",
            "account_name": "Sandbox",
            "attempt_count": 0,
            "attempted": False,
            "auto_advance": True,
            "automatic_tax": dict(UNTAXED),
            "automatically_finalizes_at": None,
            "collection_method": "charge_automatically",
            "currency": currency,
            "customer": customer["id"],
            "customer_email": customer.get("email"),
            "customer_name": customer.get("name"),
            "description": None,
            "due_date": None,
            "effective_at": None,
            "ending_balance": None,
            "issuer": {"type": "self"},
            "metadata": {},
            "next_payment_attempt": None,
            "number": None,
            "parent": None,
            "payment_settings": {
                "default_mandate": None, "payment_method_options": None, "payment_method_types": None,
            },
            "period_end": now,
            "period_start": now,
            "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0,
            "starting_balance": 0,
            "status": "draft",
            "status_transitions": {
                "finalized_at": None, "marked_uncollectible_at": None, "paid_at": None, "voided_at": None,
            },
            "total_pretax_credit_amounts": [],
        }
        | fields
    )  # fmt: skip


def subscription_parent(subscription: Stored) -> Stored:
    """Of an invoice that a subscription made."""
    details = {"metadata": dict(subscription["metadata"]), "subscription": subscription["id"]}
    return {"quote_details": None, "subscription_details": details, "type": "subscription_details"}


def usage_parent(subscription_id: str, item_id: str) -> Stored:
    """Of a line that bills usage."""
    details = {
        "invoice_item": None,
        "proration": False,
        "proration_details": {"credited_items": None},
        "subscription": subscription_id,
        "subscription_item": item_id,
    }
    return {
        "invoice_item_details": None, "subscription_item_details": details, "type": "subscription_item_details",
    }  # fmt: skip


def item_parent(item: Stored) -> Stored:
    """Of a line that an invoice item made."""
    of_subscription = (item["parent"] or {}).get("subscription_details") or {}
    details = {
        "invoice_item": item["id"],
        "proration": item["proration"],
        "proration_details": {"credited_items": None},
        "subscription": of_subscription.get("subscription"),
    }
    return {"invoice_item_details": details, "subscription_item_details": None, "type": "invoice_item_details"}


def pricing_of(price: Stored) -> Stored:
    """Which price a line is of."""
    details = {"price": price["id"], "product": price["product"]}
    return {"price_details": details, "type": "price_details", "unit_amount_decimal": price["unit_amount_decimal"]}


def shape_line(invoice_id: str, currency: str, parent: Stored, period: tuple[int, int], fields: Stored) -> Stored:
    """A line without an amount."""
    return {
        "id": f"il_{secrets.token_hex(12)}",
        "object": "line_item",
        "amount": 0,
        "currency": currency,
        "description": None,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": parent,
        "period": {"end": period[1], "start": period[0]},
        "pretax_credit_amounts": [],
        "pricing": None,
        "quantity": 0,
        "quantity_decimal": "0",
        "subtotal": 0,
        "taxes": [],
    } | fields


def set_quantity(line: Stored, used: Decimal, price: Stored, product_name: str) -> None:
    """Makes the line bill `used` units. A period whose usage is negative in all is billed as 0 (Stripe's docs,
    recording-usage: negative usage)."""
    quantity = max(used, Decimal(0))
    cents = round_to_cents(quantity * unit_price(price))
    line |= {
        "amount": cents,
        "description": describe(quantity, product_name, price),
        "pricing": pricing_of(price),
        "quantity": int(quantity),  # truncated (docs.stripe.com, changelog 2026-03-25.dahlia)
        "quantity_decimal": plain(quantity),
        "subtotal": cents,
    }


def sum_up(invoice: Stored, lines: list[Stored]) -> None:
    """Sets the lines and what follows from them, before the customer's balance is applied."""
    subtotal = sum(line["amount"] for line in lines)
    applied = [credit for line in lines for credit in line["pretax_credit_amounts"]]
    total = subtotal - sum(credit["amount"] for credit in applied)
    invoice |= {
        "lines": sub_list(lines, f"/v1/invoices/{invoice['id']}/lines"),
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": total,
        "total_excluding_tax": total,
        "total_pretax_credit_amounts": [dict(credit) for credit in applied],
        "amount_due": max(total, 0),
        "amount_paid": 0,
        "amount_remaining": max(total, 0),
    }
