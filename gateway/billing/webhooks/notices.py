"""What Stripe says of meter events that it received and did not count (stripe-python 16.1, `events/`). Pure.

A report names samples only: how many events it is about is a number.
"""

from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from gateway.billing.stripe_samples import sample_identifier

ERROR_REPORT: Final = "v1.billing.meter.error_report_triggered"
NO_METER: Final = "v1.billing.meter.no_meter_found"
ALERT: Final = "billing.alert.triggered"
LATE: Final = timedelta(minutes=5)
"""How far the clocks may differ by which Stripe says when it looked and we when an event was delivered."""


class UncountedSample(NamedTuple):
    """One event that Stripe did not count."""

    identifier: str
    reason: str
    """Stripe's code, and its message."""


class Notice(NamedTuple):
    """A row of `stripe_notices`."""

    id: str
    type: str
    occurred_at: datetime
    meter_id: str | None
    since: datetime | None
    """Stripe looked at the events from here …"""
    until: datetime | None
    """… to here."""
    errors: int
    samples: tuple[UncountedSample, ...]
    detail: dict[str, Any]


def read_report(event: dict[str, Any], occurred_at: datetime) -> Notice:
    """A thin event, fetched whole."""
    data = _map(event.get("data"))
    reason = _map(data.get("reason"))
    samples = []
    for kind in _list(reason.get("error_types")):
        for one in _list(_map(kind).get("sample_errors")):
            request = _map(_map(one).get("request"))
            identifier = sample_identifier(request.get("identifier"), request.get("idempotency_key"))
            if identifier is not None:
                code, message = _map(kind).get("code"), _map(one).get("error_message")
                samples.append(UncountedSample(identifier, f"Stripe did not count it: {code}: {message}"[:500]))
    counted = reason.get("error_count")
    related = _map(event.get("related_object")).get("id")
    return Notice(
        str(event.get("id")),
        str(event.get("type")),
        occurred_at,
        related if isinstance(related, str) else None,
        _instant(data.get("validation_start")),
        _instant(data.get("validation_end")),
        max(counted if isinstance(counted, int) else 0, len(samples)),
        tuple(samples),
        {"summary": data.get("developer_message_summary"), "reason": reason},
    )


def read_alert(event_id: str, occurred_at: datetime, about: dict[str, Any]) -> Notice:
    """A threshold of usage that was passed (`billing.alert_triggered`)."""
    alert = _map(about.get("alert"))
    threshold = _map(alert.get("usage_threshold"))
    meter = threshold.get("meter")
    detail = {
        "alert": alert.get("id"),
        "title": alert.get("title"),
        "customer": about.get("customer"),
        "value": about.get("value"),
        "threshold": threshold.get("gte"),
    }
    return Notice(event_id, ALERT, occurred_at, meter if isinstance(meter, str) else None, None, None, 0, (), detail)


def _map(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _instant(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if at is None or at.tzinfo is None else at
