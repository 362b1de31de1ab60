"""Subscriptions of the Stripe stand-in to metered prices: made, changed, cancelled. cycle.py bills them.

stripe-python 16.1, `SubscriptionCreateParams`, `SubscriptionUpdateParams`, `SubscriptionCancelParams`.
"""

from typing import Any, Final

from gateway.sandbox.stripe.catalog import Catalog
from gateway.sandbox.stripe.customers import Customers
from gateway.sandbox.stripe.cycle import PERIOD_END, Cycle
from gateway.sandbox.stripe.invoices import COLLECTIONS, subscription_of
from gateway.sandbox.stripe.meters import StripeApiError, list_page, whole_number
from gateway.sandbox.stripe.objects import Account, Stored, sub_list
from gateway.sandbox.stripe.params import (
    check_known,
    in_range,
    read_choice,
    read_flag,
    read_instant,
    read_list,
    read_map,
    read_metadata,
    require,
)
from gateway.sandbox.stripe.subscription_forms import (
    end_of_period,
    read_anchor,
    read_billing_mode,
    shape_item,
    shape_subscription,
)

KIND: Final = "subscription"
ENDED: Final = ("canceled",)
_COMMON: Final = frozenset(
    {
        "items", "metadata", "description", "collection_method", "days_until_due", "cancel_at", "cancel_at_period_end",
        "proration_behavior", "payment_behavior", "off_session",
    }
)  # fmt: skip
_NEW: Final = _COMMON | {"customer", "currency", "billing_cycle_anchor", "billing_cycle_anchor_config", "billing_mode"}
_CHANGES: Final = _COMMON | {"billing_cycle_anchor", "cancellation_details"}
_PRORATIONS: Final = ("create_prorations", "always_invoice", "none")


class Subscriptions:
    """All subscriptions."""

    def __init__(self, account: Account, customers: Customers, catalog: Catalog, cycle: Cycle) -> None:
        self._account: Final = account
        self._customers: Final = customers
        self._catalog: Final = catalog
        self._cycle: Final = cycle
        account.listeners.append(self._follow_payment)

    def create(self, form: dict[str, Any]) -> Stored:
        """POST /v1/subscriptions."""
        check_known(form, _NEW)
        customer = self._customers.get(str(require(form, "customer")))
        if customer.get("deleted"):
            raise StripeApiError(400, f"No such customer: '{customer['id']}'", code="resource_missing")
        prices = [self._price(item) for item in read_list(form, "items")]
        if not prices:
            raise StripeApiError(400, "Missing required param: items.", code="parameter_missing", param="items")
        _check_together(prices)
        now = self._account.now()
        anchor, config = read_anchor(form, prices[0], now)
        fields = self._fields(form, {}) | {
            "billing_cycle_anchor": anchor,
            "billing_cycle_anchor_config": config,
            "billing_mode": read_billing_mode(form),
            "currency": prices[0]["currency"],
            "customer": customer["id"],
            "start_date": now,
        }
        made = self._account.add(KIND, "sub", shape_subscription(fields))
        # docs.stripe.com, customers: the first subscription settles the currency.
        customer["currency"] = customer.get("currency") or fields["currency"]
        self._end_as_asked(made, form)
        end = end_of_period(made, prices[0], now)
        items = [
            self._add_item(made, price, (now, end), read_metadata(item, {}))
            for price, item in zip(prices, read_list(form, "items"), strict=True)
        ]
        made["items"] = sub_list(items, f"/v1/subscription_items?subscription={made['id']}")
        self._end_as_asked(made, form)
        if (
            end > now
            and anchor == end
            and read_choice(form, "proration_behavior", _PRORATIONS, _PRORATIONS[0]) == "none"
        ):
            self._cycle.free_stub(made)
        self._account.tell("customer.subscription.created", made)
        self._account.agenda.plan(end, PERIOD_END, made["id"])
        self._cycle.open_first_invoice(made)
        return made

    def update(self, subscription_id: str, form: dict[str, Any]) -> Stored:
        """POST /v1/subscriptions/{id}."""
        check_known(form, _CHANGES)
        found = self._running(subscription_id)
        prorates = read_choice(form, "proration_behavior", _PRORATIONS, _PRORATIONS[0])
        before = dict(found) | {"items": dict(found["items"]) | {"data": [dict(i) for i in found["items"]["data"]]}}
        found |= self._fields(form, found)
        for item in read_list(form, "items"):
            self._change_item(found, item, bills_rest=prorates != "none")
        self._end_as_asked(found, form)
        if _wants_reset(form):
            self._cycle.reset_anchor(found)
        else:
            self._replan(found)
        changed = {name: before.get(name) for name in found if before.get(name) != found[name]}
        if changed:
            self._account.tell("customer.subscription.updated", found, changed)
        if prorates == "always_invoice":
            self._cycle.invoice_pending(found)
        return found

    def cancel(self, subscription_id: str, form: dict[str, Any]) -> Stored:
        """DELETE /v1/subscriptions/{id}: at once. The period's usage is dropped unless `invoice_now` bills it, or
        `prorate` leaves it for the customer's next invoice (docs.stripe.com, cancel; billing-mode/compare)."""
        check_known(form, ("invoice_now", "prorate", "cancellation_details"))
        found = self._running(subscription_id)
        found["cancellation_details"] |= read_map(form, "cancellation_details")
        found["cancellation_details"]["reason"] = "cancellation_requested"
        if read_flag(form, "invoice_now", False):
            self._cycle.invoice_rest(found)
        elif read_flag(form, "prorate", False):
            for item in found["items"]["data"]:
                self._cycle.bill_rest_of(found, item)
        self._cycle.end(found)
        return found

    def cancel_all_of(self, customer_id: str) -> None:
        """Deleting a customer cancels at once what it has (stripe-python 16.1, `CustomerService.delete`)."""
        for one in self._account.all(KIND):
            if one["customer"] == customer_id and one["status"] not in ENDED:
                self._cycle.end(one)

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/subscriptions, newest first: without `status`, all but the cancelled."""
        status, price = query.get("status"), query.get("price")
        found = [
            one
            for one in self._account.all(KIND)
            if query.get("customer") in (None, one["customer"])
            and _has_status(one["status"], status)
            and (price is None or any(item["price"]["id"] == price for item in one["items"]["data"]))
            and query.get("collection_method") in (None, one["collection_method"])
            and in_range(query, "created", one["created"])
            and all(
                in_range(query, name, one["items"]["data"][0][name])
                for name in ("current_period_start", "current_period_end")
            )
        ]
        return list_page(found, query, "/v1/subscriptions")

    def get_item(self, item_id: str) -> Stored:
        """GET /v1/subscription_items/{id}."""
        return self._account.get("subscription_item", item_id)

    def list_items(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/subscription_items."""
        of = self._account.get(KIND, str(require(query, "subscription")), param="subscription")
        return list_page(of["items"]["data"], query, "/v1/subscription_items")

    def _fields(self, form: dict[str, Any], before: Stored) -> Stored:
        """The plain members that a request may set."""
        collection = read_choice(
            form, "collection_method", COLLECTIONS, before.get("collection_method", COLLECTIONS[0])
        )
        days = form.get("days_until_due", before.get("days_until_due"))
        if collection == "send_invoice" and days is None:
            message = "Missing required param: days_until_due."
            raise StripeApiError(400, message, code="parameter_missing", param="days_until_due")
        return {
            "cancel_at_period_end": read_flag(form, "cancel_at_period_end", before.get("cancel_at_period_end", False)),
            "collection_method": collection,
            "days_until_due": None if days is None else whole_number(str(days), "days_until_due"),
            "description": form.get("description", before.get("description")),
            "metadata": read_metadata(form, before.get("metadata", {})),
        }

    def _end_as_asked(self, subscription: Stored, form: dict[str, Any]) -> None:
        """Sets when it will be cancelled. With `cancel_at_period_end`, `cancel_at` follows the period's end."""
        now = self._account.now()
        items = (subscription.get("items") or {}).get("data", [])
        if form.get("cancel_at") == "":
            subscription |= {"cancel_at": None, "canceled_at": None}
        elif form.get("cancel_at"):
            at = read_instant(form, "cancel_at")
            if at is None or at <= now:
                raise StripeApiError(400, "cancel_at must be in the future.", param="cancel_at")
            subscription |= {"cancel_at": at, "canceled_at": now}
        if "cancel_at_period_end" in form and items:
            ends = subscription["cancel_at_period_end"]
            at = items[0]["current_period_end"] if ends else None
            subscription |= {"cancel_at": at, "canceled_at": now if ends else None}

    def _replan(self, subscription: Stored) -> None:
        """The present period ends earlier, or again when it would have, when the end has been changed."""
        items = subscription["items"]["data"]
        if not items:
            return
        end = end_of_period(subscription, items[0]["price"], items[0]["current_period_start"])
        if end != items[0]["current_period_end"]:
            for item in items:
                item["current_period_end"] = end
            self._account.agenda.plan(end, PERIOD_END, subscription["id"])

    def _change_item(self, subscription: Stored, form: Any, *, bills_rest: bool) -> None:
        if not isinstance(form, dict):
            raise StripeApiError(400, "Invalid items: a map is expected.", param="items")
        items = subscription["items"]["data"]
        known = {item["id"]: item for item in items}
        if form.get("id") is None:
            price = self._price(form)
            _check_together([price, *(item["price"] for item in items)])
            period = (self._account.now(), items[0]["current_period_end"])
            items.append(self._add_item(subscription, price, period, read_metadata(form, {})))
        elif form["id"] not in known:
            message = f"No such subscription item: '{form['id']}'"
            raise StripeApiError(400, message, code="resource_missing", param="items[0][id]")
        elif read_flag(form, "deleted", False):
            if len(items) == 1:
                raise StripeApiError(400, "A subscription must have at least one active plan.", param="items")
            if bills_rest and subscription["billing_mode"]["type"] == "flexible":
                self._cycle.bill_rest_of(subscription, known[form["id"]])
            items.remove(known[form["id"]])
            del self._account.kinds["subscription_item"][form["id"]]
        elif form.get("price"):
            price, item = self._price({"price": form["price"]}), known[form["id"]]
            _check_together([price, *(other["price"] for other in items if other is not item)])
            item |= {"price": dict(price), "plan": self._catalog.plan_of(price)}
            self._cycle.lines.change_price(item["id"], price["id"])
        subscription["items"]["total_count"] = len(items)

    def _add_item(self, subscription: Stored, price: Stored, period: tuple[int, int], metadata: Stored) -> Stored:
        shape = shape_item(subscription["id"], dict(price), self._catalog.plan_of(price), period, metadata)
        item = self._account.add("subscription_item", "si", shape)
        del item["livemode"]
        self._cycle.lines.begin_period(item)
        return item

    def _price(self, form: Any) -> Stored:
        if not isinstance(form, dict):
            raise StripeApiError(400, "Invalid items: a map is expected.", param="items")
        check_known(form, ("price", "metadata"))
        price = self._account.get("price", str(require(form, "price")), param="items[0][price]")
        if price["recurring"] is None:
            message = "The price specified is set to `type=one_time` but this field only accepts `type=recurring`."
            raise StripeApiError(400, message, param="items[0][price]")
        if not price["active"]:
            raise StripeApiError(400, "The price specified is inactive.", code="price_inactive")
        return price

    def _running(self, subscription_id: str) -> Stored:
        found = self._account.get(KIND, subscription_id)
        if found["status"] in ENDED:
            raise StripeApiError(404, f"No such subscription: '{subscription_id}'", code="resource_missing", param="id")
        return found

    def _follow_payment(self, event_type: str, invoice: Stored, _: Stored | None) -> None:
        """past_due while an invoice of its own could not be charged, active again when that is paid."""
        if event_type not in ("invoice.payment_failed", "invoice.paid", "invoice.voided"):
            return
        found = self._account.kinds.get(KIND, {}).get(subscription_of(invoice) or "")
        is_ours = found is not None and found["status"] not in ENDED
        if found is not None and is_ours and (event_type == "invoice.payment_failed" or found["status"] != "active"):
            failed = [
                one
                for one in self._account.all("invoice")
                if subscription_of(one) == found["id"] and one["status"] == "open" and one["attempted"]
            ]
            fields = {"status": "past_due" if failed else "active"}
            self._account.change(found, "customer.subscription.updated", fields)


def _check_together(prices: list[Stored]) -> None:
    """Of one interval and currency, and each price once. Stripe allows mixed intervals in flexible mode; not here."""
    if len({price["id"] for price in prices}) != len(prices):
        raise StripeApiError(400, "Cannot add multiple subscription items with the same price.", param="items")
    if len({(one["recurring"]["interval"], one["recurring"]["interval_count"]) for one in prices}) > 1:
        raise StripeApiError(400, "The sandbox does not mix billing intervals.", param="items")
    if len({price["currency"] for price in prices}) > 1:
        raise StripeApiError(400, "All prices on a subscription must have the same currency.", param="items")


def _has_status(status: str, wanted: str | None) -> bool:
    if wanted == "all":
        return True
    return status not in ENDED if wanted is None else status == {"ended": "canceled"}.get(wanted, wanted)


def _wants_reset(form: dict[str, Any]) -> bool:
    """stripe-python 16.1: `billing_cycle_anchor[type]`; API versions before it had the word alone."""
    given = form.get("billing_cycle_anchor", "unchanged")
    kind = given.get("type") if isinstance(given, dict) else given
    if kind not in ("now", "unchanged"):
        raise StripeApiError(400, "Invalid billing_cycle_anchor: now or unchanged.", param="billing_cycle_anchor")
    return bool(kind == "now")
