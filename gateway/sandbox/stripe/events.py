"""Snapshot events of the Stripe stand-in: what happened, with the object as it was then.

Members: stripe-python 16.1, `Event`, and a real webhook of 2025-08-27.basil. They are kept for 30 days
(docs.stripe.com, api/events).
"""

import copy
from collections.abc import Callable
from typing import Any, Final

from gateway.sandbox.stripe.meters import DAY_S, list_page, shorten_lists
from gateway.sandbox.stripe.objects import Account, Stored
from gateway.sandbox.stripe.params import in_range, read_list

KIND: Final = "event"
API_VERSION: Final = "2026-10-28.endive"
"""What stripe-python 16.1 asks for."""
KEPT_S: Final = 30 * DAY_S
NO_REQUEST: Final = {"id": None, "idempotency_key": None}
"""Of what Stripe does by itself."""


class EventLog:
    """All events; `offer` is given each new one."""

    def __init__(self, account: Account, offer: Callable[[Stored], None]) -> None:
        self._account: Final = account
        self._offer: Final = offer
        account.listeners.append(self._write)

    def list_all(self, query: dict[str, Any]) -> dict[str, Any]:
        """GET /v1/events, newest first."""
        types = read_list(query, "types")
        found = [
            one
            for one in self._account.all(KIND)
            if query.get("type") in (None, one["type"])
            and (not types or one["type"] in types)
            and in_range(query, "created", one["created"])
        ]
        return list_page(found, query, "/v1/events")

    def _write(self, event_type: str, about: Stored, before: Stored | None) -> None:
        data: Stored = {"object": shorten_lists(copy.deepcopy(about))}
        if before is not None:
            data["previous_attributes"] = before
        fields = {
            "api_version": API_VERSION,
            "data": data,
            "pending_webhooks": 0,
            "request": dict(self._account.request or NO_REQUEST),
            "type": event_type,
        }
        made = self._account.add(KIND, "evt", fields)
        self._forget()
        self._offer(made)

    def _forget(self) -> None:
        kept = self._account.kinds[KIND]
        while (oldest := next(iter(kept.values())))["created"] < self._account.now() - KEPT_S:
            del kept[oldest["id"]]
