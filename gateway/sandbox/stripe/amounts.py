"""How much a line of an invoice comes to. Pure."""

from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

_CENT: Final = Decimal(1)
MINIMUM_CHARGE_CENTS: Final = 50
"""docs.stripe.com, minimum and maximum charge amounts: 0.50 USD; the same for other currencies here."""


def round_to_cents(exact: Decimal) -> int:
    """docs.stripe.com, decimal-amounts: rounding is per line, to the nearest cent: 0.05 * 30 = 1.5 becomes 2."""
    return int(exact.quantize(_CENT, ROUND_HALF_UP))


def plain(number: Decimal) -> str:
    """A decimal as Stripe writes it: no exponent, no zeros behind the point."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def unit_price(price: dict[str, Any]) -> Decimal:
    """Cents for one unit, exact."""
    return Decimal(price["unit_amount_decimal"])


def describe(quantity: Decimal, product_name: str, price: dict[str, Any]) -> str:
    """The line's text, as Stripe words it ("1 × Gold (at $10.00 / month)", seen in a webhook of 2025-08-27.basil)."""
    dollars = unit_price(price).scaleb(-2)
    shown = plain(dollars) if dollars != round(dollars, 2) else f"{dollars:.2f}"
    recurring = price["recurring"]
    per = "" if recurring is None else f" / {recurring['interval']}"
    return f"{plain(quantity)} × {product_name} (at ${shown}{per})"
