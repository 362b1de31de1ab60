"""How calls are valued under the settings."""

import pricing
from gateway.config.settings import Settings
from gateway.usage.regions import region_of
from gateway.usage.settle import Settler


def build_settler(settings: Settings, book: pricing.Book) -> Settler:
    """How calls are valued under these settings."""
    return Settler(
        book,
        markup=settings.billing.markup,
        bill_estimates=settings.billing.bill_estimates,
        unseen_share=settings.estimates.unseen_share,
        region=region_of(settings.openai_base_url),
    )
