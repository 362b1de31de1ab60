"""Lines of invoices that bill metered usage, and how a draft keeps up with what arrives.

docs.stripe.com, configure-grace-period: usage counts on a draft when its timestamp lies within the line's period and it
arrives before finalisation. billing-mode/compare: flexible bills usage by the price of its time, classic only what came
since the last change of price; what arrives in the grace of a period whose price changed is on no invoice.
"""

from collections.abc import Callable
from typing import Final

from gateway.sandbox.stripe.counted import CountedEvents
from gateway.sandbox.stripe.invoice_forms import set_quantity, shape_line, usage_parent
from gateway.sandbox.stripe.meters import Meter
from gateway.sandbox.stripe.objects import Account, Stored

SEGMENTS: Final = "sandbox.segments"
"""Which price each subscription item has had since when, in its present period."""
SOURCES: Final = "sandbox.usage_line"
"""Which usage each line bills."""


class UsageLines:
    """Makes the lines of a period and counts them anew."""

    def __init__(self, account: Account, meter: Callable[[str], Meter], events: CountedEvents) -> None:
        self._account: Final = account
        self._meter: Final = meter
        self._events: Final = events

    def begin_period(self, item: Stored) -> None:
        """From the item's period start on, its present price holds."""
        kept = {"id": item["id"], "segments": [[item["price"]["id"], item["current_period_start"]]]}
        self._account.kinds.setdefault(SEGMENTS, {})[item["id"]] = kept

    def change_price(self, item_id: str, price_id: str) -> None:
        """From now on the item has another price."""
        self._account.kinds[SEGMENTS][item_id]["segments"].append([price_id, self._account.now()])

    def make(self, invoice: Stored, subscription: Stored, item: Stored, end: int) -> list[Stored]:
        """The lines of the item's usage from its period start to `end`."""
        segments = self._account.kinds[SEGMENTS][item["id"]]["segments"]
        if subscription["billing_mode"]["type"] == "classic":
            segments = segments[-1:]
        untils = [since for _, since in segments[1:]] + [end]
        parent = usage_parent(subscription["id"], item["id"])
        lines = []
        for (price_id, since), until in zip(segments, untils, strict=True):
            line = shape_line(invoice["id"], invoice["currency"], parent, (since, until), {})
            source = {
                "id": line["id"],
                "customer": subscription["customer"],
                "price": price_id,
                "received_by": end if len(self._account.kinds[SEGMENTS][item["id"]]["segments"]) > 1 else None,
            }
            self._account.kinds.setdefault(SOURCES, {})[line["id"]] = source
            self._count(line)
            lines.append(line)
        return lines

    def refresh(self, invoice: Stored) -> list[Stored]:
        """The draft's lines with the usage as it is by now."""
        lines: list[Stored] = invoice["lines"]["data"]
        for line in lines:
            if line["id"] in self._account.kinds.get(SOURCES, {}):
                self._count(line)
        return lines

    def _count(self, line: Stored) -> None:
        source, period = self._account.kinds[SOURCES][line["id"]], line["period"]
        price = self._account.get("price", source["price"])
        meter = self._meter(price["recurring"]["meter"])
        used = self._events.used(
            meter, source["customer"], period["start"], period["end"], received_by=source["received_by"]
        )
        set_quantity(line, used, price, self._account.get("product", price["product"])["name"])
