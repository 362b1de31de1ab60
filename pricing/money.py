"""Exact money: USD as integers of femto-USD (1e-15). No float, no Decimal on the hot path, no I/O.

A rate of 1 USD per million tokens is 1e9 femto-USD per token, so any rate with up to nine decimals
per million tokens is a whole number, and a sum of products stays exact until its one rounding.
"""

from decimal import Decimal
from typing import Final

FEMTO_PER_USD: Final = 10**15
FEMTO_PER_NANO: Final = 10**6
_FEMTO_PER_MTOK_USD: Final = 10**9


def femto_per_token(usd_per_mtok: Decimal) -> int:
    """Femto-USD per token of a rate in USD per million tokens. ValueError when it needs more than 9 decimals."""
    return _whole(usd_per_mtok, _FEMTO_PER_MTOK_USD)


def femto_per_call(usd: Decimal) -> int:
    """Femto-USD of a fee in USD. ValueError when it needs more than 15 decimals."""
    return _whole(usd, FEMTO_PER_USD)


def _whole(amount: Decimal, scale: int) -> int:
    numerator, denominator = amount.as_integer_ratio()
    whole, rest = divmod(numerator * scale, denominator)
    if rest:
        raise ValueError(f"{amount} has too many decimals to be kept exactly")
    return whole


def usd_text(femto: int) -> str:
    """Femto-USD (≥ 0) as an exact decimal of USD: no exponent, no trailing zeros (`0.0000025`, `0`, `12`)."""
    digits = str(femto).rjust(16, "0")
    fraction = digits[-15:].rstrip("0")
    return f"{digits[:-15]}.{fraction}" if fraction else digits[:-15]


def nano(femto: int) -> int:
    """Nano-USD of a row's total in femto-USD (≥ 0), rounded half-even: the one rounding a row gets."""
    whole, rest = divmod(femto, FEMTO_PER_NANO)
    twice = rest * 2
    if twice > FEMTO_PER_NANO or (twice == FEMTO_PER_NANO and whole & 1):
        return whole + 1
    return whole


def nano_text(nano_usd: int) -> str:
    """Nano-USD of either sign as USD with exactly nine decimals (`0.001234500`), as `gateway price` prints a cost."""
    if nano_usd < 0:
        return f"-{nano_text(-nano_usd)}"
    digits = str(nano_usd).rjust(10, "0")
    return f"{digits[:-9]}.{digits[-9:]}"
