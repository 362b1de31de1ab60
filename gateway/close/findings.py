"""What stands against closing a month, and what somebody has accepted. Pure."""

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final, NamedTuple

from gateway.billing.bridge import Bridge, usd
from gateway.kit.errors import OptionError

ITEMS: Final[Mapping[str, str]] = {
    "month": "the month is not over",
    "seal": "the month is not sealed yet",
    "earlier": "months before it that are not closed",
    "journal": "calls of the month that are open in a journal",
    "stream": "entries of the month in the Redis stream",
    "quarantine": "entries in quarantine",
    "open-items": "open items older than the month's end",
    "corrections": "corrections that wait for another person",
    "sending": "amounts that are not sent to Stripe yet",
    "held": "meter events that wait for a person",
    "unbilled": "usage that nobody pays for yet",
    "unpriced": "calls without a price",
    "estimated": "estimates that nobody has corrected",
    "bridge": "amounts that no line of the bridge explains",
    "audit": "breaches of invariants",
    "stripe": "differences with Stripe that nothing explains",
    "openai": "OpenAI's own bill has not been read",
}
"""Item → what it is, in the order in which they are listed. The names are those of --accept."""
NEVER_ACCEPTED: Final = frozenset({"month"})


class CloseFinding(NamedTuple):
    """One thing that stands against closing a month."""

    item: str
    found: int
    """How many; 0 where there is nothing to count."""
    nano: int | None
    """The amount, nano-USD; None where it is not known."""
    look: str
    """Where to look, and what to do."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        amount = None if self.nano is None else usd(self.nano)
        return {"item": self.item, "what": ITEMS[self.item], "count": self.found, "usd": amount, "look": self.look}


class StripeCompared(NamedTuple):
    """How the month compares with Stripe."""

    payers: int = 0
    """With a difference that nothing explains."""
    why_not: str = ""
    """Why it was not compared; empty where it was."""


class MonthFacts(NamedTuple):
    """What was counted of a month; amounts in nano-USD."""

    is_over: bool
    is_sealed: bool
    may_seal: bool
    """Whether it may be sealed by now."""
    earlier: Sequence[date]
    """The months before it that have been used and are not closed."""
    journal_segments: int
    """Of this host's journal; 0: there is none here."""
    journal_open: int
    stream: int | None
    """None: there is no Redis to ask."""
    quarantined: int
    open_items: int
    proposals: int
    """Corrections that nobody has approved or refused."""
    windows_open: int
    """Of customers: not made into events yet."""
    events_sending: int
    events_held: int
    unbilled_payers: int
    unpriced: int
    estimated: int
    estimated_nano: int
    stripe: StripeCompared
    audit_breaches: Sequence[str]
    """Names of invariants."""


def find(facts: MonthFacts, bridge: Bridge, estimated_max_percent: Decimal) -> list[CloseFinding]:
    """Everything that stands against closing, in the order of ITEMS."""
    found = [*_of_time(facts), *_on_the_way(facts), *_at_stripe(facts, bridge)]
    found += _of_money(facts, bridge, estimated_max_percent)
    if facts.audit_breaches:
        look = f"{', '.join(facts.audit_breaches)}: see `gateway audit` of the month"
        found.append(CloseFinding("audit", len(facts.audit_breaches), None, look))
    if bridge.line("openai") is None:
        found.append(CloseFinding("openai", 0, None, "this version does not read it: compare by hand, and say so"))
    order = list(ITEMS)
    return sorted(found, key=lambda finding: order.index(finding.item))


def _of_time(facts: MonthFacts) -> list[CloseFinding]:
    if not facts.is_over:
        return [CloseFinding("month", 0, None, "wait for its end")]
    found = []
    if not facts.is_sealed and not facts.may_seal:
        look = "a worker seals it in time; accepted, it is sealed now, and Stripe waits longer"
        found.append(CloseFinding("seal", 0, None, look))
    if facts.earlier:
        look = f"{facts.earlier[0]:%Y-%m} is the first of them: close the months in their order"
        found.append(CloseFinding("earlier", len(facts.earlier), None, look))
    return found


def _on_the_way(facts: MonthFacts) -> list[CloseFinding]:
    """What may still become rows; of a sealed month it would be booked into a later one."""
    found = []
    if not facts.journal_segments:
        found.append(CloseFinding("journal", 0, None, "there is no journal here: close on a host of `gateway serve`"))
    elif facts.journal_open:
        found.append(CloseFinding("journal", facts.journal_open, None, "of this host: see that serve runs, and wait"))
    if facts.stream is None:
        found.append(CloseFinding("stream", 0, None, "REDIS_URL is not set"))
    elif facts.stream:
        found.append(CloseFinding("stream", facts.stream, None, "see that a worker runs, and wait"))
    if facts.quarantined:
        found.append(CloseFinding("quarantine", facts.quarantined, None, "`gateway quarantine list`"))
    if facts.open_items:
        found.append(CloseFinding("open-items", facts.open_items, None, "OpenAI has not said how they ended"))
    if facts.proposals:
        found.append(CloseFinding("corrections", facts.proposals, None, "`gateway corrections list`"))
    return found


def _at_stripe(facts: MonthFacts, bridge: Bridge) -> list[CloseFinding]:
    found = []
    if waiting := facts.events_sending + facts.windows_open:
        amount = _sum(bridge, "open", "sending")
        found.append(CloseFinding("sending", waiting, amount, "see that a worker reports"))
    if facts.events_held:
        amount = _sum(bridge, "rejected", "unknown", "unreportable")
        look = "`gateway billing held`, `gateway billing decide`"
        found.append(CloseFinding("held", facts.events_held, amount, look))
    if facts.stripe.why_not:
        found.append(CloseFinding("stripe", 0, None, f"it was not compared: {facts.stripe.why_not}"))
    elif facts.stripe.payers:
        found.append(CloseFinding("stripe", facts.stripe.payers, None, "`gateway reconcile stripe`"))
    return found


def _of_money(facts: MonthFacts, bridge: Bridge, estimated_max_percent: Decimal) -> list[CloseFinding]:
    found = []
    if facts.unbilled_payers:
        amount = _sum(bridge, "unbilled")
        found.append(CloseFinding("unbilled", facts.unbilled_payers, amount, "`gateway billing unbilled`"))
    if facts.unpriced:
        found.append(CloseFinding("unpriced", facts.unpriced, None, "`gateway report usage --by model`"))
    cost = bridge.line("cost") or 0
    if facts.estimated_nano * 100 > cost * estimated_max_percent:
        look = f"more than {estimated_max_percent} % of the cost (close.estimated_max_percent)"
        found.append(CloseFinding("estimated", facts.estimated, facts.estimated_nano, look))
    if not bridge.is_explained:
        found.append(CloseFinding("bridge", 1, bridge.unexplained, "`gateway billing status`, `gateway audit`"))
    return found


def _sum(bridge: Bridge, *lines: str) -> int:
    """Of lines that are taken away, as positive amounts."""
    return -sum(bridge.line(line) or 0 for line in lines)


def parse_accepted(options: Sequence[str]) -> dict[str, str]:
    """`ITEM=REASON` of --accept. Raises OptionError."""
    accepted = {}
    for option in options:
        item, _, reason = option.partition("=")
        if item not in ITEMS or item in NEVER_ACCEPTED:
            names = ", ".join(name for name in ITEMS if name not in NEVER_ACCEPTED)
            raise OptionError(f"--accept: {item!r} is not one of {names}")
        if not reason.strip():
            raise OptionError(f"--accept {item}: give the reason, as {item}='we have looked, and …'")
        accepted[item] = reason.strip()
    return accepted


def refused(findings: Sequence[CloseFinding], accepted: Mapping[str, str]) -> list[CloseFinding]:
    """Those that nobody has accepted."""
    return [finding for finding in findings if finding.item not in accepted]
