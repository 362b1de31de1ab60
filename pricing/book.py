"""The price book: which rates hold for a model, tier, region and instant. Pure; reads no files and no clock.

Names of models and tiers come from outside, so what is remembered about them is bounded.
"""

import re
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal

import msgspec

from pricing.entries import BookError, Dated, Entries, Fee, Model, Price, Rates, Rules, read
from pricing.money import femto_per_call, femto_per_token, usd_text

UNITS: Final = {
    "input": "input_tokens",
    "cached": "cached_input_tokens",
    "write_30m": "cache_write_30m_tokens",
    "write_12h": "cache_write_12h_tokens",
    "output": "output_tokens",
    "audio_input": "audio_input_tokens",
    "audio_output": "audio_output_tokens",
    "image_input": "image_input_tokens",
    "image_cached": "cached_image_input_tokens",
    "image_output": "image_output_tokens",
}
"""Class of token → the unit a cost line names."""

_PLANS_MAX: Final = 4096
_NAME_MAX: Final = 200
_DATE: Final = re.compile(r"-\d{4}-\d{2}-\d{2}\Z")
_CL100K: Final = ("gpt-4", "gpt-3.5", "text-embedding", "babbage", "davinci")
_O200K: Final = ("gpt-4o", "gpt-4.1", "gpt-4.5")


class Rate(msgspec.Struct, frozen=True):
    """One priced unit: femto-USD per `unit`, the same as exact USD text, and whether it is in doubt."""

    unit: str
    femto: int
    usd: str
    doubtful: bool


class RateTable(msgspec.Struct, frozen=True):
    """The rates by class of token that hold from `from_` until `until` (half-open; None is open)."""

    from_: datetime | None
    until: datetime | None
    rates: dict[str, Rate]


class Plan(msgspec.Struct, frozen=True):
    """Everything needed to price one model in one tier and region."""

    model: Model
    base: tuple[RateTable, ...]
    long: tuple[RateTable, ...]
    long_over: int | None
    """Input tokens beyond which `long` prices the whole request."""

    def at(self, instant: datetime, input_tokens: int) -> dict[str, Rate] | None:
        """The rates at `instant` for a request of `input_tokens`, or None when the book has a gap there."""
        tables = self.long if self.long_over is not None and input_tokens > self.long_over else self.base
        for table in tables:
            if (table.from_ is None or table.from_ <= instant) and (table.until is None or instant < table.until):
                return table.rates
        return None


class LowConfidence(msgspec.Struct, frozen=True):
    """A price that the sources leave open: what it is for, and what it rests on."""

    model: str
    tiers: tuple[str, ...]
    classes: tuple[str, ...]
    from_: datetime | None
    until: datetime | None
    source: str
    note: str


class Book:
    """A parsed price book. Build it with `parse`."""

    def __init__(self, entries: Entries, digest: str) -> None:
        self._models: Final = {model.id: model for model in entries.models}
        self._aliases: Final = {alias: model for model in entries.models for alias in model.aliases}
        self._prefixes: Final = {alias[:-1]: model for alias, model in self._aliases.items() if alias.endswith("*")}
        self._fees: Final = _fees(entries.fees)
        self._dated: Final[tuple[Dated, ...]] = (*(p for m in entries.models for p in m.price), *entries.fees)
        self._plans: dict[tuple[str, str, str | None], Plan | str] = {}
        self.rules: Final[Rules] = entries.rules
        self.version: Final = f"{max(entry.checked for entry in self._dated).isoformat()}.{digest[:8]}"
        """`<latest checked date>.<first 8 hex digits of the content's SHA-256>`; goes into every row."""

    def models(self) -> tuple[Model, ...]:
        """Every model of the book, as written."""
        return tuple(self._models.values())

    def resolve(self, name: str) -> Model | None:
        """The model that prices `name`: exact, then without its date, then its fine-tune base, then an alias.

        A fine-tuned model never falls back to the price of its plain base. An alias
        that ends with `*` stands for every name that begins so, and is looked at last.
        """
        if name.startswith("ft:"):
            name = f"ft:{name[3:].partition(':')[0]}"
        undated = _DATE.sub("", name)
        for found in (self._models.get(name), self._models.get(undated), self._aliases.get(name)):
            if found is not None:
                return found
        if undated in self._aliases:
            return self._aliases[undated]
        return next((model for prefix, model in self._prefixes.items() if name.startswith(prefix)), None)

    def plan(self, model: str, tier: str, region: str | None = None) -> Plan | str:
        """The plan for a model, a tier of the book and a region, or the problem that forbids one. Remembered."""
        key = (model, tier, region)
        known = self._plans.get(key)
        if known is None:
            known = self._make_plan(model, tier, region)
            if len(model) <= _NAME_MAX and len(tier) <= _NAME_MAX and len(region or "") <= _NAME_MAX:
                if len(self._plans) >= _PLANS_MAX:
                    self._plans.clear()
                self._plans[key] = known
        return known

    def fee(self, fee_id: str, at: datetime) -> Rate | None:
        """The fee of a hosted tool at an instant; None when the book has none."""
        for from_, until, rate in self._fees.get(fee_id, ()):
            if (from_ is None or from_ <= at) and (until is None or at < until):
                return rate
        return None

    def max_output_tokens(self, model: str) -> int:
        """Most output tokens one choice of `model` can have; a safe, high figure for an unknown model."""
        found = self.resolve(model)
        if found is None or found.max_output_tokens is None:
            return self.rules.default_max_output_tokens
        return found.max_output_tokens

    def context_tokens(self, model: str) -> int | None:
        """Most input tokens `model` takes, or None when it is not known."""
        found = self.resolve(model)
        return None if found is None else found.context_tokens

    def encoding(self, model: str) -> Literal["o200k_base", "cl100k_base"]:
        """The tiktoken encoding to estimate `model` with (tiktoken knows no gpt-6)."""
        base = model[3:] if model.startswith("ft:") else model
        return "cl100k_base" if base.startswith(_CL100K) and not base.startswith(_O200K) else "o200k_base"

    def oldest_checked(self) -> date:
        """The day on which the longest unchecked price was last compared with its source."""
        return min(entry.checked for entry in self._dated)

    def low_confidence_entries(self) -> tuple[LowConfidence, ...]:
        """Every price and fee that the sources leave open."""
        found = []
        for model in self._models.values():
            for price in model.price:
                if price.confidence == "low":
                    tiers = tuple(price.tables())
                    found.append(_low(model.id, tiers, price.low_classes, price))
        fees = (entry for entry in self._dated if isinstance(entry, Fee) and entry.confidence == "low")
        return (*found, *(_low(fee.id, (), (), fee) for fee in fees))

    def _make_plan(self, name: str, tier: str, region: str | None) -> Plan | str:
        model = self.resolve(name)
        if model is None:
            return f"model {name[:_NAME_MAX]!r} is not in the price book"
        if region is not None and region not in self.rules.regions:
            return f"region {region[:_NAME_MAX]!r} is not known"
        base = self._tables(model, tier, region)
        if not base and not model.free:
            return f"model {model.id!r} has no {tier[:_NAME_MAX]!r} price in the book"
        return Plan(model, base, self._tables(model, f"{tier}_long", region), model.long_context_over)

    def _tables(self, model: Model, name: str, region: str | None) -> tuple[RateTable, ...]:
        found = []
        for price in model.price:
            rates = price.tables().get(name)
            if rates is not None:
                found.append(RateTable(price.from_, price.until, self._rates(model, price, rates, region)))
        return tuple(found)

    def _rates(self, model: Model, price: Price, rates: Rates, region: str | None) -> dict[str, Rate]:
        surcharge = region is not None and model.regional is not None
        factor = self.rules.regional_multiplier if surcharge else 1
        unsure = surcharge and model.regional == "unconfirmed"
        table: dict[str, Rate] = {}
        for class_, unit in UNITS.items():
            usd = getattr(rates, class_)
            if usd is not None:
                femto = femto_per_token(usd * factor)
                doubtful = price.confidence == "low" and (not price.low_classes or class_ in price.low_classes)
                table[class_] = Rate(unit, femto, usd_text(femto), doubtful or unsure)
        _fill_unpublished(table)
        return table


def _fill_unpublished(table: dict[str, Rate]) -> None:
    """Price the classes that have no rate of their own but are input all the same (docs/prices.md).

    Cached input without a published discount costs what input costs, and is flagged. Before gpt-5.6
    cache writes were free, so a table without any write rate bills them as input.
    """
    plain = table["input"]
    if "cached" not in table:
        table["cached"] = Rate(UNITS["cached"], plain.femto, plain.usd, doubtful=True)
    if "write_30m" not in table and "write_12h" not in table:
        for class_ in ("write_30m", "write_12h"):
            table[class_] = Rate(UNITS[class_], plain.femto, plain.usd, plain.doubtful)


def _fees(fees: tuple[Fee, ...]) -> dict[str, list[tuple[datetime | None, datetime | None, Rate]]]:
    found: dict[str, list[tuple[datetime | None, datetime | None, Rate]]] = {}
    for fee in fees:
        femto = femto_per_call(fee.usd)
        rate = Rate(fee.id, femto, usd_text(femto), fee.confidence == "low")
        found.setdefault(fee.id, []).append((fee.from_, fee.until, rate))
    return found


def _low(name: str, tiers: tuple[str, ...], classes: tuple[str, ...], entry: Dated) -> LowConfidence:
    return LowConfidence(name, tiers, classes, entry.from_, entry.until, entry.source, entry.note)


def parse(texts: Mapping[str, str]) -> Book:
    """The book that price files (name → TOML text) make up. BookError when anything in them is wrong."""
    return _parse(tuple(sorted(texts.items())))


@lru_cache(maxsize=4)
def _parse(texts: tuple[tuple[str, str], ...]) -> Book:
    """Reading takes 40 ms, and several parts of a process read the same files."""
    digest = sha256()
    for name, text in texts:
        digest.update(f"{name}\0{text}\0".encode())
    entries = read(dict(texts))
    if not any(model.price for model in entries.models):
        raise BookError("the book has no price")
    return Book(entries, digest.hexdigest())
