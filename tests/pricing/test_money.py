"""Exact money: femto-USD, one rounding, text without exponents."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.money import femto_per_call, femto_per_token, nano, nano_text, usd_text


@given(st.integers(0, 10**30))
def test_usd_text_is_exact_and_plain(femto: int) -> None:
    text = usd_text(femto)
    assert Fraction(text) == Fraction(femto, 10**15)
    assert "e" not in text.lower()
    assert not text.endswith(".")
    assert "." not in text or text[-1] != "0"


@given(st.integers(0, 10**26))
def test_nano_rounds_half_even(femto: int) -> None:
    assert nano(femto) == round(Fraction(femto, 10**6))


@pytest.mark.parametrize(
    ("femto", "expected"), [(499_999, 0), (500_000, 0), (500_001, 1), (1_500_000, 2), (2_500_000, 2)]
)
def test_ties_go_to_even(femto: int, expected: int) -> None:
    assert nano(femto) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (1_234_500, "0.001234500"), (12 * 10**9, "12.000000000")],
)
def test_nano_text_has_nine_decimals(value: int, text: str) -> None:
    assert nano_text(value) == text


def test_rates_are_exact_or_refused() -> None:
    assert femto_per_token(Decimal("0.0375")) == 37_500_000
    assert femto_per_call(Decimal("0.0025")) == 2_500_000_000_000
    with pytest.raises(ValueError, match="too many decimals"):
        femto_per_token(Decimal("0.0000000001"))
