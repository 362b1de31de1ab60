"""Only Daily.co's own signature is good: Daily.co's docs have a vector; everything else is refused, whatever it is."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.secrets import secret_of
from gateway.meetings.signature import FUTURE_S, PAST_S, REWRITTEN_BYTES_MAX, is_genuine, sign

SECRET = secret_of("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
AT, BODY = "1708972280", b'{"test":"test"}'
VECTOR = "EAe93AR7b4bSBPJd2w5iFGFeR5ffjKOBtA32DdHRB/Q="
NOW = 1708972281.0


def test_the_vector() -> None:
    assert sign(SECRET, AT, BODY).decode() == VECTOR
    assert is_genuine(SECRET, AT, VECTOR, BODY, NOW)
    assert not is_genuine(SECRET, AT, VECTOR, BODY + b" x", NOW)


def test_milliseconds_are_seconds_too() -> None:
    at = AT + "123"
    assert is_genuine(SECRET, at, sign(SECRET, at, BODY).decode(), BODY, NOW)


@pytest.mark.parametrize("at", ["1708972280.25", "2024-02-26T18:31:20Z", "2024-02-26T19:31:20.500+01:00"])
def test_other_ways_to_write_an_instant(at: str) -> None:
    assert is_genuine(SECRET, at, sign(SECRET, at, BODY).decode(), BODY, NOW)
    assert not is_genuine(SECRET, at, sign(SECRET, at, BODY).decode(), BODY, NOW + 2 * PAST_S)
    assert not is_genuine(SECRET, at, VECTOR, BODY, NOW)


@pytest.mark.parametrize(
    ("late_s", "good"), [(PAST_S - 1, True), (PAST_S + 2, False), (-FUTURE_S + 2, True), (-FUTURE_S - 2, False)]
)
def test_how_old_one_may_be(late_s: float, good: bool) -> None:
    assert is_genuine(SECRET, AT, VECTOR, BODY, int(AT) + late_s) is good


def test_a_document_that_was_written_anew() -> None:
    compact = '{"a":1,"b":"é","c":[1.5,null]}'.encode()
    spaced = b'{ "a": 1, "b": "\\u00e9", "c": [1.5, null] }'
    assert is_genuine(SECRET, AT, sign(SECRET, AT, compact).decode(), spaced, NOW)
    assert not is_genuine(SECRET, AT, sign(SECRET, AT, b'{"a":2}').decode(), b'{ "a": 1 }', NOW)
    half = b'{"a":"\\ud83d x"}'  # as JSON.stringify writes half an emoji
    assert is_genuine(SECRET, AT, sign(SECRET, AT, half).decode(), b'{ "a": "\\uD83D x" }', NOW)
    large = b'{"a":"' + b"x" * REWRITTEN_BYTES_MAX + b'"}'
    assert is_genuine(SECRET, AT, sign(SECRET, AT, large).decode(), large, NOW)
    assert not is_genuine(SECRET, AT, sign(SECRET, AT, large).decode(), large + b" ", NOW)  # parsing costs too much


@pytest.mark.parametrize(
    ("timestamp", "signature"),
    [
        (AT, ""),
        (AT, VECTOR[:-2]),
        (AT, VECTOR.lower()),
        (AT, base64.b64decode(VECTOR).hex()),
        (AT, "é" * 44),
        (AT, "A" * 44),
        ("", VECTOR),
        ("-1708972280", VECTOR),
        ("1708972280.0", VECTOR),
        ("١٧٠٨٩٧٢٢٨٠", VECTOR),
        ("nan", VECTOR),
        ("9" * 30, VECTOR),
        (" 1708972280", VECTOR),
    ],
)
def test_what_is_no_signature_or_no_time(timestamp: str, signature: str) -> None:
    assert not is_genuine(SECRET, timestamp, signature, BODY, NOW)


@given(st.text(max_size=60), st.text(max_size=60), st.binary(max_size=200))
def test_junk_is_refused_without_a_word(timestamp: str, signature: str, body: bytes) -> None:
    assert not is_genuine(SECRET, timestamp, signature, body, NOW)


def test_another_secret_of_the_same_length() -> None:
    other = bytes(len(SECRET))
    assert not is_genuine(other, AT, VECTOR, BODY, NOW)
    assert not is_genuine(SECRET, AT, sign(b"", AT, BODY).decode(), BODY, NOW)


@pytest.mark.parametrize("text", ["", "no base64!", "c2hvcnQ=", "é"])
def test_a_secret_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="base64") as caught:
        secret_of(text)
    assert not text or text not in str(caught.value)
