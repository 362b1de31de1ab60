"""Opens Stripe from settings; the caller's stack closes it. A proxy must not load Stripe's SDK when it starts."""

from contextlib import AsyncExitStack

from gateway.billing.stripe import Billing
from gateway.config.settings import Settings
from gateway.http.outbound import vendor_session


async def open_billing(stack: AsyncExitStack, settings: Settings, secret: str) -> Billing:
    """Stripe, closed by the stack."""
    url = settings.stripe_base_url
    session = await stack.enter_async_context(vendor_session(settings, url))
    return Billing(secret, base_url=url, session=session)
