"""Plans: what they make of a cost, which one holds for a call, and what can be none."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage.plans import (
    Payer,
    PlanBook,
    PlanError,
    PlanVersion,
    Terms,
    bill,
    bill_most,
    check_plan,
    digest_of,
    markup_terms,
    priced_tier,
    setting_terms,
    terms_of,
)
from pricing import Line

AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MODEL = "gpt-5-mini-2025-08-07"
CALL: dict[str, Any] = {"user_id": "ann", "api_key_id": "key", "model": MODEL, "endpoint": "chat"}
UNITS = ("input_tokens", "cached_input_tokens", "output_tokens", "web_search_calls")
LIST = {"usd_per_unit": {"gpt-5-mini": {"input_tokens": "0.000001", "output_tokens": "0.00001"}}, "factor": "2"}


def plan(name: str = "p", **changes: Any) -> PlanVersion:
    fields: dict[str, Any] = {"version": 1, "kind": "markup", "rates": {"factor": "1.5"}, "valid_from": AT}
    return PlanVersion(name=name, **{**fields, **changes})


def line(unit: str, quantity: int, rate: str) -> Line:
    usd = Decimal(rate) * quantity
    return Line(unit, str(quantity), rate, f"{usd:f}")


decimals = st.decimals(min_value=0, max_value=1000, allow_nan=False, allow_infinity=False, places=9)
rates = st.decimals(min_value=0, max_value=10, allow_nan=False, allow_infinity=False, places=15).map(lambda d: f"{d:f}")
lines_of = st.lists(
    st.builds(line, st.sampled_from(UNITS), st.integers(0, 10**9), rates), max_size=8
).map(tuple)  # fmt: skip


def half_even(nano: Fraction) -> int:
    """Round by integers alone."""
    whole, rest = divmod(nano.numerator, nano.denominator)
    twice = 2 * rest
    return whole + (twice > nano.denominator or (twice == nano.denominator and whole % 2))


@given(st.integers(0, 10**15), decimals)
def test_a_factor_is_rounded_half_even_once(cost: int, factor: Decimal) -> None:
    assert bill(cost, (), Terms("t", factor), MODEL, "default") == half_even(cost * Fraction(factor))


@given(lines_of, st.dictionaries(st.sampled_from(UNITS), rates, min_size=1), decimals)
def test_a_list_takes_the_place_of_the_prices_that_it_has(
    lines: tuple[Line, ...], own: dict[str, str], factor: Decimal
) -> None:
    cost = half_even(sum((Fraction(each.usd) for each in lines), Fraction()) * 10**9)
    terms = Terms("t", factor, {"gpt-5-mini": {None: {unit: Decimal(usd) for unit, usd in own.items()}}})
    usd = sum(
        (
            Fraction(each.quantity) * Fraction(own[each.unit])
            if each.unit in own
            else Fraction(each.usd) * Fraction(factor)
            for each in lines
        ),
        Fraction(),
    )
    expected = half_even(usd * 10**9) if lines else half_even(cost * Fraction(factor))
    assert bill(cost, lines, terms, MODEL, "default") == expected


@given(lines_of, st.dictionaries(st.sampled_from(UNITS), rates, min_size=1), decimals)
def test_no_call_is_billed_more_than_its_most(lines: tuple[Line, ...], own: dict[str, str], factor: Decimal) -> None:
    lines = tuple({each.unit: each for each in lines if each.unit != "web_search_calls"}.values())
    terms = Terms("t", factor, {"gpt-5-mini": {None: {unit: Decimal(usd) for unit, usd in own.items()}}})
    cost = half_even(sum((Fraction(each.usd) for each in lines), Fraction()) * 10**9)
    inputs = sum(int(each.quantity) for each in lines if "input" in each.unit)
    outputs = sum(int(each.quantity) for each in lines if "output" in each.unit)
    assert bill(cost, lines, terms, MODEL, "flex") <= bill_most(cost + 1, inputs, outputs, terms, MODEL)


@pytest.mark.parametrize(
    ("kind", "plan_rates", "billed"),
    [
        ("markup", {"factor": "1.5"}, 1500),
        ("markup", {"factor": "1"}, 1000),
        ("discount", {"percent": "10"}, 900),
        ("discount", {"percent": "12.25"}, 878),  # 877.5 to the even one
        ("discount", {"percent": "100"}, 0),
        ("free", {}, 0),
        ("price_list", LIST, 2000),  # without lines: OpenAI's price × factor
    ],
)
def test_kinds(kind: Any, plan_rates: dict[str, Any], billed: int) -> None:
    assert bill(1000, (), terms_of(plan(kind=kind, rates=plan_rates)), MODEL, "default") == billed


def test_what_a_list_lacks_is_never_free() -> None:
    terms = terms_of(plan(kind="price_list", rates=LIST))
    lines = (line("input_tokens", 100, "0.00000025"), line("cached_input_tokens", 100, "0.000000025"))
    assert bill(27_500, lines, terms, MODEL, "default") == 100_000 + 2 * 2_500
    assert bill(27_500, lines, terms, "gpt-4.1", None) == 2 * 27_500


def test_a_snapshot_has_its_own_prices_before_those_of_its_model() -> None:
    own = {"gpt-5-mini": {"input_tokens": "1"}, MODEL: {"input_tokens": "2"}}
    terms = terms_of(plan(kind="price_list", rates={"usd_per_unit": own, "factor": "1"}))
    lines = (line("input_tokens", 3, "0.00000025"),)
    assert bill(750, lines, terms, MODEL, "default") == 6 * 10**9
    assert bill(750, lines, terms, "gpt-5-mini-2026-01-01", None) == 3 * 10**9


def test_a_tier_has_its_own_prices_before_those_of_all_tiers() -> None:
    own = {
        "gpt-5-mini": {"input_tokens": "1", "output_tokens": "4", "flex": {"input_tokens": "0.5"}},
        "gpt-4.1": {"priority": {"input_tokens": "3"}},
    }
    terms = terms_of(plan(kind="price_list", rates={"usd_per_unit": own, "factor": "2"}))
    lines = (line("input_tokens", 2, "0.00000025"), line("output_tokens", 1, "0.000002"))
    usd = {"default": 6, None: 6, "auto": 6, "priority": 6, "flex": 5, "scale": 6}
    for tier, whole in usd.items():
        assert bill(2_500, lines, terms, MODEL, tier) == whole * 10**9, tier
    # A model that names one tier alone: in the others OpenAI's price × factor holds.
    assert bill(2_500, lines, terms, "gpt-4.1", "fast") == 6 * 10**9 + 4_000
    assert bill(2_500, lines, terms, "gpt-4.1", "default") == 5_000
    assert bill_most(2_500, 2, 1, terms, "gpt-4.1") >= 6 * 10**9 + 4_000


@pytest.mark.parametrize(
    ("column", "billable", "asked", "tier"),
    [
        ("flex", None, None, "flex"),
        (None, None, None, None),
        (None, None, "flex", "flex"),
        ("auto", None, "flex", "flex"),
        ("default", None, "flex", "default"),
        ("auto", {"model": "m", "service_tier": "priority"}, None, "priority"),
        ("default", {"model": "m", "service_tier": None}, "flex", None),
    ],
)
def test_the_tier_that_a_row_was_priced_by(
    column: str | None, billable: dict[str, Any] | None, asked: str | None, tier: str | None
) -> None:
    assert priced_tier(column, billable, asked) == tier


@pytest.mark.parametrize(("markup", "name"), [("1.20", "1.2"), ("1", "1"), ("0", "0"), ("1E+1", "10"), ("0.000", "0")])
def test_the_setting_has_one_name(markup: str, name: str) -> None:
    terms = markup_terms(Decimal(markup))
    assert terms.name == f"markup:{name}"
    assert setting_terms(terms.name) == Terms(terms.name, Decimal(name))


@pytest.mark.parametrize("text", ["", "legacy", "p@1", "markup:", "markup:x", "markup:-1", "markup:NaN"])
def test_what_is_no_setting(text: str) -> None:
    assert setting_terms(text) is None


SCOPES: dict[str, dict[str, Any]] = {
    "key-model": {"api_key_id": "key", "model": "gpt-5-mini"},
    "key-endpoint": {"api_key_id": "key", "endpoint": "chat"},
    "key": {"api_key_id": "key"},
    "user-snapshot": {"user_id": "ann", "model": MODEL},
    "user-model": {"user_id": "ann", "model": "gpt-5-mini"},
    "user": {"user_id": "ann"},
    "customer-model": {"customer_id": "acme", "model": "gpt-5-mini"},
    "customer": {"customer_id": "acme"},
    "snapshot": {"model": MODEL},
    "model": {"model": "gpt-5-mini"},
    "endpoint": {"endpoint": "chat"},
    "default": {},
}
"""From the most specific to the least."""
OTHERS = [
    {"user_id": "bob"},
    {"api_key_id": "key2"},
    {"model": "gpt-5"},
    {"endpoint": "responses"},
    {"customer_id": "x"},
]


@given(st.permutations(list(SCOPES)), st.integers(1, len(SCOPES)))
def test_the_most_specific_plan_holds(names: list[str], count: int) -> None:
    plans = [plan(name, **SCOPES[name]) for name in names[:count]]
    plans += [plan(f"other{number}", **scope) for number, scope in enumerate(OTHERS)]
    book = PlanBook(plans, [Payer("ann", "acme", AT - HOUR, None), Payer("bob", "x", AT, None)])
    expected = next(name for name in SCOPES if name in names[:count])
    for _ in range(2):
        found = book.resolve(AT, **CALL)
        assert found is not None
        assert found.name == f"{expected}@1"


def test_a_plan_holds_from_its_start_until_its_end() -> None:
    book = PlanBook([
        plan(valid_from=AT, valid_to=AT + HOUR),
        plan(version=2, valid_from=AT + 2 * HOUR),
        plan("never", user_id="ann", valid_from=AT, valid_to=AT),
    ])  # fmt: skip
    instants = {-1: None, 0: "p@1", 3599: "p@1", 3600: None, 7199: None, 7200: "p@2", 10**7: "p@2"}
    for seconds, name in instants.items():
        found = book.resolve(AT + timedelta(seconds=seconds), **CALL)
        assert (found and found.name) == name


def test_a_customers_plan_holds_while_the_customer_pays() -> None:
    book = PlanBook(
        [plan("acme", customer_id="acme"), plan("zeta", customer_id="zeta"), plan("default")],
        # The old link ends later than the new one begins, so that no call falls between them.
        [
            Payer("ann", "acme", AT + HOUR, AT + 2 * HOUR + timedelta(seconds=60)),
            Payer("ann", "zeta", AT + 2 * HOUR, None),
        ],
    )
    named = [book.resolve(AT + hours * HOUR, **CALL) for hours in range(4)]
    assert [found and found.name for found in named] == ["default@1", "acme@1", "zeta@1", "zeta@1"]


def test_names_of_models_do_not_fill_the_memory() -> None:
    book = PlanBook([plan()])
    for number in range(25_000):
        assert book.resolve(AT, **{**CALL, "model": f"m{number}"}) is not None
    assert len(book._found) <= 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Big"},
        {"name": "a@1"},
        {"kind": "markup", "rates": {}},
        {"kind": "markup", "rates": {"factor": 1.2}},
        {"kind": "markup", "rates": {"factor": "-1"}},
        {"kind": "markup", "rates": {"factor": "1e3"}},
        {"kind": "markup", "rates": {"factor": "1001"}},
        {"kind": "markup", "rates": {"factor": "1.0000000001"}},
        {"kind": "markup", "rates": {"factor": "1", "percent": "1"}},
        {"kind": "discount", "rates": {"percent": "101"}},
        {"kind": "free", "rates": {"factor": "0"}},
        {"kind": "price_list", "rates": {"usd_per_unit": {}, "factor": "1"}},
        {"kind": "price_list", "rates": {"usd_per_unit": {"gpt-5": {}}, "factor": "1"}},
        {"kind": "price_list", "rates": {"usd_per_unit": {"gpt-5": {"input_tokens": "x"}}, "factor": "1"}},
        {"kind": "price_list", "rates": {"usd_per_unit": {"gpt-5": {"input_tokens": "1"}}}},
        {"kind": "price_list", "rates": {"usd_per_unit": {"gpt-5": {"scale": {"input_tokens": "1"}}}, "factor": "1"}},
        {"kind": "price_list", "rates": {"usd_per_unit": {"gpt-5": {"flex": {}}}, "factor": "1"}},
        {"kind": "price_list", "rates": {"usd_per_unit": {"gpt-5": {"flex": "1"}}, "factor": "1"}},
        {"kind": "price_list", "rates": {"usd_per_unit": {"gpt-5": {"flex": {"input_tokens": "x"}}}, "factor": "1"}},
        {"user_id": "ann", "api_key_id": "key"},
        {"model": "gpt-5", "endpoint": "chat"},
        {"valid_to": AT - HOUR},
    ],
)
def test_what_is_no_plan(changes: dict[str, Any]) -> None:
    check_plan(plan())
    with pytest.raises(PlanError):
        check_plan(plan(**{"name": "p", **changes}))


def test_the_digest_is_of_all_that_never_changes() -> None:
    first = plan(rates={"factor": "1.5"})
    assert digest_of(first) == digest_of(msgspec.structs.replace(first, valid_to=AT + HOUR))
    changes: list[dict[str, Any]] = [
        {"name": "q"}, {"version": 2}, {"kind": "free", "rates": {}}, {"rates": {"factor": "1.50"}},
        {"valid_from": AT + timedelta(microseconds=1)}, {"user_id": "ann"}, {"model": "gpt-5"},
    ]  # fmt: skip
    digests = {digest_of(msgspec.structs.replace(first, **change)) for change in changes}
    assert len(digests | {digest_of(first)}) == len(changes) + 1


def test_the_rounding_is_pythons_own() -> None:
    assert half_even(Fraction(5, 2)) == int(Decimal("2.5").to_integral_value(ROUND_HALF_EVEN)) == 2
