"""Puts the worker's part of Stripe's webhooks together."""

from gateway.billing.mirror.read import StripeReader
from gateway.billing.mirror.refresh import Mirror
from gateway.billing.mirror.store import MirrorStore
from gateway.billing.stripe import Billing
from gateway.billing.webhooks.inbox import StripeInbox
from gateway.billing.webhooks.notice_store import NoticeStore
from gateway.billing.webhooks.recheck import HourRecheck
from gateway.billing.webhooks.worker import StripeEvents
from gateway.stores.postgres import Pool


def build_stripe_events(billing: Billing, pool: Pool) -> StripeEvents:
    """What applies Stripe's events."""
    reader, notices = StripeReader(billing), NoticeStore(pool)
    mirror = Mirror(reader, MirrorStore(pool))
    return StripeEvents(StripeInbox(pool), notices, reader, mirror, HourRecheck(notices, billing))
