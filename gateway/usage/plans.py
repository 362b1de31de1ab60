"""Plans: what a customer pays for what a call costs, from when to when, and for whom. Pure.

A plan has versions that never change; a row names the one that made its amount (`plan_version`), so that the amount can
be derived again from the row alone. Where no plan holds, the setting billing.markup does, and is named like a plan.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal, DecimalException, Inexact, InvalidOperation
from typing import Any, Final, Literal, NamedTuple, get_args

import msgspec

from gateway.openai.models import is_model
from pricing import Line, price_tier

Kind = Literal["markup", "discount", "price_list", "free"]
LEAD: Final = timedelta(seconds=60)
"""How far ahead a plan starts or ends at least: every proxy has it by then. The table's trigger says the same."""
FACTOR_MAX: Final = 1000
RATE_USD_MAX: Final = 1_000_000
FACTOR_DECIMALS: Final = 9
RATE_DECIMALS: Final = 18
PRICES_MAX: Final = 10_000
"""Rates in one list."""
TIERS: Final = ("default", "flex", "priority", "ultrafast")
"""Service tiers that a list may have prices of their own for."""
LEGACY: Final = "legacy"
"""The plan_version of a row from before plans whose amount is not an exact mark-up on its cost."""
_MARKUP: Final = "markup:"
_FOUND_MAX: Final = 10_000
"""Callers whose plans are remembered."""
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,9}(\.\d{1,18})?", re.ASCII)
# Products of a quantity and a rate are exact, or it is an error: the one rounding is that of `bill`.
_EXACT: Final = Context(prec=200, traps=[Inexact, InvalidOperation])
_ONE: Final = Decimal(1)
_NANO: Final = Decimal(10**9)


class PlanError(Exception):
    """This can be no plan; the message says why."""


class Terms(msgspec.Struct, frozen=True):
    """How a cost becomes an amount."""

    name: str
    """As `plan_version` has it: `<plan>@<version>`, or `markup:<factor>` where the setting holds."""
    factor: Decimal
    """On OpenAI's price: of everything, or of what `prices` lacks."""
    prices: Mapping[str, Mapping[str | None, Mapping[str, Decimal]]] = {}
    """Own prices: by model, by service tier (None: all that the model does not name) and by unit of a cost line, USD
    for each unit."""


class PlanVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a plan. A part of its scope that is None stands for any."""

    name: str
    version: int
    kind: Kind
    rates: dict[str, Any]
    """`{"factor": "1.2"}`, `{"percent": "10"}`, `{}` when free, or `{"usd_per_unit": {model: {unit: "0.1", tier: {unit:
    "0.05"}}}, "factor": "1"}`: exact decimals as text."""
    valid_from: datetime
    valid_to: datetime | None = None
    """The first instant at which it no longer holds."""
    user_id: str | None = None
    customer_id: str | None = None
    api_key_id: str | None = None
    model: str | None = None
    """The model with its dated snapshots, or one snapshot."""
    endpoint: str | None = None

    @property
    def plan_version(self) -> str:
        """What a row has that it made the amount of."""
        return f"{self.name}@{self.version}"

    @property
    def scope(self) -> str:
        """Whose calls, and which, in words; the same for all versions of a plan."""
        return describe_scope(self)


class Payer(NamedTuple):
    """Which customer a user's calls belong to, from when to when, as far as plans are concerned."""

    user_id: str
    customer_id: str
    since: datetime
    until: datetime | None


class Span(NamedTuple):
    """When a plan holds for one kind of call."""

    since: datetime
    until: datetime | None
    terms: Terms


def describe_scope(plan: PlanVersion) -> str:
    """`default`, or like `user:UUID model:gpt-5`."""
    parts = {
        "key": plan.api_key_id,
        "user": plan.user_id,
        "customer": plan.customer_id,
        "model": plan.model,
        "endpoint": plan.endpoint,
    }
    return " ".join(f"{name}:{value}" for name, value in parts.items() if value is not None) or "default"


def bill(cost_nano: int, lines: Sequence[Line], terms: Terms, model: str, tier: str | None) -> int:
    """What a customer pays for a call of `model`, priced by service tier `tier`, nano-USD: rounded half-even, once.

    A list's price takes the place of OpenAI's for each line that it has; all else is OpenAI's price × factor. A cost
    without lines is billed by the factor: nothing that costs something is free unless the plan says so.
    """
    if not terms.prices:  # nearly every call
        return (
            cost_nano
            if terms.factor == _ONE
            else int(_EXACT.multiply(cost_nano, terms.factor).to_integral_value(ROUND_HALF_EVEN))
        )
    nano = _EXACT.multiply(bill_exactly(Decimal(cost_nano).scaleb(-9, _EXACT), lines, terms, model, tier), _NANO)
    return int(nano.to_integral_value(ROUND_HALF_EVEN))


def bill_exactly(cost_usd: Decimal, lines: Sequence[Line], terms: Terms, model: str, tier: str | None) -> Decimal:
    """The same in USD, before it is rounded."""
    prices = _prices_in(_prices_of(terms, model), tier) if terms.prices and lines else None
    if prices is None:
        return _EXACT.multiply(cost_usd, terms.factor)
    usd = Decimal(0)
    for line in lines:
        own = prices.get(line.unit)
        part = (
            _EXACT.multiply(Decimal(line.usd), terms.factor)
            if own is None
            else _EXACT.multiply(Decimal(line.quantity), own)
        )
        usd = _EXACT.add(usd, part)
    return usd


def bill_most(cost_nano: int, inputs: int, outputs: int, terms: Terms, model: str) -> int:
    """No less than `bill` gives, in any tier, for a call of at most this cost and so many tokens, before anything is
    known of it."""
    nano = _EXACT.multiply(Decimal(cost_nano), terms.factor)
    of_model = _prices_of(terms, model) if terms.prices else {}
    prices = [price for prices in of_model.values() for price in prices.items()]
    for side, quantity in (("input", inputs), ("output", outputs), ("fee", 1)):
        usd = max((usd for unit, usd in prices if _side(unit) == side), default=Decimal(0))
        nano = _EXACT.add(nano, _EXACT.multiply(_EXACT.multiply(Decimal(quantity), usd), _NANO))
    return int(nano.to_integral_value(ROUND_CEILING))


def _side(unit: str) -> str:
    if not unit.endswith("_tokens"):
        return "fee"
    return "output" if "output" in unit else "input"


def _prices_of(terms: Terms, model: str) -> Mapping[str | None, Mapping[str, Decimal]]:
    """By tier: the model's own entry, else that of the model whose snapshot it is."""
    exact = terms.prices.get(model)
    if exact is not None:
        return exact
    return next((prices for name, prices in terms.prices.items() if is_model(model, name)), {})


def _prices_in(of_model: Mapping[str | None, Mapping[str, Decimal]], tier: str | None) -> Mapping[str, Decimal] | None:
    """The prices of a tier as a response names it, else those of all tiers."""
    return of_model.get(price_tier(tier)) or of_model.get(None) or None


def priced_tier(service_tier: str | None, billable: Mapping[str, Any] | None, asked: str | None) -> str | None:
    """The service tier that a row was priced by (usage/settle.py): its column, and `billable` and `service_tier_asked`
    of its metadata."""
    if billable is not None:
        found: str | None = billable.get("service_tier")
        return found
    return asked if asked is not None and service_tier in (None, "auto") else service_tier


def markup_terms(markup: Decimal) -> Terms:
    """What holds where no plan does."""
    return Terms(f"{_MARKUP}{plain(markup)}", markup)


def plain(number: Decimal) -> str:
    """A number as text in one form only: no exponent, no zeros at its end."""
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text or "0"


def setting_terms(plan_version: str) -> Terms | None:
    """The terms of `markup:<factor>`; None for anything else."""
    text = plan_version.removeprefix(_MARKUP)
    if text == plan_version:
        return None
    try:
        factor = Decimal(text)
    except DecimalException:
        return None
    return Terms(plan_version, factor) if factor.is_finite() and factor >= 0 else None


def terms_of(plan: PlanVersion) -> Terms:
    """What a plan makes of a cost. Raises PlanError when its rates are not those of its kind."""
    rates = plan.rates
    if plan.kind not in get_args(Kind):
        raise PlanError(f"{plan.kind!r} is not a kind of plan")
    match plan.kind:
        case "free":
            _only(rates)
            return Terms(plan.plan_version, Decimal(0))
        case "markup":
            _only(rates, "factor")
            return Terms(plan.plan_version, _factor(rates["factor"]))
        case "discount":
            _only(rates, "percent")
            percent = _number(rates["percent"], "percent", 100, 7)
            return Terms(plan.plan_version, _EXACT.subtract(_ONE, percent.scaleb(-2, _EXACT)))
        case "price_list":
            _only(rates, "factor", "usd_per_unit")
            return Terms(plan.plan_version, _factor(rates["factor"]), _price_list(rates["usd_per_unit"]))


def _only(rates: Mapping[str, Any], *names: str) -> None:
    if set(rates) != set(names):
        raise PlanError(f"rates have {sorted(rates)}, and should have {sorted(names)}")


def _factor(text: object) -> Decimal:
    return _number(text, "factor", FACTOR_MAX, FACTOR_DECIMALS)


def _price_list(found: object) -> dict[str, dict[str | None, dict[str, Decimal]]]:
    if not isinstance(found, Mapping) or not found:
        raise PlanError("usd_per_unit: an object with prices by model")
    prices: dict[str, dict[str | None, dict[str, Decimal]]] = {}
    for model, units in found.items():
        if not model or not isinstance(units, Mapping) or not units:
            raise PlanError(f"usd_per_unit: {model!r} has no object with prices by unit")
        tiers = {name: of_tier for name, of_tier in units.items() if name in TIERS or isinstance(of_tier, Mapping)}
        for name, of_tier in tiers.items():
            if name not in TIERS or not isinstance(of_tier, Mapping) or not of_tier:
                raise PlanError(f"usd_per_unit: {model!r} {name!r}: prices by unit in a tier of {', '.join(TIERS)}")
        in_all = _unit_prices({unit: usd for unit, usd in units.items() if unit not in tiers}, repr(model))
        # What a tier lacks is as in all tiers.
        prices[model] = {None: in_all} | {
            name: in_all | _unit_prices(of_tier, f"{model!r} {name!r}") for name, of_tier in tiers.items()
        }
    if sum(len(units) for of_model in prices.values() for units in of_model.values()) > PRICES_MAX:
        raise PlanError(f"usd_per_unit: more than {PRICES_MAX} prices")
    return prices


def _unit_prices(units: Mapping[str, object], of: str) -> dict[str, Decimal]:
    return {
        unit: _number(usd, f"usd_per_unit: {of} {unit!r}", RATE_USD_MAX, RATE_DECIMALS) for unit, usd in units.items()
    }


def _number(text: object, what: str, most: int, decimals: int) -> Decimal:
    """An exact decimal that was written as text."""
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise PlanError(f"{what}: {text!r} is not a decimal as text, like '1.2'")
    number = Decimal(text)
    if not 0 <= number <= most or len(text.partition(".")[2]) > decimals:
        raise PlanError(f"{what}: 0 to {most}, at most {decimals} decimals")
    return number


def check_plan(plan: PlanVersion) -> None:
    """Raises PlanError for what can be no plan."""
    if not _NAME.fullmatch(plan.name):
        raise PlanError(
            f"{plan.name!r}: a name has 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with one of a-z, 0-9"
        )
    if sum(part is not None for part in (plan.user_id, plan.customer_id, plan.api_key_id)) > 1:
        raise PlanError("a plan is for one of: user, customer, key")
    if plan.model is not None and plan.endpoint is not None:
        raise PlanError("a plan is for one of: model, endpoint")
    if plan.valid_to is not None and plan.valid_to < plan.valid_from:
        raise PlanError("it ends before it starts")
    terms_of(plan)


def digest_of(plan: PlanVersion) -> str:
    """SHA-256 of what never changes of a version, as JSON with sorted names: all but the end."""
    content = {
        "name": plan.name,
        "version": plan.version,
        "scope": plan.scope,
        "kind": plan.kind,
        "rates": plan.rates,
        "valid_from": plan.valid_from.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


class PlanBook:
    """Plans, and who pays for whom. Never changes; whoever hears of a new plan makes a new book."""

    def __init__(self, plans: Iterable[PlanVersion] = (), payers: Iterable[Payer] = ()) -> None:
        """Raises PlanError where the rates of a plan do not read."""
        self._terms: Final[dict[str, Terms]] = {}
        self._by_who: Final[dict[str | None, list[PlanVersion]]] = {}
        for plan in plans:
            self._terms[plan.plan_version] = terms_of(plan)
            who = plan.api_key_id or plan.user_id or plan.customer_id
            self._by_who.setdefault(who, []).append(plan)
        for same in self._by_who.values():
            same.sort(key=_breadth)
        self._payers: Final[dict[str, list[Payer]]] = {}
        for payer in payers:
            self._payers.setdefault(payer.user_id, []).append(payer)
        for links in self._payers.values():
            links.sort(key=lambda link: link.since, reverse=True)
        self._found: Final[dict[tuple[str, str | None, str, str], tuple[Span, ...]]] = {}

    def named(self, plan_version: str) -> Terms | None:
        """The terms of a version; None when it is not known here."""
        return self._terms.get(plan_version) or setting_terms(plan_version)

    @property
    def plans(self) -> list[PlanVersion]:
        """All that it was made of."""
        return [plan for same in self._by_who.values() for plan in same]

    @property
    def payers(self) -> list[Payer]:
        """Likewise."""
        return [payer for links in self._payers.values() for payer in links]

    def resolve(self, at: datetime, *, user_id: str, api_key_id: str | None, model: str, endpoint: str) -> Terms | None:
        """The plan in force for a call that began then; None where none is.

        The most specific one holds. Who comes first: key, user, customer, anybody; among those of one of them, what:
        a snapshot, a model, an endpoint, anything.
        """
        if not self._by_who:
            return None
        call = (user_id, api_key_id, model, endpoint)
        spans = self._found.get(call)
        if spans is None:
            if len(self._found) >= _FOUND_MAX:  # names of models come from outside
                self._found.clear()
            spans = self._found[call] = tuple(self.spans(user_id, api_key_id, model, endpoint))
        for since, until, terms in spans:
            if since <= at and (until is None or at < until):
                return terms
        return None

    def spans(self, user_id: str, api_key_id: str | None, model: str, endpoint: str) -> Iterable[Span]:
        """When each plan that may hold for such a call does, the most specific first."""
        anytime = Payer(user_id, "", datetime.min.replace(tzinfo=UTC), None)
        owners: list[tuple[str | None, Payer]] = [(api_key_id, anytime)] if api_key_id is not None else []
        owners += [(user_id, anytime), *((link.customer_id, link) for link in self._payers.get(user_id, ()))]
        owners.append((None, anytime))
        for who, link in owners:
            for plan in self._by_who.get(who, ()):
                if _is_for(plan, model, endpoint):
                    since, until = max(plan.valid_from, link.since), _earlier(plan.valid_to, link.until)
                    yield Span(since, until, self._terms[plan.plan_version])


class KnownPlans:
    """The plans as this process knows them; whoever reads them puts a new book in its place."""

    __slots__ = ("book",)

    def __init__(self, book: PlanBook | None = None) -> None:
        self.book = book or PlanBook()


def _breadth(plan: PlanVersion) -> tuple[int, int]:
    """Narrow before broad; a longer name of a model is a snapshot of a shorter one, where both are for a call."""
    if plan.model is not None:
        return 0, -len(plan.model)
    return (1 if plan.endpoint is not None else 2), 0


def _is_for(plan: PlanVersion, model: str, endpoint: str) -> bool:
    if plan.model is not None:
        return is_model(model, plan.model)
    return plan.endpoint is None or plan.endpoint == endpoint


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return other if one is None else one if other is None else min(one, other)
