"""Instants as people type them: one meaning each, or an error that says what would be right."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.kit.errors import OptionError
from gateway.kit.instants import parse_expiry, parse_instant

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T10:00:00Z", NOW),
        ("2026-11-22t10:00:00z", NOW),
        ("2026-11-22 11:00:00+01:00", NOW),
        ("2026-11-22T10:00:00.25Z", NOW + timedelta(milliseconds=250)),
        ("2026-11-21T23:30:00-10:30", NOW),
    ],
)
def test_instants(text: str, expected: datetime) -> None:
    at = parse_instant(text, "from")
    assert (at, at.utcoffset()) == (expected, timedelta(0))


@pytest.mark.parametrize(
    "text", ["", "today", "2026-11-22T10:00:00", "20261122", "2026-W47", "2026-11-22T10:00", "٢٠٢٦-١١-٢٢"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"until: .* nor a time with its zone"):
        parse_instant(text, "until")


@pytest.mark.parametrize("text", ["2026-02-29", "2026-13-01", "2026-11-22T25:00:00Z", "0001-01-01T00:00:00+10:00"])
def test_what_the_calendar_lacks_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="does not exist"):
        parse_instant(text, "from")


@given(st.text(max_size=40))
def test_no_text_breaks_it(text: str) -> None:
    try:
        assert parse_instant(text, "from").tzinfo == UTC
    except OptionError as error:
        assert str(error).startswith("from: ")  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW + timedelta(minutes=90)),
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("2w", NOW + timedelta(weeks=2)),
        ("2026-12-01", datetime(2026, 12, 1, tzinfo=UTC)),
    ],
)
def test_expiries(text: str, expected: datetime) -> None:
    assert parse_expiry(text, "expires", NOW) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0d", "not in the future"),
        ("2026-11-22", "not in the future"),
        ("100000w", "nor a span from now"),
        ("30", "nor a span from now"),
        ("-1d", "nor a span from now"),
    ],
)
def test_wrong_expiries(text: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        parse_expiry(text, "expires", NOW)
