"""Reading the parameters of v1 requests, which are all strings. Raises StripeApiError (400) as Stripe words it. Pure.

A parameter that Stripe takes and the stand-in does not is refused, never ignored.
"""

import re
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

from gateway.sandbox.stripe.meters import StripeApiError, whole_number

_SIGNED: Final = re.compile(r"-?[0-9]{1,12}")
_DECIMAL: Final = re.compile(r"-?[0-9]{1,14}(\.[0-9]{1,12})?")
"""At most 12 decimal places (docs.stripe.com, decimal-amounts)."""
PAGED: Final = frozenset({"limit", "starting_after", "ending_before", "expand"})
_RANGE: Final = ("gt", "gte", "lt", "lte")


def check_known(form: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuses a parameter that is not served."""
    for name in form:
        if name not in known and name != "expand":
            raise StripeApiError(400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name)


def require(form: Mapping[str, Any], name: str) -> Any:
    """The parameter, which must be there."""
    if form.get(name) in (None, ""):
        raise StripeApiError(400, f"Missing required param: {name}.", code="parameter_missing", param=name)
    return form[name]


def read_flag(form: Mapping[str, Any], name: str, default: bool) -> bool:
    """`true` or `false`."""
    given = form.get(name)
    if given is None:
        return default
    if given not in ("true", "false"):
        raise StripeApiError(400, f"Invalid boolean: {given}", param=name)
    return bool(given == "true")


def read_choice(form: Mapping[str, Any], name: str, choices: Collection[str], default: str) -> str:
    """One of the choices."""
    given = form.get(name, default)
    if given not in choices:
        one_of = ", ".join(choices)
        raise StripeApiError(400, f"Invalid {name}: must be one of {one_of}", param=name)
    return str(given)


def read_instant(form: Mapping[str, Any], name: str) -> int | None:
    """Unix seconds."""
    return None if form.get(name) in (None, "") else whole_number(form[name], name)


def read_signed(form: Mapping[str, Any], name: str) -> int | None:
    """A whole amount in cents, which may be negative."""
    given = form.get(name)
    if given is None:
        return None
    if not isinstance(given, str) or not _SIGNED.fullmatch(given):
        raise StripeApiError(400, f"Invalid integer: {given}", code="parameter_invalid_integer", param=name)
    return int(given)


def read_decimal(form: Mapping[str, Any], name: str) -> Decimal | None:
    """An exact decimal."""
    given = form.get(name)
    if given is None:
        return None
    if not isinstance(given, str) or not _DECIMAL.fullmatch(given):
        raise StripeApiError(400, f"Invalid decimal: {given}", param=name)
    return Decimal(given)


def read_map(form: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A map of parameters."""
    given = form.get(name, {})
    if not isinstance(given, dict):
        raise StripeApiError(400, f"Invalid {name}: a map is expected.", param=name)
    return given


def read_list(form: Mapping[str, Any], name: str) -> list[Any]:
    """A list of parameters."""
    given = form.get(name, [])
    if isinstance(given, dict):  # the SDK writes lists of a query as name[0]=…
        given = list(given.values())
    if not isinstance(given, list):
        raise StripeApiError(400, f"Invalid array: {name}", param=name)
    return given


def read_metadata(form: Mapping[str, Any], before: Mapping[str, str]) -> dict[str, str]:
    """What the metadata is afterwards: an empty value takes a key away, an empty parameter all of them."""
    if form.get("metadata") == "":
        return {}
    given = read_map(form, "metadata")
    return {key: value for key, value in ({**before, **given}).items() if value != ""}


def in_range(query: Mapping[str, Any], name: str, value: int | None) -> bool:
    """Whether an instant fits `name=5` or `name[gte]=5`."""
    given = query.get(name)
    if given is None:
        return True
    if value is None:
        return False
    if not isinstance(given, dict):
        return value == whole_number(given, name)
    bounds = {side: whole_number(given[side], f"{name}[{side}]") for side in _RANGE if side in given}
    return (
        value > bounds.get("gt", value - 1)
        and value >= bounds.get("gte", value)
        and value < bounds.get("lt", value + 1)
        and value <= bounds.get("lte", value)
    )
