"""The Stripe stand-in's objects by kind and id, as JSON has them, and what its parts share: time, log and settings.

A kind is Stripe's `object`: `price`, `subscription`, `invoice` and so on.
"""

import copy
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import msgspec

from gateway.sandbox.stripe.clock import Agenda, MovedClock
from gateway.sandbox.stripe.meters import HOUR_S, StripeApiError, missing

Stored = dict[str, Any]
GRACE_H_MAX: Final = 72
"""docs.stripe.com, configure-grace-period."""


class AccountSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What an account sets in Stripe's dashboard, and how its customers pay."""

    grace_h: int = 1
    """Hours from a cycle's end to the finalisation of its invoice: 1 unless set, 72 at most (docs.stripe.com,
    configure-grace-period)."""
    payments: Literal["succeed", "fail"] = "succeed"
    """What becomes of an automatic charge."""

    def __post_init__(self) -> None:
        if not 0 <= self.grace_h <= GRACE_H_MAX:
            raise ValueError(f"grace_h: 0 to {GRACE_H_MAX}")


class Account:
    """What the parts of the stand-in share."""

    def __init__(self, clock: MovedClock) -> None:
        self.clock: Final = clock
        self.agenda: Final = Agenda()
        self.kinds: Final[dict[str, dict[str, Stored]]] = {}
        self.settings = AccountSettings()
        self.request: Stored | None = None
        """The request that is being answered, as events name it; None for what Stripe does by itself."""
        self.holds: Callable[[Stored], bool] = lambda _: False
        """Whether a draft may not be finalised yet."""
        self.listeners: Final[list[Callable[[str, Stored, Stored | None], None]]] = []
        """Told of each change: event type, the object, the members that had another value before."""

    def now(self) -> int:
        """Unix seconds."""
        return self.clock.now()

    @property
    def grace_s(self) -> int:
        """From a cycle's end to the finalisation of its invoice."""
        return self.settings.grace_h * HOUR_S

    def add(self, kind: str, prefix: str, fields: Stored, *, object_id: str | None = None) -> Stored:
        """A new object with an id and the members that all have."""
        made_id = object_id or f"{prefix}_{secrets.token_hex(12)}"
        made = {"id": made_id, "object": kind, "created": self.now(), "livemode": False} | fields
        self.kinds.setdefault(kind, {})[made_id] = made
        return made

    def get(self, kind: str, object_id: str, *, param: str = "id") -> Stored:
        """The object. Raises StripeApiError: 404 for one of the path, 400 for one that another parameter names."""
        found = self.kinds.get(kind, {}).get(object_id)
        if found is None:
            name = kind.rpartition(".")[2].replace("_", " ") if kind.startswith("billing.") else kind
            unknown = missing(name, object_id)
            if param == "id":
                raise unknown
            raise StripeApiError(400, str(unknown), code="resource_missing", param=param)
        return found

    def all(self, kind: str) -> list[Stored]:
        """All of the kind, newest first, as Stripe lists them."""
        return list(self.kinds.get(kind, {}).values())[::-1]

    def remove(self, kind: str, object_id: str) -> Stored:
        """Deletes it; what Stripe answers then. Raises StripeApiError (404)."""
        self.get(kind, object_id)
        del self.kinds[kind][object_id]
        return {"id": object_id, "object": kind, "deleted": True}

    def change(self, found: Stored, event_type: str, fields: Stored) -> Stored:
        """Sets members of an object and tells of it, if anything changes."""
        before = {name: copy.deepcopy(found.get(name)) for name, value in fields.items() if found.get(name) != value}
        found.update(fields)
        if before:
            self.tell(event_type, found, before)
        return found

    def tell(self, event_type: str, about: Stored, before: Stored | None = None) -> None:
        """Says that something happened to an object."""
        for listener in self.listeners:
            listener(event_type, about, before)


def sub_list(items: Iterable[Stored], url: str) -> Stored:
    """A list inside an object, whole."""
    data = list(items)
    return {"object": "list", "data": data, "has_more": False, "total_count": len(data), "url": url}
