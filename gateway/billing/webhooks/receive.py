"""`/webhooks/stripe`: an event is checked, committed to the inbox, and acknowledged. What it means is for a worker.

200 only when it is in PostgreSQL for good; a failure is 503, and Stripe tries again for three days (Stripe's docs).
Must not log what is in an event.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from aiohttp import web

from gateway.billing.webhooks.event import UNREADABLE, read_event
from gateway.billing.webhooks.signature import is_genuine, read_header
from gateway.kit.errors import ApiError
from gateway.stores.inbox_writer import EventStore, InboxWriter
from gateway.stores.webhook_inbox import WebhookEvent

PATH: Final = "/webhooks/stripe"
HEADER: Final = "Stripe-Signature"
BODY_BYTES_MAX: Final = 1024 * 1024
ReadBody = Callable[[web.BaseRequest, int], Awaitable[bytes]]
"""The body, up to so many bytes. Raises ApiError."""
_log: Final = structlog.get_logger("gateway.webhooks")


class StripeWebhooks:
    """One per process."""

    def __init__(
        self, store: EventStore, secrets: Sequence[str], *, read_body: ReadBody, unix_s: Callable[[], float]
    ) -> None:
        """Without `secrets` nothing is taken; with several, what any of them has signed."""
        self._inbox: Final = InboxWriter(store)
        self._secrets = tuple(secrets)
        self._read_body: Final = read_body
        self._unix_s: Final = unix_s

    def use_secrets(self, secrets: Sequence[str]) -> None:
        """Webhooks from now on must be signed with one of these."""
        self._secrets = tuple(secrets)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers any request to PATH. Raises ApiError, DependencyDown."""
        if not self._secrets:
            _log.error("webhook refused", look="STRIPE_WEBHOOK_SECRET is not set")
            raise ApiError(404, "webhooks_not_configured", "This gateway takes no webhooks of Stripe.")
        if request.method != "POST":
            raise ApiError(405, "method_not_allowed", "Webhooks are sent by POST.", headers={"Allow": "POST"})
        headers = request.headers.getall(HEADER, [])
        # Before its body is read: anybody may send one.
        if len(headers) != 1 or read_header(headers[0], self._unix_s()) is None:
            raise _refusal()
        body = await self._read_body(request, BODY_BYTES_MAX)
        if not is_genuine(self._secrets, headers[0], body, self._unix_s()):
            raise _refusal()
        # Whatever Stripe has signed is kept and acknowledged: it switches an endpoint off that goes on failing.
        event = read_event(body)
        new = await self._inbox.keep(WebhookEvent(event.id, event.type, event.occurred_at, body))
        say = _log.warning if event.type == UNREADABLE else _log.info
        say("webhook stored", type=event.type, id=event.id, new=new)
        return web.Response(status=200, body=b"{}", headers={"Content-Type": "application/json"})


def _refusal() -> ApiError:
    return ApiError(400, "invalid_signature", "The webhook's signature or timestamp is missing or wrong.")
