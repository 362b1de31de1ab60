"""Deliveries of the Stripe stand-in: which endpoint is told of which event, signed as Stripe signs.

docs.stripe.com, webhooks: events come late, twice and in any order; an answer that is not 2xx is tried again, signed
anew. Signature: stripe-python 16.1, `WebhookSignature`: `t=` and one `v1=` for each secret that is valid while one is
rolled. Sends to loopback only. Nothing is sent until a test asks for it, unless the endpoint is `auto`.
"""

import asyncio
import hashlib
import hmac
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec

from gateway.sandbox.stripe.objects import Stored
from gateway.sandbox.stripe.reports import notification

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
ANSWER_S: Final = 10.0
TRIES_MAX: Final = 16
"""Of an `auto` endpoint, for each event; Stripe tries for three days."""
PAUSE_S: Final = 0.1
"""Between two looks of the loop for `auto` endpoints."""
HEADERS: Final = {
    "Content-Type": "application/json; charset=utf-8",
    "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
}


class WebhookEndpoint(msgspec.Struct, forbid_unknown_fields=True):
    """An event destination."""

    url: str
    secret: str
    """Signs what is sent, `whsec_…`."""
    payload: Literal["thin", "snapshot"] = "thin"
    events: list[str] = []
    """Types that it is told of; without any, all of its payload's kind."""
    also_signed_by: list[str] = []
    """Secrets that are being rolled: each gives a `v1` of its own."""
    auto: bool = False
    """Whether events are sent as they happen, and again until they are answered with 2xx."""
    retry_s: float = 0.5
    """Of `auto`: the first pause; each is twice the last."""
    id: str | None = None
    """Of the object that Stripe's API made of it (destinations.py)."""

    def __post_init__(self) -> None:
        if urlsplit(self.url).hostname not in LOOPBACK:
            raise ValueError("url: loopback only")

    def wants(self, event: Stored) -> bool:
        """Whether it is told of this event."""
        kind = "thin" if event["object"] == "v2.core.event" else "snapshot"
        return kind == self.payload and (not self.events or event["type"] in self.events)


class DeliveryOrder(msgspec.Struct, forbid_unknown_fields=True):
    """What is delivered now, and how."""

    order: Literal["made", "reversed", "shuffled"] = "made"
    duplicates: int = 0
    """How often each is sent again, whatever was answered."""
    types: list[str] | None = None
    """Only events of these types."""
    events: list[str] | None = None
    """Only these, by id, in this order, delivered before or not."""
    drop: bool = False
    """Takes them off the list without sending them: lost."""
    signed_at: int | None = None
    """Unix seconds of the signature, rather than the time outside."""
    signed_by: str | None = None
    """Another secret than the endpoint's."""


@dataclass
class StripeDelivery:
    """One event on its way to one endpoint."""

    event: Stored
    endpoint: WebhookEndpoint
    statuses: list[int] = field(default_factory=list)
    """Of each try; 0: no answer."""
    due_s: float = 0.0
    """Of `auto`: when it may be tried, on the loop's clock."""


class Deliveries:
    """All endpoints and deliveries. `settle` brings about what has fallen due meanwhile."""

    def __init__(self, settle: Callable[[], Any]) -> None:
        self.endpoints: Final[list[WebhookEndpoint]] = []
        self.pending: Final[list[StripeDelivery]] = []
        self.done: Final[list[StripeDelivery]] = []
        self._settle: Final = settle
        self._loop: asyncio.Task[None] | None = None

    def add(self, endpoint: WebhookEndpoint) -> None:
        """Tells the endpoint of what happens from now on."""
        self.endpoints.append(endpoint)
        if endpoint.auto and self._loop is None:
            self._loop = asyncio.create_task(self._deliver_by_itself(), name="stripe-webhooks")

    def forget(self, endpoint_id: str) -> None:
        """Tells this endpoint nothing more; what waits for it is lost, as at Stripe."""
        self.endpoints[:] = [one for one in self.endpoints if one.id != endpoint_id]
        self.pending[:] = [one for one in self.pending if one.endpoint.id != endpoint_id]

    def offer(self, event: Stored) -> None:
        """Plans a delivery to each endpoint that wants the event."""
        for endpoint in self.endpoints:
            if endpoint.wants(event):
                self.pending.append(StripeDelivery(event, endpoint))
                if "pending_webhooks" in event:
                    event["pending_webhooks"] += 1

    def is_waiting(self, event_type: str, object_id: str) -> bool:
        """Whether an event about the object waits for an endpoint."""
        return any(
            one.event["type"] == event_type and one.event["data"]["object"]["id"] == object_id
            for one in self.pending
            if one.event["object"] == "event"
        )

    async def deliver(self, order: DeliveryOrder) -> list[dict[str, Any]]:
        """Sends what waits, or what is named; says what was answered."""
        chosen = self._choose(order)
        told = []
        async with _session() as session:
            for delivery in chosen:
                for _ in range(0 if order.drop else 1 + order.duplicates):
                    status = await _send(session, delivery, order)
                    told.append({"event": delivery.event["id"], "type": delivery.event["type"], "status": status})
                if order.drop or _is_answered(delivery):
                    self._finish(delivery)
        return told

    def _choose(self, order: DeliveryOrder) -> list[StripeDelivery]:
        waiting = [one for one in self.pending if not one.endpoint.auto or order.drop]
        if order.events is not None:
            known = {one.event["id"]: one for one in [*self.done, *self.pending]}
            return [known[event_id] for event_id in order.events if event_id in known]
        chosen = [one for one in waiting if order.types is None or one.event["type"] in order.types]
        if order.order == "reversed":
            chosen.reverse()
        elif order.order == "shuffled":
            random.shuffle(chosen)
        return chosen

    def _finish(self, delivery: StripeDelivery) -> None:
        if delivery in self.pending:
            self.pending.remove(delivery)
            self.done.append(delivery)
            if "pending_webhooks" in delivery.event:
                delivery.event["pending_webhooks"] -= 1

    async def _deliver_by_itself(self) -> None:
        """For `auto` endpoints, until cancelled; what fails is tried again."""
        async with _session() as session:
            while True:
                self._settle()
                now = asyncio.get_running_loop().time()
                for delivery in [one for one in self.pending if one.endpoint.auto and one.due_s <= now]:
                    await _send(session, delivery, DeliveryOrder())
                    tries = len(delivery.statuses)
                    delivery.due_s = now + delivery.endpoint.retry_s * 2 ** min(tries - 1, 6)
                    if _is_answered(delivery) or tries >= TRIES_MAX:
                        self._finish(delivery)
                await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """Sends nothing more. Raises what has ended the loop, if anything has."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            if not self._loop.cancelled():
                self._loop.result()


def sign(body: bytes, secrets: list[str], at: int) -> str:
    """The header Stripe-Signature."""
    digests = [hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={at}", *(f"v1={digest}" for digest in digests)])


def write_body(event: Stored) -> bytes:
    """What is sent: of a thin event no data; indented, as Stripe prints it."""
    shown = notification(event) if event["object"] == "v2.core.event" else event
    return msgspec.json.format(msgspec.json.encode(shown), indent=2)


async def _send(session: aiohttp.ClientSession, delivery: StripeDelivery, order: DeliveryOrder) -> int:
    endpoint, body = delivery.endpoint, write_body(delivery.event)
    secrets = [endpoint.secret, *endpoint.also_signed_by] if order.signed_by is None else [order.signed_by]
    # The receiver's time is the one outside, however far the stand-in's has been moved.
    signed = sign(body, secrets, int(time.time()) if order.signed_at is None else order.signed_at)
    try:
        async with session.post(
            endpoint.url, data=body, headers=HEADERS | {"Stripe-Signature": signed}, allow_redirects=False
        ) as response:
            status = response.status
    except (aiohttp.ClientError, TimeoutError):
        status = 0
    delivery.statuses.append(status)
    return status


def _is_answered(delivery: StripeDelivery) -> bool:
    return bool(delivery.statuses) and 200 <= delivery.statuses[-1] < 300


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
