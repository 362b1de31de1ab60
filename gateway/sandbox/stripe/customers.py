"""Customers of the Stripe stand-in, deleted ones and those of the other mode too.

A key sees the customers of its own mode only. How Stripe says that another mode has one: stripe/stripe-node issue 149,
woocommerce/woocommerce-gateway-stripe issue 3109.
"""

import secrets
from typing import Any, Final

from gateway.sandbox.stripe.meters import list_page, missing

LIVEMODE: Final = False
"""The mode of the stand-in's key, which begins with sk_test_."""
TEXTS: Final = ("email", "name", "description")


class Customers:
    """Everything that Stripe knows about customers."""

    def __init__(self) -> None:
        self.all: Final[dict[str, dict[str, Any]]] = {}

    def add(self, now: int, form: dict[str, Any], *, customer_id: str | None = None, livemode: bool = LIVEMODE) -> str:
        """Makes a customer, as a fixture with an id and a mode of one's own, and returns the id."""
        made_id = customer_id or f"cus_{secrets.token_hex(7)}"
        customer = {"id": made_id, "object": "customer", "created": now, "livemode": livemode}
        customer |= {name: form.get(name) for name in TEXTS} | {"currency": form.get("currency")}
        # What an invoice of the customer needs (stripe-python 16.1, `Customer`).
        customer |= {"balance": 0, "invoice_prefix": secrets.token_hex(4).upper(), "next_invoice_sequence": 1}
        self.all[made_id] = customer | {"metadata": form.get("metadata") or {}}
        return made_id

    def get(self, customer_id: str) -> dict[str, Any]:
        """GET /v1/customers/{id}; of a deleted one only that it is deleted. Raises StripeApiError (404)."""
        found = self.all.get(customer_id)
        if found is None:
            raise missing("customer", customer_id)
        if not found.get("deleted") and found["livemode"] != LIVEMODE:
            modes = ("live", "test") if found["livemode"] else ("test", "live")
            hint = (
                f"a similar object exists in {modes[0]} mode, but a {modes[1]} mode key was used to make this request."
            )
            raise missing("customer", customer_id, f"; {hint}")
        return found

    def delete(self, customer_id: str) -> dict[str, Any]:
        """DELETE /v1/customers/{id}: for good. Raises StripeApiError (404)."""
        if self.get(customer_id).get("deleted"):
            raise missing("customer", customer_id)
        self.all[customer_id] = {"id": customer_id, "object": "customer", "deleted": True}
        return self.all[customer_id]

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/customers, newest first; `email` must match to the letter."""
        found = [one for one in self.all.values() if not one.get("deleted") and one["livemode"] == LIVEMODE]
        found = [one for one in found if query.get("email") in (None, one["email"])]
        return list_page(found[::-1], query, "/v1/customers")

    def is_counted(self, customer_id: str) -> bool:
        """Whether usage of this customer is counted."""
        found = self.all.get(customer_id)
        return found is not None and not found.get("deleted") and found["livemode"] == LIVEMODE
