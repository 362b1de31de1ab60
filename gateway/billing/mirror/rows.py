"""What is kept of Stripe's objects. Pure.

Amounts are in the currency's smallest unit, as Stripe has them; all instants are UTC.
"""

from datetime import datetime
from typing import NamedTuple


class StripeCustomer(NamedTuple):
    """A row of `stripe_customers`."""

    id: str
    is_deleted: bool
    currency: str | None
    is_live: bool | None


class SubscriptionItem(NamedTuple):
    """A row of `stripe_subscriptions`: an item in its present period."""

    item: str
    id: str
    """The subscription."""
    customer: str
    price: str
    meter: str | None
    """The event name of the price's meter."""
    meter_id: str | None
    currency: str
    status: str
    started_at: datetime
    anchor: datetime
    period_start: datetime
    period_end: datetime
    cancel_at: datetime | None
    ended_at: datetime | None
    is_live: bool


class InvoiceLine(NamedTuple):
    """A line, as `stripe_invoices.lines` has it."""

    id: str
    amount: int
    """Before credit grants and tax."""
    currency: str
    quantity: str | None
    """Exact, without an exponent."""
    description: str | None
    item: str | None
    """The subscription's item; None: the line bills no usage."""
    price: str | None
    meter: str | None
    since: datetime
    until: datetime
    credited: int
    """By credit grants and other credit before tax."""


class Invoice(NamedTuple):
    """A row of `stripe_invoices`."""

    id: str
    number: str | None
    customer: str
    subscription: str | None
    status: str
    currency: str
    billing_reason: str | None
    period_start: datetime
    period_end: datetime
    subtotal: int
    total: int
    credited: int
    """By credit notes."""
    created_at: datetime
    finalized_at: datetime | None
    lines: tuple[InvoiceLine, ...]
    is_live: bool


class CreditGrant(NamedTuple):
    """A row of `stripe_credit_grants`."""

    id: str
    customer: str
    category: str
    currency: str
    amount: int
    available: int | None
    effective_at: datetime | None
    expires_at: datetime | None
    voided_at: datetime | None
    created_at: datetime
    is_live: bool
