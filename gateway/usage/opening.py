"""How calls are valued under the settings."""

import pricing
from gateway.config.settings import Settings
from gateway.usage.plans import KnownPlans
from gateway.usage.regions import region_of
from gateway.usage.settle import Settler


def build_settler(settings: Settings, book: pricing.Book, plans: KnownPlans) -> Settler:
    """How calls are valued under these settings, and billed by these plans as they change."""
    return Settler(
        book,
        markup=settings.billing.markup,
        bill_estimates=settings.billing.bill_estimates,
        unseen_share=settings.estimates.unseen_share,
        plans=plans,
        region=region_of(settings.openai_base_url),
    )
