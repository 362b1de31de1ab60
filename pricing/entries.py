"""What a price file may say, checked strictly. TOML text in, values out; no I/O, no prices in code.

docs/prices.md explains the format to the person who edits it. A typo must never become a wrong
price, so an unknown key, a negative rate, overlapping periods or an unnamed source are errors.
"""

import tomllib
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Final, Literal

import msgspec

TIERS: Final = ("default", "flex", "priority", "ultrafast", "batch", "background_2h", "background_8h", "decisions")
"""Rate tables a price entry may carry; each may also have a `<tier>_long` one for long context."""


class BookError(Exception):
    """The price book is wrong; the message names the file, the entry and what would be right."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Source(_Strict, frozen=True, kw_only=True):
    """Where a price was read."""

    what: str
    url: str = ""


class Rates(_Strict, frozen=True, kw_only=True):
    """USD per million tokens, by class of token. An absent class has no published rate of its own."""

    input: Decimal | None = None
    cached: Decimal | None = None
    write_30m: Decimal | None = None
    write_12h: Decimal | None = None
    output: Decimal | None = None
    audio_input: Decimal | None = None
    audio_output: Decimal | None = None
    image_input: Decimal | None = None
    image_cached: Decimal | None = None
    image_output: Decimal | None = None


class Dated(_Strict, frozen=True, kw_only=True, rename={"from_": "from"}):
    """What every price says about itself. `from_` and `until` are UTC instants, half-open."""

    source: str
    checked: date
    from_: datetime | None = None
    until: datetime | None = None
    confidence: Literal["low"] | None = None
    note: str = ""


class Price(Dated, frozen=True, kw_only=True):
    """The rates of one model in one period, for the tiers it names."""

    low_classes: tuple[str, ...] = ()
    """With `confidence = "low"`: the only classes in doubt; empty means all."""
    default: Rates | None = None
    default_long: Rates | None = None
    flex: Rates | None = None
    flex_long: Rates | None = None
    priority: Rates | None = None
    priority_long: Rates | None = None
    ultrafast: Rates | None = None
    ultrafast_long: Rates | None = None
    batch: Rates | None = None
    batch_long: Rates | None = None
    background_2h: Rates | None = None
    background_2h_long: Rates | None = None
    background_8h: Rates | None = None
    background_8h_long: Rates | None = None
    decisions: Rates | None = None
    decisions_long: Rates | None = None

    def tables(self) -> dict[str, Rates]:
        """The rate tables that this entry carries, by name (`flex`, `flex_long`, …)."""
        found = ((name, getattr(self, name)) for tier in TIERS for name in (tier, f"{tier}_long"))
        return {name: rates for name, rates in found if rates is not None}


class Fee(Dated, frozen=True, kw_only=True):
    """A price per call or session of a hosted tool, USD."""

    id: str
    usd: Decimal


class Model(_Strict, frozen=True, kw_only=True):
    """One model: what it can do, and its prices."""

    id: str
    kind: Literal["text", "embedding", "moderation", "image"] = "text"
    aliases: tuple[str, ...] = ()
    released: date | None = None
    reasoning: bool = False
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    limits: str = ""
    """Named source of context_tokens and max_output_tokens."""
    long_context_over: int | None = None
    """Input tokens beyond which (strictly) the `_long` tables price the whole request."""
    regional: Literal["confirmed", "unconfirmed"] | None = None
    """Whether the data-residency surcharge applies; `unconfirmed` makes a regional price low confidence."""
    request_fee: str | None = None
    """Fee that each request costs beside its tokens (search models on chat)."""
    web_search_content_tokens: int = 0
    """Input tokens billed per GA web search call as a block."""
    free: bool = False
    price: tuple[Price, ...] = ()


class Rules(_Strict, frozen=True, kw_only=True):
    """What holds for the whole book."""

    source: str
    checked: date
    default_max_output_tokens: int
    regional_multiplier: Decimal
    regions: tuple[str, ...]
    regional_released_from: date
    default_image_model: str


class _File(_Strict, frozen=True, kw_only=True):
    model: tuple[Model, ...] = ()
    fee: tuple[Fee, ...] = ()
    source: dict[str, Source] = {}
    rules: Rules | None = None


class Entries(msgspec.Struct, frozen=True):
    """A whole checked price book, still as it was written."""

    models: tuple[Model, ...]
    fees: tuple[Fee, ...]
    sources: dict[str, Source]
    rules: Rules


def read(texts: Mapping[str, str]) -> Entries:
    """Parse and check price files (name → TOML text). BookError names what is wrong."""
    models: list[Model] = []
    fees: list[Fee] = []
    sources: dict[str, Source] = {}
    rules: Rules | None = None
    for name in sorted(texts):
        file = _read_file(name, texts[name])
        models += file.model
        fees += file.fee
        for key, source in file.source.items():
            _require(key not in sources, f"{name}: source {key!r} is defined twice")
            sources[key] = source
        if file.rules is not None:
            _require(rules is None, f"{name}: [rules] is defined twice")
            rules = file.rules
    if rules is None:
        raise BookError("no file has [rules]")
    entries = Entries(tuple(models), tuple(fees), sources, rules)
    _check(entries)
    return entries


def _read_file(name: str, text: str) -> _File:
    try:
        return msgspec.convert(tomllib.loads(text, parse_float=Decimal), _File, strict=True)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BookError(f"{name}: {error}") from error


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BookError(message)


def _check(entries: Entries) -> None:
    _require(entries.rules.source in entries.sources, f"[rules]: unknown source {entries.rules.source!r}")
    _require(entries.rules.regional_multiplier >= 1, "[rules]: regional_multiplier is below 1")
    names: set[str] = set()
    for model in entries.models:
        for name in (model.id, *model.aliases):
            _require(name not in names, f"{name}: named by two models")
            names.add(name)
        _check_model(model, entries)
    _check_prefixes({alias for model in entries.models for alias in model.aliases if "*" in alias})
    _require(entries.rules.default_image_model in names, "[rules]: default_image_model is not in the book")
    periods: dict[str, list[Dated]] = {}
    for fee in entries.fees:
        _check_dated(f"fee {fee.id}", fee, entries.sources)
        _require(fee.usd.is_finite() and fee.usd >= 0, f"fee {fee.id}: usd must be zero or more")
        periods.setdefault(fee.id, []).append(fee)
    for fee_id, dated in periods.items():
        _check_overlap(f"fee {fee_id}", dated)


def _check_prefixes(aliases: set[str]) -> None:
    """`*` stands at the end only, behind enough of a name, and no name may have two meanings."""
    for alias in aliases:
        _require(":" in alias and alias.index("*") == len(alias) - 1, f"alias {alias!r}: `*` only as in `name:*`")
        twice = [one for one in aliases if one != alias and one.startswith(alias[:-1])]
        _require(not twice, f"alias {alias!r} also stands for {twice}")


def _check_model(model: Model, entries: Entries) -> None:
    where = model.id
    for label, count in (("context_tokens", model.context_tokens), ("max_output_tokens", model.max_output_tokens)):
        _require(count is None or count >= 0, f"{where}: {label} is negative")
    if model.context_tokens is not None or model.max_output_tokens is not None:
        _require(model.limits in entries.sources, f"{where}: unknown source {model.limits!r} of its limits")
    _require(model.web_search_content_tokens >= 0, f"{where}: web_search_content_tokens is negative")
    if model.request_fee is not None:
        known = {fee.id for fee in entries.fees}
        _require(model.request_fee in known, f"{where}: unknown request_fee {model.request_fee!r}")
    _require(bool(model.price) is not model.free, f"{where}: either `free = true` or prices, not both or neither")
    periods: dict[str, list[Dated]] = {}
    for price in model.price:
        _check_price(where, price, model, entries.sources)
        for name in price.tables():
            periods.setdefault(name, []).append(price)
    for name, dated in periods.items():
        _check_overlap(f"{where}: {name}", dated)
        if model.long_context_over is not None and not name.endswith("_long"):
            _require(f"{name}_long" in periods, f"{where}: {name} lacks {name}_long")


def _check_price(where: str, price: Price, model: Model, sources: Mapping[str, Source]) -> None:
    _check_dated(where, price, sources)
    tables = price.tables()
    _require(bool(tables), f"{where}: a price entry without a tier")
    _require(not price.low_classes or price.confidence == "low", f'{where}: low_classes without confidence = "low"')
    for name in price.low_classes:
        _require(name in Rates.__struct_fields__, f"{where}: unknown class {name!r} in low_classes")
    for name, rates in tables.items():
        _require(
            model.long_context_over is not None or not name.endswith("_long"),
            f"{where}: {name} without long_context_over",
        )
        _require(rates.input is not None, f"{where}: {name} has no input rate")
        for class_ in Rates.__struct_fields__:
            rate: Decimal | None = getattr(rates, class_)
            fine = rate is None or (rate.is_finite() and 0 <= rate <= 1_000_000 and round(rate, 7) == rate)
            _require(fine, f"{where}: {name}.{class_} must be zero or more, with at most 7 decimals")


def _check_dated(where: str, dated: Dated, sources: Mapping[str, Source]) -> None:
    _require(dated.source in sources, f"{where}: unknown source {dated.source!r}")
    for label, instant in (("from", dated.from_), ("until", dated.until)):
        aware = instant is None or instant.utcoffset() is not None
        _require(aware, f"{where}: {label} must be an instant with an offset (…T00:00:00Z)")
    if dated.from_ is not None and dated.until is not None:
        _require(dated.from_ < dated.until, f"{where}: `from` is not before `until`")
    if dated.confidence == "low":
        _require(bool(dated.note), f"{where}: low confidence needs a note saying why")


def _check_overlap(where: str, dated: list[Dated]) -> None:
    for index, one in enumerate(dated):
        for other in dated[index + 1 :]:
            apart = (one.until is not None and other.from_ is not None and one.until <= other.from_) or (
                other.until is not None and one.from_ is not None and other.until <= one.from_
            )
            _require(apart, f"{where}: two prices for the same instant")
