"""How Stripe's v2 API words what v1 does: instants are RFC 3339, objects have v2 names (Stripe's docs). Pure."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.sandbox.stripe.meters import AcceptedEvent, StripeApiError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def from_v2(body: Any) -> dict[str, Any]:
    """A v2 event as a v1 form. Raises StripeApiError (400)."""
    if not isinstance(body, dict):
        raise StripeApiError(400, "Invalid event: an object is expected.", param="events")
    given = body.get("timestamp")
    if given is None:
        return body
    try:
        at = datetime.fromisoformat(given)
        return body | {"timestamp": str((at - _EPOCH) // timedelta(seconds=1))}
    except (TypeError, ValueError):
        raise StripeApiError(400, "Invalid timestamp: RFC 3339 is expected.", param="timestamp") from None


def rfc3339(unix_s: int) -> str:
    """An instant as v2 writes it."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def event_form(event: AcceptedEvent) -> dict[str, Any]:
    """An accepted event as v2 answers it."""
    times = {"created": rfc3339(event.created), "timestamp": rfc3339(event.timestamp)}
    return event.form() | {"object": "v2.billing.meter_event"} | times


def adjustment_form(adjusted: dict[str, Any], now: int) -> dict[str, Any]:
    """v1's adjustment as v2 answers it."""
    named = {"id": f"mea_{secrets.token_hex(8)}", "object": "v2.billing.meter_event_adjustment"}
    return adjusted | named | {"created": rfc3339(now)}
