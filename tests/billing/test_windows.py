"""Billing arithmetic: no nano-dollar is lost or made, whatever comes late and whatever its sign."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.windows import IDENTIFIER_MAX, VALUE_MAX, Leftover, freeze, identifier, unix_seconds

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
BIGINT = 2**63 - 1


@given(st.lists(st.integers(-(10**13), 10**13), max_size=40))
def test_every_nano_is_sent_or_carried(late_usages: list[int]) -> None:
    left, sent = Leftover(0), 0
    for number, nano in enumerate(late_usages, start=1):
        values, left = freeze(nano, left, is_sent=True, takes_back=sent)
        sent += sum(values)
        assert 0 <= left.carry_nano < 1000
        assert left.due_nano >= 0
        assert left.due_nano % 1000 == 0
        assert sent >= 0  # a period below 0 would be invoiced as 0, and the customer would lose the rest
        assert not (left.due_nano and sent)  # nothing stays due that could be taken back
        assert sent * 1000 + left.carry_nano - left.due_nano == sum(late_usages[:number])


@given(st.integers(-BIGINT, BIGINT), st.integers(0, 999))
def test_each_event_fits_fifteen_digits(nano: int, carry: int) -> None:
    values, left = freeze(nano, Leftover(carry), is_sent=True, takes_back=BIGINT)
    assert sum(values) * 1000 + left.carry_nano == nano + carry
    assert left.due_nano == 0
    assert all(0 < abs(value) <= VALUE_MAX and len(str(abs(value))) <= 15 for value in values)


@pytest.mark.parametrize(
    ("nano", "carry", "values", "rest"),
    [
        (0, 0, (), 0),
        (0, 999, (), 999),
        (999, 0, (), 999),
        (1, 999, (1,), 0),
        (1_234_567, 0, (1234,), 567),
        (-1, 0, (-1,), 999),  # floor: one unit back now, the carry pays it again
        (-1, 1, (), 0),
        (-1_000, 0, (-1,), 0),
        (-1_500, 200, (-2,), 700),
        (VALUE_MAX * 1000 + 5_000, 0, (VALUE_MAX, 5), 0),
        (-VALUE_MAX * 1000 - 5_000, 0, (-VALUE_MAX, -5), 0),
    ],
)
def test_freeze(nano: int, carry: int, values: tuple[int, ...], rest: int) -> None:
    assert freeze(nano, Leftover(carry), is_sent=True, takes_back=BIGINT) == (values, Leftover(rest))


@pytest.mark.parametrize(
    ("nano", "left", "is_sent", "takes_back", "expected"),
    [
        (-5_000, Leftover(0), True, 3, ((-3,), Leftover(0, 2_000))),
        (-5_000, Leftover(0), True, 0, ((), Leftover(0, 5_000))),
        (-5_000, Leftover(0), True, -7, ((), Leftover(0, 5_000))),
        (9_000, Leftover(0, 5_000), True, 0, ((4,), Leftover(0))),
        (3_000, Leftover(500, 5_000), True, 0, ((), Leftover(500, 2_000))),
        (9_000, Leftover(0, 5_000), False, 0, ((9,), Leftover(0, 5_000))),  # a held amount pays back nothing
        (-9_000, Leftover(0, 5_000), False, 50, ((), Leftover(0, 14_000))),
    ],
)
def test_what_cannot_be_taken_back_stays_due(
    nano: int, left: Leftover, is_sent: bool, takes_back: int, expected: tuple[tuple[int, ...], Leftover]
) -> None:
    assert freeze(nano, left, is_sent=is_sent, takes_back=takes_back) == expected


def test_identifier_names_meter_customer_window_and_seq() -> None:
    assert identifier("openai_usage_micro_usd", "cus_1", NOON, 3) == "openai_usage_micro_usd:cus_1:1795348800:3"


@given(
    st.text(min_size=1, max_size=255),
    st.text(min_size=1, max_size=255),
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants naive bounds
    st.integers(0, 9_999_999),
)
def test_identifier_fits(meter: str, customer: str, start: datetime, seq: int) -> None:
    made = identifier(meter, customer, start, seq)
    assert len(made) <= IDENTIFIER_MAX
    assert made == identifier(meter, customer, start, seq)
    assert made != identifier(meter, customer, start, seq + 1)
    assert made != identifier(meter, customer, start + timedelta(seconds=1), seq)


def test_identifiers_of_long_names_with_the_same_beginning_differ() -> None:
    assert identifier("m" * 60, "cus_1", NOON, 0) != identifier("m" * 61, "cus_1", NOON, 0)


@given(st.integers(0, 7_258_118_400))
def test_unix_seconds_is_exact(seconds: int) -> None:
    assert unix_seconds(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=999_999)) == seconds
