"""Webhooks on the public port, put together. Decides nothing: gateway/flows/webhooks does."""

import time
from contextlib import AsyncExitStack

from aiohttp import web

from gateway.app.front import Handler
from gateway.core.config import Settings, required
from gateway.core.daily.signature import secret_of
from gateway.edges.ledger import open_pool
from gateway.edges.sessions import Inbox
from gateway.flows.proxy.headers import EVENT_ID, check_framing, read_body
from gateway.flows.webhooks import Webhooks

CONNECTIONS_MAX = 2


async def open_webhooks(stack: AsyncExitStack, settings: Settings) -> Handler:
    """Who answers /webhooks; its connections are closed by the stack."""
    dsn = required(settings, "database_url")["database_url"]
    pool = await open_pool(dsn, connections_min=0, connections_max=CONNECTIONS_MAX)
    stack.push_async_callback(pool.close)
    secret = settings.daily_webhook_secret
    daily_secret = None if secret is None else secret_of(secret.get_secret_value())
    webhooks = Webhooks(Inbox(pool), daily_secret, read_body=read_body, unix_s=time.time)

    async def handle(request: web.BaseRequest, event_id: str) -> web.StreamResponse:
        check_framing(request)
        response = await webhooks.handle(request)
        response.headers[EVENT_ID] = event_id
        return response

    return handle
