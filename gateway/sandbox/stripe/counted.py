"""What the counted meter events of a customer come to, for summaries and invoices."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from gateway.sandbox.stripe.meters import AcceptedEvent, Meter, aggregate


class CountedEvents:
    """Every counted event, in the order in which they came, found by meter and customer."""

    def __init__(self) -> None:
        self.all: Final[list[AcceptedEvent]] = []
        self._by_owner: Final[dict[tuple[str, str], list[AcceptedEvent]]] = {}
        self._indexed = 0

    def of(self, meter_id: str, customer: str) -> list[AcceptedEvent]:
        """Those of one customer on one meter, cancelled ones too."""
        for event in self.all[self._indexed :]:
            self._by_owner.setdefault((event.meter, event.customer), []).append(event)
        self._indexed = len(self.all)
        return self._by_owner.get((meter_id, customer), [])

    def used(self, meter: Meter, customer: str, start: int, end: int, *, received_by: int | None = None) -> Decimal:
        """The usage of a period by the events' timestamps, `end` exclusive; of events that came by then, if given."""
        return aggregate(meter, _within(self.of(meter.id, customer), start, end, received_by))


def _within(events: Iterable[AcceptedEvent], start: int, end: int, received_by: int | None) -> list[AcceptedEvent]:
    return [
        event
        for event in events
        if start <= event.timestamp < end
        and not event.cancelled
        and (received_by is None or event.created <= received_by)
    ]
