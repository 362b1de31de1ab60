"""How Stripe's v2 API words what v1 does: instants are RFC 3339, objects have v2 names (Stripe's docs). Pure."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from gateway.sandbox.stripe.meters import AcceptedEvent, StripeApiError, whole_number

LIMIT_MAX: Final = 100
"""Objects on a page."""

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


def v2_page(items: list[dict[str, Any]], query: dict[str, Any], url: str) -> dict[str, Any]:
    """A page of a v2 list: the next one is a URL, with all that was asked for (stripe-python 16.1, `v2.ListObject`).
    The size without a limit, and what `page` looks like, are guesses. Raises StripeApiError (400)."""
    limit, start = (whole_number(query.get(name, default), name) for name, default in (("limit", "20"), ("page", "0")))
    if not 1 <= limit <= LIMIT_MAX:
        raise StripeApiError(400, f"Invalid limit: an integer from 1 to {LIMIT_MAX} is expected.", param="limit")
    next_url = None
    if start + limit < len(items):
        asked = urlencode([*_flat(query | {"page": str(start + limit)})])
        next_url = f"{url}?{asked}"
    return {"data": items[start : start + limit], "next_page_url": next_url, "previous_page_url": None}


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """`a[b]=1` of nested maps and lists."""
    if not isinstance(node, dict | list):
        yield path, node
        return
    for name, value in node.items() if isinstance(node, dict) else enumerate(node):
        yield from _flat(value, f"{path}[{name}]" if path else str(name))


def event_form(event: AcceptedEvent) -> dict[str, Any]:
    """An accepted event as v2 answers it."""
    times = {"created": rfc3339(event.created), "timestamp": rfc3339(event.timestamp)}
    return event.form() | {"object": "v2.billing.meter_event"} | times


def adjustment_form(adjusted: dict[str, Any], now: int) -> dict[str, Any]:
    """v1's adjustment as v2 answers it."""
    named = {"id": f"mea_{secrets.token_hex(8)}", "object": "v2.billing.meter_event_adjustment"}
    return adjusted | named | {"created": rfc3339(now)}
