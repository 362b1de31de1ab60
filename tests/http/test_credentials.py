"""Which key a request holds: one header, two equal ones, and everything that leaves a doubt."""

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.http.credentials import key_of
from gateway.kit.errors import ApiError

A, K = "Authorization", "api-key"


def key(*headers: tuple[str, str]) -> str:
    return key_of(CIMultiDictProxy(CIMultiDict(headers)))


def refused(*headers: tuple[str, str]) -> tuple[int, str]:
    with pytest.raises(ApiError) as caught:
        key(*headers)
    assert "CANARY" not in caught.value.message
    return caught.value.status, caught.value.code


@pytest.mark.parametrize(
    ("header", "found"),
    [("Bearer abc", "abc"), ("bearer abc", "abc"), ("BEARER a.b_c-d=", "a.b_c-d="), ("Bearer a:b", "a:b")],
)
def test_authorization(header: str, found: str) -> None:
    assert key((A, header)) == found


def test_a_single_api_key_header_is_the_key() -> None:
    assert key((K, "abc")) == "abc"
    assert key(("Api-Key", "abc")) == "abc"


def test_two_equal_ones_are_one_credential() -> None:
    assert key((A, "Bearer abc"), (K, "abc")) == "abc"


@pytest.mark.parametrize(
    "headers",
    [
        ((A, "Bearer CANARY-1"), (K, "CANARY-2")),
        ((A, "Bearer CANARY"), (K, "")),
        ((A, "Bearer "), (K, "CANARY")),
        ((A, "Bearer CANARY"), (K, "Bearer CANARY")),
        ((A, "Bearer CANARY"), (K, "canary")),
        ((A, "Bearer CANARY"), (A, "Bearer CANARY")),
        ((K, "CANARY"), (K, "CANARY")),
        ((A, "Bearer CANARY"), (K, "CANARY"), (K, "other")),
    ],
)
def test_different_ones_are_refused(headers: tuple[tuple[str, str], ...]) -> None:
    assert refused(*headers) == (400, "duplicate_header")


@pytest.mark.parametrize(
    "header",
    ["", "abc", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer abc ", "Bearer  abc", "Bearer Bearer x",
     "Bearer é",
     "Bearer \u2028", "Bearer a\x00", "Bearer a\tb", "Bearer\tabc", " Bearer abc", "Bearer \x7f"],
)  # fmt: skip
def test_a_header_that_holds_no_key(header: str) -> None:
    assert refused((A, header)) == (401, "invalid_api_key")


@pytest.mark.parametrize("value", ["", "a b", "é", "a\tb", "Bearer abc"])
def test_an_api_key_header_that_holds_no_key(value: str) -> None:
    assert refused((K, value)) == (401, "invalid_api_key")


def test_no_header() -> None:
    assert refused() == (401, "missing_api_key")
