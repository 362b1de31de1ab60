"""What the Stripe stand-in says later of events that it received with a 200 and never counted: thin events.

Windows of ten seconds; one event per window and meter, and one for all that no meter was found for; samples of the
errors only. Members and formatting: the samples of docs.stripe.com (api/v2/core/events, recording-usage-in-bulk) and
of Stripe's SDK tests. The sentence for an unknown customer and the number of samples are guesses.
"""

import secrets
from typing import Any, Final

import msgspec

from gateway.sandbox.stripe.meters import StripeApiError, missing
from gateway.sandbox.stripe.v2 import rfc3339, v2_page

WINDOW_S: Final = 10
LATE_S: Final = 2
"""Seconds after its window until the event is there."""
KEPT_S: Final = 30 * 86_400
"""Events are told for 30 days."""
SAMPLES_MAX: Final = 5
ERROR_REPORT: Final = "v1.billing.meter.error_report_triggered"
NO_METER_FOUND: Final = "v1.billing.meter.no_meter_found"
NO_METER: Final = "no_meter"


class UncountedEvent(msgspec.Struct):
    """An event that was received and is not counted."""

    at: int
    """When it was received, Unix seconds."""
    code: str
    message: str
    identifier: str
    event_name: str
    customer: str | None
    meter: str | None
    """Its id; None where none was found."""
    is_reported: bool = False


class ErrorReports:
    """Everything uncounted, and the thin events about it."""

    def __init__(self) -> None:
        self.uncounted: Final[list[UncountedEvent]] = []
        self.events: Final[list[dict[str, Any]]] = []
        """Thin events, oldest first."""
        self._reported = 0
        """How many of the first are reported, which need not be looked at again."""

    def report(self, now: int, *, at_once: bool = False) -> list[dict[str, Any]]:
        """Makes the thin events that are due, or all of them, and returns the new ones."""
        groups: dict[tuple[int, str | None], list[UncountedEvent]] = {}
        while self._reported < len(self.uncounted) and self.uncounted[self._reported].is_reported:
            self._reported += 1
        for one in self.uncounted[self._reported :]:
            start = one.at // WINDOW_S * WINDOW_S
            if not one.is_reported and (at_once or start + WINDOW_S + LATE_S <= now):
                groups.setdefault((start, one.meter), []).append(one)
                one.is_reported = True
        made = [_thin_event(start, meter, group) for (start, meter), group in groups.items()]
        self.events.extend(made)
        return made

    def get(self, event_id: str) -> dict[str, Any]:
        """GET /v2/core/events/{id}. Raises StripeApiError (404)."""
        for event in self.events:
            if event["id"] == event_id:
                return event
        raise missing("v2.core.event", event_id)

    def list_all(self, query: dict[str, Any], now: int) -> dict[str, Any]:
        """GET /v2/core/events: newest first, of the last 30 days, by type, meter and instant.

        Raises StripeApiError (400).
        """
        types, created = query.get("types"), query.get("created", {})
        names = list(types.values()) if isinstance(types, dict) else types or []
        if not isinstance(names, list) or not isinstance(created, dict):
            raise StripeApiError(400, "Invalid types or created.", param="types")
        since = max(str(created.get("gte", "")), rfc3339(now - KEPT_S))
        found = [
            event
            for event in reversed(self.events)
            if (not names or event["type"] in names)
            and query.get("object_id") in (None, event["related_object"].get("id"))
            and event["created"] >= since
        ]
        return v2_page(found, query, "/v2/core/events")


def notification(event: dict[str, Any]) -> dict[str, Any]:
    """What an endpoint is sent of it: no data."""
    return {name: event[name] for name in ("id", "object", "type", "livemode", "created", "context", "related_object")}


def _thin_event(start: int, meter: str | None, group: list[UncountedEvent]) -> dict[str, Any]:
    codes = dict.fromkeys(one.code for one in group)
    related = {} if meter is None else {"id": meter, "type": "billing.meter", "url": f"/v1/billing/meters/{meter}"}
    count = f"is {len(group)} invalid event" if len(group) == 1 else f"are {len(group)} invalid events"
    return {
        "id": f"evt_test_{secrets.token_hex(12)}",
        "object": "v2.core.event",
        "context": None,
        "created": rfc3339(start + WINDOW_S + LATE_S),
        "data": {
            "developer_message_summary": f"There {count}",
            "reason": {
                "error_count": len(group),
                "error_types": [_error_type(code, [one for one in group if one.code == code]) for code in codes],
            },
            "validation_end": rfc3339(start + WINDOW_S),
            "validation_start": rfc3339(start),
        },
        "livemode": False,
        "reason": None,
        "related_object": related,
        "type": NO_METER_FOUND if meter is None else ERROR_REPORT,
    }


def _error_type(code: str, group: list[UncountedEvent]) -> dict[str, Any]:
    samples = [{"error_message": one.message, "request": {"identifier": one.identifier}} for one in group[:SAMPLES_MAX]]
    return {"code": code, "error_count": len(group), "sample_errors": samples}
