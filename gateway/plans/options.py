"""Plans as an operator types them. Reads a list of prices from its text; asks nothing and nobody."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import pricing
from gateway.kit.errors import OptionError
from gateway.openai.families.catalogue import ENDPOINT_OF
from gateway.usage.plans import Kind
from pricing.book import UNITS

_MODEL_MAX: Final = 256
FILE_BYTES_MAX: Final = 4 * 1024 * 1024


class PlanOptions(NamedTuple):
    """The version that an operator wants."""

    name: str
    kind: Kind
    rates: dict[str, Any]
    user: str | None = None
    """An e-mail address or a UUID."""
    customer: str | None = None
    """Our id of it or Stripe's."""
    key: str | None = None
    """Our id of it or Unkey's."""
    model: str | None = None
    endpoint: str | None = None
    start: datetime | None = None
    until: datetime | None = None


def rates_of(
    book: pricing.Book,
    *,
    markup: str | None,
    discount: str | None,
    prices: bytes | None,
    otherwise: str | None,
    free: bool,
) -> tuple[Kind, dict[str, Any]]:
    """The kind and the rates that these options name, of which there is one. Raises OptionError."""
    given = [markup is not None, discount is not None, prices is not None, free]
    if sum(given) != 1:
        raise OptionError("one of --markup, --discount, --prices, --free is needed, and only one")
    if (prices is None) != (otherwise is None):
        raise OptionError("--otherwise: the factor on OpenAI's price for what --prices lacks; each needs the other")
    if markup is not None:
        return "markup", {"factor": markup.strip()}
    if discount is not None:
        return "discount", {"percent": discount.strip()}
    if prices is None:
        return "free", {}
    return "price_list", {"usd_per_unit": _price_list(prices, book), "factor": (otherwise or "").strip()}


def check_which(model: str | None, endpoint: str | None) -> None:
    """Raises OptionError for calls that there cannot be."""
    if model is not None and not (0 < len(model) <= _MODEL_MAX and model.isprintable()):
        raise OptionError(f"--model: 1 to {_MODEL_MAX} printable characters")
    metered = sorted(name for name, known in ENDPOINT_OF.items() if known.kind == "metered")
    if endpoint is not None and endpoint not in metered:
        raise OptionError(f"--endpoint: {endpoint!r} is not one of {', '.join(metered)}")


def _price_list(text: bytes, book: pricing.Book) -> dict[str, dict[str, Any]]:
    """`{"gpt-5": {"input_tokens": "0.0000015", "flex": {"input_tokens": "0.0000008"}, …}, …}`: USD for each unit, as
    cost_lines have it, in all service tiers or in one."""
    try:
        found = json.loads(text, object_pairs_hook=_members, parse_float=str, parse_int=str, parse_constant=str)
    except ValueError as error:
        raise OptionError(f"--prices: it is not JSON that can be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(units, dict) for units in found.values()):
        raise OptionError('--prices: an object by model, like {"gpt-5": {"input_tokens": "0.0000015"}}')
    for model, units in found.items():
        if book.resolve(model) is None:
            raise OptionError(f"--prices: the price book has no model {model!r}")
        of_tiers = [each for each in units.values() if isinstance(each, dict)]
        _check_units(model, [unit for unit, usd in units.items() if not isinstance(usd, dict)])
        for of_tier in of_tiers:
            _check_units(model, of_tier)
    return found


def _check_units(model: str, units: Iterable[str]) -> None:
    for unit in units:
        # Fees, and tokens of tools, whose units have a word before them.
        if not unit.endswith((*UNITS.values(), "_calls", "_sessions")):
            raise OptionError(f"--prices: {model!r} has no unit {unit!r}; there are {', '.join(UNITS.values())}")


def _members(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice in one object")
    return found
