"""Who is let in: every outcome of Unkey, every outage, with a clock of the test's own."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.core.config import KeySettings
from gateway.core.errors import ApiError, DependencyDown
from gateway.edges.keys import Identity, Keys, RateLimit, Verdict
from gateway.flows.proxy.admission import Admission, Principal, bearer, refusal_of

NOW_S = 1_800_000_000.0
KEY = "key_live_1"
UNKEY_DOWN = DependencyDown("unkey", "TimeoutError")
POSTGRES_DOWN = DependencyDown("postgres", "refused")


@dataclass
class Linked:
    user_id: str = "user"
    is_active: bool = True
    api_key_id: str | None = "api-key"
    key_is_active: bool | None = True


class FakeKeys(Keys):
    """Answers as told, after `gate` opens; counts the questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Verdict | DependencyDown = valid()
        self.gate = asyncio.Event()
        self.gate.set()

    async def verify(self, key: str) -> Verdict:
        self.asked.append(key)
        await self.gate.wait()
        if isinstance(self.answer, DependencyDown):
            raise self.answer
        return self.answer


class FakeAccounts:
    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str]] = []
        self.answer: Linked | DependencyDown | None = Linked()

    async def identity(self, external_id: str | None, unkey_key_id: str) -> Linked | None:
        self.asked.append((external_id, unkey_key_id))
        if isinstance(self.answer, DependencyDown):
            raise self.answer
        return self.answer


class House:
    """An Admission with its fakes and its clock."""

    def __init__(self, **settings: Any) -> None:
        self.now_s = 0.0
        self.keys, self.accounts = FakeKeys(), FakeAccounts()
        self.admission = Admission(
            self.keys,
            self.accounts,
            KeySettings(**settings),
            pepper=b"p" * 32,
            monotonic=lambda: self.now_s,
            unix_s=lambda: NOW_S + self.now_s,
        )

    async def admit(self, key: str = KEY) -> Principal:
        try:
            return await self.admission.admit(key)
        finally:
            for _ in range(5):
                await asyncio.sleep(0)  # a renewal off the call's path comes to its end

    async def refused(self, key: str = KEY) -> ApiError:
        with pytest.raises(ApiError) as caught:
            await self.admit(key)
        assert KEY not in caught.value.message
        return caught.value


def valid(**changes: Any) -> Verdict:
    fields = {"valid": True, "code": "VALID", "key_id": "uk_1", "identity": Identity("ext")}
    return Verdict(**{**fields, **changes})


def no(code: str, **changes: Any) -> Verdict:
    return Verdict(valid=False, code=code, key_id="uk_1", **changes)


# What Unkey says.


@pytest.mark.parametrize(
    ("code", "status", "error_code"),
    [
        ("NOT_FOUND", 401, "invalid_api_key"),
        ("DISABLED", 401, "invalid_api_key"),
        ("EXPIRED", 401, "invalid_api_key"),
        ("FORBIDDEN", 403, "access_denied"),
        ("INSUFFICIENT_PERMISSIONS", 403, "insufficient_permissions"),
        ("RATE_LIMITED", 429, "rate_limit_exceeded"),
        ("USAGE_EXCEEDED", 429, "insufficient_quota"),
        ("SOMETHING_NEW", 403, "access_denied"),
        ("VALID", 403, "access_denied"),  # valid is false all the same
        ("", 403, "access_denied"),
    ],
)
async def test_codes(code: str, status: int, error_code: str) -> None:
    house = House()
    house.keys.answer = no(code)
    error = await house.refused()
    assert (error.status, error.code) == (status, error_code)
    assert house.accounts.asked == []


@pytest.mark.parametrize("code", ["NOT_FOUND", "EXPIRED", "", "valid"])
def test_true_without_valid_is_no(code: str) -> None:
    assert refusal_of(valid(code=code), NOW_S) is not None
    assert refusal_of(valid(), NOW_S) is None


async def test_rate_limit_says_when_to_come_back_and_keeps_its_word() -> None:
    house = House(negative_s=10)
    limits = [RateLimit(True, int(NOW_S * 1000) + 2500), RateLimit(False, int(NOW_S * 1000) + 99_000)]
    house.keys.answer = no("RATE_LIMITED", ratelimits=limits)
    assert (await house.refused()).headers == {"Retry-After": "3"}
    house.keys.answer = valid()
    house.now_s = 2.9
    assert (await house.refused()).status == 429
    house.now_s = 3.1
    await house.admit()
    assert refusal_of(no("RATE_LIMITED"), NOW_S).headers == {"Retry-After": "1"}  # type: ignore[union-attr]  # refused


async def test_used_up_is_not_tried_again() -> None:
    house = House()
    house.keys.answer = no("USAGE_EXCEEDED")
    assert (await house.refused()).headers == {"x-should-retry": "false"}


# Whose key it is.


async def test_principal() -> None:
    house = House()
    assert await house.admit() == Principal("user", "api-key", "uk_1")
    assert house.accounts.asked == [("ext", "uk_1")]
    house.keys.answer = valid(identity=None)
    await house.admit("another")
    assert house.accounts.asked[-1] == (None, "uk_1")


@pytest.mark.parametrize(
    ("linked", "status", "code"),
    [
        (None, 403, "key_not_linked"),
        (Linked(is_active=False), 403, "user_disabled"),
        (Linked(key_is_active=False), 401, "invalid_api_key"),
    ],
)
async def test_a_valid_key_without_an_active_owner(linked: Linked | None, status: int, code: str) -> None:
    house = House()
    house.accounts.answer = linked
    for _ in range(3):
        error = await house.refused()
        assert (error.status, error.code) == (status, code)
    assert len(house.keys.asked) == 1


async def test_a_key_without_a_row_of_its_own_passes() -> None:
    house = House()
    house.accounts.answer = Linked(api_key_id=None, key_is_active=None)
    assert await house.admit() == Principal("user", None, "uk_1")


async def test_a_user_disabled_since_is_refused_after_the_renewal() -> None:
    house = House(fresh_s=30)
    await house.admit()
    house.accounts.answer = Linked(is_active=False)
    house.now_s = 31
    assert (await house.refused()).code == "user_disabled"
    assert (await house.refused()).code == "user_disabled"


# Windows.


async def test_fresh_keys_are_not_asked_for() -> None:
    house = House(fresh_s=30)
    for second in range(24):
        house.now_s = second
        await house.admit()
    assert house.keys.asked == [KEY]


async def test_renewed_in_the_background() -> None:
    house = House(fresh_s=30)
    await house.admit()
    house.now_s = 25
    house.keys.gate.clear()
    await house.admit()  # does not wait
    await house.admit()
    assert len(house.keys.asked) == 2
    house.keys.gate.set()
    for _ in range(5):
        await asyncio.sleep(0)
    house.now_s = 31  # within the fresh time of the renewal
    await house.admit()
    assert len(house.keys.asked) == 2


async def test_a_background_renewal_that_says_no_counts() -> None:
    house = House(fresh_s=30)
    await house.admit()
    house.now_s, house.keys.answer = 25, no("DISABLED")
    await house.admit()
    assert (await house.refused()).status == 401


async def test_outage_with_a_known_key() -> None:
    house = House(fresh_s=30, stale_s=600)
    await house.admit()
    house.keys.answer = UNKEY_DOWN
    for second in range(20, 630):
        house.now_s = second
        await house.admit()
    assert len(house.keys.asked) <= 1 + 610 / 2 + 1  # one question every RETRY_S, not one per call
    house.now_s = 630
    error = await house.refused()
    assert (error.status, error.code, error.headers) == (503, "key_verification_unavailable", {"Retry-After": "2"})
    house.keys.answer = valid()
    await house.admit()


async def test_strict_has_no_stale_time() -> None:
    house = House(fresh_s=30, stale_s=0)
    await house.admit()
    house.keys.answer = UNKEY_DOWN
    house.now_s = 29.9
    await house.admit()
    house.now_s = 30
    assert (await house.refused()).status == 503


async def test_outage_with_an_unknown_key_is_503_and_not_remembered() -> None:
    house = House()
    house.keys.answer = UNKEY_DOWN
    assert (await house.refused()).status == 503
    house.keys.answer = valid()
    await house.admit()


async def test_postgres_away() -> None:
    house = House(fresh_s=30, stale_s=600)
    await house.admit()
    house.accounts.answer = POSTGRES_DOWN
    assert (await house.refused("unknown")).status == 503
    for second in range(0, 2000, 10):  # an answering Unkey is enough to renew a known identity
        house.now_s = second
        assert await house.admit() == Principal("user", "api-key", "uk_1")
    house.keys.answer = valid(key_id="uk_2")  # the same text is another key now
    house.now_s += 700
    assert (await house.refused()).status == 503


async def test_postgres_away_does_not_revive_a_revoked_key() -> None:
    house = House(fresh_s=30)
    await house.admit()
    house.accounts.answer, house.keys.answer, house.now_s = POSTGRES_DOWN, no("NOT_FOUND"), 31
    assert (await house.refused()).status == 401


async def test_expiry() -> None:
    house = House(fresh_s=30, stale_s=600)
    house.keys.answer = valid(expires=int(NOW_S + 10) * 1000)
    await house.admit()
    house.now_s, house.keys.answer = 9.9, UNKEY_DOWN
    await house.admit()
    house.now_s = 10
    assert (await house.refused()).status == 503  # past its end no stale time helps
    house.keys.answer = no("EXPIRED")
    assert (await house.refused()).status == 401
    house.now_s, house.keys.answer = 40, valid(expires=int(NOW_S + 1000) * 1000)
    await house.admit()  # it was extended


async def test_an_extended_key_comes_back_at_once() -> None:
    house = House()
    house.keys.answer = valid(expires=int(NOW_S + 10) * 1000)
    await house.admit()
    house.now_s, house.keys.answer = 11, valid(expires=int(NOW_S + 1000) * 1000)
    await house.admit()


# Many callers.


async def test_single_flight() -> None:
    house = House()
    house.keys.gate.clear()
    callers = [asyncio.create_task(house.admission.admit(KEY)) for _ in range(500)]
    await asyncio.sleep(0)
    for caller in callers[:100]:
        caller.cancel()  # those who leave do not take the answer with them
    house.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert results[100:] == [Principal("user", "api-key", "uk_1")] * 400
    assert len(house.keys.asked) == len(house.accounts.asked) == 1


@pytest.mark.parametrize(("answer", "status"), [(UNKEY_DOWN, 503), (no("NOT_FOUND"), 401)])
async def test_single_flight_of_a_failure(answer: Verdict | DependencyDown, status: int) -> None:
    house = House()
    house.keys.gate.clear()
    house.keys.answer = answer
    callers = [asyncio.create_task(house.admission.admit(KEY)) for _ in range(50)]
    await asyncio.sleep(0)
    house.keys.gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert {result.status for result in results if isinstance(result, ApiError)} == {status}
    assert len(results) == 50
    assert len(house.keys.asked) == 1


async def test_negative_cache() -> None:
    house = House(negative_s=10, negative_max=3)
    house.keys.answer = no("NOT_FOUND")
    await house.refused("bad")
    house.now_s = 9.9
    await house.refused("bad")
    assert house.keys.asked == ["bad"]
    house.now_s = 10
    await house.refused("bad")
    assert house.keys.asked == ["bad"] * 2
    for number in range(50):
        await house.refused(f"random-{number}")
    assert len(house.admission._refused) == 3
    assert len(house.admission._asking) == 0
    await house.refused("bad")
    assert house.keys.asked[-1] == "bad"


async def test_known_keys_are_bounded_and_never_kept_as_text() -> None:
    house = House(cache_max=4)
    for number in range(20):
        await house.admit(f"key-{number}")
    assert len(house.admission._known) == 4
    assert all(len(digest) == 32 and b"key" not in digest for digest in house.admission._known)
    await house.admit("key-19")
    assert len(house.keys.asked) == 20


@pytest.mark.parametrize("key", ["", "k" * 513])
async def test_no_key_is_not_asked_about(key: str) -> None:
    house = House()
    assert (await house.refused(key)).status == 401
    assert house.keys.asked == []
    await house.admit("k" * 512)


async def test_keys_differ_in_every_character() -> None:
    house = House()
    await house.admit(KEY)
    house.keys.answer = no("NOT_FOUND")
    for other in (KEY.upper(), KEY[:-1], KEY + "1", KEY + "\u00e9"):
        assert (await house.refused(other)).status == 401


# The header.


@pytest.mark.parametrize(
    ("header", "key"),
    [("Bearer abc", "abc"), ("bearer abc", "abc"), ("BEARER a.b_c-d=", "a.b_c-d="), ("Bearer a:b", "a:b")],
)
def test_header(header: str, key: str) -> None:
    assert bearer([header]) == key


@pytest.mark.parametrize(
    "header",
    ["", "abc", "Bearer", "Bearer ", "Basic abc", "Bearer a b", "Bearer abc ", "Bearer  abc", "Bearer Bearer x",
     "Bearer é",
     "Bearer \u2028", "Bearer a\x00", "Bearer a\tb", "Bearer\tabc", " Bearer abc", "Bearer \x7f"],
)  # fmt: skip
def test_header_that_holds_no_key(header: str) -> None:
    with pytest.raises(ApiError) as caught:
        bearer([header])
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")


def test_no_header_and_two() -> None:
    with pytest.raises(ApiError) as missing:
        bearer([])
    assert (missing.value.status, missing.value.code) == (401, "missing_api_key")
    with pytest.raises(ApiError) as twice:
        bearer(["Bearer a", "Bearer a"])
    assert (twice.value.status, twice.value.code) == (400, "duplicate_header")
