"""Webhooks on the public port, put together. Decides nothing: the files that it opens do."""

import time

from aiohttp import web

from gateway.billing.webhooks.inbox import StripeInbox
from gateway.billing.webhooks.receive import PATH, StripeWebhooks
from gateway.config.secrets import secret_of, stripe_secrets_of
from gateway.config.settings import Settings
from gateway.http.framing import EVENT_ID, check_framing
from gateway.meetings.inbox import Inbox
from gateway.meetings.webhooks import ReadBody, Webhooks
from gateway.processes.arguments import OnNewSecret, never_changes
from gateway.processes.front import Handler
from gateway.stores.postgres_share import Share


def open_webhooks(
    settings: Settings, connections: Share, read_body: ReadBody, on_new_secret: OnNewSecret = never_changes
) -> Handler:
    """Who answers /webhooks; over connections that the caller closes."""
    secret = settings.daily_webhook_secret
    daily_secret = None if secret is None else secret_of(secret.get_secret_value())
    webhooks = Webhooks(Inbox(connections), daily_secret, read_body=read_body, unix_s=time.time)
    on_new_secret("daily_webhook_secret", lambda text: webhooks.use_secret(secret_of(text)))
    signed = settings.stripe_webhook_secret
    secrets = () if signed is None else stripe_secrets_of(signed.get_secret_value())
    stripe = StripeWebhooks(StripeInbox(connections), secrets, read_body=read_body, unix_s=time.time)
    on_new_secret("stripe_webhook_secret", lambda text: stripe.use_secrets(stripe_secrets_of(text)))

    async def handle(request: web.BaseRequest, event_id: str) -> web.StreamResponse:
        check_framing(request)
        is_stripes = request.raw_path.partition("?")[0] == PATH
        response = await (stripe if is_stripes else webhooks).handle(request)
        response.headers[EVENT_ID] = event_id
        return response

    return handle
