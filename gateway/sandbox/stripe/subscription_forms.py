"""How the Stripe stand-in shapes subscriptions and their items, and reads what they are made of.

Members: stripe-python 16.1, `Subscription` and `SubscriptionItem`. Periods are the items' (docs.stripe.com, changelog
2025-03-31.basil); new subscriptions are flexible (docs.stripe.com, changelog 2025-09-30.clover).
"""

from typing import Any, Final

from gateway.sandbox.stripe.cycles import anchor_of, next_boundary
from gateway.sandbox.stripe.invoice_forms import UNTAXED
from gateway.sandbox.stripe.meters import StripeApiError, whole_number
from gateway.sandbox.stripe.objects import Stored
from gateway.sandbox.stripe.params import check_known, read_choice, read_instant, read_map, require

_ABSENT: Final[dict[str, Any]] = {
    "application": None, "application_fee_percent": None, "automatic_tax": UNTAXED, "billing_schedules": [],
    "billing_thresholds": None, "cancel_at": None, "canceled_at": None, "customer_account": None,
    "default_payment_method": None, "default_source": None, "default_tax_rates": [], "discounts": [], "ended_at": None,
    "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}}, "latest_invoice": None,
    "next_pending_invoice_item_invoice": None, "on_behalf_of": None, "pause_collection": None,
    "payment_settings": {
        "payment_method_options": None, "payment_method_types": None, "save_default_payment_method": "off",
    },
    "pending_invoice_item_interval": None, "pending_setup_intent": None, "pending_update": None, "schedule": None,
    "test_clock": None, "transfer_data": None, "trial_end": None, "trial_settings": None, "trial_start": None,
}  # fmt: skip
_UNITS: Final = ("hour", "minute", "month", "second")


def shape_subscription(fields: Stored) -> Stored:
    """An active subscription; `fields` are what its making decides."""
    details = {"comment": None, "feedback": None, "reason": None}
    return _ABSENT | {"cancellation_details": details, "status": "active"} | fields


def read_billing_mode(form: dict[str, Any]) -> Stored:
    """Flexible unless asked otherwise."""
    given = read_map(form, "billing_mode")
    check_known(given, ("type",))
    kind = read_choice(given, "type", ("classic", "flexible"), "flexible")
    flexible = {"proration_discounts": "included"} if kind == "flexible" else None
    return {"flexible": flexible, "type": kind}


def read_anchor(form: dict[str, Any], price: Stored, now: int) -> tuple[int, Stored | None]:
    """The billing cycle's anchor, and how it was described."""
    given, config = read_instant(form, "billing_cycle_anchor"), read_map(form, "billing_cycle_anchor_config")
    interval, count = price["recurring"]["interval"], price["recurring"]["interval_count"]
    if config:
        if given is not None or interval not in ("month", "year"):
            raise StripeApiError(400, "Invalid billing_cycle_anchor_config.", param="billing_cycle_anchor_config")
        check_known(config, ("day_of_month", *_UNITS))
        require(config, "day_of_month")
        numbers = {name: whole_number(value, name) for name, value in config.items()}
        if not 1 <= numbers["day_of_month"] <= 31 or any(numbers.get(unit, 0) > 59 for unit in _UNITS):
            raise StripeApiError(400, "Invalid billing_cycle_anchor_config.", param="billing_cycle_anchor_config")
        try:
            return anchor_of(numbers, now), numbers | {unit: numbers.get(unit) for unit in _UNITS}
        except ValueError as wrong:
            raise StripeApiError(400, str(wrong), param="billing_cycle_anchor_config") from None
    if given is None:
        return now, None
    if given < now:
        raise StripeApiError(400, "billing_cycle_anchor must be in the future.", param="billing_cycle_anchor")
    if given > next_boundary(now, interval, count, now):
        message = "billing_cycle_anchor cannot be later than next natural billing date"
        raise StripeApiError(400, message, param="billing_cycle_anchor")
    return given, None


def shape_item(subscription_id: str, price: Stored, plan: Stored, period: tuple[int, int], metadata: Stored) -> Stored:
    """An item; a metered one has no quantity."""
    return {
        "billed_until": None,
        "billing_thresholds": None,
        "current_period_end": period[1],
        "current_period_start": period[0],
        "discounts": [],
        "metadata": metadata,
        "plan": plan,
        "price": price,
        "subscription": subscription_id,
        "tax_rates": [],
    }


def end_of_period(subscription: Stored, price: Stored, start: int) -> int:
    """When the period that begins at `start` ends: at the cycle's next boundary, or when the subscription does."""
    config = subscription["billing_cycle_anchor_config"] or {}
    recurring = price["recurring"]
    natural = next_boundary(
        subscription["billing_cycle_anchor"],
        recurring["interval"],
        recurring["interval_count"],
        start,
        day=config.get("day_of_month"),
    )
    return min(natural, subscription["cancel_at"] or natural)
