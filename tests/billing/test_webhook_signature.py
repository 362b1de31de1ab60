"""Our check of Stripe's signatures, judged by stripe-python's own."""

import time
from typing import Final

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.webhooks.signature import HEADER_CHARS_MAX, PAST_S, is_genuine, sign
from gateway.config.secrets import stripe_secrets_of

SECRET: Final = "whsec_of_the_tests_only"
OTHER: Final = "whsec_of_somebody_else"
BODY: Final = '{"id":"evt_1","object":"event","text":"é \\u0000 \U0001f600"}'
NOW: Final = 1_800_000_000


def theirs(header: str, body: bytes, secret: str = SECRET) -> bool:
    """What stripe-python says now."""
    try:
        stripe.WebhookSignature.verify_header(body, header, secret, PAST_S)
    except (stripe.SignatureVerificationError, ValueError, TypeError):
        return False
    return True


def ours(header: str, body: bytes, *secrets: str) -> bool:
    return is_genuine(secrets or (SECRET,), header, body, time.time())


def made(body: str = BODY, *, secret: str = SECRET, at: int | None = None) -> str:
    """As stripe-python signs."""
    return str(stripe.WebhookSignature.generate_signature_header(body, secret, at))


@given(st.text(max_size=200), st.integers(-400, 10_000))
def test_what_the_sdk_signs_is_genuine_as_long_as_the_sdk_says_so(body: str, ahead_s: int) -> None:
    text = body.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    at = int(time.time()) + ahead_s
    header = made(text, at=at)
    if abs(ahead_s + PAST_S) > 5:  # the two look at the clock one after the other
        assert ours(header, text.encode()) is theirs(header, text.encode()) is (ahead_s > -PAST_S)


def test_the_oldest_that_is_taken_is_the_sdk_s() -> None:
    body = BODY.encode()
    for age_s, good in ((PAST_S, True), (PAST_S + 1, False)):
        assert is_genuine([SECRET], made(at=NOW - age_s), body, float(NOW)) is good
    assert PAST_S == stripe.Webhook.DEFAULT_TOLERANCE


def test_while_a_secret_is_rolled_both_are_good() -> None:
    body, both = BODY.encode(), stripe_secrets_of(f" {OTHER} , {SECRET}\n")
    assert both == (OTHER, SECRET)
    assert ours(made(), body, *both)
    assert ours(made(secret=OTHER), body, *both)
    assert not ours(made(secret="whsec_of_a_third_party"), body, *both)
    # Stripe signs with each of an endpoint's secrets meanwhile, and adds a scheme that is not for us.
    at = str(int(time.time()))
    header = f"t={at},v1={sign(OTHER, at, body)},v1={sign(SECRET, at, body)},v0={'a' * 64}"
    assert ours(header, body)
    assert theirs(header, body)


@pytest.mark.parametrize(
    "header",
    [
        "", "=", ",", "t=NOW", "v1=GOOD", "t=NOW,v0=GOOD", "t=NOW,v1=", "t=NOW,v1=GOOD0", "t=NOW,V1=GOOD",
        "t=,v1=GOOD", "t=soon,v1=GOOD", "t=-1,v1=GOOD", "t=1,v1=GOOD", "t=NOW.0,v1=GOOD", "t=1e9,v1=GOOD",
        "t=NOW,v1=" + "g" * 64, "t=NOW,v1=" + "0" * 64, "t=NOW;v1=GOOD", "t=1,t=NOW,v1=GOOD", "t=NOW v1=GOOD",
        "t=99999999999999999999,v1=GOOD", "t=NOW,v1=\udcffGOOD", "t=٣,v1=GOOD",
    ],
)  # fmt: skip
def test_a_header_that_is_wrong_is_refused_as_the_sdk_does(header: str) -> None:
    now = str(int(time.time()))
    text = header.replace("NOW", now).replace("GOOD", sign(SECRET, now, BODY.encode()))
    assert not ours(text, BODY.encode())
    assert not theirs(text, BODY.encode())


@given(st.data())
def test_nothing_is_taken_that_the_sdk_refuses(data: st.DataObject) -> None:
    good = made()
    cut = data.draw(st.integers(0, len(good)))
    junk = data.draw(st.text("0123456789abcdef,=tv1 +_-", max_size=6))
    header = good[:cut] + junk + good[cut + data.draw(st.integers(0, 3)) :]
    if ours(header, BODY.encode()):
        assert theirs(header, BODY.encode())


@given(st.binary(min_size=1, max_size=4), st.integers(0, len(BODY)))
def test_a_body_that_was_changed_is_refused(change: bytes, at: int) -> None:
    body = BODY.encode()
    changed = body[:at] + change + body[at:]
    assert not ours(made(), changed)


def test_a_header_beyond_all_measure_is_not_even_read() -> None:
    now = str(int(time.time()))
    good = f"t={now},v1={sign(SECRET, now, BODY.encode())}"
    padded = f"{good},v1=" + "0" * (HEADER_CHARS_MAX - len(good) - 4)
    assert ours(padded, BODY.encode())
    assert not ours(padded + "0", BODY.encode())


@pytest.mark.parametrize("text", ["", " , ", "sk_test_abcdefghijklmn", "whsec_", "whsec_short", "whsec_of_the tests"])
def test_what_is_no_signing_secret_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="whsec_…") as caught:
        stripe_secrets_of(text)
    assert text not in str(caught.value) or not text.strip(" ,") or text == "whsec_"
