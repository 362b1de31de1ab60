"""Customer balances: what is owed from, or kept for, invoices; negative is a credit of the customer's.

stripe-python 16.1, `CustomerBalanceTransaction` and `Customer.balance`.
"""

from typing import Any, Final

from gateway.sandbox.stripe.customers import Customers
from gateway.sandbox.stripe.meters import StripeApiError, list_page, missing
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import check_known, read_metadata, read_signed, require

KIND: Final = "customer_balance_transaction"


class Balances:
    """The balance of each customer and its transactions."""

    def __init__(self, account: Account, customers: Customers) -> None:
        self._account: Final = account
        self._customers: Final = customers

    def of(self, customer_id: str) -> int:
        """In cents."""
        return int(self._customers.all[customer_id].get("balance", 0))

    def move(
        self, customer_id: str, cents: int, kind: str, invoice: Stored | None, fields: Stored | None = None
    ) -> Stored | None:
        """Adds to the balance, and writes it down; nothing when there is nothing to add or nobody to owe it."""
        customer = self._customers.all[customer_id]
        if cents == 0 or customer.get("deleted"):
            return None
        balance = self.of(customer_id) + cents
        made = self._account.add(
            KIND,
            "cbtxn",
            {
                "amount": cents,
                "checkout_session": None,
                "credit_note": None,
                "currency": "usd" if invoice is None else invoice["currency"],
                "customer": customer_id,
                "description": None,
                "ending_balance": balance,
                "invoice": None if invoice is None else invoice["id"],
                "metadata": {},
                "type": kind,
            }
            | (fields or {}),
        )
        self._account.change(customer, "customer.updated", {"balance": balance})
        return made

    def create(self, customer_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/customers/{id}/balance_transactions: an adjustment by hand."""
        check_known(form, ("amount", "currency", "description", "metadata"))
        if self._customers.get(customer_id).get("deleted"):
            raise missing("customer", customer_id)
        require(form, "amount")
        fields = {"currency": str(require(form, "currency")).lower(), "description": form.get("description")}
        fields |= {"metadata": read_metadata(form, {})}
        made = self.move(customer_id, read_signed(form, "amount") or 0, "adjustment", None, fields)
        if made is None:
            raise StripeApiError(400, "Invalid amount: must not be 0.", param="amount")
        return made

    def get(self, customer_id: str, transaction_id: str) -> Stored:
        """GET /v1/customers/{id}/balance_transactions/{transaction}."""
        found = self._account.get(KIND, transaction_id)
        if found["customer"] != customer_id:
            raise missing(KIND, transaction_id)
        return found

    def list_all(self, customer_id: str, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/customers/{id}/balance_transactions."""
        self._customers.get(customer_id)
        found = [
            one
            for one in self._account.all(KIND)
            if one["customer"] == customer_id and query.get("invoice") in (None, one["invoice"])
        ]
        return list_page(found, query, f"/v1/customers/{customer_id}/balance_transactions")
