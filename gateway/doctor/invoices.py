"""Whether Stripe's invoices can be the months of the books: anchors, grace, and whether Stripe tells us anything."""

from typing import Any, Final

from gateway.config.settings import Settings
from gateway.doctor.findings import CheckResult
from gateway.stores.postgres import Pool, Table

GRACE_H: Final = 72
"""The longest that Stripe lets an invoice wait for late usage (Stripe's docs)."""
NAMED_MAX: Final = 5
WEBHOOKS: Final = "gateway stripe setup --webhook-url makes the endpoints; docs/billing.md"

# Subscriptions with our meter whose periods do not begin with a month.
_ANCHORS: Final = """
select distinct customer from public.stripe_subscriptions
where meter = $1 and ended_at is null and removed_at is null and status not in ('canceled', 'incomplete_expired')
  and (anchor at time zone 'UTC') <> date_trunc('month', anchor at time zone 'UTC')
order by customer
"""
# Subscriptions that bill the same usage at the same time: each line of an invoice has all usage of its meter.
_TWICE: Final = """
select customer from public.stripe_subscriptions
where meter = $1 and ended_at is null and removed_at is null and status not in ('canceled', 'incomplete_expired')
group by customer having count(distinct item) > 1 order by customer
"""
_PAUSED: Final = """
select distinct customer from public.stripe_subscriptions
where meter = $1 and ended_at is null and removed_at is null and status = 'paused' order by customer
"""
_KNOWN: Final = """
select exists (select from public.stripe_subscriptions) as is_synced,
  exists (select from public.webhook_inbox where source = 'stripe') as is_told,
  exists (select from public.users where stripe_customer_id is not null) as is_billed
"""
_OF_CUSTOMERS: Final = (
    (
        _ANCHORS,
        "periods that do not begin on the first of a month, 00:00 UTC",
        "their invoices are not the months of the books; set billing_cycle_anchor_config when subscribing",
    ),
    (
        _TWICE,
        "two subscription items with our meter, which both bill all usage",
        "the customer is charged twice: remove one of the items at Stripe",
    ),
    (
        _PAUSED,
        "subscriptions that are paused, for which Stripe makes no invoice",
        "what is reported meanwhile is on no invoice: resume them at Stripe, or unlink the users",
    ),
)
"""What is wrong with whose subscriptions, and what to do."""


class InvoiceFacts(Table):
    """All methods raise DependencyDown("postgres")."""

    async def customers(self, query: str, meter: str) -> list[str]:
        """Whom a query finds."""
        return [row["customer"] for row in await self._rows(query, meter)]

    async def known(self) -> Any:
        """Whether subscriptions were read, a webhook has come, and anybody is billed."""
        (row,) = await self._rows(_KNOWN)
        return row


async def check_invoices(settings: Settings, pool: Pool) -> list[CheckResult]:
    """What makes usage late for its invoice, or leaves us without news of it. Only where somebody is billed."""
    facts = InvoiceFacts(pool)
    known = await facts.known()
    if not known["is_billed"]:
        return []
    found = []
    if settings.stripe_webhook_secret is None:
        says = "STRIPE_WEBHOOK_SECRET is not set: events that Stripe did not count, and invoices, are not told"
        found.append(CheckResult("stripe", "warn", says, WEBHOOKS))
    elif not known["is_told"]:
        says = "no webhook has come yet"
        found.append(CheckResult("stripe", "warn", says, WEBHOOKS))
    if not known["is_synced"]:
        says = "no subscription is known here, so periods are taken for calendar months"
        found.append(CheckResult("stripe", "warn", says, "gateway stripe sync"))
    for query, says, fix in _OF_CUSTOMERS:
        if customers := await facts.customers(query, settings.billing.meter_event_name):
            more = f" and {len(customers) - NAMED_MAX} more" if len(customers) > NAMED_MAX else ""
            found.append(CheckResult("stripe", "warn", f"{says}: {', '.join(customers[:NAMED_MAX])}{more}", fix))
    if settings.billing.invoice_grace_h < GRACE_H:
        says = f"billing.invoice_grace_h is {settings.billing.invoice_grace_h}: later usage is on the next invoice"
        fix = f"{GRACE_H} hours, at Stripe (Billing, Invoices, finalization grace period) and here"
        found.append(CheckResult("stripe", "warn", says, fix))
    return found
