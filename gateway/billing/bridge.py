"""The bridge from our cost to the money at Stripe: one line for each place where an amount can be. Pure.

Amounts are integers of nano-USD. What is read from the database comes in as `PayerFacts`, one for each payer. Nothing
here is a remainder of the rest: each line is read for itself, and what they leave is the line `unexplained`, which has
to be 0. Each part of it is a comparison of two sums that must be equal, so that two errors cannot hide each other.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Self

NANO_PER_UNIT: Final = 1000
"""Nano-USD in one unit of Stripe's meter."""


class PayerFacts(NamedTuple):
    """What the books say of one payer in one month, or since the beginning. Nano-USD."""

    cost: int = 0
    billed: int = 0
    """By the rows."""
    windows_billed: int = 0
    """The same by the billing windows; with what old windows keep."""
    accrued: int = 0
    """In the windows: what a customer took over from users by decision; of such a user, below 0."""
    credit: int = 0
    """Of the windows, what prepaid credit has paid."""
    credit_used: int = 0
    """The same by the credit's own account. That is by user: one payer alone has what the windows say here too."""
    unbilled: int = 0
    """In windows that have no customer."""
    open: int = 0
    """In windows with a customer, not frozen yet."""
    windows_settled: int = 0
    """Settled by hand in the window, before an event was made of it."""
    windows_written_off: int = 0
    """Written off in the same way."""
    frozen: int = 0
    """What events were made of."""
    sending: int = 0
    rejected: int = 0
    unknown: int = 0
    unreportable: int = 0
    settled: int = 0
    written_off: int = 0
    delivered: int = 0
    """All of these: values of events that count, in nano-USD."""
    carry_error: int = 0
    """Since the beginning: frozen, less the events that count, less what is carried and due now. It has to be 0."""
    invoiced: int = 0
    draft: int = 0
    late: int = 0
    """Of what was delivered: on a final invoice, on a draft, and filed after the end of its own period."""
    below_zero: int = 0
    """Of what was delivered: in a final invoice's period that is below zero, which Stripe bills as 0."""

    def plus(self, other: Self) -> Self:
        """Both together."""
        return type(self)(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def counted(self) -> int:
        """All events that count, whatever has become of them."""
        held = self.rejected + self.unknown + self.unreportable
        return self.sending + held + self.settled + self.written_off + self.delivered


EVENT_LINES: Final[Mapping[str, str]] = {
    "pending": "sending",
    "sending": "sending",
    "sent": "delivered",
    "duplicate": "delivered",
    "rejected": "rejected",
    "held": "rejected",
    "unknown": "unknown",
    "unreportable": "unreportable",
    "settled": "settled",
    "written_off": "written_off",
}
"""State of a meter event that counts → the line that its value is on."""
DEAD_STATES: Final = frozenset({"superseded", "cancelled"})
"""States of an event whose amount another event or window has."""


class BridgeLine(NamedTuple):
    """One line: an amount that is added to the running sum or taken from it, or a sum so far."""

    key: str
    title: str
    nano: int | None
    """As it is added: what is taken away is negative. None: not read."""
    is_sum: bool = False


class BridgePart(NamedTuple):
    """A part of a line: of the margin by plan, of what Stripe has by invoice, of what is unexplained by comparison."""

    line: str
    key: str
    title: str
    nano: int


class Bridge(NamedTuple):
    """All lines from the cost to Stripe, in order."""

    lines: tuple[BridgeLine, ...]
    parts: tuple[BridgePart, ...]

    @property
    def unexplained(self) -> int:
        """What no line accounts for."""
        return _require(self.line("unexplained"))

    @property
    def is_explained(self) -> bool:
        """Whether every comparison is equal; two differences that cancel each other are still two."""
        return not any(part.nano for part in self.parts if part.line == "unexplained")

    def line(self, key: str) -> int | None:
        """The amount of one line."""
        return next(line.nano for line in self.lines if line.key == key)

    def to_json(self) -> dict[str, Any]:
        """Plain values; amounts are strings of whole nano-USD and of USD."""
        return {
            "lines": [
                {"key": key, "title": title, **_amounts(nano), "is_sum": is_sum}
                for key, title, nano, is_sum in self.lines
            ],
            "parts": [part._asdict() | _amounts(part.nano) for part in self.parts],
            "is_explained": self.is_explained,
        }


def build_bridge(facts: PayerFacts, margins: Mapping[str, int] | None = None) -> Bridge:
    """The lines for one payer, or for all of them together.

    `margins` is the margin by plan version where the rows were read for it.
    """
    errors = _errors(facts)
    carried, due = _split_carried(facts.frozen - facts.counted - facts.carry_error)
    lines = (
        BridgeLine("openai", "OpenAI's own bill", None),
        BridgeLine("cost", "cost, as we priced it", facts.cost, is_sum=True),
        BridgeLine("margin", "margin", facts.billed - facts.cost),
        BridgeLine("billed", "billed", facts.billed, is_sum=True),
        BridgeLine("accrued", "accrued before anybody paid, billed to a customer by decision", facts.accrued),
        BridgeLine("credit", "paid by prepaid credit", -facts.credit_used),
        BridgeLine("unbilled", "no customer yet (unbilled)", -facts.unbilled),
        BridgeLine("open", "waits: open windows", -facts.open),
        BridgeLine("sending", "waits: being sent", -facts.sending),
        BridgeLine("carried", "waits: below one micro-USD", -carried),
        BridgeLine("credit_due", "credit due to the customer", -due),
        BridgeLine("rejected", "held: rejected", -facts.rejected),
        BridgeLine("unknown", "held: in doubt", -facts.unknown),
        BridgeLine("unreportable", "held: unreportable", -facts.unreportable),
        BridgeLine("settled", "settled by hand", -facts.settled - facts.windows_settled),
        BridgeLine("written_off", "written off", -facts.written_off - facts.windows_written_off),
        BridgeLine("unexplained", "unexplained", -sum(errors.values())),
        BridgeLine("at_stripe", "at Stripe", facts.delivered, is_sum=True),
    )
    return Bridge(
        lines,
        (
            *(BridgePart("margin", plan, plan, nano) for plan, nano in sorted((margins or {}).items())),
            *_at_stripe(facts),
            *(BridgePart("unexplained", key, _COMPARISONS[key], -nano) for key, nano in errors.items()),
        ),
    )


_COMPARISONS: Final = {
    "rows": "billed by the rows, less billed by the windows",
    "windows": "billed by the windows, less what has become of it",
    "credit": "credit in the windows, less credit used by its account",
    "carry": "frozen, less the events, less what is carried and due (since the beginning)",
}


def _errors(facts: PayerFacts) -> dict[str, int]:
    """Each comparison: what is left of it. All of them are lines of the one sum from the rows to the events."""
    by_hand = facts.windows_settled + facts.windows_written_off
    in_windows = facts.credit + facts.unbilled + facts.open + by_hand + facts.frozen
    return {
        "rows": facts.billed - facts.windows_billed,
        "windows": facts.windows_billed + facts.accrued - in_windows,
        "credit": facts.credit - facts.credit_used,
        "carry": facts.carry_error,
    }


def _split_carried(nano: int) -> tuple[int, int]:
    """What was frozen and is in no event: less than a unit, and below zero what no period can take back any more."""
    if abs(nano) < NANO_PER_UNIT:
        return nano, 0
    carried = nano % NANO_PER_UNIT
    return carried, nano - carried


def _at_stripe(facts: PayerFacts) -> tuple[BridgePart, ...]:
    waiting = facts.delivered - facts.invoiced - facts.draft - facts.late - facts.below_zero
    return (
        BridgePart("at_stripe", "invoiced", "on final invoices", facts.invoiced),
        BridgePart("at_stripe", "draft", "on draft invoices", facts.draft),
        BridgePart("at_stripe", "late", "late: on the next invoice", facts.late),
        BridgePart("at_stripe", "not_invoiced", "on no invoice yet", waiting),
        BridgePart("at_stripe", "below_zero", "in periods below zero, billed as 0", facts.below_zero),
    )


def add_up(lines: Iterable[BridgeLine]) -> list[str]:
    """The sums among these lines that are not what stands above them; empty when all of it adds up."""
    wrong, running = [], 0
    for line in lines:
        if line.nano is None:
            continue
        if line.is_sum:
            if line.key != "cost" and line.nano != running:
                wrong.append(f"{line.key} is {line.nano}, the lines above it give {running}")
            running = line.nano
        else:
            running += line.nano
    return wrong


def usd(nano: int) -> str:
    """Nano-USD as USD with exactly nine decimals, also below zero."""
    whole, rest = divmod(abs(nano), 10**9)
    return f"{'-' if nano < 0 else ''}{whole}.{rest:09d}"


def _amounts(nano: int | None) -> dict[str, str | None]:
    return {"nano": None, "usd": None} if nano is None else {"nano": str(nano), "usd": usd(nano)}


def _require(nano: int | None) -> int:
    assert nano is not None
    return nano
