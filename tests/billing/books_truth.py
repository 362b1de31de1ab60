"""What the amounts of the books must be, from the list of what happened: plain Python, and nothing of the product.

Written from docs/billing.md and docs/plans.md, so that a mistake in the product's arithmetic is not made here too. All
amounts are integers of nano-USD, all instants UTC.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction
from typing import Final, NamedTuple

NANO_PER_UNIT: Final = 1000
"""Nano-USD in one unit of Stripe's meter."""


class Fact(NamedTuple):
    """One row as it is given to the ledger."""

    id: str
    user: str
    cost: int
    began: datetime
    completed: datetime
    adjusts: str | None = None


class Booked(NamedTuple):
    """One row, and what it means."""

    fact: Fact
    customer: str | None
    nano: int
    at: datetime


class Paid(NamedTuple):
    """Who pays for a user from when to when; half-open."""

    customer: str
    since: datetime
    until: datetime | None


class PlanFact(NamedTuple):
    """A factor on the cost, from an instant on, of one user or of everybody."""

    user: str | None
    since: datetime
    factor: Fraction


class Truth:
    """The books as they must be."""

    def __init__(self, markup: Fraction) -> None:
        self._markup: Final = markup
        self.plans: Final[list[PlanFact]] = []
        self.payers: Final[dict[str, list[Paid]]] = defaultdict(list)
        self.modes: Final[dict[str, str]] = {}
        self.rows: Final[dict[str, Booked]] = {}
        self.sealed: datetime | None = None
        self.credit_since: Final[dict[str, datetime]] = {}
        self.granted: Final[Counter[str]] = Counter()
        self.used: Final[Counter[str]] = Counter()
        """Of a user's credit."""
        self.billed: Final[Counter[str]] = Counter()
        """By customer, of what is theirs when it was completed."""
        self.credit: Final[Counter[str]] = Counter()
        """By customer: what of it their users' credit has paid."""
        self.alone: Final[Counter[str]] = Counter()
        """By user: billed while nobody paid for them."""
        self.alone_credit: Final[Counter[str]] = Counter()
        """By user: what of that their credit has paid."""
        self.given: Final[Counter[str]] = Counter()
        """By user: what of that was billed to a customer by a decision."""
        self.taken_over: Final[Counter[str]] = Counter()
        """By customer: what users had accrued and was billed to them by a decision."""
        self.let_go: Final[Counter[str]] = Counter()
        """By user: what was settled elsewhere or written off before anybody paid."""
        self.by_hand: Final[Counter[str]] = Counter()
        """By customer: settled by an invoice or a credit note that a person has made, or written off."""

    # Payers

    def payer(self, user: str, at: datetime) -> str | None:
        """Who pays for a user at an instant."""
        for each in self.payers[user]:
            if each.since <= at and (each.until is None or at < each.until):
                return each.customer
        return None

    def link(self, user: str, customer: str | None, at: datetime, since: datetime | None = None) -> None:
        """Somebody else pays from now on, or nobody; `since`: from a past instant on, where nobody has paid since."""
        if since is None and self.payer(user, at) == customer:
            return
        kept = self.payers[user]
        if since is None and kept and kept[-1].until is None:
            kept[-1] = kept[-1]._replace(until=at)
        if customer is not None:
            kept.append(Paid(customer, since or at, None))

    def can_begin(self, user: str, since: datetime) -> bool:
        """Whether nobody has paid for a user at any time from then on."""
        return all(each.until is not None and each.until <= since for each in self.payers[user])

    def decide(self, user: str, customer: str, action: str) -> int:
        """What a user has accrued is billed to a customer, or is not to be billed by us; the amount."""
        nano = self.unbilled(user)
        if action == "bill":
            self.given[user] += nano
            self.taken_over[customer] += nano
        else:
            self.let_go[user] += nano
        return nano

    # Credit

    def pay_in_advance(self, user: str, nano: int, now: datetime) -> None:
        """A credit entry; whoever pays for its user pays in advance from now on."""
        self.credit_since.setdefault(user, now)
        self.granted[user] += nano
        payer = self.payer(user, now)
        if payer is not None and self.modes[payer] == "postpaid":
            self.modes[payer] = "prepaid"

    # Rows

    def price(self, fact: Fact) -> int:
        """What a call is billed: the user's own plan before everybody's, each by when the call began."""
        for user in (fact.user, None):
            holding = [each for each in self.plans if each.user == user and each.since <= fact.began]
            if holding:
                return round(fact.cost * max(holding, key=lambda each: each.since).factor)
        return round(fact.cost * self._markup)

    def book(self, facts: Iterable[Fact], now: datetime) -> None:
        """A batch of calls, of which the ledger has those it has not seen yet."""
        self._book([self._booked(fact, self.price(fact), now) for fact in facts if fact.id not in self.rows])

    def correct(self, adjusted: str, fact: Fact, now: datetime) -> int:
        """A call turns out to cost `fact.cost` more or less, by its own terms; what it is billed more or less."""
        first = self.rows[adjusted].fact
        nano = self.price(first._replace(cost=first.cost + fact.cost)) - self.price(first)
        self._book([self._booked(fact, nano, now)])
        return nano

    def _booked(self, fact: Fact, nano: int, now: datetime) -> Booked:
        if fact.adjusts is None:
            customer = self.payer(fact.user, fact.completed)
        else:
            first = self.rows[fact.adjusts]
            customer = first.customer or self.payer(fact.user, first.fact.completed)
        is_open = self.sealed is None or fact.completed >= self.sealed
        return Booked(fact, customer, nano, fact.completed if is_open else now)

    def _book(self, rows: list[Booked]) -> None:
        """Credit pays in order of the hours in which rows are booked, not more than is left, and gets back first."""
        for row in sorted(rows, key=lambda each: (each.at.replace(minute=0, second=0, microsecond=0), each.fact.id)):
            user, customer = row.fact.user, row.customer
            self.rows[row.fact.id] = row
            paid = self._pay(row) if customer is None or self.modes[customer] == "prepaid" else 0
            if customer is None:
                self.alone[user] += row.nano
                self.alone_credit[user] += paid
            else:
                self.billed[customer] += row.nano
                self.credit[customer] += paid

    def _pay(self, row: Booked) -> int:
        user = row.fact.user
        since = self.credit_since.get(user)
        if since is None or row.fact.completed < since:
            return 0
        left = max(0, self.granted[user] - self.used[user])
        paid = min(row.nano, left) if row.nano > 0 else max(row.nano, -self.used[user])
        self.used[user] += paid
        return paid

    # What must be

    def unbilled(self, user: str) -> int:
        """What of a user's nobody pays for, and no one has decided about."""
        return self.alone[user] - self.alone_credit[user] - self.given[user] - self.let_go[user]

    def owed(self, customer: str) -> int:
        """What a customer owes through Stripe, or otherwise by hand."""
        return self.billed[customer] - self.credit[customer] + self.taken_over[customer]

    def at_stripe(self, customer: str) -> int:
        """Whole micro-USD that Stripe must have, once everything is delivered and nothing is due: the books carry less
        than a micro-USD."""
        return (self.owed(customer) - self.by_hand[customer]) // NANO_PER_UNIT

    def carried(self, customer: str) -> int:
        """Less than a micro-USD, which waits for the next."""
        return (self.owed(customer) - self.by_hand[customer]) % NANO_PER_UNIT
