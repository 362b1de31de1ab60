"""Billing arithmetic: no nano-dollar is lost or made, whatever comes late and whatever its sign."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.windows import IDENTIFIER_MAX, VALUE_MAX, event_time, freeze, identifier, unix_seconds

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
BIGINT = 2**63 - 1


@given(st.lists(st.integers(-(10**13), 10**13), max_size=40))
def test_every_nano_is_sent_or_carried(late_usages: list[int]) -> None:
    carry, sent = 0, 0
    for number, nano in enumerate(late_usages, start=1):
        values, carry = freeze(nano, carry)
        sent += sum(values)
        assert 0 <= carry < 1000
        assert sent * 1000 + carry == sum(late_usages[:number])


@given(st.integers(-BIGINT, BIGINT), st.integers(0, 999))
def test_each_event_fits_fifteen_digits(nano: int, carry: int) -> None:
    values, rest = freeze(nano, carry)
    assert sum(values) * 1000 + rest == nano + carry
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
    assert freeze(nano, carry) == (values, rest)


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


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (NOON + timedelta(hours=2), NOON + timedelta(seconds=3599)),
        (NOON + timedelta(seconds=90, microseconds=5), NOON + timedelta(seconds=90)),  # closed early: never the future
        (NOON + timedelta(seconds=3599), NOON + timedelta(seconds=3599)),
    ],
)
def test_event_time(now: datetime, expected: datetime) -> None:
    assert event_time(NOON, 3600, now) == expected


@given(st.integers(0, 7_258_118_400))
def test_unix_seconds_is_exact(seconds: int) -> None:
    assert unix_seconds(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=999_999)) == seconds
