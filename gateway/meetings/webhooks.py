"""Webhooks: an event is checked, committed to the inbox, and acknowledged. What it means is for a worker.

Exactly 200 only when it is in PostgreSQL for good; a failure is 503, and Daily.co tries again (Daily.co's docs). Must
not log what is in an event.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from gateway.kit.errors import ApiError
from gateway.meetings.daily_events import UNKNOWN, UNREADABLE, envelope_of, occurred_at
from gateway.meetings.signature import is_genuine, is_plausible
from gateway.stores.inbox_writer import EventStore, InboxWriter
from gateway.stores.webhook_inbox import WebhookEvent

PATH: Final = "/webhooks/daily"
BODY_BYTES_MAX: Final = 1024 * 1024
TEST_BYTES_MAX: Final = 64
"""Of the only body that is taken without a signature."""
ReadBody = Callable[[web.BaseRequest, int], Awaitable[bytes]]
"""The body, up to so many bytes. Raises ApiError."""
_log: Final = structlog.get_logger("gateway.webhooks")


class Webhooks:
    """One per process."""

    def __init__(
        self, store: EventStore, daily_secret: bytes | None, *, read_body: ReadBody, unix_s: Callable[[], float]
    ) -> None:
        """Without `daily_secret` nothing of Daily.co's is taken."""
        self._inbox: Final = InboxWriter(store)
        self._secret = daily_secret
        self._read_body: Final = read_body
        self._unix_s: Final = unix_s

    def use_secret(self, daily_secret: bytes) -> None:
        """Webhooks from now on must be signed with this secret."""
        self._secret = daily_secret

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Answers any request below /webhooks. Raises ApiError, DependencyDown."""
        if request.raw_path.partition("?")[0] != PATH:
            raise ApiError(404, "endpoint_not_supported", "There is no such webhook.")
        if request.method != "POST":
            raise ApiError(405, "method_not_allowed", "Webhooks are sent by POST.", headers={"Allow": "POST"})
        signed = self._is_signed(request)
        length = request.content_length
        if not signed and length is not None and length > TEST_BYTES_MAX:
            raise self._refusal()  # before its body is read: anybody may send one
        body = await self._read_body(request, BODY_BYTES_MAX if signed else TEST_BYTES_MAX)
        if _is_test(body):
            return _accept()  # sent before Daily.co has told anybody the secret: it proves nothing and does nothing
        if not signed or not self._is_genuine(request, body):
            raise self._refusal()
        # Whatever Daily.co has signed is kept and acknowledged: after three refusals it would send nothing any more.
        envelope = envelope_of(body)
        new = await self._inbox.keep(WebhookEvent(envelope.id, envelope.type, occurred_at(envelope), body))
        say = _log.warning if envelope.type in (UNKNOWN, UNREADABLE) else _log.info
        say("webhook stored", type=envelope.type, id=envelope.id, new=new)
        return _accept()

    def _is_signed(self, request: web.BaseRequest) -> bool:
        """Whether its headers are those of a webhook, as far as they can be judged without the body."""
        timestamps = request.headers.getall("X-Webhook-Timestamp", [])
        signatures = request.headers.getall("X-Webhook-Signature", [])
        if self._secret is None or len(timestamps) != 1 or len(signatures) != 1:
            return False
        return is_plausible(timestamps[0], signatures[0], self._unix_s())

    def _is_genuine(self, request: web.BaseRequest, body: bytes) -> bool:
        timestamp, signature = request.headers["X-Webhook-Timestamp"], request.headers["X-Webhook-Signature"]
        return self._secret is not None and is_genuine(self._secret, timestamp, signature, body, self._unix_s())

    def _refusal(self) -> ApiError:
        if self._secret is None:
            _log.error("webhook refused", look="DAILY_WEBHOOK_SECRET is not set")
            return ApiError(503, "webhooks_not_configured", "This gateway takes no webhooks of Daily.co.")
        return ApiError(401, "invalid_signature", "The webhook's signature or timestamp is missing or wrong.")


def _is_test(body: bytes) -> bool:
    """Daily.co's question whether anybody listens."""
    if len(body) > TEST_BYTES_MAX:
        return False
    try:
        return bool(json.loads(body) == {"test": "test"})
    except (ValueError, RecursionError):
        return False


def _accept() -> web.Response:
    return web.Response(status=200, body=b"{}", headers={"Content-Type": "application/json"})
