"""The two destinations at Stripe that our webhooks come from, one of snapshots and one of thin events.

Both are made as event destinations (v2): a webhook endpoint of v1 never carries thin events (stripe-python 16.1,
`EventDestinationService`, `WebhookEndpointService`). What is there already is found by its URL, and for snapshots it
may be an endpoint of v1. Stripe shows a signing secret once, in the answer that makes the destination; it is handed on
at once, before anything else can fail.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import stripe

from gateway.billing.setup_step import Step
from gateway.billing.stripe_answers import member
from gateway.billing.webhooks.notices import ALERT, ERROR_REPORT, NO_METER
from gateway.billing.webhooks.receive import PATH
from gateway.kit.errors import ConfigError, OptionError

TYPES: Final = {
    "snapshot": (
        "customer.created", "customer.updated", "customer.deleted",
        "customer.subscription.created", "customer.subscription.updated", "customer.subscription.deleted",
        "customer.subscription.paused", "customer.subscription.resumed",
        "invoice.created", "invoice.updated", "invoice.finalized", "invoice.paid", "invoice.voided",
        "invoice.marked_uncollectible", "invoice.deleted",
        "credit_note.created", "credit_note.updated", "credit_note.voided",
        "billing.credit_grant.created", "billing.credit_grant.updated", "billing.credit_balance_transaction.created",
        ALERT,
    ),
    "thin": (ERROR_REPORT, NO_METER),
}  # fmt: skip
"""What the worker can apply, by payload."""
ALL: Final = "*"
OWN_ACCOUNT: Final = ("@self", "self")
"""`events_from` of our own account: since 2026, and before."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
KeepSecret = Callable[[str], None]
"""Is given each new signing secret, once."""


class WantedWebhooks(NamedTuple):
    """What webhooks are wanted."""

    url: str
    keep_secret: KeepSecret


class _Destination(NamedTuple):
    """A destination that is there."""

    id: str
    events: Sequence[str]
    is_enabled: bool
    is_v1: bool


def check_url(text: str) -> str:
    """The URL at which Stripe reaches this gateway; HTTP on loopback only, for a stand-in. Raises OptionError."""
    try:
        parts = urlsplit(text)
        is_plain = not (parts.query or parts.fragment or parts.username or parts.password) and parts.port != 0
    except ValueError:
        parts, is_plain = urlsplit(""), False
    schemes = ("https", "http") if parts.hostname in LOOPBACK else ("https",)
    if parts.scheme not in schemes or not parts.hostname or not parts.path.endswith(PATH) or not is_plain:
        raise OptionError(f"--webhook-url must be https://HOST{PATH}, as Stripe can reach it from the internet")
    return text


def refuse_printed_answers() -> None:
    """Raises ConfigError where Stripe's SDK would print its answers, in which the secrets are."""
    if os.environ.get("STRIPE_LOG") == "debug":
        raise ConfigError("STRIPE_LOG=debug prints Stripe's answers, with the signing secrets in them: unset it")


async def find_webhooks(client: stripe.StripeClient, wanted: WantedWebhooks) -> list[Step]:
    """A step for each payload. Raises stripe.StripeError."""
    found = await _find(client, wanted.url)
    return [_step(client, wanted, payload, found.get(payload)) for payload in TYPES]


async def _find(client: stripe.StripeClient, url: str) -> dict[str, _Destination]:
    """By payload."""
    found: dict[str, _Destination] = {}
    page = await client.v2.core.event_destinations.list_async({"include": ["webhook_endpoint.url"]})
    async for one in page.auto_paging_iter():
        is_own = not one.events_from or not set(OWN_ACCOUNT).isdisjoint(one.events_from)
        if is_own and member(one, "webhook_endpoint", "url") == url:
            found[one.event_payload] = _Destination(one.id, one.enabled_events, one.status == "enabled", is_v1=False)
    endpoints = await client.v1.webhook_endpoints.list_async({"limit": 100})
    async for endpoint in endpoints.auto_paging_iter():
        if endpoint.url == url:
            about = _Destination(endpoint.id, endpoint.enabled_events, endpoint.status == "enabled", is_v1=True)
            found.setdefault("snapshot", about)
    return found


def _step(client: stripe.StripeClient, wanted: WantedWebhooks, payload: str, found: _Destination | None) -> Step:
    what = f"webhooks, {payload}"
    if found is None:
        details = (f"url: {wanted.url}", f"events: {', '.join(TYPES[payload])}")
        return Step(what, "missing", details, lambda: _make(client, wanted, payload))
    absent = [] if ALL in found.events else [one for one in TYPES[payload] if one not in found.events]
    differing = [f"events: + {', '.join(absent)}"] if absent else []
    differing += [] if found.is_enabled else ["status: disabled → enabled"]
    if not differing:
        secret = f"{found.id}; its signing secret is in Stripe's dashboard (Workbench, Webhooks)"
        return Step(what, "is there", (secret,), None)
    return Step(what, "differs", tuple(differing), lambda: _correct(client, found, [*found.events, *absent]))


async def _make(client: stripe.StripeClient, wanted: WantedWebhooks, payload: str) -> Any:
    given: Any = {
        "name": f"Metering gateway ({payload})",
        "type": "webhook_endpoint",
        "event_payload": payload,
        "events_from": [OWN_ACCOUNT[0]],
        "enabled_events": [*TYPES[payload]],
        "webhook_endpoint": {"url": wanted.url},
        "include": ["webhook_endpoint.signing_secret"],
    }
    if payload == "snapshot":
        given["snapshot_api_version"] = stripe.api_version
    made = await client.v2.core.event_destinations.create_async(given)
    secret = member(made, "webhook_endpoint", "signing_secret")
    if not secret:
        raise ConfigError(f"Stripe has made {made.id} and shows no signing secret: copy it from Stripe's dashboard")
    wanted.keep_secret(secret)
    return made


async def _correct(client: stripe.StripeClient, found: _Destination, events: list[str]) -> None:
    wanted: Any = {"enabled_events": events}
    if found.is_v1:
        wanted["disabled"] = False
        await client.v1.webhook_endpoints.update_async(found.id, wanted)
        return
    await client.v2.core.event_destinations.update_async(found.id, wanted)
    if not found.is_enabled:
        await client.v2.core.event_destinations.enable_async(found.id)
