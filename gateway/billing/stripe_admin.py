"""What `gateway stripe` does at Stripe and with what Stripe has."""

from contextlib import AsyncExitStack
from datetime import datetime
from typing import NamedTuple

from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.refresh import Mirror, MirrorSynced
from gateway.billing.mirror.store import MirrorStore
from gateway.billing.opening import open_billing
from gateway.billing.setup import Prepared, prepare
from gateway.billing.setup_webhooks import WantedWebhooks, refuse_printed_answers
from gateway.billing.stripe import Billing
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.config.settings import Settings, require_values
from gateway.stores.one_connection import database
from gateway.trail.record import intending
from gateway.trail.store import Deed

_WHY = "what Stripe has is kept in PostgreSQL"


class SyncResult(NamedTuple):
    """What a sync has done."""

    synced: MirrorSynced
    retried: int
    """Webhooks that had failed, and are tried again."""


async def set_up(settings: Settings, *, dry_run: bool, webhooks: WantedWebhooks | None = None) -> Prepared:
    """Meter, product and price, and the webhooks that are wanted. Raises ConfigError, DependencyDown."""
    name = settings.billing.meter_event_name
    if webhooks is not None:
        refuse_printed_answers()
    async with AsyncExitStack() as stack:
        billing = await _open(stack, settings)
        if dry_run:
            return await prepare(billing, name, dry_run=True, webhooks=webhooks)
        async with intending(settings, Deed("setup", "stripe", name)) as intent:
            done = await prepare(billing, name, dry_run=False, webhooks=webhooks)
            intent.learn({"made": list(done.made), "meter": done.meter_id, "price": done.price_id})
            return done


async def sync(settings: Settings, since: datetime) -> SyncResult:
    """Reads what webhooks may have missed. Raises ConfigError, DependencyDown."""
    async with AsyncExitStack() as stack:
        billing = await _open(stack, settings)
        pool = await stack.enter_async_context(database(settings, _WHY))
        async with intending(settings, Deed("sync", "stripe", since.date().isoformat())) as intent:
            synced = await Mirror(StripeReader(billing), MirrorStore(pool)).sync(since)
            retried = await StripeInbox(pool).retry_failed()
            intent.learn({**synced._asdict(), "retried": retried})
        return SyncResult(synced, retried)


async def _open(stack: AsyncExitStack, settings: Settings) -> Billing:
    return await open_billing(stack, settings, require_values(settings, "stripe_secret_key")["stripe_secret_key"])
