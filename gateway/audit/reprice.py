"""INV-3: every row that OpenAI's own figures price is priced again, from what the row itself has kept.

Shares nothing with how the row was written but the price book: a row that was changed, mis-summed or mis-read since
is found. Money is integers of nano-USD and exact decimals.
"""

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

import msgspec

import pricing
from gateway.audit.billed import BilledAmounts
from gateway.audit.reads.plans import ReadPlans
from gateway.audit.reads.rows import PricedRow
from gateway.audit.result import EXAMPLES_MAX, Collector, InvariantResult, judge
from gateway.openai.families.catalogue import price_family
from gateway.usage.adjust import EXACT

_LOOK: Final = (
    "The row, its usage block and its lines do not belong together: compare them with `gateway price`, find out who "
    "wrote or changed the row, and correct it: `gateway adjust ROW`."
)
_OTHER_PLAN: Final = (
    "Some rows were billed by another plan than the one in force when the call began: their proxy could not read plans "
    "for a while. `gateway plans explain ROW` shows both; `gateway adjust ROW --billed …` corrects the amount."
)


class _Billable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What else a price rests on (usage/settle.py). A field not known here makes the row one that is not re-priced."""

    model: str
    service_tier: str | None = None
    region: str | None = None
    cache_ttl: str | None = None


class Reprice:
    """Takes rows one by one; `verdict` at the end."""

    def __init__(self, book: pricing.Book, plans: ReadPlans) -> None:
        self._book: Final = book
        self._plans: Final = plans
        self._wrong: Final = Collector()
        self.billed: Final = BilledAmounts(plans.book, self._wrong)
        self._lines: Final = msgspec.json.Decoder(tuple[pricing.Line, ...])
        self._billable: Final = msgspec.json.Decoder(_Billable)
        self.rows = 0
        self._older = 0
        self._other_rates = 0
        self._not_known = 0

    def take(self, row: PricedRow) -> None:
        """Judges one row: what it is billed, and its price where OpenAI's own figures make it."""
        lines = self._read_lines(row)
        self.billed.take(row, lines)
        if row.evidence not in EXACT:
            return
        self.rows += 1
        if _sum_nano(lines) != (row.cost_nano or 0):
            self._wrong.add("cost is not the sum of its lines", row.id)
        request = self._request(row)
        if request is None:
            self._not_known += 1
            return
        again = pricing.price(self._book, request)
        if (again.prompt_tokens, again.completion_tokens, again.total_tokens) != row[7:10]:
            self._wrong.add("tokens are not those of the usage block", row.id)
        if row.price_version == self._book.version:
            if again.cost_nano != row.cost_nano:
                self._wrong.add("cost is not what usage and price book give", row.id)
            elif again.lines != lines:
                self._wrong.add("lines are not what usage and price book give", row.id)
            return
        self._older += 1
        if _rates(again.lines) != _rates(lines):
            self._other_rates += 1  # another book, other prices: the row keeps the ones of its time
        elif (again.cost_nano, again.lines) != (row.cost_nano, lines):
            self._wrong.add("cost is not what usage and price book give", row.id)

    def verdict(self, corrected: int = 0) -> InvariantResult:
        """INV-3 exactness. Every cost follows from the usage that OpenAI reported and the price book, and every billed
        amount from the cost and the plan that the row names, to the nano. `corrected`: see BilledAmounts.figures.

        On a breach: do not send invoices of these rows before the row, its usage and its lines have been compared.
        """
        billed = self.billed.figures(corrected)
        figures = {
            "rows": self.rows,
            "re-priced": self.rows - self._not_known - self._other_rates,
            "of an older book": self._older,
            "not re-priced, rates have changed": self._other_rates,
            "not re-priced, more than usage is needed": self._not_known,
            **billed,
        }
        broken = {"plan is not what its digest says": self._plans.changed, **self._wrong.offenders()}
        found = judge("INV-3", "exactness", figures, broken, _LOOK)
        if found.state != "ok" or self.billed.others <= corrected:
            return found
        return found._replace(examples=tuple(self.billed.elsewhere[:EXAMPLES_MAX]), look=_OTHER_PLAN)

    def _read_lines(self, row: PricedRow) -> tuple[pricing.Line, ...]:
        try:
            return self._lines.decode(row.lines)
        except msgspec.DecodeError:
            self._wrong.add("cost_lines do not read", row.id)
            return ()

    def _request(self, row: PricedRow) -> pricing.PriceRequest | None:
        """What to price; None when the row has been priced by more than its usage."""
        if row.usage is None:
            return None  # too large to be kept whole, or missing, and then INV-4 says so
        model, tier, region, cache_ttl = row.model, row.service_tier, None, None
        if row.billable is not None:
            try:
                known = self._billable.decode(row.billable)
            except msgspec.DecodeError:
                return None
            model, tier, region, cache_ttl = known.model, known.service_tier, known.region, known.cache_ttl
        return pricing.PriceRequest(
            endpoint=price_family(row.endpoint),
            model=model,
            at=row.started_at,
            usage=row.usage,
            service_tier=tier,
            region=region,
            cache_ttl=cache_ttl,
        )


def _sum_nano(lines: tuple[pricing.Line, ...]) -> int | None:
    """Nano-USD of the lines, each `quantity` × `usd_per_unit`, rounded half-even once; None where a line is wrong."""
    total = Decimal(0)
    try:
        for line in lines:
            usd = Decimal(line.usd)
            if Decimal(line.quantity) * Decimal(line.usd_per_unit) != usd:
                return None
            total += usd
        return int(total.scaleb(9).to_integral_value(ROUND_HALF_EVEN))
    except (ArithmeticError, ValueError):  # no number, or none that is finite
        return None


def _rates(lines: tuple[pricing.Line, ...]) -> dict[str, str]:
    return {line.unit: line.usd_per_unit for line in lines}
