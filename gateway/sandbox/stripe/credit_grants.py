"""Billing credit grants of the Stripe stand-in: what a customer may use up before it pays.

docs.stripe.com, billing-credits: monetary only; for lines of metered prices of a subscription; applied when an invoice
is finalised; in order of priority, expiry, promotional before paid, instant of effect, creation; at most 100 unused
grants for a customer; what a voided invoice used comes back. Members: stripe-python 16.1, `billing.CreditGrant`,
`CreditBalanceSummary`, `CreditBalanceTransaction`.
"""

from typing import Any, Final

from gateway.sandbox.stripe.customers import Customers
from gateway.sandbox.stripe.meters import StripeApiError, list_page, whole_number
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import (
    check_known,
    read_choice,
    read_instant,
    read_list,
    read_map,
    read_metadata,
    require,
)

GRANT: Final = "billing.credit_grant"
TRANSACTION: Final = "billing.credit_balance_transaction"
EXPIRE: Final = "expire_credit"
UNUSED_MAX: Final = 100
_LEFT: Final = "sandbox.credit_left"
_NEW: Final = frozenset(
    {"customer", "amount", "applicability_config", "category", "effective_at", "expires_at", "priority", "name",
     "metadata"}
)  # fmt: skip


class CreditGrants:
    """All grants, what is left of each, and every movement."""

    def __init__(self, account: Account, customers: Customers) -> None:
        self._account: Final = account
        self._customers: Final = customers

    def create(self, form: dict[str, Any]) -> Stored:
        """POST /v1/billing/credit_grants."""
        check_known(form, _NEW)
        customer_id, now = str(require(form, "customer")), self._account.now()
        if self._customers.get(customer_id).get("deleted"):
            raise StripeApiError(400, f"No such customer: '{customer_id}'", code="resource_missing", param="customer")
        if sum(1 for one in self._of(customer_id) if self._left(one) > 0) >= UNUSED_MAX:
            raise StripeApiError(400, f"A customer can have {UNUSED_MAX} unused credit grants at most.")
        amount = read_map(form, "amount")
        read_choice(amount, "type", ("monetary",), "")
        monetary = read_map(amount, "monetary")
        cents = whole_number(require(monetary, "value"), "amount[monetary][value]")
        effective, expires = read_instant(form, "effective_at") or now, read_instant(form, "expires_at")
        if cents == 0 or (expires is not None and expires <= max(now, effective)):
            raise StripeApiError(400, "Invalid amount or expires_at.", param="expires_at" if cents else "amount")
        priority = whole_number(form.get("priority", "50"), "priority")
        if priority > 100:
            raise StripeApiError(400, "Invalid priority: 0 to 100.", param="priority")
        worth = {"monetary": {"currency": str(require(monetary, "currency")).lower(), "value": cents}}
        made = self._account.add(
            GRANT,
            "credgr",
            {
                "amount": worth | {"type": "monetary"},
                "applicability_config": {"scope": self._scope(form)},
                "category": read_choice(form, "category", ("paid", "promotional"), "paid"),
                "customer": customer_id,
                "customer_account": None,
                "effective_at": effective,
                "expires_at": expires,
                "metadata": read_metadata(form, {}),
                "name": form.get("name"),
                "priority": priority,
                "test_clock": None,
                "updated": now,
                "voided_at": None,
            },
        )
        self._account.kinds.setdefault(_LEFT, {})[made["id"]] = {"id": made["id"], "cents": cents}
        self._plan_expiry(made)
        self._account.tell("billing.credit_grant.created", made)
        self._write(made, "credit", cents, {"credits_application_invoice_voided": None, "type": "credits_granted"})
        return made

    def update(self, grant_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/billing/credit_grants/{id}."""
        check_known(form, ("expires_at", "metadata"))
        found = self._account.get(GRANT, grant_id)
        fields: Stored = {"metadata": read_metadata(form, found["metadata"])}
        if "expires_at" in form:
            fields["expires_at"] = read_instant(form, "expires_at")
        self._change(found, fields)
        self._plan_expiry(found)
        return found

    def expire(self, grant_id: str) -> Stored:
        """POST /v1/billing/credit_grants/{id}/expire: what is left is lost."""
        found = self._unended(grant_id)
        self._drop(found, "credits_expired")
        return self._change(found, {"expires_at": self._account.now()})

    def void(self, grant_id: str) -> Stored:
        """POST /v1/billing/credit_grants/{id}/void."""
        found = self._unended(grant_id)
        self._drop(found, "credits_voided")
        return self._change(found, {"voided_at": self._account.now()})

    def expire_due(self, grant_id: str, at: int) -> None:
        """The grant expires at this instant, unless that has been changed."""
        found = self._account.kinds[GRANT][grant_id]
        if found["expires_at"] == at and found["voided_at"] is None:
            self._drop(found, "credits_expired")
            self._account.tell("billing.credit_grant.updated", found)

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/billing/credit_grants."""
        customer = query.get("customer")
        found = [one for one in self._account.all(GRANT) if customer in (None, one["customer"])]
        return list_page(found, query, "/v1/billing/credit_grants")

    def list_transactions(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/billing/credit_balance_transactions."""
        customer, grant = query.get("customer"), query.get("credit_grant")
        owner = {one["id"]: one["customer"] for one in self._account.all(GRANT)}
        found = [
            one
            for one in self._account.all(TRANSACTION)
            if grant in (None, one["credit_grant"]) and customer in (None, owner[one["credit_grant"]])
        ]
        return list_page(found, query, "/v1/billing/credit_balance_transactions")

    def summary(self, query: dict[str, Any]) -> Stored:
        """GET /v1/billing/credit_balance_summary: what is left that the filter names, by currency."""
        customer_id, wanted = str(require(query, "customer")), read_map(query, "filter")
        self._customers.get(customer_id)
        kind = read_choice(wanted, "type", ("applicability_scope", "credit_grant"), "")
        grants = [one for one in self._of(customer_id) if self._is_usable(one)]
        if kind == "credit_grant":
            grants = [one for one in grants if one["id"] == require(wanted, "credit_grant")]
        else:
            prices = {one["id"] for one in read_list(read_map(wanted, "applicability_scope"), "prices")}
            grants = [one for one in grants if not prices or prices & _prices(one) or not _prices(one)]
        sums: dict[str, int] = {}
        for one in grants:
            currency = one["amount"]["monetary"]["currency"]
            sums[currency] = sums.get(currency, 0) + self._left(one)
        return {
            "object": "billing.credit_balance_summary",
            "balances": [
                {"available_balance": _monetary(cents, currency), "ledger_balance": _monetary(cents, currency)}
                for currency, cents in sums.items()
            ],
            "customer": customer_id,
            "customer_account": None,
            "livemode": False,
        }

    def apply(self, invoice: Stored, lines: list[Stored]) -> None:
        """Uses up credit for what the lines of metered prices come to; called as the invoice is finalised."""
        grants = sorted((one for one in self._of(invoice["customer"]) if self._is_usable(one)), key=_order)
        for line in lines:
            rest = line["amount"] if line["parent"]["type"] == "subscription_item_details" else 0
            for grant in grants:
                price = line["pricing"]["price_details"]["price"] if rest > 0 else None
                fits = grant["amount"]["monetary"]["currency"] == line["currency"]
                used = min(rest, self._left(grant)) if fits and _covers(grant, price) else 0
                if used > 0:
                    about = {"invoice": invoice["id"], "invoice_line_item": line["id"]}
                    made = self._write(grant, "debit", used, {"credits_applied": about, "type": "credits_applied"})
                    self._account.kinds[_LEFT][grant["id"]]["cents"] -= used
                    line["pretax_credit_amounts"].append(
                        {
                            "amount": used,
                            "credit_balance_transaction": made["id"],
                            "discount": None,
                            "type": "credit_balance_transaction",
                        }
                    )
                    rest -= used

    def reinstate(self, invoice: Stored) -> None:
        """Gives back what a voided invoice used."""
        for line in invoice["lines"]["data"]:
            for used in line["pretax_credit_amounts"]:
                debit = self._account.get(TRANSACTION, used["credit_balance_transaction"])
                grant = self._account.get(GRANT, debit["credit_grant"])
                about = {"invoice": invoice["id"], "invoice_line_item": line["id"]}
                kind = "credits_application_invoice_voided"
                self._write(grant, "credit", used["amount"], {kind: about, "type": kind})
                self._account.kinds[_LEFT][grant["id"]]["cents"] += used["amount"]

    def _scope(self, form: dict[str, Any]) -> Stored:
        scope = read_map(read_map(form, "applicability_config"), "scope")
        prices = [str(one["id"]) for one in read_list(scope, "prices") if isinstance(one, dict) and "id" in one]
        if (scope.get("price_type") == "metered") == bool(prices) or len(prices) > 20:
            message = "Either price_type=metered or up to 20 prices are expected."
            raise StripeApiError(400, message, param="applicability_config[scope]")
        for price_id in prices:
            self._account.get("price", price_id, param="applicability_config[scope][prices]")
        return {"prices": [{"id": price_id} for price_id in prices]} if prices else {"price_type": "metered"}

    def _plan_expiry(self, grant: Stored) -> None:
        if grant["expires_at"] is not None:
            self._account.agenda.plan(grant["expires_at"], EXPIRE, grant["id"])

    def _unended(self, grant_id: str) -> Stored:
        found = self._account.get(GRANT, grant_id)
        if found["voided_at"] is not None or (found["expires_at"] or self._account.now() + 1) <= self._account.now():
            raise StripeApiError(400, "The credit grant has ended already.")
        return found

    def _drop(self, grant: Stored, kind: str) -> None:
        left = self._left(grant)
        if left > 0:
            self._write(grant, "debit", left, {"credits_applied": None, "type": kind})
            self._account.kinds[_LEFT][grant["id"]]["cents"] = 0

    def _change(self, grant: Stored, fields: Stored) -> Stored:
        return self._account.change(grant, "billing.credit_grant.updated", fields | {"updated": self._account.now()})

    def _write(self, grant: Stored, side: str, cents: int, fields: Stored) -> Stored:
        amount = _monetary(cents, grant["amount"]["monetary"]["currency"])
        shape: Stored = {"credit": None, "debit": None, side: {"amount": amount} | fields, "type": side}
        shape |= {"credit_grant": grant["id"], "effective_at": self._account.now(), "test_clock": None}
        made = self._account.add(TRANSACTION, "cbtxn", shape)
        self._account.tell("billing.credit_balance_transaction.created", made)
        return made

    def _of(self, customer_id: str) -> list[Stored]:
        return [one for one in self._account.all(GRANT) if one["customer"] == customer_id]

    def _left(self, grant: Stored) -> int:
        return int(self._account.kinds[_LEFT][grant["id"]]["cents"])

    def _is_usable(self, grant: Stored) -> bool:
        now = self._account.now()
        is_on = grant["effective_at"] <= now and (grant["expires_at"] or now + 1) > now
        return is_on and grant["voided_at"] is None


def _monetary(cents: int, currency: str) -> Stored:
    return {"monetary": {"currency": currency, "value": cents}, "type": "monetary"}


def _prices(grant: Stored) -> set[str]:
    return {one["id"] for one in grant["applicability_config"]["scope"].get("prices", [])}


def _covers(grant: Stored, price_id: str | None) -> bool:
    return price_id is not None and (not _prices(grant) or price_id in _prices(grant))


def _order(grant: Stored) -> tuple[int, bool, int, bool, int, int]:
    expires = grant["expires_at"]
    is_paid = grant["category"] == "paid"
    return grant["priority"], expires is None, expires or 0, is_paid, grant["effective_at"], grant["created"]
