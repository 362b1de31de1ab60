"""The bridge's arithmetic: it adds up whatever is read, and what does not belong together is shown."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.bridge import BridgeLine, PayerFacts, add_up, build_bridge, usd

AMOUNTS = st.integers(-(10**15), 10**15)
FACTS = st.builds(PayerFacts, **dict.fromkeys(PayerFacts._fields, AMOUNTS))


def healthy(**changes: int) -> PayerFacts:
    """100 billed for a cost of 80: 10 paid by credit, 5 without a customer, 85 frozen, of which 60 are at Stripe."""
    facts = PayerFacts(
        cost=80_000,
        billed=100_000,
        windows_billed=100_000,
        credit=10_000,
        credit_used=10_000,
        unbilled=5_000,
        open=1_000,
        windows_settled=1_500,
        windows_written_off=500,
        frozen=82_000,
        sending=3_000,
        rejected=4_000,
        unknown=5_000,
        unreportable=2_000,
        settled=1_000,
        written_off=6_500,
        delivered=60_000,
        invoiced=40_000,
        draft=11_000,
        late=3_000,
    )
    return facts._replace(**changes)


@given(FACTS)
def test_it_adds_up_whatever_was_read(facts: PayerFacts) -> None:
    bridge = build_bridge(facts)
    assert add_up(bridge.lines) == []
    for line in ("at_stripe", "unexplained"):
        assert sum(part.nano for part in bridge.parts if part.line == line) == bridge.line(line)


@given(FACTS, FACTS)
def test_the_bridge_of_two_payers_is_the_sum_of_theirs(one: PayerFacts, other: PayerFacts) -> None:
    both = build_bridge(one.plus(other))
    for line in both.lines:
        if line.key in ("carried", "credit_due"):
            continue  # one split of what was frozen and is in no event
        parts = [build_bridge(each).line(line.key) for each in (one, other)]
        assert line.nano == (None if None in parts else sum(part or 0 for part in parts))


def test_each_amount_has_its_line() -> None:
    bridge = build_bridge(healthy())
    assert bridge.is_explained
    assert [(line.key, line.nano) for line in bridge.lines] == [
        ("openai", None),
        ("cost", 80_000),
        ("margin", 20_000),
        ("billed", 100_000),
        ("accrued", 0),
        ("credit", -10_000),
        ("unbilled", -5_000),
        ("open", -1_000),
        ("sending", -3_000),
        ("carried", -500),
        ("credit_due", 0),
        ("rejected", -4_000),
        ("unknown", -5_000),
        ("unreportable", -2_000),
        ("settled", -2_500),
        ("written_off", -7_000),
        ("unexplained", 0),
        ("at_stripe", 60_000),
    ]
    assert {part.key: part.nano for part in bridge.parts if part.line == "at_stripe"} == {
        "invoiced": 40_000, "draft": 11_000, "late": 3_000, "not_invoiced": 6_000, "below_zero": 0,
    }  # fmt: skip


def test_what_is_owed_to_a_customer_is_apart_from_the_carry() -> None:
    bridge = build_bridge(healthy(frozen=80_001, billed=98_001, windows_billed=98_001))
    assert (bridge.line("carried"), bridge.line("credit_due")) == (-501, 2_000)
    assert bridge.is_explained


def test_two_errors_do_not_hide_each_other() -> None:
    bridge = build_bridge(healthy(carry_error=1, credit_used=9_999))
    assert bridge.unexplained == -2
    hidden = build_bridge(healthy(carry_error=1, credit_used=10_001))
    assert (hidden.unexplained, hidden.is_explained) == (0, False)


def test_a_sum_that_is_not_that_of_its_lines_is_named() -> None:
    lines = [
        BridgeLine("cost", "", 5, is_sum=True),
        BridgeLine("margin", "", 1),
        BridgeLine("billed", "", 7, is_sum=True),
    ]
    assert add_up(lines) == ["billed is 7, the lines above it give 6"]


def test_usd_is_exact_below_zero_too() -> None:
    assert [usd(each) for each in (0, 1, -1, 1_234_567_890, -10**9)] == [
        "0.000000000", "0.000000001", "-0.000000001", "1.234567890", "-1.000000000"
    ]  # fmt: skip
